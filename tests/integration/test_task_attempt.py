"""One attempt from its folder to its end: the real launcher, stub and worker, with a real task."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from llm_os.drivers.launchers.local import LocalLauncher
from llm_os.settings import Settings
from llm_os.spec.attempts import EXIT_OK, EXIT_USER_ERROR, AttemptSpec, Report, TaskCall
from llm_os.spec.base import Json
from llm_os.spec.processes import ProcessPhase, ProcessStatus


async def run_attempt(home: Path, options: dict[str, Json]) -> tuple[ProcessStatus, list[Report], Path]:
    settings = Settings(home=home)
    launcher = LocalLauncher(settings)
    folder = settings.attempts / "attempt-1"
    (folder / "output").mkdir(parents=True)
    call = TaskCall(
        task="datasets/sentic_data",
        options=options,
        inputs={},
        output=str(folder / "output"),
        checkpoints=str(settings.jobs / "job-1" / "checkpoints"),
    )
    argv = (sys.executable, "-m", "llm_os.workers.task", str(folder))
    spec = AttemptSpec(
        attempt="attempt-1", owner="job-1", token=1, argv=argv, env={}, threads=1, cwd=str(folder), task=call
    )
    (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    await launcher.start("attempt-1", folder)
    while True:
        status = await launcher.inspect("attempt-1", folder)
        if status.phase is not ProcessPhase.RUNNING:
            break
        await asyncio.sleep(0.05)
    lines = (folder / "reports.jsonl").read_text(encoding="utf-8").splitlines()
    return status, [Report.model_validate_json(line) for line in lines], folder


async def test_a_task_runs_to_its_artifact_and_result(tmp_path: Path) -> None:
    status, reports, folder = await run_attempt(tmp_path, {"limit": 500})
    assert (status.phase, status.exit_code) == (ProcessPhase.EXITED, EXIT_OK), (folder / "log").read_text()
    assert [report.seq for report in reports] == list(range(1, len(reports) + 1))
    assert reports[-1].kind == "result"
    assert "usage" in reports[-1].values
    assert json.loads((folder / "output" / "artifact.json").read_text())["kind"] == "dataset"


async def test_a_wrong_option_ends_as_the_mistake_of_a_user(tmp_path: Path) -> None:
    status, reports, folder = await run_attempt(tmp_path, {"langauge": "zh"})
    assert (status.phase, status.exit_code) == (ProcessPhase.EXITED, EXIT_USER_ERROR)
    assert reports[-1].kind == "error"
    assert reports[-1].values["code"] == "invalid_option"
    assert "langauge" in str(reports[-1].values["message"])
    assert list((folder / "output").iterdir()) == []
