"""Answers against references: values worked out by hand, in English and Chinese, and those of the libraries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.tasks.evaluation.texts import extracted, judged, normal, word_f1, words


def values(said: list[str], wanted: list[str], language: str = "en") -> dict[str, float]:
    return {metric.name: metric.value() for metric in judged(said, wanted, language=language)[0]}


def test_rouge_by_hand() -> None:
    found = values(["the cat sat on the mat"], ["the cat is on the mat"])
    assert found["rouge_1"] == pytest.approx(5 / 6)  # the cat on the mat, of six each
    assert found["rouge_2"] == pytest.approx(3 / 5)  # the cat, on the, the mat, of five each
    assert found["rouge_l"] == pytest.approx(5 / 6)
    assert found["exact_match"] == 0


def test_rouge_on_chinese_by_hand() -> None:
    assert words("我喜欢看电影") == ["我", "喜欢", "看", "电影"]
    assert words("我喜欢看书") == ["我", "喜欢", "看书"]
    found = values(["我喜欢看电影。"], ["我喜欢看书。"], "zh")
    assert found["rouge_1"] == pytest.approx(2 * 2 / (4 + 3))  # two words in common, of four and three
    assert found["rouge_2"] == pytest.approx(2 * 1 / (3 + 2))
    assert found["rouge_l"] == pytest.approx(2 * 2 / (4 + 3))
    assert values(["今天天气很好"], ["今天天气很好"], "zh")["rouge_l"] == 1.0


def test_rouge_on_chinese_is_that_of_rouge_chinese() -> None:
    from rouge_chinese import Rouge

    said, wanted = "北京是中国的首都，人口很多", "中国的首都是北京，北京人口众多"
    other = Rouge().get_scores(" ".join(words(said)), " ".join(words(wanted)))[0]
    mine = values([said], [wanted], "zh")
    assert mine["rouge_2"] == pytest.approx(other["rouge-2"]["f"], abs=1e-6)
    assert mine["rouge_l"] == pytest.approx(other["rouge-l"]["f"], abs=1e-6)


@pytest.mark.parametrize(
    ("language", "said", "wanted"),
    [
        ("en", ["The cat sat on the mat.", "Hello there!"], ["The cat sat on a mat.", "Hello, there!"]),
        ("zh", ["今天天气很好，我们出去玩。"], ["今天的天气非常好，我们出去玩吧。"]),
    ],
)
def test_bleu_and_chrf_are_sacrebleus(language: str, said: list[str], wanted: list[str]) -> None:
    from sacrebleu import corpus_bleu, corpus_chrf

    found = values(said, wanted, language)
    tokens = "zh" if language == "zh" else "13a"
    assert found["bleu"] == pytest.approx(corpus_bleu(said, [wanted], tokenize=tokens).score, abs=1e-6)
    assert found["chrf"] == pytest.approx(corpus_chrf(said, [wanted]).score, abs=1e-6)


def test_notes_say_how_figures_were_made() -> None:
    notes = judged(["a"], ["b"], language="zh")[1]
    assert "tok:zh" in str(notes["bleu"])
    assert "nrefs:1" in str(notes["chrf"])


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("The Eiffel Tower.", "eiffel tower", True),
        ("Paris!", "in Paris", False),
        ("答案是：北京。", "答案是北京", True),
        ("北京 大学", "北京大学", True),
        ("new york", "newyork", False),
        ("４２", "42", True),
    ],
)
def test_exact_match_looks_past_form_only(a: str, b: str, same: bool) -> None:
    assert (normal(a) == normal(b)) is same


def test_an_answer_is_picked_out_by_a_pattern() -> None:
    assert extracted("so 3 and 4 make 7.", r"\d+") == "7"
    assert extracted("#### 42", r"#### (\d+)") == "42"
    assert extracted("none", r"\d+") == "none"
    found, notes = judged(["It is 7 apples: 7"], ["3 + 4 = 7"], language="en", pattern=r"\d+")
    assert found[0].value() == 1.0
    assert r"\d+" in str(notes["exact match"])


def test_f1_of_words_by_hand() -> None:
    assert word_f1("the quick brown fox", "a brown fox jumps") == pytest.approx(2 * 2 / (3 + 3))
    assert word_f1("", "") == 1.0
    assert word_f1("", "x") == 0.0


@given(st.text(max_size=40))
def test_every_text_matches_itself_and_normal_form_is_final(text: str) -> None:
    assert word_f1(text, text) == 1.0
    assert normal(normal(text)) == normal(text)
