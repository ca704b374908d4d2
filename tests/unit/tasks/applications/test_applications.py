"""Each application learns a rule that can be learnt, and what it saves knows it: real loop, tiny models, no kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
from families import family
from tiny import Bench, given, sentences, tiny_data, tiny_model

from llm_os import plugins
from llm_os.errors import DataError, InvalidOptionError, UnsupportedModelError
from llm_os.models.embedding import load_encoder, read_layout
from llm_os.models.formats import inspect
from llm_os.models.load import load_classifier, load_transformer
from llm_os.models.tagging import load_tagger, pieces
from llm_os.models.translation import load_translator
from llm_os.tasks.applications import application
from llm_os.tasks.training.options import TrainingOptions

GOOD, BAD = ("good", "fine", "great"), ("bad", "poor", "awful")
QUICK: dict[str, Any] = {"batch_size": 16, "precision": "fp32", "warmup": 0.0, "early_stopping": False}


def data_of(folder: Path, kind: str, rows: list[dict[str, Any]], labels: list[str] | None = None) -> Any:
    made = tiny_data(folder, rows)
    meta = {"kind": kind, "name": "tiny", "labels": labels, "columns": sorted(rows[0])}
    return given(folder, "dataset", meta, "2") if made else None


def train(root: Path, model: Any, data: Any, method: str = "full", **options: Any) -> Bench:
    task = plugins.load("task", f"training/{method}")
    bench = Bench(root, {"model": model, "data": data})
    task.run(bench.context, task.Options.model_validate({**QUICK, **options}))
    return bench


def meta_of(bench: Bench) -> dict[str, Any]:
    return dict(json.loads((bench.output / "artifact.json").read_text())["meta"])


def labelled(count: int) -> list[dict[str, Any]]:
    """What a text is about and how it is meant; some are neither."""
    rows = []
    for row in sentences(count):
        words = row["text"].split()
        about = [word for word in ("film", "book") if word in words]
        rows.append({"text": row["text"], "labels": sorted(about + (["good"] if words[-1] in GOOD else []))})
    return [*rows, *[{"text": " ".join(words), "labels": []} for words in (("so", "very"), ("very", "so")) * 10]]


def test_several_labels_are_learnt_each_on_its_own(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", "multi-label", labelled(96), ["book", "film", "good"])
    options = {"epochs": 8, "learning_rate": 5e-3, "validation": 0.3}
    bench = train(tmp_path / "run", tiny_model(tmp_path / "model"), data, **options)
    facts = inspect(bench.output)
    assert facts["task"] == "multi-label-classification"
    assert facts["labels"] == ["book", "film", "good"]
    classifier = load_classifier(bench.output)
    sure = classifier.predict(["the film was great", "a book is awful", "so very"])
    assert [classifier.chosen(row) for row in sure] == [("film", "good"), ("book",), ()]
    assert sum(sure[0]) > 1.2
    assert len(classifier.thresholds) == 3
    assert all(0 < cut < 1 for cut in classifier.thresholds)


@pytest.mark.parametrize("kind", ["multi-label", "tokens", "pairs"])
def test_an_adapter_is_trained_for_each_kind_and_merged(tmp_path: Path, kind: str) -> None:
    rows, labels = {
        "multi-label": (labelled(96), ["book", "film", "good"]),
        "tokens": (tagged(96), TAGS),
        "pairs": ([{"text": f"film {w}", "other": f"book {PARTNER[w]}"} for w in (GOOD + BAD) * 16], None),
    }[kind]
    data = data_of(tmp_path / "data", kind, rows, labels)
    bench = train(tmp_path / "run", tiny_model(tmp_path / "model"), data, "lora", epochs=2, learning_rate=5e-3)
    assert (bench.output / "adapter" / "adapter_model.safetensors").exists()
    losses = bench.losses
    assert sum(losses[-3:]) < sum(losses[:3])
    loaders = {"multi-label": load_classifier, "tokens": load_tagger, "pairs": load_encoder}
    assert loaders[kind](bench.output)  # complete: no head is missing
    again = train(tmp_path / "again", given(bench.output, "model", meta_of(bench), "3"), data, "lora", epochs=1)
    assert inspect(again.output)["labels"] == labels


def test_a_fresh_head_of_several_layers_is_trained_whole_beside_an_adapter(tmp_path: Path) -> None:
    folder = family(tmp_path / "model", "distilbert")
    model = given(folder, "model", dict(inspect(folder)), "1")
    data = data_of(tmp_path / "data", "classification", sentences(96), ["negative", "positive"])
    bench = train(tmp_path / "run", model, data, "lora", epochs=1, learning_rate=5e-3)
    from safetensors.torch import load_file

    kept = load_file(bench.output / "adapter" / "adapter_model.safetensors")
    assert {name for name in kept if "classifier" in name and "lora" not in name} >= {
        f"base_model.model.{head}.{part}" for head in ("pre_classifier", "classifier") for part in ("weight", "bias")
    }
    assert not [name for name in kept if "classifier" in name and "lora" in name]
    assert [name for name in kept if "lora" in name]


def test_thresholds_are_chosen_by_held_out_rows_where_there_are_enough() -> None:
    from llm_os.tasks.applications.multi_label_classification import THRESHOLD, thresholds

    sure = [[0.1 + 0.2 * (i % 2), 0.5] for i in range(40)]
    found = thresholds(sure, [[0] if i % 2 else [] for i in range(40)])
    assert found[0] == pytest.approx(0.2)
    assert found[1] == THRESHOLD


def tagged(count: int) -> list[dict[str, Any]]:
    """Two words beside each other are one span; a word of judgement is another."""
    rows = []
    for row in sentences(count):
        words = [*row["text"].split(), "very", "so"]
        tags = ["O", "B-THING", "I-THING", "B-GOOD" if words[3] in GOOD else "B-BAD", "O", "O"]
        rows.append({"tokens": words, "tags": tags})
    return rows


TAGS = ["B-BAD", "B-GOOD", "B-THING", "I-THING", "O"]


def test_words_get_their_tags_and_spans_are_pieces_of_the_text(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", "tokens", tagged(96), TAGS)
    bench = train(tmp_path / "run", tiny_model(tmp_path / "model"), data, epochs=6, learning_rate=5e-3)
    tagger = load_tagger(bench.output)
    said = tagger.predict([["the", "film", "was", "great", "very", "so"], ["a", "book", "is", "awful", "very", "so"]])
    assert [tag for tag, _ in said[0]] == ["O", "B-THING", "I-THING", "B-GOOD", "O", "O"]
    assert said[1][3][0] == "B-BAD"
    text = "the  film was great very so"
    spans = tagger.spans([text])[0]
    assert [(span.text, span.label) for span in spans] == [("film was", "THING"), ("great", "GOOD")]
    assert all(text[span.start : span.end] == span.text and 0.5 < span.score <= 1 for span in spans)


def test_a_tag_stands_at_the_first_piece_of_its_word_and_nowhere_else(sample_model: Any) -> None:
    from llm_os.tasks.applications.token_classification import UNUSED, encode

    loaded = load_transformer(sample_model("transformer"), "token-classification", fresh=True, num_labels=2)
    row = {"tokens": ["Unbelievably", "迈向", "x"], "tags": ["a", "b", "a"]}
    examples = encode([row], loaded.tokenizer, ["a", "b"], 64)
    words = loaded.tokenizer.convert_ids_to_tokens(examples.tokens[0])
    kept = [(word, target) for word, target in zip(words, examples.targets[0], strict=True) if target != UNUSED]
    assert kept == [("un", 0), ("迈" if "迈" in words else "[UNK]", 1), ("x", 0)]
    assert len(words) > 5
    with pytest.raises(DataError, match="Row 0 has the tag 'c'"):
        encode([{"tokens": ["x"], "tags": ["c"]}], loaded.tokenizer, ["a", "b"], 64)


def test_words_beyond_the_longest_text_are_not_tagged_but_answered(tmp_path: Path) -> None:
    folder = family(tmp_path / "model", "bert", "AutoModelForTokenClassification")
    tagger = load_tagger(folder)
    said = tagger.predict([["film"] * 100, []])
    assert len(said[0]) == 100
    assert said[0][0][1] > 0
    assert said[0][-1][1] == 0
    assert said[1] == []


def test_a_byte_level_tokenizer_reads_words_too(tmp_path: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2ForTokenClassification, GPT2TokenizerFast

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(["the film was good"] * 9, vocab_size=300, special_tokens=["<|endoftext|>"])
    GPT2TokenizerFast(tokenizer_object=made._tokenizer).save_pretrained(tmp_path)
    config = GPT2Config(vocab_size=320, n_embd=16, n_layer=1, n_head=1, n_positions=64)
    GPT2ForTokenClassification(config).save_pretrained(tmp_path)
    loaded = load_transformer(tmp_path, "token-classification")
    ids, firsts = pieces(loaded.tokenizer, [["the", "film"]], 64)[0]
    assert sorted(firsts) == [0, 1]
    assert loaded.tokenizer.decode(ids).strip() == "the film"


PARTNER = dict(zip(GOOD + BAD, ("so", "very", "was", "is", "a", "the"), strict=True))


def test_texts_that_mean_the_same_find_each_other(tmp_path: Path) -> None:
    rows = [{"text": f"film {word} film", "other": f"book {PARTNER[word]}"} for word in (GOOD + BAD) * 20]
    data = data_of(tmp_path / "data", "pairs", rows)
    bench = train(tmp_path / "run", tiny_model(tmp_path / "model"), data, epochs=3, learning_rate=5e-3)
    assert inspect(bench.output)["task"] == "sentence-similarity"
    assert meta_of(bench)["dimensions"] == 32
    assert read_layout(bench.output) == ("mean", True, 32)
    encoder = load_encoder(bench.output)
    left = encoder.predict([row["text"] for row in rows[:6]])
    right = encoder.predict([row["other"] for row in rows[:6]])
    cosines = [[sum(a * b for a, b in zip(one, two, strict=True)) for two in right] for one in left]
    assert [max(range(6), key=row.__getitem__) for row in cosines] == list(range(6))
    assert all(sum(x * x for x in vector) == pytest.approx(1, abs=1e-4) for vector in left)


def test_equal_texts_are_no_negatives_of_each_other() -> None:
    import torch

    from llm_os.tasks.applications.sentence_embeddings import Paired

    pairs = Paired([[1], [2], [1]], [[3], [4], [5]], None, 0)
    vectors = torch.nn.functional.normalize(torch.eye(6), dim=-1)
    similar = pairs._similar(vectors[:3], vectors[3:], pairs.collate([0, 1, 2]))
    assert torch.isinf(similar).tolist() == [[False, False, True], [False, False, False], [True, False, False]]


def test_a_score_becomes_the_cosine(tmp_path: Path) -> None:
    rows = []
    for i in range(96):
        one, two = (GOOD + BAD)[i % 6], (GOOD + BAD)[i // 6 % 6]
        rows.append({"text": f"film {one}", "other": f"film {two}", "score": float((one in GOOD) == (two in GOOD))})
    data = data_of(tmp_path / "data", "pairs", rows)
    bench = train(tmp_path / "run", tiny_model(tmp_path / "model"), data, epochs=8, learning_rate=5e-3)
    a, b, c = load_encoder(bench.output).predict(["film good", "film great", "film bad"])
    assert sum(x * y for x, y in zip(a, b, strict=True)) > 0.8
    assert sum(x * y for x, y in zip(a, c, strict=True)) < 0.3


def test_vectors_made_in_an_unknown_way_are_refused(tmp_path: Path) -> None:
    folder = family(tmp_path / "model", "bert")
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense", "path": "1"}]))
    with pytest.raises(UnsupportedModelError, match="Dense"):
        load_encoder(folder)


def paired(folder: Path, name: str) -> Any:
    family(folder, name, "AutoModelForSeq2SeqLM")
    return given(folder, "model", dict(inspect(folder)), "1")


def test_an_encoder_decoder_learns_to_write(tmp_path: Path) -> None:
    rows = [{"text": f"film was {word}", "other": f"book is {PARTNER[word]}"} for word in (GOOD + BAD) * 20]
    data = data_of(tmp_path / "data", "pairs", rows)
    bench = train(tmp_path / "run", paired(tmp_path / "model", "t5"), data, epochs=16, learning_rate=5e-3)
    assert inspect(bench.output)["task"] == "text2text-generation"
    translator = load_translator(bench.output)
    said = translator.predict([row["text"] for row in rows[:6]], max_tokens=8)
    assert said == [row["other"] for row in rows[:6]]


def test_every_target_ends_and_padding_is_no_target(tmp_path: Path) -> None:
    from llm_os.tasks.applications.sequence_to_sequence import UNUSED, encode

    loaded = load_transformer(family(tmp_path, "bart", "AutoModelForSeq2SeqLM"), "text2text-generation")
    rows = [{"text": "a film", "other": "a very very good film"}, {"text": "the book", "other": "so"}]
    examples = encode(rows, loaded.tokenizer, 5)
    assert [target[-1] for target in examples.targets] == [loaded.tokenizer.eos_token_id] * 2
    assert [len(target) for target in examples.targets] == [5, 3]
    batch = examples.collate([0, 1])
    assert batch["targets"][1].tolist()[3:] == [UNUSED] * 2
    assert examples.weight([0, 1]) == 8


def test_the_model_decides_what_pairs_mean(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", "pairs", [{"text": "a", "other": "b"}]).facts
    encoder = tiny_model(tmp_path / "model").facts
    writer = encoder.model_copy(update={"meta": {**encoder.meta, "task": "text2text-generation"}})
    assert type(application.application_of(encoder, data)).__name__ == "SentenceEmbeddings"
    assert type(application.application_of(writer, data)).__name__ == "SequenceToSequence"
    judged = data.model_copy(update={"meta": {**data.meta, "columns": ["other", "score", "text"]}})
    with pytest.raises(DataError, match="have scores"):
        application.check({"model": writer, "data": judged})


def test_options_that_mean_nothing_for_the_data_are_refused(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", "tokens", tagged(6), TAGS).facts
    with pytest.raises(InvalidOptionError, match="mixup"):
        application.check({"model": tiny_model(tmp_path / "model").facts, "data": data}, TrainingOptions(mixup=0.2))
