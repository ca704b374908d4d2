"""The NVIDIA driver, proved on a fake NVML with the names of the real one."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from llm_os.drivers.device import Available, Unavailable
from llm_os.drivers.devices.nvidia import NvidiaDevice
from llm_os.testing.conformance.device import CHECKS

GIB = 2**30


class NVMLError(Exception):
    pass


class FakeNvml:
    """`pynvml` as far as the driver uses it. Every function but nvmlInit fails between shutdown and init."""

    NVMLError = NVMLError

    def __init__(self, count: int = 2, *, loaded: bool = True, fails: str = "", as_bytes: bool = False) -> None:
        self.count, self.loaded, self.fails, self.as_bytes = count, loaded, fails, as_bytes
        self.open = 0

    def _answer(self, name: str, value: Any) -> Any:
        if not self.open or self.fails == name:
            raise NVMLError(name)
        return value.encode() if isinstance(value, str) and self.as_bytes else value

    def nvmlInit(self) -> None:
        if not self.loaded:
            raise NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self._answer("count", self.count)

    def nvmlSystemGetDriverVersion(self) -> Any:
        return self._answer("version", "580.95.05")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return self._answer("handle", SimpleNamespace(index=index))

    def nvmlDeviceGetName(self, handle: Any) -> Any:
        return self._answer("name", f"NVIDIA H100 #{handle.index}")

    def nvmlDeviceGetUUID(self, handle: Any) -> Any:
        return self._answer("uuid", f"GPU-{handle.index}")

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        return self._answer("memory", SimpleNamespace(total=80 * GIB, used=(3 + handle.index) * GIB))

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        return self._answer("utilization", SimpleNamespace(gpu=25, memory=10))


def driver(nvml: FakeNvml) -> NvidiaDevice:
    return NvidiaDevice(lambda: nvml)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_lists_cards_with_names_and_memory(as_bytes: bool) -> None:
    nvml = FakeNvml(as_bytes=as_bytes)
    devices = driver(nvml).devices()
    assert [(d.kind, d.index, d.name, d.memory, d.uuid) for d in devices] == [
        ("nvidia", 0, "NVIDIA H100 #0", 80 * GIB, "GPU-0"),
        ("nvidia", 1, "NVIDIA H100 #1", 80 * GIB, "GPU-1"),
    ]
    assert nvml.open == 0


def test_reads_memory_and_utilisation() -> None:
    assert [(u.memory_used, u.utilization) for u in driver(FakeNvml()).usage()] == [(3 * GIB, 0.25), (4 * GIB, 0.25)]


def test_a_card_that_does_not_tell_its_utilisation_is_shown_without() -> None:
    assert [u.utilization for u in driver(FakeNvml(fails="utilization")).usage()] == [None, None]


def test_probe_names_the_version_of_the_driver() -> None:
    assert driver(FakeNvml(count=1)).probe() == Available(version="580.95.05", detail="1 GPU")


def _no_package() -> Any:
    raise ImportError("No module named 'pynvml'")


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (driver(FakeNvml(loaded=False)), "No NVIDIA driver answers (Driver Not Loaded)."),
        (driver(FakeNvml(count=0)), "The NVIDIA driver is loaded, but it shows no GPU."),
        (driver(FakeNvml(fails="version")), "The NVIDIA driver failed (version)."),
        (NvidiaDevice(_no_package), "The package nvidia-ml-py is not installed."),
    ],
)
def test_what_is_missing_is_unavailable_with_its_reason(device: NvidiaDevice, reason: str) -> None:
    probe = device.probe()
    assert isinstance(probe, Unavailable)
    assert probe.reason == reason
    assert probe.hint


def test_a_driver_that_fails_in_the_middle_shows_no_devices_and_is_closed() -> None:
    nvml = FakeNvml(fails="memory")
    assert driver(nvml).devices() == ()
    assert driver(nvml).usage() == ()
    assert nvml.open == 0


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("nvml", [FakeNvml(), FakeNvml(loaded=False), FakeNvml(count=0)], ids=["two", "none", "empty"])
def test_keeps_the_contract_of_devices(check: Any, nvml: FakeNvml) -> None:
    check(driver(nvml))


def test_the_fake_uses_names_that_the_real_library_has() -> None:
    real = importlib.import_module("pynvml")
    names = [name for name in dir(FakeNvml) if name.startswith(("nvml", "NVML"))]
    assert names
    assert all(hasattr(real, name) for name in names)
