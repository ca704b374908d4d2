"""The quality report of a prepared data set, or of some of its rows: figures, findings, pictures. Changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from llm_os.errors import DataError, UnsupportedModelError, did_you_mean
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.quality import Doubts, Quality, RowRef
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context, InputFolder
from llm_os.tasks.datasets.kinds import KINDS, Kind
from llm_os.tasks.preparation.personal import excerpt, regions_of
from llm_os.tasks.quality import labels, pictures
from llm_os.tasks.quality.classes import ClassCheck
from llm_os.tasks.quality.columns import ColumnCheck
from llm_os.tasks.quality.copies import Asked, CopyCheck
from llm_os.tasks.quality.faults import FaultCheck
from llm_os.tasks.quality.findings import findings
from llm_os.tasks.quality.languages import LanguageCheck
from llm_os.tasks.quality.lengths import Lengths
from llm_os.tasks.quality.personal import PersonalCheck
from llm_os.tasks.quality.rows import Seen, Split, every
from llm_os.tasks.task import Task

REPORT_EVERY = 2000
ALL = "all"


class ReportOptions(Spec):
    split: str = ALL
    """Split that is described; `all`: every one."""
    start: int = Field(default=0, ge=0)
    """First row of the split."""
    stop: int | None = Field(default=None, ge=0)
    """Row to stop before; none: to the end."""
    near_duplicates: float | None = Field(default=0.8, ge=0.3, le=1)
    """Texts at least this similar (Jaccard, character n-grams) count as nearly equal; none: equal texts only."""
    labels: bool = True
    """Look for labels that are probably wrong."""
    pictures: bool = True
    """Draw the PNG files too."""
    most: int = Field(default=300_000, ge=100)
    """Rows that languages, personal data, faults and near-duplicates are looked for in, at most; evenly chosen."""
    most_labels: int = Field(default=50_000, ge=100)
    """Rows whose labels are judged, at most, and only as many as have five million characters together."""
    examples: int = Field(default=10, ge=0, le=1000)
    """Rows that are named for each thing that is found."""
    model_name: str = "the model"
    """What the model is called whose tokens are counted."""
    suspicious: int = Field(default=100, ge=0, le=10_000)
    """Doubtful labels that are listed."""


class Report(Task[ReportOptions]):
    Options = ReportOptions
    inputs = ("data",)
    optional_inputs = ("model",)
    output = "report"
    cacheable = True

    def resources(self, options: ReportOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        data = inputs["data"]
        if data.kind != "dataset":
            raise DataError(f"The input is a {data.kind}, not a data set.", hint="Give what load_data returned.")
        known = data.meta.get("splits")
        names = [ALL, *known] if isinstance(known, dict) else [ALL]
        if options.split not in names:
            raise DataError(f"There is no split '{options.split}'.", hint=did_you_mean(options.split, names))
        return ResourceSpec(cpus=min(0.5, granted.cpus), memory=1024 * 2**20)

    def run(self, context: Context, options: ReportOptions) -> None:
        report = Description(context, options).run()
        text = report.model_dump_json(indent=1)
        (context.output / "report.json").write_text(text + "\n", encoding="utf-8")
        if options.pictures:
            context.report(stage="drawing", step=0, total=0)
            for sentence in pictures.draw(report, context.output):
                context.message(sentence)
        meta = {name: getattr(report, name) for name in ("name", "digest", "kind", "split", "rows")}
        context.finish("report", {**meta, "report": "quality"})
        context.result(quality=json.loads(text))


class Reader(NamedTuple):
    """Counts the tokens of a text; how many the model reads at most."""

    count: Callable[[str], int]
    context_length: int | None


@dataclass(frozen=True, slots=True)
class Checks:
    """What looks at rows as they pass."""

    lengths: Lengths
    columns: ColumnCheck
    copies: CopyCheck
    classes: ClassCheck
    languages: LanguageCheck
    faults: FaultCheck
    personal: PersonalCheck

    @property
    def all_rows(self) -> tuple[Lengths, ColumnCheck, CopyCheck, ClassCheck]:
        return self.lengths, self.columns, self.copies, self.classes

    @property
    def sampled(self) -> tuple[LanguageCheck, FaultCheck, PersonalCheck]:
        """The slow ones: of very many rows they look at some."""
        return self.languages, self.faults, self.personal


class Description:
    """One run: a pass over all rows, then the checks that need many rows at once."""

    def __init__(self, context: Context, options: ReportOptions) -> None:
        self._context, self._options = context, options
        self._data = context.inputs["data"]
        self._meta: Mapping[str, Any] = self._data.facts.meta
        self._kind: Kind = KINDS[_kind(self._meta)]
        self._regions = regions_of(self._language)
        self._splits: dict[str, Split] = {}
        self._sheet = labels.Sheet()
        self._done = 0

    @property
    def _language(self) -> str:
        return str(self._meta.get("language") or "unknown")

    def run(self) -> Quality:
        begun, options = time.monotonic(), self._options
        with ExitStack() as stack:
            for name in sorted(self._meta.get("splits") or ("train", "test"), key=lambda name: (name != "train", name)):
                self._splits[name] = stack.enter_context(Split(self._data.path / name))
            own = {name: self._bounds(name) for name in self._splits if options.split in (ALL, name)}
            rows = sum(stop - start for start, stop in own.values())
            if not rows:
                raise DataError("There is no row to describe.", hint="Take a larger slice.")
            report = self._described(own, rows, self._reader())
        return report.model_copy(update={"findings": findings(report), "seconds": round(time.monotonic() - begun, 2)})

    def _described(self, own: Mapping[str, tuple[int, int]], rows: int, reader: Reader | None) -> Quality:
        options, checks = self._options, self._checks(tuple(own), reader)
        step, judged = every(rows, options.most), every(rows, options.most_labels)
        for number, seen in enumerate(self._seen(own, rows)):
            for check in checks.all_rows:
                check.add(seen)
            for slow in checks.sampled if number % step == 0 else ():
                slow.add(seen)
            if options.labels and number % judged == 0 and not self._sheet.full:
                self._judge(seen)
        for seen in self._others(own):
            checks.copies.add(seen)
        self._progress("comparing texts", 0, 0)
        compared = checks.copies.result()
        doubts = self._doubts() if options.labels else None
        length = reader.context_length if reader else None
        looked = dict.fromkeys(("languages", "texts", "personal"), -(-rows // step))
        looked |= {"labels": self._sheet.rows} if doubts else {}
        return Quality(
            **self._known(),
            rows=rows,
            classes=checks.classes.counts,
            score=checks.classes.score,
            lengths=checks.lengths.result(),
            model=options.model_name if reader else None,
            context_length=length,
            too_long=checks.lengths.beyond(length) if length else None,
            columns=checks.columns.result(self._regions),
            languages=checks.languages.result(options.examples),
            copies=compared,
            doubts=doubts,
            personal=checks.personal.result(),
            faults=checks.faults.result(),
            sampled={check: count for check, count in looked.items() if count < rows},
        )

    def _checks(self, own: tuple[str, ...], reader: Reader | None) -> Checks:
        options, known = self._options, self._meta.get("labels")
        asked = Asked(own, options.near_duplicates, options.most, options.examples, self._regions)
        return Checks(
            lengths=Lengths(reader.count if reader else None),
            columns=ColumnCheck(),
            copies=CopyCheck(asked, self._text),
            classes=ClassCheck(self._kind, [str(name) for name in known] if isinstance(known, list) else [], own),
            languages=LanguageCheck(),
            faults=FaultCheck(options.examples),
            personal=PersonalCheck(self._regions, min(5, options.examples)),
        )

    def _known(self) -> dict[str, Any]:
        """What was known before a row was read."""
        meta = self._meta
        return {
            "name": str(meta.get("name") or "data"),
            "digest": self._data.facts.digest,
            "kind": self._kind.name,
            "language": self._language,
            "split": self._options.split,
            "start": self._options.start,
            "splits": {name: len(split) for name, split in self._splits.items()},
            "source": dict(meta.get("source") or {}),
            "steps": tuple(str(step["step"]) for step in meta.get("steps") or ()),
            "left_out": dict(meta.get("left_out") or {}),
            "empty_columns": tuple(map(str, meta.get("empty_columns") or ())),
        }

    def _bounds(self, split: str) -> tuple[int, int]:
        """Rows of a split that are described. Bounds are those of one split; all splits are described whole."""
        whole = len(self._splits[split])
        if self._options.split == ALL:
            return 0, whole
        start = min(self._options.start, whole)
        return start, whole if self._options.stop is None else max(start, min(self._options.stop, whole))

    def _seen(self, bounds: Mapping[str, tuple[int, int]], total: int) -> Iterator[Seen]:
        for name, (start, stop) in bounds.items():
            for number, row in self._splits[name].between(start, stop):
                if self._done % REPORT_EVERY == 0:
                    self._progress("reading", self._done, total)
                self._done += 1
                yield self._one(name, number - start, row)

    def _others(self, own: Mapping[str, tuple[int, int]]) -> Iterator[Seen]:
        """Rows of the splits that are not described: leaks come from there."""
        for name, split in self._splits.items():
            if name not in own:
                for number, row in split.between(0, None):
                    if number % REPORT_EVERY == 0:
                        self._progress("reading the other split", number, len(split))
                    yield self._one(name, number, row)

    def _one(self, split: str, number: int, row: dict[str, Any]) -> Seen:
        names = tuple(self._kind.names(row)) if self._kind.classes else ()
        if not names and self._kind.label and self._kind.label in row:
            names = (str(row[self._kind.label]),)
        return Seen(RowRef(split=split, row=number), row, self._kind.content(row), names)

    def _text(self, at: RowRef) -> str:
        first = self._bounds(at.split)[0] if self._options.split in (ALL, at.split) else 0
        return self._kind.content(self._splits[at.split][first + at.row])

    def _judge(self, seen: Seen) -> None:
        """Put the row on the sheet whose labels are judged."""
        kind, row, sheet = self._kind.name, seen.row, self._sheet
        if kind == "tokens":
            tokens, tags = [str(token) for token in _list(row["tokens"])], _list(row["tags"])
            for place, tag in enumerate(tags):
                shown = excerpt(" ".join(tokens[place : place + 1]), self._regions)
                sheet.add(seen.at, labels.around(tokens, place), str(tag), f"token {place}: {shown}", seen.text)
        elif kind in ("classification", "multi-label", "score"):
            label: Any = row.get("labels") if kind == "multi-label" else row["label"]
            sheet.add(seen.at, seen.text, label, excerpt(seen.text, self._regions, 100), seen.text)

    def _doubts(self) -> Doubts | None:
        if not self._sheet.texts:
            return None
        judge = {"multi-label": labels.several, "score": labels.scores}.get(self._kind.name, labels.classes)
        return judge(
            self._sheet,
            self._options.suspicious,
            lambda step, total: self._progress("judging the labels", step, total),
        )

    def _progress(self, stage: str, step: int, total: int) -> None:
        if self._context.should_stop():
            self._context.stop_here()
        self._context.report(stage=stage, step=step, total=total)

    def _reader(self) -> Reader | None:
        """The model that was named, as far as it reads."""
        model: InputFolder | None = self._context.inputs.get("model")
        if model is None:
            return None
        length = model.facts.meta.get("context_length")
        return Reader(tokens_of(model.path), int(length) if isinstance(length, int | float) else None)


def tokens_of(folder: Path) -> Callable[[str], int]:
    """Counts the tokens that the model in `folder` makes of a text, special ones included."""
    if (folder / "tokenizer.json").exists():
        from tokenizers import Tokenizer

        plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
        plain.no_truncation()
        plain.no_padding()
        return lambda text: len(plain.encode(text).ids)
    from transformers import AutoTokenizer

    weights = sorted(folder.glob("*.gguf"))
    given = {"gguf_file": weights[0].name} if weights else {}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **given)
    except ImportError as error:
        raise UnsupportedModelError(
            "The tokenizer of a GGUF file is read with gguf, which is not installed.", hint="pip install gguf"
        ) from error
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(f"The model has no tokenizer that can be read: {error}.") from error
    return lambda text: len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


def _kind(meta: Mapping[str, Any]) -> str:
    return str(meta.get("kind") or ("classification" if meta.get("labels") else "score"))


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


PLUGIN = Report()
