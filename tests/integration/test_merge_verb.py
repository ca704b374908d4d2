"""`llm-os merge` as people call it: an adapter of a real model, trained on real rows, becomes a version of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_os.testing.place import Place

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(400)]

TRAIN = """
import sys, llm_os
model = llm_os.load_model("transformer")
data, test = llm_os.load_data("sentic_data", limit=60)
model.train(data, method="lora", merge=False, epochs=1, max_length=32, name="mood")
model.save(sys.argv[1])
"""


def test_an_adapter_is_merged_under_its_own_name_and_stays(
    place: Place, stock: Callable[[str, Place], None], tmp_path: Path
) -> None:
    stock("transformer", place)
    cli, told = place.cli, place.told
    assert cli("up").returncode == 0
    trained = place.script(TRAIN, str(tmp_path / "adapter"))
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
    config = tmp_path / "adapter" / "adapter_config.json"  # one that was saved here names its base, others do not
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "somebody/else"}))
    foreign = cli("merge", str(tmp_path / "adapter"))
    assert "Give base=model (--base MODEL)." in foreign.stderr
    based = told("merge", str(tmp_path / "adapter"), "--base", "transformer")
    assert based["version"] == "adapter-merged@1"
    wrong = cli("merge", "mood", "--name", "My Model")
    assert "'My Model' cannot be the name of the card of a model." in wrong.stderr
