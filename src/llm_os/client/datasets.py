"""The handle of prepared data: pages rows over the API; holds none but the page read last."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, overload

from llm_os.client.connection import Connection
from llm_os.client.jobs import run
from llm_os.client.quality import Description, QualityReport, described
from llm_os.client.sources import listed, with_model
from llm_os.errors import EmptyDataError, InvalidInputError, NotFoundError
from llm_os.spec.api import RowPage
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion

PAGE = 500
Row = Mapping[str, Json]


class Dataset:
    """A split of prepared data, or a slice of one. Rows are dictionaries with at least `text` and `label`."""

    def __init__(
        self, connection: Connection, facts: ArtifactFacts, split: str, start: int = 0, stop: int | None = None
    ) -> None:
        self._connection = connection
        self._facts = facts
        self.split = split
        self._start = start
        self._stop = self._rows_of_split if stop is None else stop
        self._page: RowPage | None = None

    @property
    def name(self) -> str:
        """What it is called: `sentic_data`, or after its file."""
        return str(self._facts.meta.get("name", "data"))

    @property
    def digest(self) -> str:
        """Content address of the whole prepared data set, all splits."""
        return self._facts.digest

    @property
    def kind(self) -> str:
        """`classification`, `score`, `multi-label`, `tokens`, `text`, `pairs`, `chat`, `choices` or `preference`."""
        return str(self._facts.meta.get("kind") or ("classification" if self.labels else "score"))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what each row has; `text` and `label` first."""
        columns = self._facts.meta.get("columns")
        return tuple(str(column) for column in columns) if isinstance(columns, list) else ()

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in the order of their ids; None where the label is a number."""
        labels = self._facts.meta.get("labels")
        return tuple(str(label) for label in labels) if isinstance(labels, list) else None

    @property
    def steps(self) -> tuple[Mapping[str, Json], ...]:
        """What was done to the rows, in order: `step`, `options`, `rows_in`, `rows_out` and `notes`, its counts."""
        steps = self._facts.meta.get("steps")
        return tuple(step for step in steps if isinstance(step, dict)) if isinstance(steps, list) else ()

    @property
    def fingerprint(self) -> str:
        """`sha256:...` of the rows: equal for equal rows in equal order."""
        whole = str(self._split_facts.get("fingerprint"))
        if (self._start, self._stop) == (0, self._rows_of_split):
            return whole
        return "sha256:" + hashlib.sha256(f"{whole}[{self._start}:{self._stop}]".encode()).hexdigest()

    @property
    def bounds(self) -> tuple[int, int | None]:
        """(first row, row to stop before) of the split; the latter None for the whole split."""
        return self._start, None if self._stop == self._rows_of_split else self._stop

    def head(self, count: int = 5) -> list[Row]:
        """The first rows."""
        return [self[i] for i in range(min(count, len(self)))]

    def prepare(self, *steps: str | tuple[str, Mapping[str, Any]] | Mapping[str, Any], **options: Json) -> Dataset:
        """A new data set: this one (all its splits) after further steps; its split stays as it is.

        Args:
            steps: `"clean"`, or `("clean", {"html": False})`, in order; docs/how-to/preparation says what each does.
            options: `leaks`, `bad_rows`, `seed`, `near_duplicates`; see `load_data`.

        Raises:
            NotFoundError, InvalidOptionError: no such step or option. DataError: what a step could not do.
        """
        given, inputs = with_model(listed(steps), self._version)
        spec = JobSpec(
            task="datasets/prepared",
            options={"steps": given, **options},
            inputs={"data": self.digest, **inputs},
        )
        return self._made(spec, f"Preparing {self.name}", self.split)

    def folds(self, count: int = 5, **options: Json) -> list[tuple[Dataset, Dataset]]:
        """(training, test) for each of `count` folds of the rows of all splits; each row is tested once.

        Args:
            options: `seed`, `near_duplicates`, and `rows="train"` to leave the test split untouched.
        """
        found = []
        for fold in range(count):
            given: dict[str, Json] = {"folds": count, "fold": fold, **options}
            spec = JobSpec(task="datasets/fold", options=given, inputs={"data": self.digest})
            test = self._made(spec, f"Fold {fold + 1} of {count}", "test")
            found.append((Dataset(self._connection, test._facts, "train"), test))
        return found

    def _version(self, name: str) -> ModelVersion:
        try:
            return self._connection.transport.call("GET", f"/v1/models/{name}", ModelVersion)
        except NotFoundError as error:
            raise NotFoundError(error.message, hint=f'Fetch it first: llm_os.load_model("{name}").') from error

    def _made(self, spec: JobSpec, title: str, split: str) -> Dataset:
        job = run(self._connection, spec, title)
        path = f"/v1/artifacts/{job.result['artifact']}"
        return Dataset(self._connection, self._connection.transport.call("GET", path, ArtifactFacts), split)

    @overload
    def describe(
        self, *, full: Literal[True] = True, whole: bool = False, model: Any = None, **options: Json
    ) -> QualityReport: ...

    @overload
    def describe(
        self, *, full: Literal[False], whole: bool = False, model: Any = None, **options: Json
    ) -> Description: ...

    def describe(
        self, *, full: bool = True, whole: bool = False, model: Any = None, **options: Json
    ) -> QualityReport | Description:
        """The quality report of these rows: sizes, classes, lengths, languages, duplicates, leaks over the splits,
        doubtful labels, personal data, faults, with pictures. Computed once (seconds), at once the second time.

        Args:
            full: False gives what was counted when the data was prepared, without a job.
            whole: describe all splits, not these rows only.
            model: a `Model`, or the name of a version: lengths are counted in its tokens too.
            options: `labels=False`, `near_duplicates`, `examples`, `suspicious`, `most`, `most_labels`; see
                `datasets/report` in docs/reference/plugins.md.
        """
        facts: dict[str, Any] = {
            **{name: self._facts.meta.get(name) for name in ("name", "language", "task", "labels", "source")},
            "split": "all" if whole else self.split,
            "columns": list(self.columns),
        }
        if not full:
            whole_split = (self._start, self._stop) == (0, self._rows_of_split)
            return Description({**facts, **(dict(self._split_facts) if whole_split else {"rows": len(self)})})
        start, stop = self.bounds
        given: dict[str, Json] = {} if whole else {"split": self.split, "start": start, "stop": stop}
        name = getattr(model, "version", model)
        return described(
            self._connection, self.digest, {**given, **options}, None if name is None else str(name), facts
        )

    def __len__(self) -> int:
        return max(0, self._stop - self._start)

    def __iter__(self) -> Iterator[Row]:
        for index in range(len(self)):
            yield self[index]

    @overload
    def __getitem__(self, key: int) -> Row: ...

    @overload
    def __getitem__(self, key: slice) -> Dataset: ...

    def __getitem__(self, key: int | slice) -> Row | Dataset:
        if isinstance(key, str):
            raise InvalidInputError(
                f"Rows are found by number, not by '{key}'.", hint=f"[row[{key!r}] for row in data] gives a column."
            )
        if isinstance(key, slice):
            first, last, step = key.indices(len(self))
            if step != 1:
                raise InvalidInputError("A data set can only be sliced in steps of 1.", hint="Use data[start:stop].")
            return Dataset(
                self._connection, self._facts, self.split, self._start + first, self._start + max(first, last)
            )
        index = key + len(self) if key < 0 else key
        if not 0 <= index < len(self):
            raise IndexError(f"Row {key} of {len(self)}.")
        return self._row(self._start + index)

    def _row(self, index: int) -> Row:
        page = self._page
        if page is None or not page.offset <= index < page.offset + len(page.rows):
            params: dict[str, Any] = {"split": self.split, "offset": index - index % PAGE, "limit": PAGE}
            page = self._connection.transport.call("GET", f"/v1/artifacts/{self.digest}/rows", RowPage, params=params)
            self._page = page
        return page.rows[index - page.offset]

    @property
    def _split_facts(self) -> Mapping[str, Json]:
        splits = self._facts.meta.get("splits")
        found = splits.get(self.split) if isinstance(splits, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def _rows_of_split(self) -> int:
        return int(str(self._split_facts.get("rows", 0)))

    def __repr__(self) -> str:
        return f"<Dataset {self.name}/{self.split}: {len(self):,} rows, columns {', '.join(self.columns)}>"


def expect_rows(data: object, verb: str) -> None:
    """Raises InvalidInputError for what is no data set, EmptyDataError for one without rows."""
    if not isinstance(data, Dataset):
        raise InvalidInputError(
            f"{verb} takes a data set, not {type(data).__name__}.",
            hint='train_data, test_data = llm_os.load_data("sentic_data")',
        )
    if not len(data):
        raise EmptyDataError(f"{verb} needs rows, and {data!r} has none.", hint="Take a larger slice, or all of it.")


def rows_of(data: Dataset, prefix: str = "") -> dict[str, Json]:
    """Options that name the rows of a split or of a slice of it."""
    start, stop = data.bounds
    return {f"{prefix}split": data.split, f"{prefix}start": start, f"{prefix}stop": stop}
