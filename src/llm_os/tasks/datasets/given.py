"""Splits that the makers of data gave it: which one is trained on, which one is the test. Pure; reads no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from llm_os.errors import DataError, did_you_mean

NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
"""Words in names of files and folders -> split, as the hub reads them."""


def split_of(words: Iterable[str]) -> str | None:
    """The split that a path speaks of; None where it does not."""
    return next((NAMES[word.lower()] for word in words if word.lower() in NAMES), None)


def chosen(
    splits: Sequence[str], train: str | None, test: str | None, title: str, message: Callable[[str], None]
) -> dict[str, str | None]:
    """The split to read -> the side it goes to (None: to be divided). Says which splits are left out.

    Args:
        splits: those there are; an empty name for rows of no split. train, test: those that were asked for.

    Raises:
        DataError: there is no such split.
    """
    for wanted, option in ((train, "train_split"), (test, "test_split")):
        if wanted is not None and wanted not in splits:
            raise DataError(
                f"{title} has no split '{wanted}' ({option}).", hint=did_you_mean(wanted, [s for s in splits if s])
            )
    if train is None:
        train = "train" if "train" in splits else next((s for s in splits if s != test), None)
    if train is None:
        raise DataError(f"{title} has no split to train on.", hint=f"It has: {', '.join(splits)}.")
    if test is None:
        test = next((name for name in ("test", "validation") if name in splits and name != train), None)
    out = [split for split in splits if split not in (train, test)]
    if out:
        names = ", ".join(f"'{name or 'files of no split'}'" for name in out)
        message(f"Left out: split {names}. Training on '{train}', testing on '{test or 'a part of it'}'.")
    return {train: None} if test is None or test == train else {train: "train", test: "test"}
