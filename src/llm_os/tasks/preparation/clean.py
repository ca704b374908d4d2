"""Cleaning: one Unicode form, plain spaces, no control characters, no HTML. Words and case stay as they are."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Literal

from llm_os.spec.base import Spec
from llm_os.tasks.preparation.step import Bench, Row, Step
from llm_os.tasks.preparation.texts import texts, with_texts

BLANKS = re.compile(r"[^\S\n]+")
LINES = re.compile(r" ?\n[ \n]*")
TAG = re.compile(r"<(?:/?[a-zA-Z][^<>]*|!--.*?--)>", re.DOTALL)


class CleanOptions(Spec):
    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    """Normal form; NFKC also turns full-width letters and ligatures into plain ones."""
    html: bool = True
    """Take out tags and comments, and write `&amp;` as `&`."""
    spaces: bool = True
    """Runs of blanks become one space, runs of line breaks one line break, the ends go."""


class Clean(Step[CleanOptions]):
    """A text of which nothing is left is dropped with its row."""

    Options = CleanOptions

    def apply(self, rows: Iterator[Row], options: CleanOptions, bench: Bench) -> Iterator[Row]:
        for row in rows:
            cleaned = with_texts(row, lambda text: clean(text, options))
            if cleaned is not row:
                bench.notes["changed"] += 1
                if not any(texts(cleaned)):
                    bench.notes["dropped"] += 1
                    continue
            yield cleaned


def clean(text: str, options: CleanOptions) -> str:
    if options.html and ("<" in text or "&" in text):
        if "<" in text:
            text = strip_tags(text)
        text = html.unescape(text)
    if options.unicode != "none":
        text = unicodedata.normalize(options.unicode, text)
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cs"})
    if options.spaces:
        text = LINES.sub("\n", BLANKS.sub(" ", text)).strip()
    return text


def strip_tags(text: str) -> str:
    """Tags become a space where they part words (`<br>`, `<p>`); `a < b` is no tag and stays."""
    return TAG.sub(" ", text)


PLUGIN = Clean()
