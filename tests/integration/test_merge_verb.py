"""`llm-os merge` as people call it: an adapter of a real model, trained on real rows, becomes a version of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(400)]

TRAIN = """
import sys, llm_os
model = llm_os.load_model("transformer")
data, test = llm_os.load_data("sentic_data", limit=60)
model.train(data, method="lora", merge=False, epochs=1, max_length=32, name="mood")
model.save(sys.argv[1])
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(home: dict[str, str]) -> Run:
    """Calls the interpreter in a home of its own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(command, env=home, capture_output=True, text=True, timeout=300, check=False)

    return run


def test_an_adapter_is_merged_under_its_own_name_and_stays(run: Run, tmp_path: Path) -> None:
    def cli(*words: str) -> subprocess.CompletedProcess[str]:
        return run("-m", "llm_os.cli.main", *words)

    def told(*words: str) -> Any:
        done = cli(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert cli("up").returncode == 0
    trained = run("-c", TRAIN, str(tmp_path / "adapter"))
    assert trained.returncode == 0, trained.stderr
    done = cli("merge", "mood")
    assert (done.returncode, done.stdout) == (0, "mood@1 was merged: mood-merged@1.\n"), done.stderr
    assert "Merging mood@1" in done.stderr
    named = told("merge", "mood", "--name", "feeling")
    assert (named["adapter"], named["version"]) == ("mood@1", "feeling@1")
    made = {version["card"]: version for version in told("models")}
    assert (made["mood"]["format"], made["feeling"]["format"]) == ("adapter", "safetensors")
    assert made["feeling"]["manifest"] == made["mood-merged"]["manifest"] == named["digest"]
    assert len(cli("predict", "feeling", "a fine film").stdout.splitlines()) == 1

    again = cli("merge", "feeling")
    assert again.returncode != 0
    assert again.stderr == "Error: feeling@1 is no adapter.\n  Use it as it is.\n"
    foreign = cli("merge", str(tmp_path / "adapter"))
    assert "Give base=model (--base MODEL)." in foreign.stderr
    based = told("merge", str(tmp_path / "adapter"), "--base", "transformer")
    assert based["version"] == "adapter-merged@1"
    wrong = cli("merge", "mood", "--name", "My Model")
    assert "'My Model' cannot be the name of the card of a model." in wrong.stderr
