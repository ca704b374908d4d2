"""How a model wants to be asked: `generation_config.json` in its folder; read without a framework, knows no engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os.errors import ModelError
from llm_os.spec.base import Json

FILE = "generation_config.json"
"""As transformers writes it and other engines read it."""
LARGEST = 2**31 - 1
"""Whole numbers that engines take; a limit above it is none."""
HINT = "Mend the file, or take it out: then the usual settings hold."


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """What a request that does not say otherwise is answered with; None: the model says nothing of it.

    Attributes:
        temperature: 0 takes the likeliest token. top_k: likeliest tokens that are drawn from; 0: all.
        repetition_penalty: above 1 makes tokens that are there already less likely (Keskar et al. 2019, CTRL,
            section 4.1); 1 is none.
        max_new_tokens: most tokens of an answer.
        eos: ids that end an answer.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    eos: tuple[int, ...] = ()

    def told(self) -> dict[str, Json]:
        """What is said, by name, for records and people."""
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens")
        found: dict[str, Json] = {name: value for name in names if (value := getattr(self, name)) is not None}
        return found | ({"eos_token_id": list(self.eos)} if self.eos else {})


NONE = GenerationSettings()


def read(folder: Path) -> GenerationSettings:
    """What the model's folder says; nothing where it has no such file, or is a single file.

    A file that says `do_sample: false` wants the likeliest token: temperature 0. Where it does not say, the other
    values hold, as every engine that reads these files has it.

    Raises:
        ModelError: the file is no JSON object, or a value is of the wrong kind or size.
    """
    path = folder / FILE
    if not path.is_file():
        return NONE
    try:
        said = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{FILE} is no JSON: {error}.", hint=HINT) from error
    if not isinstance(said, dict):
        raise ModelError(f"{FILE} holds a {type(said).__name__}, not an object.", hint=HINT)
    greedy = said.get("do_sample") is False
    return GenerationSettings(
        temperature=0.0 if greedy else _number(said, "temperature", lambda x: 0 <= x <= 2, "between 0 and 2"),
        top_p=_number(said, "top_p", lambda x: 0 < x <= 1, "above 0 and at most 1"),
        top_k=_whole(said, "top_k", least=0),
        repetition_penalty=_number(said, "repetition_penalty", lambda x: 0.01 <= x <= 10, "between 0.01 and 10"),
        max_new_tokens=_whole(said, "max_new_tokens", least=1),
        eos=_ids(said),
    )


def _number(said: Mapping[str, Any], name: str, fits: Callable[[float], bool], range_: str) -> float | None:
    given = said.get(name)
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not fits(given):
        raise ModelError(f"{FILE}: '{name}' is {given!r}, it must be a number {range_}.", hint=HINT)
    return float(given)


def _whole(said: Mapping[str, Any], name: str, *, least: int) -> int | None:
    given = said.get(name)
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise ModelError(f"{FILE}: '{name}' is {given!r}, it must be a whole number, {least} or more.", hint=HINT)
    return min(given, LARGEST)


def _ids(said: Mapping[str, Any]) -> tuple[int, ...]:
    given = said.get("eos_token_id")
    ids = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= LARGEST for one in ids):
        raise ModelError(f"{FILE}: 'eos_token_id' is {given!r}, it must be token ids.", hint=HINT)
    return tuple(ids)


def hand_on(parent: Path, folder: Path) -> None:
    """What the parent says holds for a version made of it; where the parent says nothing, nothing is changed.

    transformers saves settings of its own beside weights; they must not take the place of the parent's.
    """
    given = parent / FILE
    if given.is_file():
        read(parent)  # a broken one is told, not copied
        shutil.copyfile(given, folder / FILE)
