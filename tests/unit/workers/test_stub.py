"""The stub's own promises: shapes of its records, a clean environment, one run at most, an end in any case."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_os.drivers.identity import boot_id, read_process
from llm_os.spec.attempts import AttemptSpec, Exit
from llm_os.spec.processes import Handle
from llm_os.workers import stub


def lay_out(folder: Path, *argv: str, env: dict[str, str] | None = None, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    spec = AttemptSpec(
        attempt=folder.name, owner="job-1", token=1, argv=argv, env=env or {}, threads=3, cwd=str(folder), **more
    )
    (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    return folder


def run(folder: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", stub.__file__, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def the_exit(folder: Path) -> Exit:
    return Exit.model_validate_json((folder / "exit.json").read_bytes())


def test_writes_records_of_the_shapes_the_kernel_reads(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "a", "sh", "-c", "echo out; echo err >&2; exit 7")
    done = run(folder)
    assert (done.stdout, done.stderr, done.returncode) == ("running\n", "", 0)
    ended = the_exit(folder)
    assert (ended.code, ended.signal, ended.started, ended.message) == (7, None, True, "")
    handle = Handle.model_validate_json((folder / "process.json").read_bytes())
    assert handle.attempt == "a"
    assert handle.launcher == "local"
    assert handle.boot_id == boot_id()
    assert handle.start_time is not None
    assert (folder / "log").read_text() == "out\nerr\n"
    assert sorted(p.name for p in folder.iterdir()) == ["exit.json", "lock", "log", "process.json", "spec.json"]


def test_names_itself_as_the_process_table_does() -> None:
    process = read_process(os.getpid())
    assert process is not None
    assert Handle.model_validate(stub.identity("a")) == Handle(
        attempt="a", launcher="local", pid=process.pid, start_time=process.start_time, boot_id=boot_id()
    )


def test_says_which_signal_ended_the_program_and_guesses_why(tmp_path: Path) -> None:
    run(lay_out(tmp_path / "a", "sh", "-c", "kill -KILL $$"))
    ended = the_exit(tmp_path / "a")
    assert (ended.code, ended.signal) == (None, signal.SIGKILL)
    assert "memory" in ended.message
    assert stub.ending(int(signal.SIGKILL), asked=True)["message"] == "Ended by SIGKILL."
    assert stub.ending(int(signal.SIGKILL), asked=True, killed=1)["message"] == "Ended by SIGKILL."
    told = stub.ending(int(signal.SIGKILL), asked=False, killed=1)["message"]
    assert told == "Ended by SIGKILL. Meanwhile the system ended 1 of its processes for lack of memory."


@pytest.mark.parametrize("name", ["exit.json", "process.json"])
def test_refuses_what_was_started_or_sealed_before(tmp_path: Path, name: str) -> None:
    folder = lay_out(tmp_path / "a", "touch", "ran")
    (folder / name).write_text("{}")
    assert run(folder).stdout == "already\n"
    assert not (folder / "ran").exists()
    assert (folder / name).read_text() == "{}"


def test_leaves_an_attempt_to_the_stub_that_holds_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub, "LOCK_PATIENCE", 0.0)
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert stub.take_lock(str(tmp_path)) is None
    lock = stub.take_lock(str(tmp_path))
    assert lock is not None
    os.close(lock)


def test_gives_the_program_a_clean_environment() -> None:
    base = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "PIP_INDEX_URL": "x",
        "HTTPS_PROXY": "p",
        "LLM_OS_HOME": "/h",
        "LLM_OS_DATABASE": "postgresql://user:secret@host/db",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HF_TOKEN": "secret",
        "OMP_NUM_THREADS": "64",
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
    }
    spec = {"threads": 2, "devices": [1, 3], "env": {"EXTRA": "1", "MKL_NUM_THREADS": "9"}}
    assert stub.environment(base, spec, "/attempts/a") == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "PIP_INDEX_URL": "x",
        "HTTPS_PROXY": "p",
        "LLM_OS_HOME": "/h",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "RAYON_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "9",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1,3",
        "EXTRA": "1",
        "LLM_OS_ATTEMPT_FOLDER": "/attempts/a",
    }


def test_hides_all_accelerators_from_what_holds_none() -> None:
    env = stub.environment({"CUDA_VISIBLE_DEVICES": "0"}, {"threads": 1, "devices": [], "env": {}}, "/a")
    assert env["CUDA_VISIBLE_DEVICES"] == ""


def test_seals_an_attempt_whose_program_cannot_be_executed(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "a", "./no-such-program")
    done = run(folder)
    assert done.stdout.startswith("failed: ")
    assert "no-such-program" in done.stdout
    ended = the_exit(folder)
    assert (ended.started, ended.code) == (False, None)
    assert "no-such-program" in ended.message


def test_lets_a_later_start_try_again_when_the_folder_was_not_ready(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert run(tmp_path / "a").stdout.startswith("failed: ")
    assert not (tmp_path / "a" / "exit.json").exists()
    assert run(lay_out(tmp_path / "a", "true")).stdout == "running\n"
    assert the_exit(tmp_path / "a").code == 0


def test_refuses_to_start_when_there_is_no_room_for_the_end(tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: what cannot be recorded must not run."""
    folder = lay_out(tmp_path / "a", "touch", "ran")

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

    done = run(folder, preexec_fn=full)
    assert done.stdout.startswith("failed: ")
    assert not (folder / "ran").exists()
    assert not (folder / "process.json").exists()


def test_records_the_end_on_a_disk_that_the_program_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room was reserved before, so the record is written into it and needs no new block."""
    path = tmp_path / "exit.json"
    stub.reserve(str(path))
    beside = tmp_path / "exit.json.tmp"
    assert beside.stat().st_size >= stub.EXIT_BYTES
    number = beside.stat().st_ino
    stub.write_whole(str(path), stub.ending(0, asked=False))
    assert path.stat().st_ino == number
    assert Exit.model_validate_json(path.read_bytes()).code == 0


def test_leaves_nothing_half_written_when_a_record_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda file, text: len(text) // 2)
    with pytest.raises(OSError, match="No space left") as caught:
        stub.write_whole(str(tmp_path / "exit.json"), {"code": 0})
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "exit.json").exists()


def test_hands_the_request_to_stop_to_the_whole_group_of_the_program(tmp_path: Path) -> None:
    """The shell waits for its child; only if the child gets the signal, too, does it write before it goes."""
    script = (
        "trap 'wait; exit 12' TERM; sh -c 'trap \"echo child >> said; exit\" TERM; touch up; sleep 60 & wait' & wait"
    )
    folder = lay_out(tmp_path / "a", "sh", "-c", script)
    with subprocess.Popen([sys.executable, "-I", "-S", stub.__file__, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        while not (folder / "up").exists():
            os.sched_yield()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    assert the_exit(folder).code == 12
    assert (folder / "said").read_text() == "child\n"


def test_hands_on_a_request_to_stop_that_came_before_the_program_was_there(tmp_path: Path) -> None:
    code = (
        f"import os, runpy, signal; stub = runpy.run_path({stub.__file__!r}); program = stub['Run']()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "program.start(['sleep', '60'], {'PATH': os.environ['PATH']}, '/', 1); print(program.wait())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert int(done.stdout) == signal.SIGTERM


def test_needs_no_more_than_the_standard_library(tmp_path: Path) -> None:
    """Every start of anything waits for it: it must not load pydantic or our own package."""
    code = f"import sys, runpy; runpy.run_path({stub.__file__!r}); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert names <= set(sys.stdlib_module_names) | {"__main__"}
    assert not names & {"asyncio", "subprocess", "logging", "importlib.metadata", "typing_extensions"}


def test_its_spec_is_plain_json(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "a", "true", env={"KEY": "值"})
    assert json.loads((folder / "spec.json").read_text(encoding="utf-8"))["env"] == {"KEY": "值"}
    assert run(folder).stdout == "running\n"
