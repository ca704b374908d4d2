"""What the reference says is what the model says: the whole task with tiny models, against the model itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
from reports import Bench, given
from test_models import classifier
from tiny_chat import tiny_chat

from llm_os import plugins
from llm_os.errors import UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.spec.parity import FILE, Reference
from llm_os.spec.resources import Capacity
from llm_os.tasks.evaluation.reference import FIRST, LONGEST, PLACES, spread

GRANTED = Capacity(cpus=2, memory=2**34)


def made(root: Path, model: Path) -> Reference:
    task = plugins.load("task", "evaluation/reference")
    bench = Bench(root, {"model": given(model, "model", inspect(model), "1")})
    task.resources(task.Options(), {"model": bench.context.inputs["model"].facts}, GRANTED)
    task.run(bench.context, task.Options())
    return Reference.model_validate_json((bench.output / FILE).read_bytes())


def test_it_writes_down_the_likeliest_token_of_a_thousand_places(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_chat(tmp_path / "model")
    found = made(tmp_path / "run", folder)
    assert sum(len(text.places) for text in found.texts) == PLACES
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text in (found.texts[0], found.texts[-1]):
        assert len(text.ids) <= LONGEST
        with torch.inference_mode():
            loss = model(torch.tensor([text.ids]), labels=torch.tensor([text.ids])).loss
        assert len(text.logprobs) == len(text.ids) - 1
        assert -sum(text.logprobs) / len(text.logprobs) == pytest.approx(float(loss), abs=1e-4)
        for place in text.places[::5]:
            assert place.at >= FIRST
            with torch.inference_mode():
                top = model(torch.tensor([text.ids[: place.at]])).logits[0, -1].topk(2)
            assert place.token == int(top.indices[0])
            assert place.margin == pytest.approx(float(top.values[0] - top.values[1]), abs=1e-4)
            assert place.ends or place.text == tokenizer.decode([place.token])
    chats = [reading for reading in found.readings if reading.messages]
    assert tokenizer.decode(chats[0].ids).endswith("<|im_start|>assistant\n")
    assert all(reading.messages[-1]["role"] == "user" for reading in chats)


def test_it_writes_the_same_twice(tmp_path: Path) -> None:
    folder = tiny_chat(tmp_path / "model")
    assert made(tmp_path / "a", folder) == made(tmp_path / "b", folder)


def test_of_a_classifier_it_writes_down_the_scores(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "model", "AutoModelForSequenceClassification", ["bad", "good"])
    found = made(tmp_path / "run", folder)
    assert len(found.scored) > 100
    assert all(set(one.scores) == {"bad", "good"} for one in found.scored)
    assert all(sum(one.scores.values()) == pytest.approx(1.0, abs=1e-5) for one in found.scored)
    assert len({round(one.scores["good"], 4) for one in found.scored}) > 10


def test_a_model_that_no_engine_is_compared_on_is_refused_at_submission(tmp_path: Path) -> None:
    task = plugins.load("task", "evaluation/reference")
    meta: dict[str, Any] = {"task": "feature-extraction"}
    with pytest.raises(UnsupportedModelError, match="feature-extraction"):
        task.resources(task.Options(), {"model": given(tmp_path, "model", meta, "1").facts}, GRANTED)


@drawn(st.lists(st.integers(0, 60), max_size=50), st.integers(1, 500))
def test_places_are_spread_evenly_over_all_texts(sizes: list[int], wanted: int) -> None:
    kept = spread(sizes, wanted)
    assert sum(map(len, kept)) == min(wanted, sum(sizes))
    assert all(
        found == sorted(set(found)) and set(found) <= set(range(size)) for found, size in zip(kept, sizes, strict=True)
    )
    if wanted < sum(sizes):
        step = sum(sizes) / wanted
        assert all(abs(len(found) - size / step) <= 1 for found, size in zip(kept, sizes, strict=True))
