"""A card says what was recorded and nothing else, in a form that YAML and the hub's tools read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.client import yaml
from llm_os.client.card_text import front_matter, written
from llm_os.client.cards import Card, limits

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXT
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
KEYS = st.from_regex(r"[a-z][a-z_-]{0,8}", fullmatch=True).filter(lambda key: key not in WORDS)
INSIDE = st.dictionaries(KEYS, LEAVES | st.lists(LEAVES, max_size=3), max_size=3)
FRONT = st.dictionaries(KEYS, LEAVES | INSIDE | st.lists(LEAVES | INSIDE, max_size=3), min_size=1, max_size=4)


@given(FRONT)
def test_front_matter_is_yaml(value: dict[str, Any]) -> None:
    import yaml as reader

    assert reader.safe_load(yaml.dump(value)) == value


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "version": "mood@2",
        "digest": "sha256:" + "1" * 64,
        "made": "2026-01-02",
        "license": "MIT",
        "model": {
            "task": "text-classification",
            "architecture": "BertForSequenceClassification",
            "parameters": 22_000_000,
            "format": "safetensors",
            "precision": "fp32",
            "size": 90 * 2**20,
            "context_length": 512,
            "labels": ["negative", "positive"],
        },
        "base": [{"version": "transformer@1", "source": "package:x==1", "license": "Apache-2.0"}],
        "source": None,
        "data": {
            "data": {
                "digest": "sha256:" + "2" * 64,
                "name": "reviews",
                "language": "zh",
                "kind": "classification",
                "splits": {"train": {"rows": 800, "classes": {"negative": 300, "positive": 500}}},
                "steps": [{"step": "clean", "version": 1}],
                "source": {"kind": "file", "license": "MIT"},
                "license": "MIT",
            }
        },
        "training": {"job": "job-1", "method": "lora", "options": {"split": "train", "epochs": 3}, "code": "0.1.0"},
        "evaluations": [judged()],
        "limits": [],
        **changes,
    }


def judged(**changes: Any) -> dict[str, Any]:
    return {
        "job": "job-2",
        "kind": "classification",
        "data": {"digest": "sha256:" + "2" * 64, "name": "reviews"},
        "split": "test",
        "start": 0,
        "stop": None,
        "count": 200,
        "shown": ["accuracy"],
        "metrics": {
            "accuracy": {"value": 0.9, "low": 0.85, "high": 0.93, "better": "higher"},
            "ece": {"value": 0.08, "low": 0.06, "high": 0.1, "better": "lower"},
        },
        "confidence": 0.95,
        "interval": "BCa bootstrap",
        "slices": {
            "domain": {
                "tweet": {"count": 40, "accuracy": [0.7, 0.6, 0.8]},
                "film": {"count": 160, "accuracy": [0.95, 0.9, 0.97]},
            }
        },
        "notes": {},
        "comparisons": [],
        **changes,
    }


def test_limits_follow_from_the_records() -> None:
    found = "\n".join(limits(facts()))
    assert "held out from the data it was trained on" in found
    assert "worse where domain is tweet: accuracy 0.7000 (0.6000 to 0.8000, 40 rows) against 0.9000" in found
    assert "film" not in found
    assert "confidence is off by 0.0800" in found
    assert "512 tokens at most" in found
    assert "texts in zh" in found
    assert "licence" not in found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluations": []}, "has not been evaluated here"),
        ({"license": "not stated"}, "licence of its weights is not stated"),
        ({"evaluations": [judged(split="train")]}, "on reviews/train is on rows that it was trained on"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], said: str) -> None:
    assert said in "\n".join(limits(facts(**changes)))
    assert said not in "\n".join(limits(facts()))


def test_the_text_holds_every_part() -> None:
    text = written(facts())
    for part in (
        "# mood@2",
        "Made from: transformer@1",
        "800 rows, negative 300, positive 500",
        "step clean",
        "Method: lora",
    ):
        assert part in text
    assert "| Accuracy | 0.9000 | 0.8500 to 0.9300 |" in text
    assert "- transformer@1, which it was made from: Apache-2.0" in text
    assert str(Card(facts())) == text


def test_the_hub_reads_the_results() -> None:
    from huggingface_hub.repocard_data import model_index_to_eval_results

    front = front_matter(facts())
    name, results = model_index_to_eval_results(front["model-index"])
    assert name == "mood@2"
    assert {one.metric_type: one.metric_value for one in results} == {"accuracy": 0.9, "ece": 0.08}
    assert front["language"] == ["zh"]
    assert front["license"] == "mit"
