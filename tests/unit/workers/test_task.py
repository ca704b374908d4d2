"""The task worker turns whatever a task does into reports and an exit code the kernel understands."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_os.errors import DataError, SourceError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    AttemptSpec,
    Control,
    Input,
    Report,
    TaskCall,
)
from llm_os.spec.base import Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.task import Task
from llm_os.workers import task as worker


class Options(Spec):
    epochs: int = 1


class Scripted(Task[Options]):
    """A task that does what the test says."""

    Options = Options
    output = "report"

    def __init__(self, script: Callable[[Context, Options], None], output: str | None = "report") -> None:
        self._script = script
        self.output = output  # type: ignore[misc]

    def resources(self, options: Options, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        return ResourceSpec(memory=1)

    def run(self, context: Context, options: Options) -> None:
        self._script(context, options)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        call = TaskCall(
            task="testing/scripted",
            options={},
            inputs={
                "data": Input(
                    path=str(folder / "in"), facts=ArtifactFacts(digest="sha256:" + "0" * 64, kind="dataset", size=1)
                )
            },
            output=str(folder / "output"),
            checkpoints=str(folder / "job" / "checkpoints"),
        )
        self.spec = AttemptSpec(
            attempt="a", owner="job-1", token=1, argv=("x",), env={}, threads=2, devices=(1,), cwd=".", task=call
        )
        self.call = call
        self.context = worker.build_context(self.spec, call, folder)

    def run(self, task: object, **options: Any) -> int:
        call = self.call.model_copy(update={"options": options})
        return worker.perform(self.context, call, self.folder / "log", load=lambda family, name: task)

    def reports(self) -> list[Report]:
        return [Report.model_validate_json(line) for line in (self.folder / "reports.jsonl").read_text().splitlines()]

    def error(self) -> dict[str, Any]:
        last = self.reports()[-1]
        assert last.kind == "error"
        return dict(last.values)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def finishes(context: Context, options: Options) -> None:
    context.report(step=1, total=options.epochs)
    context.finish("report", {"rows": 3})
    context.result(accuracy=0.5)


def test_gives_the_task_its_folders_threads_and_devices(bench: Bench) -> None:
    assert bench.context.inputs["data"].path == bench.folder / "in"
    assert bench.context.inputs["data"].facts.kind == "dataset"
    assert (bench.context.threads, bench.context.devices) == (2, (1,))
    for folder in (bench.context.output, bench.context.checkpoints, bench.context.scratch):
        assert folder.is_dir()


def test_ends_well_and_adds_what_was_used_to_the_result(bench: Bench) -> None:
    assert bench.run(Scripted(finishes), epochs=4) == EXIT_OK
    progress, result = bench.reports()
    assert progress.values == {"step": 1, "total": 4}
    assert result.kind == "result"
    assert result.values["accuracy"] == 0.5
    used = result.values["usage"]
    assert isinstance(used, dict)
    assert used["cpu_seconds"] > 0  # type: ignore[operator]
    assert used["peak_memory"] > 10 * 2**20  # type: ignore[operator]


def test_a_task_without_a_result_still_tells_what_it_used(bench: Bench) -> None:
    assert bench.run(Scripted(lambda context, options: None, output=None)) == EXIT_OK
    (result,) = bench.reports()
    assert result.kind == "result"
    assert set(result.values) == {"usage"}


def test_names_a_wrong_option_and_what_there_is(bench: Bench) -> None:
    assert bench.run(Scripted(finishes), epoch=4) == EXIT_USER_ERROR
    error = bench.error()
    assert error["code"] == "invalid_option"
    assert "epoch" in error["message"]
    assert "epochs" in error["hint"]


def fails(error: BaseException) -> Scripted:
    def script(context: Context, options: Options) -> None:
        raise error

    return Scripted(script)


@pytest.mark.parametrize(
    ("raised", "exit_code", "code"),
    [
        (DataError("Two columns are named 'text'."), EXIT_USER_ERROR, "data_error"),
        (SourceError("The package was not found."), EXIT_FAILED, "source"),
        (OSError(errno.ENOSPC, "No space left on device", "model.safetensors"), EXIT_FAILED, "disk_full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), EXIT_FAILED, "disk_full"),
        (MemoryError(), EXIT_FAILED, "capacity"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), EXIT_FAILED, "capacity"),
        (ZeroDivisionError("division by zero"), EXIT_FAILED, "internal"),
        (ValueError("a report said: out of memory"), EXIT_FAILED, "internal"),
        (SystemExit(0), EXIT_FAILED, "internal"),
    ],
)
def test_maps_what_a_task_raises(bench: Bench, raised: BaseException, exit_code: int, code: str) -> None:
    assert bench.run(fails(raised)) == exit_code
    error = bench.error()
    assert error["code"] == code
    assert error["hint"] or code in {"data_error", "source"}
    assert set(error["details"]["usage"]) == {"cpu_seconds", "peak_memory"}


def test_finds_the_full_disk_behind_another_error(bench: Bench) -> None:
    def script(context: Context, options: Options) -> None:
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        except OSError as error:
            raise RuntimeError("could not save") from error

    assert bench.run(Scripted(script)) == EXIT_FAILED
    assert bench.error()["code"] == "disk_full"


def test_an_internal_error_names_the_log_that_holds_the_traceback(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.run(fails(KeyError("weights")))
    assert str(bench.folder / "log") in bench.error()["message"]
    assert "KeyError: 'weights'" in capsys.readouterr().err


def test_a_mistake_of_a_user_is_one_sentence_in_the_log(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run(fails(DataError("Row 3 has no label.", hint="Fill it in.")))
    seen = capsys.readouterr()
    assert seen.out == "Row 3 has no label. Fill it in.\n"
    assert seen.err == ""


def test_a_failed_task_leaves_no_output_behind(bench: Bench) -> None:
    def script(context: Context, options: Options) -> None:
        finishes(context, options)
        (context.scratch / "big").write_bytes(b"x" * 1000)
        raise OSError(errno.ENOSPC, "No space left on device")

    assert bench.run(Scripted(script)) == EXIT_FAILED
    assert list(bench.context.output.iterdir()) == []
    assert list(bench.context.scratch.iterdir()) == []


def test_details_that_are_no_json_are_reported_as_text(bench: Bench) -> None:
    assert bench.run(fails(DataError("Bad.", details={"path": Path("/a")}))) == EXIT_USER_ERROR
    assert "/a" in bench.error()["details"]["path"]


def test_a_task_that_promises_output_and_makes_none_has_failed(bench: Bench) -> None:
    assert bench.run(Scripted(lambda context, options: None)) == EXIT_FAILED
    assert bench.error()["code"] == "internal"


def stops_when_asked(context: Context, options: Options) -> None:
    if context.should_stop():
        context.stop_here()
    finishes(context, options)


def test_a_task_that_was_asked_to_stop_has_stopped(bench: Bench) -> None:
    (bench.folder / "control.json").write_text(Control(stop=True, reason="preempted").model_dump_json())
    assert bench.run(Scripted(stops_when_asked)) == EXIT_STOPPED


def test_sigterm_asks_to_stop_as_the_control_file_does(bench: Bench) -> None:
    bench.context.request_stop()
    assert bench.run(Scripted(stops_when_asked)) == EXIT_STOPPED


def test_a_task_that_just_returns_when_asked_to_stop_has_stopped(bench: Bench) -> None:
    bench.context.request_stop()
    assert bench.run(Scripted(lambda context, options: None)) == EXIT_STOPPED


def test_a_task_that_was_asked_to_stop_but_finished_is_done(bench: Bench) -> None:
    bench.context.request_stop()
    assert bench.run(Scripted(finishes)) == EXIT_OK


def test_a_task_that_stops_unasked_has_failed(bench: Bench) -> None:
    def script(context: Context, options: Options) -> None:
        context.stop_here()

    assert bench.run(Scripted(script)) == EXIT_FAILED
    assert bench.error()["code"] == "internal"


def test_a_torn_report_is_taken_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk a half-written line must not glue itself to the error report that follows it."""
    bench.context.report(step=1)
    import resource
    import signal

    size = (bench.folder / "reports.jsonl").stat().st_size
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, old[1]))
        with pytest.raises(OSError, match="No space left"):
            bench.context.report(step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, before)
    bench.context.report(step=3)
    assert [report.values["step"] for report in bench.reports()] == [1, 3]


def test_the_program_reports_a_task_that_does_not_exist(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (tmp_path / "spec.json").write_text(bench.spec.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "llm_os.workers.task", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == EXIT_FAILED
    assert bench.error()["code"] == "not_found"
    assert "NotFoundError" in done.stderr
    assert json.loads((tmp_path / "reports.jsonl").read_text().splitlines()[-1])["kind"] == "error"
