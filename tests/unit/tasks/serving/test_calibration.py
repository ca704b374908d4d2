"""Engines are started, compared and timed; one that fails is a line in the table; nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from bed import MIB, Bed, candidate

from llm_os.errors import InvalidInputError, UnavailableError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Control
from llm_os.spec.parity import Parity, Share
from llm_os.spec.resources import Capacity
from llm_os.tasks.context import Stopped
from llm_os.tasks.serving import loads
from llm_os.tasks.serving.calibration import OWN, CalibrationOptions, CalibrationTask, refuse_worse
from llm_os.tasks.serving.replica import Refused


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is counted here is not believed, so it need not be counted long."""
    monkeypatch.setattr(loads, "SECONDS", 0.3)
    yield
    assert not _workers(), "a worker was left behind"


def _workers(of: int | None = None) -> list[psutil.Process]:
    """Workers of the fake engine that descend from a process, this one if none is named."""
    found = []
    for process in psutil.Process(of).children(recursive=True):
        try:
            if "llm_os.workers.fake" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_the_faster_engine_is_taken_and_the_sentence_has_the_figures(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "bed")
    slow, fast = candidate(tokens_per_second=20, reply="a " * 40), candidate(tokens_per_second=200, reply="a " * 40)
    found = bed.run(slow, fast)
    assert found.chosen == (1,)
    assert [speed.streams for speed in found.trials[1].speeds] == [1, 8, 32]
    for trial in found.trials:
        assert trial.error is None
        assert trial.memory > 10 * MIB
        assert trial.ready_seconds > 0
    slowly, fastly = (trial.speeds[0] for trial in found.trials)
    assert 5 < slowly.per_second < 21
    assert fastly.per_second > 2 * slowly.per_second
    assert fastly.first < slowly.first
    assert "fake (tokens_per_second 200" in found.why
    assert f"{fastly.per_second:,.0f}, " in found.why
    assert found.fingerprint == "here"


def test_what_does_not_start_and_what_does_not_agree_are_lines_and_no_end(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "bed", compared=True)
    broken, other, good = candidate(start_fails=True), candidate(disagrees=0.5), candidate()
    missing = candidate(argv=("/no/such/program", "{attempt}"))
    dead = candidate(argv=(sys.executable, "-c", "import sys; sys.exit(3)"))
    found = bed.run(broken, other, missing, dead, good)
    assert found.chosen == (4,)
    said = [trial.error or "" for trial in found.trials]
    assert "was told to fail at its start" in said[0]
    assert "50.0% of" in said[1]
    assert "cannot be started: No such file or directory: /no/such/program" in said[2]
    assert "exit code 3" in said[3]
    assert not any(trial.speeds for trial in found.trials[:4])
    refused, agreed = found.trials[1].parity, found.trials[4].parity
    assert refused is not None
    assert agreed is not None
    assert (refused.everywhere.agreed, agreed.everywhere.agreed) == (25, 50)
    assert "out of the question: fake (start_fails True" in found.why


@pytest.mark.parametrize(
    ("perplexity", "taken"), [(None, True), (0.9, True), (1.01, True), (1.011, False), (9e9, False)]
)
def test_what_finds_texts_less_likely_than_the_reference_is_taken_by_name_only(
    perplexity: float | None, taken: bool
) -> None:
    all_of_them = Share(count=9, agreed=9, low=0.7, high=1.0)
    parity = Parity(everywhere=all_of_them, sure=all_of_them, perplexity=perplexity)
    refuse_worse(None)
    if taken:
        refuse_worse(parity)
        return
    with pytest.raises(Refused, match="above PyTorch's, at most 1% is taken unasked") as caught:
        refuse_worse(parity)
    assert caught.value.parity is parity


def test_one_that_dies_under_the_load_is_out_of_the_question(tmp_path: Path) -> None:
    found = Bed(tmp_path / "bed").run(candidate(dies_after=3), candidate())
    assert "broke off while it was asked" in (found.trials[0].error or "")
    assert found.chosen == (1,)


def test_one_of_another_release_whose_reports_cannot_be_read_is_no_end(tmp_path: Path) -> None:
    program = "import pathlib, time; pathlib.Path('reports.jsonl').write_text('{}\\n'); time.sleep(60)"
    odd = candidate("odd", argv=(sys.executable, "-c", program))
    found = Bed(tmp_path).run(odd, candidate())
    assert "reports that cannot be read" in str(found.trials[0].error)
    assert found.chosen == (1,)


def test_an_engine_that_is_the_reference_is_not_compared_with_itself(tmp_path: Path) -> None:
    itself = candidate(disagrees=1.0).model_copy(update={"compared": False})
    found = Bed(tmp_path / "bed", compared=True).run(itself, candidate())
    assert found.trials[0].error is None
    assert found.trials[0].parity is None


def test_classifiers_are_counted_in_texts(tmp_path: Path) -> None:
    found = Bed(tmp_path / "bed", "text-classification").run(candidate(slow=0.02), candidate(slow=0.2))
    assert found.chosen == (0,)
    assert "texts/s" in found.why
    assert found.trials[1].speeds[0].first >= 0.2


def test_where_none_may_serve_it_says_what_each_said(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "bed")
    with pytest.raises(UnavailableError, match=r"None of 2 candidates may serve it\..*told to fail at its start"):
        bed.run(candidate(start_fails=True), candidate(start_fails=True, reply="b"))
    assert not list((tmp_path / "bed" / "output").iterdir())


def test_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    found = Bed(tmp_path / ("long" * 30) / "bed").run(candidate(), candidate(reply="b"))
    assert all(trial.error is None for trial in found.trials)


def test_without_candidates_it_says_who_names_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no engine to try"):
        Bed(tmp_path / "bed").run()


def test_it_asks_for_the_memory_of_its_largest_candidate() -> None:
    options = CalibrationOptions(candidates=(candidate(memory=500 * MIB), candidate(memory=900 * MIB)))
    facts = {
        "model": ArtifactFacts(digest="sha256:" + "a" * 64, kind="model", size=1, meta={"task": "text-generation"})
    }
    needs = CalibrationTask().resources(options, facts, Capacity(cpus=2, memory=2**33))
    assert needs.memory == OWN + 900 * MIB
    assert needs.cpus <= 0.5


def test_when_it_is_asked_to_stop_the_worker_is_gone(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "bed")

    def stop_once_it_runs() -> None:
        while not _workers():
            time.sleep(0.01)
        beside = bed.control.with_suffix(".new")
        beside.write_text(Control(stop=True).model_dump_json())
        beside.rename(bed.control)

    stopper = threading.Thread(target=stop_once_it_runs)
    stopper.start()
    with pytest.raises(Stopped):
        bed.run(candidate(ready_after=60), candidate())
    stopper.join()


def test_a_kill_that_nobody_can_catch_leaves_no_worker(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from bed import Bed, candidate; Bed(Path(sys.argv[2])).run(candidate(ready_after=60), candidate())"
    )
    argv = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "bed")]
    task = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        deadline = time.monotonic() + 60
        while not (workers := _workers(task.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        task.send_signal(signal.SIGKILL)
        task.wait()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert gone
    assert not alive


def test_progress_goes_over_all_candidates(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "bed")
    bed.run(candidate(), candidate(reply="b"))
    steps = [report.values for report in bed.reports if report.kind == "progress"]
    assert [step["step"] for step in steps] == list(range(8))
    assert {step["total"] for step in steps} == {8}
    assert "32 at once" in json.dumps(steps)
