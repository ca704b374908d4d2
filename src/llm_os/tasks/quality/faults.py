"""Faults of texts and of rows of a kind: HTML, broken encoding, nothing said, roles out of turn, tags out of order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from llm_os.spec.quality import Fault, RowRef
from llm_os.tasks.preparation.clean import MARKUP
from llm_os.tasks.preparation.texts import texts
from llm_os.tasks.quality.rows import Seen

ENTITY = re.compile(r"&(?:#\d{2,6}|#x[0-9a-fA-F]{2,6}|amp|lt|gt|quot|nbsp|apos);")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
MOJIBAKE = re.compile(r"\ufffd|â€[™œ\x9d“”˜¦]|Ã[\x80-\xbf©¨¤¶¼±¡³º­]|Â[\xa0-\xbf]|锟斤拷|烫烫烫|ï»¿")
CLEAN = 'steps=["clean"] takes them out.'
SHORT = 3


class Rule(NamedTuple):
    """`holds` says whether a row is one of them."""

    name: str
    holds: Callable[[Seen], bool]
    hint: str = ""


def _any(pattern: re.Pattern[str]) -> Callable[[Seen], bool]:
    return lambda seen: any(pattern.search(text) for text in texts(seen.row))


def _html(seen: Seen) -> bool:
    return any(
        ("<" in text and MARKUP.search(text)) or ("&" in text and ENTITY.search(text)) for text in texts(seen.row)
    )


def _unlabelled(seen: Seen) -> bool:
    return "labels" in seen.row and not seen.row["labels"]


def _tags(seen: Seen) -> bool:
    """IOB2: `I-X` follows `B-X` or `I-X` only."""
    before = "O"
    for tag in seen.names if "tags" in seen.row else ():
        if tag.startswith("I-") and before[2:] != tag[2:]:
            return True
        before = tag
    return False


def _same_sides(seen: Seen) -> bool:
    return "other" in seen.row and seen.row["other"] == seen.row.get("text")


def _messages(seen: Seen) -> list[dict[str, Any]]:
    found: Any = seen.row.get("messages") or seen.row.get("prompt") or []
    return [message for message in found if isinstance(message, dict)] if isinstance(found, list) else []


def _turns(seen: Seen) -> bool:
    roles = [str(message.get("role")) for message in _messages(seen)]
    return any(one == other and one in ("user", "assistant") for one, other in itertools.pairwise(roles))


def _says_nothing(seen: Seen) -> bool:
    return any(not str(message.get("content", "")).strip() for message in _messages(seen))


RULES = (
    Rule("HTML", _html, CLEAN),
    Rule("Broken encoding (such as 'Ã©' for 'é')", _any(MOJIBAKE), "Read the file again in its own encoding."),
    Rule("Control characters", _any(CONTROL), CLEAN),
    Rule(f"Fewer than {SHORT} characters", lambda seen: len(seen.text.strip()) < SHORT, "Is it the right column?"),
    Rule("No label", _unlabelled, "That is a label too, if it means that none fits."),
    Rule("Tags out of order (I- without its B-)", _tags, "Mend the tags; IOB2 is expected."),
    Rule("The same text on both sides", _same_sides, "Such pairs teach nothing."),
    Rule("Two messages of one role in a row", _turns, "Join them, or look for the one that is missing."),
    Rule("An empty message", _says_nothing, "Leave these rows out."),
)


class FaultCheck:
    """Counts rows by fault; one row may have several."""

    def __init__(self, examples: int) -> None:
        self._most = examples
        self._found: dict[str, tuple[int, list[RowRef]]] = {}
        self._longer = self._preferences = 0

    def add(self, seen: Seen) -> None:
        for rule in RULES:
            if rule.holds(seen):
                count, rows = self._found.get(rule.name, (0, []))
                if len(rows) < self._most:
                    rows.append(seen.at)
                self._found[rule.name] = (count + 1, rows)
        if "chosen" in seen.row:
            self._preferences += 1
            self._longer += len(str(seen.row["chosen"])) > len(str(seen.row["rejected"]))

    def result(self) -> tuple[Fault, ...]:
        return tuple(self._faults())

    def _faults(self) -> Iterator[Fault]:
        for rule in RULES:
            if rule.name in self._found:
                count, rows = self._found[rule.name]
                yield Fault(name=rule.name, rows=count, examples=tuple(rows), hint=rule.hint)
        if self._preferences >= 20 and not 0.3 <= self._longer / self._preferences <= 0.7:
            share = 100 * self._longer / self._preferences
            hint = f"The longer answer is chosen in {share:.0f} %: a model may learn length in place of quality."
            yield Fault(name="The chosen answer is the longer one", rows=self._longer, hint=hint)
