"""Each kind of model is judged by what it says: whole tasks with tiny models, against what the model says directly."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
from families import family
from reports import Bench, given, report, rows

from llm_os import plugins
from llm_os.errors import DataError
from llm_os.models.formats import inspect
from llm_os.spec.resources import Capacity

GRANTED = Capacity(cpus=2, memory=2**34)
WORDS = ("good", "fine", "bad", "poor", "film", "book", "the", "very")
TEXTS = [" ".join(WORDS[(i * k) % 8] for k in range(1, 3 + i % 5)) for i in range(40)]


def judged(
    root: Path, model: Path, method: str, data: list[dict[str, Any]], max_tokens: int | None = None, **meta: Any
) -> dict[str, Any]:
    """The result of the task on a model folder and rows of a kind."""
    (root / "data" / "test").mkdir(parents=True)
    (root / "data" / "test" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    inputs = {
        "model": given(model, "model", inspect(model), "1"),
        "data": given(root / "data", "dataset", {"name": "made", **meta}, "2"),
    }
    task = plugins.load("task", f"evaluation/{method}")
    options = task.Options() if max_tokens is None else task.Options(max_tokens=max_tokens)
    task.resources(options, {role: folder.facts for role, folder in inputs.items()}, GRANTED)
    bench = Bench(root / "run", inputs)
    task.run(bench.context, options)
    return bench.result


def said(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "run" / "output" / "rows.jsonl").read_text().splitlines()]


def classifier(folder: Path, head: str, labels: list[str], **config: Any) -> Path:
    """A tiny BERT with a random head for these labels."""
    import torch
    import transformers

    family(folder, "bert")
    torch.manual_seed(1)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    given_config = transformers.AutoConfig.from_pretrained(folder, num_labels=len(labels), **names)
    for name, value in {"initializer_range": 0.5, **config}.items():
        setattr(given_config, name, value)
    getattr(transformers, head).from_config(given_config).save_pretrained(folder)
    return folder


def test_several_labels_are_said_from_the_thresholds_of_the_model(tmp_path: Path) -> None:
    from llm_os.models.load import load_classifier

    labels = ["a", "b", "c"]
    options: dict[str, Any] = {"problem_type": "multi_label_classification", "thresholds": [0.2, 0.5, 0.8]}
    model = classifier(tmp_path / "m", "AutoModelForSequenceClassification", labels, **options)
    data = [{"text": text, "labels": [labels[i % 3]]} for i, text in enumerate(TEXTS)]
    found = judged(tmp_path, model, "multi_label", data, kind="multi-label", labels=labels)
    cuts = options["thresholds"]
    sure = load_classifier(model).predict(TEXTS)
    wanted = [[labels[k] for k in range(3) if line[k] >= cuts[k]] for line in sure]
    assert [line["said"] for line in said(tmp_path)] == wanted
    assert found["thresholds"] == {"a": 0.2, "b": 0.5, "c": 0.8}
    subset = sum(line == row["labels"] for line, row in zip(wanted, data, strict=True)) / len(data)
    assert found["metrics"]["subset_accuracy"]["value"] == subset
    with pytest.raises(DataError, match="data has"):
        judged(tmp_path / "other", model, "multi_label", data, kind="multi-label", labels=["a", "b"])


def test_tags_are_judged_word_by_word(tmp_path: Path) -> None:
    from llm_os.models.tagging import load_tagger

    labels = ["O", "B-x", "I-x"]
    model = classifier(tmp_path / "m", "AutoModelForTokenClassification", labels)
    words = [text.split() for text in TEXTS]
    mine = [[tag for tag, _ in line] for line in load_tagger(model).predict(words)]
    right = [{"tokens": line, "tags": tags} for line, tags in zip(words, mine, strict=True)]
    found = judged(tmp_path, model, "tokens", right, kind="tokens", labels=labels)
    assert found["metrics"]["tag_accuracy"]["value"] == 1.0
    assert len({tag for line in mine for tag in line}) > 1, "a model that says one thing only tests nothing"
    wrong = [{**row, "tags": ["O" if tag != "O" else "B-x" for tag in row["tags"]]} for row in right]
    assert judged(tmp_path / "w", model, "tokens", wrong, kind="tokens")["metrics"]["tag_accuracy"]["value"] == 0.0


def test_vectors_are_judged_by_scores_or_by_what_they_find(tmp_path: Path) -> None:
    import numpy as np
    from scipy.stats import spearmanr

    from llm_os.models.embedding import load_encoder

    model = family(tmp_path / "m", "bert")
    unique = list(dict.fromkeys(TEXTS))
    pairs = [{"text": a, "other": b} for a, b in zip(unique, unique[1:] + unique[:1], strict=True)]
    scored = [{**pair, "score": (i * 7 % 10) / 10} for i, pair in enumerate(pairs)]
    found = judged(tmp_path / "s", model, "embeddings", scored, kind="pairs")
    vectors = dict(zip(unique, np.array(load_encoder(model).predict(unique)), strict=True))
    cosines = [float(vectors[pair["text"]] @ vectors[pair["other"]]) for pair in pairs]
    wanted = spearmanr(cosines, [pair["score"] for pair in scored]).statistic
    assert found["metrics"]["spearman"]["value"] == pytest.approx(wanted, abs=1e-6)
    same = judged(tmp_path / "r", model, "embeddings", [{"text": t, "other": t} for t in unique], kind="pairs")
    assert same["metrics"]["recall_at_1"]["value"] > 0.9
    assert same["corpus"] == len(unique)
    with pytest.raises(DataError, match="have a score"):
        judged(tmp_path / "x", model, "embeddings", [scored[0], pairs[1]], kind="pairs")


def test_what_an_encoder_decoder_writes_is_compared(tmp_path: Path) -> None:
    from llm_os.models.translation import load_translator

    model = family(tmp_path / "m", "t5", "AutoModelForSeq2SeqLM")
    mine = load_translator(model).predict(TEXTS[:6], max_tokens=8)
    data = [{"text": a, "other": b or "nothing"} for a, b in zip(TEXTS[:6], mine, strict=True)]
    data[0]["other"] = "quite another"
    found = judged(tmp_path, model, "generation", data, 8, kind="pairs", language="en")
    assert [line["said"] for line in said(tmp_path)] == mine
    same = [a == row["other"] for a, row in zip(mine, data, strict=True)]
    assert [line["exact"] for line in said(tmp_path)] == same
    assert found["kind"] == "generation"


def test_slices_can_be_by_language(tmp_path: Path) -> None:
    spoken = ("the film was very good indeed", "运行有点慢，不太好")
    mixed = [{**row, "text": spoken[i % 2]} for i, row in enumerate(rows(60))]
    bench = report(tmp_path / "mixed", mixed, 0.8, slices=("language",))
    assert {name: part["count"] for name, part in bench.result["slices"]["language"].items()} == {"en": 30, "zh": 30}
