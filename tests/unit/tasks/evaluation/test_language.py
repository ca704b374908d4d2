"""Language models: every token is scored once and as transformers scores it; whole tasks with a tiny model."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
from reports import Bench, given
from tiny_chat import tiny_chat

from llm_os.errors import DataError, InvalidOptionError, UnsupportedModelError
from llm_os.spec.resources import Capacity
from llm_os.tasks.context import InputFolder
from llm_os.tasks.evaluation import language
from llm_os.tasks.evaluation.choices import PLUGIN as CHOICES
from llm_os.tasks.evaluation.choices import ChoicesOptions
from llm_os.tasks.evaluation.generation import PLUGIN as GENERATION
from llm_os.tasks.evaluation.generation import GenerationOptions
from llm_os.tasks.evaluation.perplexity import PLUGIN as PERPLEXITY
from llm_os.tasks.evaluation.perplexity import PerplexityOptions, measured

TEXTS = ["what is the colour of the sky", "the sky is blue and the sea is blue too", "hello"]
GRANTED = Capacity(cpus=2, memory=2**34)


@for_all(st.integers(2, 200), st.integers(2, 40), st.data())
def test_windows_score_each_token_but_the_first_once_and_in_order(
    length: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window - 1))
    ids = list(range(length))
    pieces = language.windows(ids, window, stride)
    assert [token for piece in pieces for token in piece.ids[piece.first :]] == ids[1:]
    assert all(len(piece.ids) <= window for piece in pieces)
    assert all(piece.first == window - stride for piece in pieces[1:])


def test_a_stride_beyond_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        language.windows([1, 2, 3], 4, 4)
    data = given(Path(), "dataset", {"kind": "text"}, "2")
    model = given(Path(), "model", {"task": "text-generation"}, "1")
    with pytest.raises(InvalidOptionError, match="stride of 16"):
        PERPLEXITY.resources(
            PerplexityOptions(window=16, stride=16), {"model": model.facts, "data": data.facts}, GRANTED
        )


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat(tmp_path_factory.mktemp("chat") / "model")


@pytest.fixture(scope="module")
def loaded(chat: Path) -> tuple[Any, Any]:
    from llm_os.models.load import load_language_model

    model, tokenizer = load_language_model(chat)
    return model.eval(), tokenizer


def test_losses_are_those_of_transformers_whatever_the_batch(loaded: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = loaded
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    found = language.losses(model, [language.Piece(one, 1) for one in ids if len(one) > 1])
    for one, mine in zip([one for one in ids if len(one) > 1], found, strict=True):
        whole = torch.tensor([one])
        with torch.inference_mode():
            theirs = float(model(input_ids=whole, labels=whole).loss)
        assert mine.mean() == pytest.approx(theirs, abs=1e-4)


def test_batches_stay_small_and_hold_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "LOGITS", 1000)
    pieces = [language.Piece(list(range(size)), 1) for size in (3, 9, 4, 9, 2, 30)]
    found = language.batches(pieces, 50)
    assert sorted(index for batch in found for index in batch) == list(range(6))
    assert all(len(batch) == 1 or max(len(pieces[i].ids) for i in batch) * len(batch) * 50 <= 1000 for batch in found)


def test_the_end_of_a_prompt_is_scored_with_what_follows(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    piece = language.continuation(tokenizer, "the sky is ", "blue", 100)
    tokens = tokenizer("the sky is blue", add_special_tokens=False)["input_ids"]
    assert list(piece.ids)[-len(tokens) :] == tokens
    scored = tokenizer.decode(list(piece.ids)[piece.first :])
    assert scored.strip() == "blue"
    cut = language.continuation(tokenizer, "the sky is " * 30, "blue", 8)
    assert len(cut.ids) <= 8
    assert tokenizer.decode(list(cut.ids)[cut.first :]).strip() == "blue"


def test_perplexity_by_hand() -> None:
    rows = [{"text": "ab"}, {"text": "好"}]
    found = {m.name: m.value() for m in measured(rows, ["ab", "好"], [4.0, 6.0], [2, 2]).metrics}
    assert found["loss"] == 10 / 4
    assert found["perplexity"] == pytest.approx(math.exp(10 / 4))
    assert found["byte_perplexity"] == pytest.approx(math.exp(10 / 5))  # two bytes and three
    assert found["bits_per_byte"] == pytest.approx(10 / 5 / math.log(2))


def data_of(root: Path, rows: list[dict[str, Any]], kind: str) -> InputFolder:
    (root / "test").mkdir(parents=True)
    (root / "test" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return given(root, "dataset", {"kind": kind, "name": "made", "language": "en"}, "2")


def judged(root: Path, chat: Path, task: Any, options: Any, rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    from llm_os.models.formats import inspect

    facts: Mapping[str, Any] = inspect(chat)
    inputs = {"model": given(chat, "model", facts, "1"), "data": data_of(root / "data", rows, kind)}
    task.resources(options, {role: folder.facts for role, folder in inputs.items()}, GRANTED)
    bench = Bench(root / "run", inputs)
    task.run(bench.context, options)
    return bench.result


def test_perplexity_of_a_model_on_texts(tmp_path: Path, chat: Path, loaded: tuple[Any, Any]) -> None:
    import torch

    rows = [{"text": text} for text in TEXTS * 4]
    found = judged(tmp_path, chat, PERPLEXITY, PerplexityOptions(window=64), rows, "text")
    model, tokenizer = loaded
    begin = language.start_token(tokenizer)
    total, count = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([[begin, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        with torch.inference_mode():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert found["metrics"]["loss"]["value"] == pytest.approx(total / count, abs=1e-4)
    assert found["shown"] == ["perplexity", "bits_per_byte"]
    assert found["tokens"] == 4 * count


def test_smaller_windows_never_see_more_and_score_as_much(tmp_path: Path, chat: Path) -> None:
    rows = [{"text": " ".join(TEXTS * 5)}]
    wide = judged(tmp_path / "a", chat, PERPLEXITY, PerplexityOptions(window=48, stride=8), rows, "text")
    narrow = judged(tmp_path / "b", chat, PERPLEXITY, PerplexityOptions(window=8, stride=4), rows, "text")
    assert wide["tokens"] == narrow["tokens"]
    assert wide["metrics"]["loss"]["value"] != narrow["metrics"]["loss"]["value"]


def test_choices_are_scored_one_by_one(tmp_path: Path, chat: Path, loaded: tuple[Any, Any]) -> None:
    rows = [{"question": "what is the sky", "choices": ["blue", "hello", "the sea is blue"], "answer": 0}] * 3
    found = judged(tmp_path, chat, CHOICES, ChoicesOptions(prompt="{question}"), rows, "choices")
    model, tokenizer = loaded
    by_hand = []
    for choice in rows[0]["choices"]:
        piece = language.continuation(tokenizer, "what is the sky", " " + choice, 64)
        by_hand.append(-float(language.losses(model, [piece])[0].sum()))
    told = [json.loads(line) for line in (tmp_path / "run" / "output" / "rows.jsonl").read_text().splitlines()]
    assert told[0]["scores"] == pytest.approx(by_hand, abs=1e-3)
    assert found["metrics"]["accuracy"]["value"] == float(by_hand.index(max(by_hand)) == 0)
    assert found["chance"] == pytest.approx(1 / 3)


def test_answers_are_compared_with_the_last_turn(tmp_path: Path, chat: Path) -> None:
    from llm_os.models.generate import Sampling, generate, stops_of
    from llm_os.models.load import load_chat

    known = load_chat(chat)
    asked = [{"role": "user", "content": "what is the sky"}]
    ids = generate(known.model, [known.prompt(asked)], Sampling(6), ends=stops_of(known.model, known.tokenizer))[0]
    answer = known.text(ids).strip() or "nothing"
    rows = [
        {"messages": [*asked, {"role": "assistant", "content": answer}]},
        {"messages": [*asked, {"role": "assistant", "content": "quite another thing"}]},
    ]
    found = judged(tmp_path, chat, GENERATION, GenerationOptions(max_tokens=6), rows, "chat")
    told = [json.loads(line) for line in (tmp_path / "run" / "output" / "rows.jsonl").read_text().splitlines()]
    assert told[0]["said"] == told[1]["said"] == known.text(ids).strip()
    assert [line["exact"] for line in told] == [told[0]["said"] == answer, False]
    assert found["shown"] == ["exact_match", "rouge_l", "chrf"]
    assert found["language"] == "en"
    assert "greedy" in found["notes"]["sampling"]


def test_model_and_data_must_fit(chat: Path) -> None:
    encoder = given(chat, "model", {"task": "feature-extraction"}, "1").facts
    text = given(chat, "dataset", {"kind": "text"}, "2").facts
    with pytest.raises(UnsupportedModelError, match="feature-extraction model cannot be judged by perplexity"):
        PERPLEXITY.resources(PerplexityOptions(), {"model": encoder, "data": text}, GRANTED)
    writer = given(chat, "model", {"task": "text-generation"}, "1").facts
    with pytest.raises(DataError, match="kind 'text' cannot be judged by choices"):
        CHOICES.resources(ChoicesOptions(), {"model": writer, "data": text}, GRANTED)
