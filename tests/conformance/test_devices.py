"""Every device plugin in the tree keeps the contract, and the checks notice drivers that do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llm_os import plugins
from llm_os.drivers.device import DeviceDriver
from llm_os.drivers.devices.fake import FakeDevice
from llm_os.spec.resources import Device, DeviceUsage
from llm_os.testing.conformance.device import CHECKS

Check = Callable[[DeviceDriver], None]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", plugins.names("device"))
def test_keeps_the_contract(check: Check, name: str) -> None:
    check(plugins.load("device", name))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_keeps_the_contract_when_it_is_not_usable(check: Check) -> None:
    check(FakeDevice(unavailable="The fake driver is switched off."))


class _Wordless(FakeDevice):
    def __init__(self) -> None:
        super().__init__(unavailable="no")


class _Ghost(FakeDevice):
    def devices(self) -> tuple[Device, ...]:
        return FakeDevice().devices()


class _Misnumbered(FakeDevice):
    def devices(self) -> tuple[Device, ...]:
        return tuple(reversed(super().devices()))


class _Fickle(FakeDevice):
    def devices(self) -> tuple[Device, ...]:
        self.memory.append(2**30)
        return super().devices()


class _Half(FakeDevice):
    def usage(self) -> tuple[DeviceUsage, ...]:
        return super().usage()[:1]


BREAKERS = (_Wordless(), _Ghost(unavailable="It is off today."), _Misnumbered(), _Fickle(), _Half())
"""For each check, in its order, a driver that it must refuse."""


@pytest.mark.parametrize(
    ("check", "driver"),
    list(zip(CHECKS, BREAKERS, strict=True)),
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_driver_that_breaks_a_promise_is_noticed(check: Check, driver: DeviceDriver) -> None:
    with pytest.raises(AssertionError):
        check(driver)
