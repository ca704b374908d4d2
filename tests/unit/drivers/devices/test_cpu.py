"""The host as a device: what the control group leaves of it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from llm_os.drivers.device import Available
from llm_os.drivers.devices.cpu import CpuDevice

CORES = len(os.sched_getaffinity(0))
HOST = psutil.virtual_memory().total


def group(root: Path, **files: str) -> CpuDevice:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return CpuDevice(cgroup=root)


def test_without_limits_it_is_the_whole_host(tmp_path: Path) -> None:
    driver = CpuDevice(cgroup=tmp_path)
    assert (driver.cores(), driver.memory()) == (CORES, HOST)
    probe = driver.probe()
    assert isinstance(probe, Available)
    assert probe.detail == f"{CORES} cores"


def test_version_2_limits_cores_and_memory(tmp_path: Path) -> None:
    driver = group(tmp_path, cpu_DOT_max="50000 100000\n", memory_DOT_max=f"{2**28}\n")
    assert (driver.cores(), driver.memory()) == (0.5, 2**28)
    assert driver.devices()[0].memory == 2**28


def test_version_2_says_max_for_no_limit(tmp_path: Path) -> None:
    driver = group(tmp_path, cpu_DOT_max="max 100000\n", memory_DOT_max="max\n")
    assert (driver.cores(), driver.memory()) == (CORES, HOST)


def test_version_1_limits_cores_and_memory(tmp_path: Path) -> None:
    driver = group(
        tmp_path,
        cpu__cpu_DOT_cfs_quota_us="75000\n",
        cpu__cpu_DOT_cfs_period_us="100000\n",
        memory__memory_DOT_limit_in_bytes=f"{2**29}\n",
    )
    assert (driver.cores(), driver.memory()) == (0.75, 2**29)


def test_version_1_says_minus_one_or_a_huge_number_for_no_limit(tmp_path: Path) -> None:
    driver = group(
        tmp_path,
        cpu__cpu_DOT_cfs_quota_us="-1\n",
        cpu__cpu_DOT_cfs_period_us="100000\n",
        memory__memory_DOT_limit_in_bytes="9223372036854771712\n",
    )
    assert (driver.cores(), driver.memory()) == (CORES, HOST)


@pytest.mark.parametrize("text", ["", "rubbish", "1 2 3"])
def test_an_unreadable_limit_is_no_limit(tmp_path: Path, text: str) -> None:
    driver = group(tmp_path, cpu_DOT_max=text, memory_DOT_max=text)
    assert (driver.cores(), driver.memory()) == (CORES, HOST)


def test_more_cores_than_the_affinity_allows_are_not_there(tmp_path: Path) -> None:
    assert group(tmp_path, cpu_DOT_max="10000000 100000\n").cores() == CORES
