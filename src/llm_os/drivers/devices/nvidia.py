"""NVIDIA GPUs through NVML (nvidia-ml-py). Proved on a fake NVML; not yet run on hardware."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llm_os.drivers.device import Available, DeviceDriver, Probe, Unavailable
from llm_os.spec.resources import Device, DeviceUsage


class NvidiaDevice(DeviceDriver):
    """Each call opens and closes NVML, so a driver that is loaded or unloaded in between is seen.

    Args:
        module: gives the `pynvml` module (tests give a fake one).
    """

    name = "nvidia"

    def __init__(self, module: Callable[[], Any] = lambda: importlib.import_module("pynvml")) -> None:
        self._module = module

    def probe(self) -> Probe:
        try:
            with self._nvml() as nvml:
                count = nvml.nvmlDeviceGetCount()
                version = _text(nvml.nvmlSystemGetDriverVersion())
        except _Missing as missing:
            return Unavailable(reason=str(missing), hint="Install the NVIDIA driver, or go on without a GPU.")
        if not count:
            return Unavailable(reason="The NVIDIA driver is loaded, but it shows no GPU.", hint="Check `nvidia-smi`.")
        return Available(version=version, detail=f"{count} GPU{'s' if count > 1 else ''}")

    def devices(self) -> tuple[Device, ...]:
        try:
            with self._nvml() as nvml:
                return tuple(_device(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        except _Missing:
            return ()

    def usage(self) -> tuple[DeviceUsage, ...]:
        try:
            with self._nvml() as nvml:
                return tuple(_usage(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        except _Missing:
            return ()

    @contextmanager
    def _nvml(self) -> Iterator[Any]:
        try:
            nvml = self._module()
        except ImportError as error:
            raise _Missing("The package nvidia-ml-py is not installed.") from error
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise _Missing(f"No NVIDIA driver answers ({error}).") from error
        try:
            yield nvml
        except nvml.NVMLError as error:
            raise _Missing(f"The NVIDIA driver failed ({error}).") from error
        finally:
            nvml.nvmlShutdown()


class _Missing(Exception):  # noqa: N818 - not an error of the user: it becomes an Unavailable
    pass


def _device(nvml: Any, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return Device(
        kind="nvidia",
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
    )


def _usage(nvml: Any, index: int) -> DeviceUsage:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        utilization = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except nvml.NVMLError:  # some cards and partitions (MIG) do not tell
        utilization = None
    used = int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
    return DeviceUsage(kind="nvidia", index=index, memory_used=used, utilization=utilization)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


PLUGIN = NvidiaDevice()
