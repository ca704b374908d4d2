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
BLOCKS = (
    "address|article|aside|blockquote|br|dd|div|dl|dt|figcaption|figure|footer|form|h1|h2|h3|h4|h5|h6|header|hr|li|main"
    "|nav|ol|option|p|pre|section|select|table|tbody|td|textarea|tfoot|th|thead|title|tr|ul"
)
"""Elements that part words."""
INLINE = (
    "a|abbr|acronym|b|bdi|bdo|big|body|button|center|cite|code|col|colgroup|del|dfn|em|embed|font|head|html|i|iframe|img"
    "|input|ins|kbd|label|link|mark|meta|noscript|object|param|q|s|samp|script|small|span|strike|strong|style|sub|sup|svg"
    "|template|time|tt|u|var|video|wbr|audio|source"
)
SILENT = "script, style, template, noscript, svg"
"""Elements whose content nobody reads."""
MARKUP = re.compile(rf"</?(?:{BLOCKS}|{INLINE})(?:[\s/][^<]*)?>|<!--", re.IGNORECASE)


LANGUAGE_MODELS = frozenset({"text", "chat", "preference"})
"""Kinds of data of which `html` and `spaces` say nothing by themselves."""


class CleanOptions(Spec):
    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    """Normal form; NFKC also turns full-width letters and ligatures into plain ones."""
    html: bool | None = None
    """Take out tags, comments, scripts and styles, and write `&amp;` as `&`; `<` in front of what is no HTML stays.
    None: yes, but not in data for language models (text, chat, preference), whose mark-up may be what is learnt."""
    spaces: bool | None = None
    """Runs of blanks become one space, runs of line breaks one line break, the ends go. None: as for `html`."""


class Clean(Step[CleanOptions]):
    """A text of which nothing is left is dropped with its row."""

    Options = CleanOptions

    def apply(self, rows: Iterator[Row], options: CleanOptions, bench: Bench) -> Iterator[Row]:
        plain = bench.kind not in LANGUAGE_MODELS
        html = plain if options.html is None else options.html
        spaces = plain if options.spaces is None else options.spaces
        options = options.model_copy(update={"html": html, "spaces": spaces})
        for row in rows:
            cleaned = with_texts(row, lambda text: clean(text, options))
            if cleaned is not row:
                bench.notes["changed"] += 1
                if not any(texts(cleaned)):
                    bench.notes["dropped"] += 1
                    continue
            yield cleaned


def clean(text: str, options: CleanOptions) -> str:
    """The cleaned text; empty where nothing is left. Options that are none count as no."""
    if options.html:
        text = without_markup(text)
    if options.unicode != "none":
        text = unicodedata.normalize(options.unicode, text)
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cs"})
    if options.spaces:
        text = LINES.sub("\n", BLANKS.sub(" ", text)).strip()
    return text


def without_markup(text: str) -> str:
    """The text of HTML, with line breaks where its blocks part words; `a < b` and `<name>` are no HTML and stay."""
    if "<" not in text or not MARKUP.search(text):
        return html.unescape(text) if "&" in text else text
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    for node in tree.css(SILENT):
        node.decompose()
    for node in tree.css(BLOCKS.replace("|", ", ")):
        node.insert_before("\n")
        node.insert_after("\n")
    return tree.body.text(deep=True) if tree.body is not None else ""


PLUGIN = Clean()
