"""The interface of a preparation step: options and apply(rows, options, bench). Knows no source and no split.

A plugin file in this folder holds one subclass and ends with `PLUGIN = TheClass()`. Rows are streams: a step that needs
all of them keeps hashes or counts, not texts, unless its docstring says otherwise. Heavy imports live inside `apply`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field

from llm_os import plugins
from llm_os.errors import InvalidOptionError, did_you_mean
from llm_os.spec.base import Json, Spec

OptionsT = TypeVar("OptionsT", bound=Spec)
Row = Mapping[str, Json]


@dataclass(slots=True)
class Bench:
    """What a step may use while it runs.

    Attributes:
        scratch: folder for its own temporary files, on a disk with room for a copy of the data.
        side: folder for files that belong to the data set (a vocabulary, vectors); made on demand by `side_folder`.
        language: `en`, `zh` or another ISO 639-1 code; `unknown` where nobody said.
        seed: for every random choice.
        labels: class names, where there are classes; None before they are known, and for other kinds of data.
        message: tells the person who waits one sentence.
        notes: counts that are recorded with the step (`changed`, `dropped`, ...).
    """

    scratch: Path
    side: Path
    language: str
    seed: int
    labels: Sequence[str] | None
    message: Callable[[str], None]
    notes: Counter[str] = field(default_factory=Counter)

    def side_folder(self) -> Path:
        self.side.mkdir(parents=True, exist_ok=True)
        return self.side


class Step(ABC, Generic[OptionsT]):
    """See the module.

    Class attributes:
        Options: pydantic model of the options; its field docstrings become help texts.
        training_only: applied to training rows alone, after the split, so that the test stays as it came
            (augmentation, balancing).
    """

    Options: ClassVar[type[Spec]]
    training_only: ClassVar[bool] = False

    @abstractmethod
    def apply(self, rows: Iterator[Row], options: OptionsT, bench: Bench) -> Iterator[Row]:
        """Rows in, rows out. Same rows, options and seed: same rows out, on every machine.

        Raises DataError and its kinds with the row's text or number in the words.
        """


class StepSpec(Spec):
    """One declared step: its name and its options."""

    step: str = Field(min_length=1, examples=["clean"])
    options: Mapping[str, Json] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A step with validated options."""

    name: str
    step: Step[Any]
    options: Spec

    def record(self) -> dict[str, Json]:
        return {"step": self.name, "options": self.options.model_dump(mode="json")}


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
            options = step.Options.model_validate(dict(spec.options))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "options"
            raise InvalidOptionError(
                f"The step '{spec.step}': option '{name}' cannot be {first.get('input')!r}: {first['msg']}."
            ) from error
        chosen.append(Chosen(spec.step, step, options))
    return chosen


def counted(rows: Iterator[Row], tally: Counter[str], name: str) -> Iterator[Row]:
    """The same rows; `tally[name]` counts them."""
    for row in rows:
        tally[name] += 1
        yield row
