"""How like an answer is to the one that was wanted: exact match, F1 of words, BLEU, chrF, ROUGE; Chinese too.

Words are those between spaces; runs of Chinese signs are cut into words by jieba (rjieba), for `rouge_score` would drop
them and splitting at spaces would take a sentence for one word. BLEU takes sacrebleu's `zh` tokens for Chinese.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_os.spec.base import Json

if TYPE_CHECKING:
    from llm_os.tasks.evaluation.metrics import Metric

HAN = re.compile(r"[\u3400-\u9fff]+")
WORD = re.compile(r"[\u3400-\u9fff]+|[^\W_]+", re.UNICODE)
ARTICLES = frozenset({"a", "an", "the"})
NORMAL = "NFKC, lower case, no punctuation, no articles (a, an, the), white space as one space (none beside Chinese)"


def normal(text: str) -> str:
    """The form in which answers are compared for exact match (see `NORMAL`; Rajpurkar et al. 2016 for English)."""
    folded = unicodedata.normalize("NFKC", text).lower()
    bare = "".join(" " if unicodedata.category(c)[0] in "PSC" else c for c in folded)
    joined = " ".join(word for word in bare.split() if word not in ARTICLES)
    return re.sub(r"(?<=[\u3400-\u9fff]) | (?=[\u3400-\u9fff])", "", joined)


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation; Chinese by jieba."""
    import rjieba

    found: list[str] = []
    for match in WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        found += rjieba.cut(match) if HAN.fullmatch(match) else [match]
    return found


class Words:
    """`words`, as rouge_score wants its tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def word_f1(said: str, wanted: str) -> float:
    """F1 of the words of the normal forms (Rajpurkar et al. 2016); 1 for two empty answers."""
    a, b = words(normal(said)), words(normal(wanted))
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def extracted(text: str, pattern: str | None) -> str:
    """The last match of the pattern (its first group, if it has one); the whole text where there is none."""
    if pattern is None:
        return text
    found = [match.group(1) if match.re.groups else match.group() for match in re.finditer(pattern, text)]
    return found[-1] if found else text


def judged(
    said: Sequence[str], wanted: Sequence[str], *, language: str, pattern: str | None = None
) -> tuple[list[Metric], dict[str, Json]]:
    """Metrics of answers against references, and notes on how they were made.

    Args:
        language: ISO 639-1; `zh` takes Chinese tokens for BLEU.
        pattern: regular expression that picks the answer for exact match out of both texts.
    """
    import numpy as np
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, CHRF

    from llm_os.tasks.evaluation.metrics import Metric, mean

    exact = [
        float(normal(extracted(a, pattern)) == normal(extracted(b, pattern))) for a, b in zip(said, wanted, strict=True)
    ]
    bleu, chrf = BLEU(tokenize="zh" if language == "zh" else "13a"), CHRF()
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Words())
    rouge = [scorer.score(b, a) for a, b in zip(said, wanted, strict=True)]
    metrics = [
        mean("exact_match", exact),
        mean("word_f1", [word_f1(a, b) for a, b in zip(said, wanted, strict=True)]),
        Metric("bleu", "bleu", np.array(_statistics(bleu, said, wanted), dtype=np.float64)[:, [*range(2, 10), 0, 1]]),
        Metric("chrf", "chrf", np.array(_statistics(chrf, said, wanted), dtype=np.float64)),
        *(
            mean(name, [score[key].fmeasure for score in rouge])
            for name, key in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL"))
        ),
    ]
    bleu.corpus_score(list(said), [list(wanted)])  # a signature knows its number of references only then
    chrf.corpus_score(list(said), [list(wanted)])
    notes: dict[str, Json] = {
        "exact match": NORMAL + (f"; of what /{pattern}/ finds" if pattern else ""),
        "bleu": f"sacrebleu {bleu.get_signature()}",
        "chrf": f"sacrebleu {chrf.get_signature()}",
        "rouge": "rouge_score, F1, words in lower case, no stemming; Chinese by jieba",
    }
    return metrics, notes


def _statistics(metric: Any, said: Sequence[str], wanted: Sequence[str]) -> Any:
    """Counts of each answer, of which sacrebleu sums up a corpus."""
    return metric._extract_corpus_statistics(list(said), [list(wanted)])
