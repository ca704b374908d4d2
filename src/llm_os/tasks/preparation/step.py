"""The interface of a preparation step: options and apply(rows, options, bench). Knows no source and no split.

A plugin file in this folder holds one subclass and ends with `PLUGIN = TheClass()`. Rows are streams: a step that needs
all of them keeps hashes or counts, not texts, unless its docstring says otherwise. Heavy imports live inside `apply`.
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_origin

from pydantic import Field

from llm_os import plugins
from llm_os.errors import DataError, InvalidOptionError, did_you_mean
from llm_os.spec.base import Json, Spec

OptionsT = TypeVar("OptionsT", bound=Spec)
Row = Mapping[str, Json]


@dataclass(slots=True)
class Bench:
    """What a step may use while it runs.

    Attributes:
        scratch: folder for its own temporary files, on a disk with room for a copy of the data.
        side: folder for files that belong to the data set (a vocabulary, vectors); made on demand by `side_folder`.
        tokenizer: model folder whose tokenizer and chat template may be used (the job's input `tokenizer`).
        language: `en`, `zh` or another ISO 639-1 code; `unknown` where nobody said.
        seed: for every random choice.
        kind: of the data, as in `load_data(kind=...)`.
        labels: class names, where there are classes; None before they are known, and for other kinds of data.
        split: `train` or `test` once rows are divided; None before.
        message: tells the person who waits one sentence.
        notes: counts that are recorded with the step (`changed`, `dropped`, ...).
    """

    scratch: Path
    side: Path
    language: str
    seed: int
    labels: Sequence[str] | None
    message: Callable[[str], None]
    kind: str = "classification"
    tokenizer: Path | None = None
    split: str | None = None
    notes: Counter[str] = field(default_factory=Counter)

    def side_folder(self) -> Path:
        self.side.mkdir(parents=True, exist_ok=True)
        return self.side

    def random(self, text: str) -> random.Random:
        """Random choices for one text: they depend on seed and text only, not on where the row stands."""
        return random.Random(f"{self.seed}/{text}")


class Step(ABC, Generic[OptionsT]):
    """See the module.

    Class attributes:
        Options: pydantic model of the options; its field docstrings become help texts.
        training_only: applied to training rows alone, after the split, so that the test stays as it came
            (augmentation, balancing).
        after_split: applied to each split by itself after the division, training rows first, so that what is learnt
            from rows (a vocabulary) is learnt from training rows.
        makes: kind of data that comes out, where it is another (`text` from `chat`).
    """

    Options: ClassVar[type[Spec]]
    training_only: ClassVar[bool] = False
    after_split: ClassVar[bool] = False
    makes: ClassVar[str | None] = None

    @abstractmethod
    def apply(self, rows: Iterator[Row], options: OptionsT, bench: Bench) -> Iterator[Row]:
        """Rows in, rows out. Same rows, options and seed: same rows out, on every machine.

        Raises DataError and its kinds with the row's text or number in the words.
        """


class StepSpec(Spec):
    """One declared step: its name and its options."""

    step: str = Field(min_length=1, examples=["clean"])
    options: Mapping[str, Json] = Field(default_factory=dict)
    content: Mapping[str, str] = Field(default_factory=dict)
    """sha256 of each file that an option names, when it was submitted: a changed file is another fingerprint."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A step with validated options."""

    name: str
    step: Step[Any]
    options: Spec
    content: Mapping[str, str] = field(default_factory=dict)

    @property
    def late(self) -> bool:
        """Whether it runs after the division into splits."""
        return self.step.training_only or self.step.after_split

    def record(self) -> dict[str, Json]:
        content: dict[str, Json] = {"content": dict(self.content)} if self.content else {}
        return {"step": self.name, "options": self.options.model_dump(mode="json"), **content}

    def check_files(self) -> None:
        """Raises DataError where a file that an option names was changed since submission."""
        for name, sha256 in self.content.items():
            path = Path(str(getattr(self.options, name)))
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise DataError(
                        f"'{path.name}' was changed since it was submitted.", hint="Run the same call again."
                    )


GIVEN = "\x00given"
"""Where a row carries its makers' split through the steps; no column can have this name."""
GROUP = "\x00group"
"""Where it carries its group as it came, before a step redacts or drops the column."""


def choose(specs: Sequence[StepSpec]) -> list[Chosen]:
    """The steps by name, options validated. Raises NotFoundError, InvalidOptionError with "did you mean"."""
    from pydantic import ValidationError

    chosen = []
    for spec in specs:
        step: Step[Any] = plugins.load("step", spec.step)
        unknown = sorted(set(spec.options) - set(step.Options.model_fields))
        if unknown:
            raise InvalidOptionError(
                f"The step '{spec.step}' has no option '{unknown[0]}'.",
                hint=did_you_mean(unknown[0], step.Options.model_fields),
            )
        try:
            options = step.Options.model_validate(_lists(step.Options, spec.options))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "options"
            raise InvalidOptionError(
                f"The step '{spec.step}': option '{name}' cannot be {first.get('input')!r}: {first['msg']}."
            ) from error
        chosen.append(Chosen(spec.step, step, options, spec.content))
    return chosen


def _lists(model: type[Spec], options: Mapping[str, Json]) -> dict[str, Json]:
    """One word stands for a list of one: `keep="en"`."""
    listed = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is tuple}
    return {name: [value] if name in listed and isinstance(value, str) else value for name, value in options.items()}


def counted(rows: Iterator[Row], tally: Counter[str], name: str) -> Iterator[Row]:
    """The same rows; `tally[name]` counts them."""
    for row in rows:
        tally[name] += 1
        yield row
