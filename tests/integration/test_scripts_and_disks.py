"""What a dead script, an impatient user and a full disk leave behind: nothing that was not meant to stay."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_os.testing.home_bed import write_toy_model
from llm_os.testing.place import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPT = """
import llm_os, time
from llm_os.client.jobs import submit
from llm_os.session import connect
from llm_os.spec.jobs import JobSpec
steps = JobSpec(task="testing/steps", options={{"steps": 2000, "seconds": 0.05}})
print(submit(connect(), steps).id, submit(connect(), steps, background=True).id, flush=True)
model = llm_os.load_model({model!r})
model.deploy("mine", engine="fake")
model.deploy("ours", engine="fake", keep=True)
print("ready", flush=True)
time.sleep(120)
"""
WAITS = """
import llm_os
from llm_os.client.jobs import run
from llm_os.session import connect
from llm_os.spec.jobs import JobSpec
print("begun", flush=True)
run(connect(), JobSpec(task="testing/steps", options={"steps": 2000, "seconds": 0.05}), "Counting")
"""


class Looking(Place):
    """One that waits for what shall come about."""

    def until(self, fact: Callable[[], bool], seconds: float = 40.0) -> None:
        end = time.monotonic() + seconds
        while not fact():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.2)


def looking(folder: Path, home: Path) -> Looking:
    return Looking(folder, home=home, more={"LLM_OS_TESTING": "1", "LLM_OS_SESSION_TTL": "3", "LLM_OS_LINGER": "60"})


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Looking]:
    place = looking(tmp_path, tmp_path / "home")
    try:
        yield place
    finally:
        place.cli("down")


def test_a_killed_script_leaves_only_what_it_meant_to_keep(place: Looking, tmp_path: Path) -> None:
    write_toy_model(tmp_path / "toy", "ToyForSequenceClassification")
    assert place.cli("up").returncode == 0
    process = place.start("-c", SCRIPT.format(model=str(tmp_path / "toy")))
    assert process.stdout is not None
    own, background = process.stdout.readline().split()
    assert process.stdout.readline() == "ready\n", process.communicate()
    running = place.told("ps")
    assert {job["id"] for job in running["jobs"]} == {own, background}
    assert {d["spec"]["name"] for d in running["deployments"]} == {"mine", "ours"}
    process.kill()
    process.communicate()

    def settled() -> bool:
        found = place.told("ps")
        names = [d["spec"]["name"] for d in found["deployments"]]
        return [job["id"] for job in found["jobs"]] == [background] and names == ["ours"]

    place.until(settled)
    states = {job["id"]: job["state"] for job in place.told("jobs")}
    assert states[own] == "cancelled"
    assert "session" in place.told("why", own)["sentence"]
    assert place.cli("cancel", background).returncode == 0
    assert place.cli("stop", "ours").returncode == 0


def test_two_ctrl_c_leave_without_a_traceback_of_ours_and_the_job_ends(place: Looking) -> None:
    place.cli("up")
    process = place.start("-c", WAITS)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    place.until(lambda: bool(place.told("ps")["jobs"]))
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "was asked to end" in said
    place.until(lambda: not place.told("ps")["jobs"])


def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    place = looking(tmp_path, disk / "home")
    try:
        assert place.cli("up").returncode == 0
        (disk / "filler").write_bytes(b"0" * (shutil.disk_usage(disk).free - 400_000))
        done = place.cli("data", "sentic_data", "--limit", "15000")
        assert done.returncode != 0
        assert "disk" in done.stderr.lower(), done.stderr
        assert "Traceback" not in done.stderr
        with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
            while True:
                filler.write(b"0" * 65536)
        done = place.cli("data", "sentic_data", "--limit", "15000")
        assert done.returncode != 0
        assert "disk" in done.stderr.lower(), done.stderr
        assert place.told("status")["home"] == str(disk / "home")
        (disk / "filler").unlink()
        assert place.cli("data", "sentic_data", "--limit", "100").returncode == 0
    finally:
        place.cli("down")
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_kernel_that_was_to_stay_still_stays_after_it_was_killed(place: Looking) -> None:
    looks = "import llm_os; llm_os.resources()"
    assert place.cli("up").returncode == 0
    os.kill(place.told("status")["pid"], signal.SIGKILL)
    place.start("-c", looks).communicate(timeout=60)
    assert place.told("status")["ephemeral"] is False
    assert place.cli("down").returncode == 0
    place.start("-c", looks).communicate(timeout=60)
    assert place.told("status")["ephemeral"] is True
