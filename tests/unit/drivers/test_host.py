"""What /proc and /sys say of a machine's state, of folders that a test lays out; real ports; versions of packages."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llm_os.drivers import host, versions


def laid_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def read(root: Path, files: dict[str, str]) -> host.HostReading:
    laid_out(root, files)
    return host.reading(root / "sys", root / "proc")


GIB = 2**30


def test_a_limit_of_a_group_above_counts_and_idle_pages_are_free(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user/llm-os",
            "sys/fs/cgroup/user/memory.max": f"{GIB}",
            "sys/fs/cgroup/user/memory.current": f"{GIB * 3 // 4}",
            "sys/fs/cgroup/user/memory.stat": f"anon 5\ninactive_file {GIB // 4}\n",
            "sys/fs/cgroup/user/llm-os/memory.max": "max",
            "sys/fs/cgroup/user/llm-os/memory.current": "5",
        },
    )
    assert (found.memory, found.memory_available) == (GIB, GIB // 2)


def test_groups_of_version_1_are_read_too(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/a\n2:cpuacct,cpu:/a\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{GIB}",
            "sys/fs/cgroup/memory/a/memory.usage_in_bytes": f"{GIB}",
            "sys/fs/cgroup/memory/a/memory.oom_control": "oom_kill_disable 0\noom_kill 2\n",
            "sys/fs/cgroup/cpu/a/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 2500000000\n",
        },
    )
    assert (found.memory_available, found.oom_kills) == (0, 2)
    assert (found.throttled_seconds, found.throttled_share) == (2.5, 0.4)


def test_a_container_whose_group_has_another_path_inside_is_read_at_the_mount(tmp_path: Path) -> None:
    stat = "usage_usec 9\nnr_periods 8\nnr_throttled 2\nthrottled_usec 500000\n"
    found = read(tmp_path, {"proc/self/cgroup": "0::/docker/abc", "sys/fs/cgroup/cpu.stat": stat})
    assert found.throttled_seconds == 0.5


def test_heat_and_clock_are_added_up_over_the_cores(tmp_path: Path) -> None:
    cpus = "sys/devices/system/cpu"
    found = read(
        tmp_path,
        {
            f"{cpus}/cpu0/thermal_throttle/core_throttle_count": "3",
            f"{cpus}/cpu1/thermal_throttle/core_throttle_count": "4",
            f"{cpus}/cpu0/cpufreq/scaling_cur_freq": "1000000",
            f"{cpus}/cpu0/cpufreq/cpuinfo_max_freq": "4000000",
            f"{cpus}/cpu1/cpufreq/scaling_cur_freq": "3000000",
            f"{cpus}/cpu1/cpufreq/cpuinfo_max_freq": "4000000",
            "proc/vmstat": "pgfault 1\noom_kill 7\n",
        },
    )
    assert (found.thermal_throttles, found.frequency, found.oom_kills) == (7, 0.5, 7)


def test_what_the_system_does_not_tell_is_none(tmp_path: Path) -> None:
    found = read(tmp_path, {})
    assert found.throttled_seconds is found.frequency is found.thermal_throttles is found.oom_kills is None
    assert found.memory > 0


def test_this_machine_is_read() -> None:
    found = host.reading()
    assert 0 < found.memory_available <= found.memory


def test_who_listens_on_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert f"(process {os.getpid()})" in host.listener(taken.getsockname()[1])
        free = taken.getsockname()[1]
    assert host.listener(free) == ""


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.13.0+cpu", ">=2.13,<2.14", True),
        ("2.14.0", ">=2.13,<2.14", False),
        ("2.9", ">=2.13", False),
        ("2026.4.1.0", ">=2026.4,<2027", True),
        ("6.0", "<6", False),
        ("5.23", "==5.23.0", True),
        ("1.0", "!=1.0", False),
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, wanted: str, fits: bool) -> None:
    assert versions.fits(version, wanted) is fits


def test_wrong_versions_and_missing_packages_are_named_with_the_cure() -> None:
    there = {"torch": "2.14.1", "transformers": "5.23.0", "click": "8.3.1"}
    asked = (
        "click<9,>=8.3",
        "aiohttp<4,>=3.14",
        'torch<2.14,>=2.13; extra == "train"',
        'transformers<6,>=5.23; extra == "train"',
        'vllm>=1; extra == "vllm"',
    )
    found = versions.misfits(asked, there.get)
    assert [str(one) for one in found] == [
        "aiohttp: it is not installed, >=3.14,<4 is wanted",
        "torch: 2.14.1 is installed, >=2.13,<2.14 is wanted",
    ]
    assert [(one.command, one.extra) for one in found] == [
        ("pip install 'aiohttp>=3.14,<4'", ""),
        ("pip install 'torch>=2.13,<2.14'", "train"),
    ]


def test_this_installation_fits_and_knows_its_extras() -> None:
    assert versions.misfits() == ()
    assert len(versions.requirements()) > 10
    assert versions.extra_of("peft") == "train"
    assert versions.extra_of("openvino_genai") == "openvino"
    assert versions.extra_of("click") == ""
    assert versions.extra_of("no_such_module") is None


def test_what_the_processor_can_is_told_in_an_order_that_stays(tmp_path: Path) -> None:
    assert host.instruction_sets(tmp_path) == ()
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nflags\t\t: sse avx2 avx\n\nprocessor\t: 1\nflags\t\t: sse avx2 avx\n"
    )
    assert host.instruction_sets(tmp_path) == ("avx", "avx2", "sse")
    (tmp_path / "cpuinfo").write_text("processor: 0\nFeatures: fp asimd\n")
    assert host.instruction_sets(tmp_path) == ("asimd", "fp")
