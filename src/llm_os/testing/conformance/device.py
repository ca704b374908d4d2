"""What every device driver must do, as checks that run against any of them; knows drivers by their interface only.

Each check takes a driver and raises AssertionError. A test file runs them all on every device plugin:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    @pytest.mark.parametrize("name", plugins.names("device"))
    def test_keeps_the_contract(check, name): check(plugins.load("device", name))
"""

from __future__ import annotations

from collections.abc import Callable

from llm_os.drivers.device import Available, DeviceDriver, Unavailable


def probe_says_what_is_there_or_why_not(driver: DeviceDriver) -> None:
    answer = driver.probe()
    if isinstance(answer, Available):
        assert answer.version, "an available device names the version of what drives it"
    else:
        assert isinstance(answer, Unavailable)
        assert len(answer.reason) > 10, "the reason is a sentence for people"
        assert answer.hint, "the hint says what to do next"


def unavailable_means_no_devices_and_no_error(driver: DeviceDriver) -> None:
    if isinstance(driver.probe(), Unavailable):
        assert driver.devices() == ()
        assert driver.usage() == ()
    else:
        assert driver.devices(), "available, but it shows no device"


def devices_are_named_numbered_and_sized(driver: DeviceDriver) -> None:
    devices = driver.devices()
    assert [device.index for device in devices] == list(range(len(devices))), "indices count from 0"
    for device in devices:
        assert device.kind == driver.name, "the kind of a device is the name of its plugin"
        assert device.name
        assert device.memory > 2**20, "memory is in bytes"
    uuids = [device.uuid for device in devices if device.uuid]
    assert len(uuids) == len(set(uuids))


def devices_stay_the_same_between_calls(driver: DeviceDriver) -> None:
    assert driver.devices() == driver.devices()


def usage_reads_each_device_in_order(driver: DeviceDriver) -> None:
    devices, usage = driver.devices(), driver.usage()
    assert [(u.kind, u.index) for u in usage] == [(d.kind, d.index) for d in devices]
    for device, seen in zip(devices, usage, strict=True):
        assert seen.memory_used >= 0
        assert device.kind == "cpu" or seen.memory_used <= device.memory  # the host's use may exceed our limit
        assert seen.utilization is None or 0.0 <= seen.utilization <= 1.0, "utilisation is a share"


CHECKS: tuple[Callable[[DeviceDriver], None], ...] = (
    probe_says_what_is_there_or_why_not,
    unavailable_means_no_devices_and_no_error,
    devices_are_named_numbered_and_sized,
    devices_stay_the_same_between_calls,
    usage_reads_each_device_in_order,
)
