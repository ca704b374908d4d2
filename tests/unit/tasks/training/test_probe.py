"""A probe learns a head on features computed once: right, exact when it goes on, and as others load it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from talking import chat_rows, data_of
from tiny import Bench, given, sentences, tiny_data, tiny_model
from tiny_chat import tiny_llama, tiny_tokenizer

from llm_os import plugins
from llm_os.errors import IntegrityError, InvalidOptionError, LLMOSError, UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.models.load import load_classifier
from llm_os.models.prompt import asked, tokens_of
from llm_os.spec.resources import Capacity
from llm_os.tasks.training import linear, ngrams

PROBE = plugins.load("task", "training/probe")


def decoder(folder: Path) -> Any:
    """Random weights of a Llama with four layers of width 32."""
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    tiny_llama(tokenizer, num_hidden_layers=4).save_pretrained(folder)
    return given(folder, "model", inspect(folder), "1")


def words_decoder(folder: Path) -> Any:
    """A Llama of one layer without any attention to speak of: it knows the last word; a token is a word."""
    import torch

    tokenizer = words_tokenizer()
    tokenizer.save_pretrained(folder)
    model = tiny_llama(tokenizer, num_hidden_layers=1, max_position_embeddings=128)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
    model.save_pretrained(folder)
    return given(folder, "model", inspect(folder), "1")


def words_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<|im_end|>", "<unk>", "good", "bad", "film", "book", "the", "a", "was", "is", "very", "so"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"unk_token": "<unk>", "bos_token": "<|im_end|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **marks)


def run(root: Path, model: Any, data: Any, **options: Any) -> Bench:
    bench = Bench(root, {"model": model, "data": data})
    PROBE.run(bench.context, PROBE.Options.model_validate({"precision": "fp32", **options}))
    return bench


def right(folder: Path, rows: list[dict[str, Any]]) -> float:
    model = load_classifier(folder)
    said = [model.chosen(row)[0] for row in model.predict([row["text"] for row in rows])]
    return sum(word == row["label"] for word, row in zip(said, rows, strict=True)) / len(rows)


def test_a_decoder_with_fewer_layers_and_a_question_is_saved_as_a_plain_classifier(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    rows = sentences(120)
    bench = run(
        tmp_path / "run", decoder(tmp_path / "m"), tiny_data(tmp_path / "d", rows), layers=2, prompt=" yes or no:"
    )
    assert right(bench.output, rows) == 1.0
    (entry,) = bench.result["history"]
    assert entry["validation_accuracy"] == 1.0
    assert any(text.startswith("strength ") for text in bench.messages)

    tokenizer = AutoTokenizer.from_pretrained(bench.output)
    model = AutoModelForSequenceClassification.from_pretrained(bench.output)
    assert model.config.num_hidden_layers == len(model.model.layers) == 2
    assert model.score.bias is None
    ids = tokenizer("the film was bad " * 30, truncation=True, max_length=20)["input_ids"]
    assert len(ids) == 20
    assert tokenizer.decode(ids).endswith(" yes or no:")
    with torch.inference_mode():
        batch = tokenizer([rows[3]["text"]], return_tensors="pt")
        assert model.config.id2label[int(model(**batch).logits.argmax())] == rows[3]["label"]


def pairs(count: int) -> list[dict[str, Any]]:
    """Rows whose label is which two words stand together: no word alone says anything."""
    rows = []
    for i in range(count):
        first, second, other = (
            ("good", "bad")[i % 2],
            ("film", "book")[i // 2 % 2],
            ("the", "a", "was", "is")[i // 4 % 4],
        )
        positive = (first == "good") == (second == "film")
        text = f"{other} {first} {second} {('so', 'very', 'the')[i // 16 % 3]}"
        rows.append({"text": text, "label": "positive" if positive else "negative"})
    return rows


def test_ngrams_beside_a_model_say_what_it_does_not(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    rows = pairs(240)
    # a network without layers knows the last token only
    model, data = words_decoder(tmp_path / "m"), tiny_data(tmp_path / "d", rows)
    alone = run(tmp_path / "alone", model, data)
    assert right(alone.output, rows) < 0.7
    single = run(tmp_path / "single", model, data, ngrams=1)
    assert right(single.output, rows) < 0.7
    bench = run(tmp_path / "run", model, data, prompt=" very so", ngrams=2)
    facts = inspect(bench.output)
    said = (facts["architecture"], facts["task"], facts["layers"], facts["hidden_size"], facts["context_length"])
    assert said == ("WideForSequenceClassification", "text-classification", 1, 32, 128)
    assert str(tmp_path) not in (bench.output / "config.json").read_text()
    assert right(bench.output, rows) == 1.0
    assert any("n-grams x " in text for text in bench.messages)

    made = AutoModelForSequenceClassification.from_pretrained(bench.output).eval()
    tokenizer = AutoTokenizer.from_pretrained(bench.output)
    assert (asked(tokenizer), tokens_of(tokenizer), tokenizer.padding_side) == (" very so", 2, "right")
    texts = ["the good film so", "the the bad book", "?"]
    with torch.inference_mode():
        each = [made(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts]
        together = made(**tokenizer(texts, return_tensors="pt", padding=True)).logits
    assert torch.allclose(torch.stack(each), together, atol=1e-4)
    again = given(bench.output, "model", inspect(bench.output), "3")
    with pytest.raises(UnsupportedModelError, match="is not trained further"):
        run(tmp_path / "more", again, data)


@pytest.mark.parametrize("runs", [0, 2])
def test_the_figures_are_those_of_the_version_that_is_saved(tmp_path: Path, runs: int) -> None:
    """Head, bias, table and factors, as they are read again: on rows that were given to judge by."""
    rows = [{**row, "label": "positive" if i % 7 else row["label"]} for i, row in enumerate(sentences(240))]
    data, judged = tiny_data(tmp_path / "d", rows[:160]), tiny_data(tmp_path / "v", rows[160:])
    bench = Bench(tmp_path / "run", {"model": decoder(tmp_path / "m"), "data": data, "validation": judged})
    PROBE.run(bench.context, PROBE.Options(precision="fp32", ngrams=runs, prompt=" yes?"))
    (entry,) = bench.result["history"]
    model = load_classifier(bench.output)
    said = model.predict([row["text"] for row in rows[160:]])
    losses = [-np.log(one[model.labels.index(row["label"])]) for one, row in zip(said, rows[160:], strict=True)]
    assert np.mean(losses) == pytest.approx(entry["validation_loss"], abs=2e-3)
    assert right(bench.output, rows[160:]) == pytest.approx(entry["validation_accuracy"])


@pytest.mark.parametrize("labels", [["negative", "positive", "none"], []])
def test_ngrams_with_more_classes_and_with_numbers(tmp_path: Path, labels: list[str]) -> None:
    rows = pairs(240)
    if labels:
        rows = [{**row, "label": "none" if row["text"].startswith("is") else row["label"]} for row in rows]
    else:
        rows = [{**row, "label": 3.0 if row["label"] == "positive" else 1.0} for row in rows]
    bench = run(tmp_path / "run", words_decoder(tmp_path / "m"), tiny_data(tmp_path / "d", rows, labels), ngrams=2)
    if labels:
        assert right(bench.output, rows) > 0.95
    else:
        said = load_classifier(bench.output).predict([row["text"] for row in rows])
        assert np.mean([abs(one[0] - row["label"]) for one, row in zip(said, rows, strict=True)]) < 0.3


def test_a_prompt_is_not_doubled_and_not_changed(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    data = tiny_data(tmp_path / "d", sentences(60))
    bench = run(tmp_path / "run", decoder(tmp_path / "m"), data, prompt=" yes?")
    tokenizer = AutoTokenizer.from_pretrained(bench.output)
    again = given(bench.output, "model", inspect(bench.output), "3")
    for options in ({"prompt": " yes?"}, {}):
        more = run(tmp_path / f"more-{len(options)}", again, data, **options)
        ids = AutoTokenizer.from_pretrained(more.output)("the film")["input_ids"]
        assert ids == tokenizer("the film")["input_ids"]
        assert tokenizer.decode(ids) == "the film yes?"
    with pytest.raises(InvalidOptionError, match="puts ' yes\\?' behind every text already"):
        run(tmp_path / "other", again, data, prompt=" no?")


def test_a_tokenizer_whose_file_loses_a_prompt_is_refused(tmp_path: Path) -> None:
    """Some classes of transformers, BERT's among them, build their post-processor anew whenever they are read."""
    with pytest.raises(UnsupportedModelError, match="its file does not keep"):
        run(tmp_path / "run", tiny_model(tmp_path / "m"), tiny_data(tmp_path / "d", sentences(60)), prompt="so")


def test_ngrams_are_what_scikit_learn_calls_tfidf() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    draw = np.random.default_rng(5)
    texts = [[int(i) for i in draw.integers(0, 12, size=draw.integers(1, 9))] for _ in range(60)]
    asked = [[*text, 3, 5] for text in texts]  # a prompt of two tokens
    keys, idf = ngrams._entries(asked, 3, 2)
    matrix = ngrams._matrix(asked, torch_of(keys), torch_of(idf), 3, 2).toarray()
    peer = TfidfVectorizer(min_df=2, sublinear_tf=True, ngram_range=(1, 3), analyzer="word", token_pattern=r"\d+")
    wanted = peer.fit_transform([" ".join(map(str, text)) for text in texts]).toarray()
    assert matrix.shape == wanted.shape
    assert np.allclose(np.sort(matrix.sum(0)), np.sort(wanted.sum(0)), atol=1e-5)
    assert np.allclose(matrix @ matrix.T, wanted @ wanted.T, atol=1e-5)


def torch_of(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def test_the_body_stays_as_it_is(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = tiny_model(tmp_path / "m")
    bench = run(tmp_path / "run", model, tiny_data(tmp_path / "d", sentences(60)))
    before, after = load_file(model.path / "model.safetensors"), load_file(bench.output / "model.safetensors")
    assert all(after[f"bert.{name}"].equal(value) for name, value in before.items())
    assert float(after["classifier.bias"].abs().max()) > 0


def test_numbers_are_learnt_as_numbers(tmp_path: Path) -> None:
    rows = [{**row, "label": 2.0 if row["label"] == "positive" else -1.0} for row in sentences(120)]
    bench = run(tmp_path / "run", decoder(tmp_path / "m"), tiny_data(tmp_path / "d", rows, []))
    said = load_classifier(bench.output).predict([row["text"] for row in rows])
    assert np.mean([abs(one[0] - row["label"]) for one, row in zip(said, rows, strict=True)]) < 0.2


class KilledError(Exception):
    """Stands for kill -9."""


def test_a_run_killed_computes_only_what_is_left_and_ends_alike(tmp_path: Path) -> None:
    model, data = decoder(tmp_path / "m"), tiny_data(tmp_path / "d", sentences(120))
    options = {"batch_size": 8, "checkpoint_every": 0}
    whole = run(tmp_path / "whole", model, data, **options)
    killed = Bench(tmp_path / "killed", {"model": model, "data": data})
    keep = killed.context.checkpoint

    def checkpoint(at: int, folder: Path) -> None:
        keep(at, folder)
        if at == 5:
            raise KilledError

    killed.context.checkpoint = checkpoint  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        PROBE.run(killed.context, PROBE.Options.model_validate({"precision": "fp32", **options}))
    again = run(tmp_path / "killed", model, data, **options)
    steps = [r.values["step"] for r in again.reports if r.values.get("stage") == "computing features"]
    assert "Goes on after 5 batches." in again.messages
    assert steps[0] == 6
    weights = [(one.output / "model.safetensors").read_bytes() for one in (whole, again)]
    assert weights[0] == weights[1]
    other = Bench(tmp_path / "killed", {"model": model, "data": data})
    with pytest.raises(IntegrityError, match="was made for another options"):
        PROBE.run(other.context, PROBE.Options.model_validate({"precision": "fp32", "seed": 7, **options}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ema": 0.9}, "'ema' means nothing for method='probe'"),
        ({"learning_rate": 1e-4}, "'learning_rate' means nothing"),
        ({"ngrams": 2, "early_stopping": False}, "`ngrams` needs held-out rows"),
        ({"layers": 9}, "layers=9 is more than the model has: 2"),
        ({"prompt": "the film was very bad " * 5}, "The prompt has 25 tokens"),
    ],
)
def test_what_means_nothing_is_refused_by_name(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOptionError, match=said):
        run(tmp_path / "run", tiny_model(tmp_path / "m"), tiny_data(tmp_path / "d", sentences(60)), **options)


def test_texts_without_labels_are_refused_before_anything_runs(tmp_path: Path) -> None:
    inputs = {"model": decoder(tmp_path / "m").facts, "data": data_of(tmp_path, "chat", chat_rows()).facts}
    with pytest.raises(LLMOSError) as caught:
        PROBE.resources(PROBE.Options(), inputs, Capacity(cpus=2, memory=2**34))
    assert isinstance(caught.value, UnsupportedModelError)
    assert "classes or a score, not chat data" in caught.value.message


def test_a_probe_needs_the_weights_and_the_features_and_no_gradients(tmp_path: Path) -> None:
    model = decoder(tmp_path / "m").facts
    large = {**model.meta, "parameters": 10**9, "hidden_size": 1000, "layers": 24}
    meta = {"labels": ["a", "b"], "kind": "classification", "splits": {"train": {"rows": 10**5}}}
    inputs = {"model": model.model_copy(update={"meta": large}), "data": given(tmp_path, "dataset", meta, "2").facts}
    whole, room = PROBE.Options(), Capacity(cpus=2, memory=2**36)
    need = PROBE.resources(whole, inputs, room).memory
    full = plugins.load("task", "training/full")
    assert 8 * 10**9 < need < full.resources(full.Options(), inputs, room).memory / 2
    part = PROBE.resources(PROBE.Options(start=0, stop=1000), inputs, room).memory
    assert need - part == 5 * 8 * 1000 * (10**5 - 1000)


def clouds(classes: int) -> tuple[Any, list[float]]:
    """Points around a center for each class, far from zero, of very different widths, and one constant number."""
    draw = np.random.default_rng(3)
    ids = [float(i % classes) for i in range(300)]
    points = draw.normal(size=(300, 6)) + 3 * np.eye(6)[[int(i) for i in ids]]
    points = points * [1e-3, 1, 100, 1, 1, 1] + [5, -3, 1000, 0, 0, 0]
    return np.hstack([points, np.full((300, 1), 40.0)]), ids


@pytest.mark.parametrize("classes", [2, 4])
def test_the_head_is_for_features_as_they_are(classes: int) -> None:
    points, ids = clouds(classes)
    head = linear.fit(points[:200], linear.Targets(ids[:200], classes), 1.0)
    figures = linear.judge(linear.outputs(head, points[200:]), linear.Targets(ids[200:], classes))
    assert figures["accuracy"] > 0.9
    alone = linear.without_bias(head, points[:200])
    assert not alone.bias.any()
    wanted = linear.outputs(head, points[200:])
    off = linear.outputs(alone, points[200:]) - wanted
    assert np.abs(off - off.mean(1, keepdims=True)).max() < 0.2  # biases are in the thousands


def test_a_head_without_a_bias_is_judged_as_what_it_is() -> None:
    """Few rows of many features, none of them constant: what stands for the bias is rough, and the figures say so."""
    draw = np.random.default_rng(1)
    points = draw.normal(size=(300, 150))
    ids = [float(x > 1) for x in points[:, 0]]  # one in six: the bias matters
    train, held = (points[:150], linear.Targets(ids[:150], 2)), (points[150:], linear.Targets(ids[150:], 2))
    with_bias, without = (linear.solve(*train, held, None, learn_held=False, seed=0, biased=b) for b in (True, False))
    assert not without.head.bias.any()
    assert without.figures["validation_loss"] > with_bias.figures["validation_loss"] + 0.01
    assert np.allclose(without.said, linear.outputs(without.head, points[150:]))


def test_unsure_labels_and_weights_of_classes_count() -> None:
    points, ids = clouds(2)
    unsure = linear.fit(points, linear.Targets(ids, 2, soft=[[0.5, 0.5]] * 300), 1.0)
    assert np.abs(points @ unsure.weight.T + unsure.bias).max() < 1e-3
    plain = linear.fit(points, linear.Targets(ids, 2), 1e-3)
    weighed = linear.fit(points, linear.Targets(ids, 2, weights=[1.0, 20.0]), 1e-3)
    ones = [np.mean((points @ head.weight.T + head.bias).argmax(1)) for head in (plain, weighed)]
    assert ones[1] > ones[0]


def test_a_class_without_rows_is_never_said() -> None:
    points, ids = clouds(2)
    head = linear.fit(points, linear.Targets(ids, 3), 1.0)
    assert (points @ head.weight.T + head.bias).argmax(1).max() == 1


def test_the_strength_is_the_best_on_held_out_rows() -> None:
    draw = np.random.default_rng(0)
    points = draw.normal(size=(400, 60))
    ids = [float(x > 0) for x in points[:, 0] + 2 * draw.normal(size=400)]
    train, held = (points[:200], linear.Targets(ids[:200], 2)), (points[200:], linear.Targets(ids[200:], 2))
    solved = linear.solve(*train, held, None, learn_held=False, seed=0)
    losses = {
        s: linear.judge(linear.outputs(linear.fit(*train, s), held[0]), held[1])["loss"] for s in linear.STRENGTHS
    }
    assert solved.strength == min(losses, key=lambda s: losses[s]) < 0.1
    assert solved.figures["validation_loss"] == pytest.approx(losses[solved.strength])
    more = linear.solve(*train, held, None, learn_held=True, seed=0)
    assert not np.allclose(more.head.weight, solved.head.weight)
