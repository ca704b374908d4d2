"""Backends that answer whole texts: the same answers as the models give alone, in the order of the texts."""

from __future__ import annotations

import base64
import json
import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from families import family

from llm_os.errors import InvalidOptionError
from llm_os.models.embedding import load_encoder
from llm_os.models.tagging import load_tagger
from llm_os.models.translation import load_translator
from llm_os.workers import reading
from llm_os.workers.requests import ChatRequest, embeddings_request

TEXTS = ["good film", "a very very poor book", "so"]


def asking(*texts: str, role: str = "user", most: int | None = None) -> ChatRequest:
    return ChatRequest(messages=tuple({"role": role, "content": text} for text in texts), max_tokens=most)


async def test_vectors_are_those_of_the_model(tmp_path: Path) -> None:
    folder = family(tmp_path / "model", "bert")
    backend = reading.load("feature-extraction", folder, "fp32", 2, lambda longest: 2)
    await backend.begin()
    found = await backend.embed(TEXTS)
    alone = load_encoder(folder).predict(TEXTS)
    assert all(x == pytest.approx(y, abs=1e-5) for x, y in zip(found.vectors, alone, strict=True))
    assert found.prompt_tokens == 4 + 7 + 3
    with pytest.raises(InvalidOptionError, match="tags no words"):
        await backend.tag(TEXTS)
    await backend.end()


async def test_spans_are_those_of_the_model(tmp_path: Path) -> None:
    folder = family(tmp_path / "model", "distilbert", "AutoModelForTokenClassification")
    backend = reading.load("token-classification", folder, "auto", 8, lambda longest: 1)
    await backend.begin()
    found = await backend.tag(TEXTS)
    alone = load_tagger(folder).spans(TEXTS)
    assert [[(s.text, s.label) for s in one] for one in found.spans] == [[(s.text, s.label) for s in o] for o in alone]
    with pytest.raises(InvalidOptionError, match="no embeddings"):
        await backend.embed(TEXTS)
    await backend.end()


async def test_the_last_message_is_what_an_encoder_decoder_reads(tmp_path: Path) -> None:
    folder = family(tmp_path / "model", "t5", "AutoModelForSeq2SeqLM")
    backend = reading.load("text2text-generation", folder, "fp32", 8, lambda longest: 1)
    await backend.begin()
    whole = [piece async for piece in backend.chat(asking("so", "good film"))][-1]
    translator = load_translator(folder)
    assert whole.text == translator.predict(["good film"])[0]
    assert whole.completion_tokens == len(translator.generate(["good film"])[0])
    cut = [piece async for piece in backend.chat(asking("good film", most=1))][-1]
    assert cut.completion_tokens <= 1
    with pytest.raises(InvalidOptionError, match="not the user's"):
        [piece async for piece in backend.chat(asking("x", role="assistant"))]
    await backend.end()


def test_vectors_are_written_as_numbers_or_packed() -> None:
    texts, plain = embeddings_request(b'{"input": "a", "model": "m"}', "toy")
    assert texts == ["a"]
    assert plain([0.5, -1.0]) == [0.5, -1.0]
    _, packed = embeddings_request(b'{"input": ["a"], "encoding_format": "base64"}', "toy")
    assert struct.unpack("<2f", base64.b64decode(packed([0.5, -1.0]))) == (0.5, -1.0)
    for wrong in ({"input": "a", "encoding_format": "hex"}, {"input": [3]}, {"input": "a", "top_k": 1}):
        with pytest.raises(InvalidOptionError):
            embeddings_request(json.dumps(wrong).encode(), "toy")
