"""One fold of k: another division of a data set's rows into training and test, so that each row is tested once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from llm_os.errors import EmptyDataError, InvalidOptionError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.datasets import splits
from llm_os.tasks.datasets.ingest import SIDE
from llm_os.tasks.datasets.kinds import KINDS
from llm_os.tasks.datasets.spool import Spool
from llm_os.tasks.datasets.stored import read
from llm_os.tasks.datasets.writer import write_dataset
from llm_os.tasks.task import Task


class FoldOptions(Spec):
    folds: int = Field(default=5, ge=2, le=100)
    """Into how many parts the rows are divided."""
    fold: int = Field(default=0, ge=0)
    """Which part is the test, from 0."""
    seed: int = 42
    """Another seed is another division."""
    rows: Literal["all", "train"] = "all"
    """`all`: training and test rows are mixed anew; `train`: the training rows only, the test stays untouched."""
    near_duplicates: float | None = Field(default=0.8, ge=0.3, le=1)
    """Texts at least this similar stay on one side; none: equal texts only."""


class Fold(Task[FoldOptions]):
    """Classes in proportion in every part; texts of one unit (equal or nearly equal) stay in one part."""

    Options = FoldOptions
    inputs = ("data",)
    output = "dataset"
    cacheable = True

    def resources(self, options: FoldOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        if options.fold >= options.folds:
            raise InvalidOptionError(
                f"There is no fold {options.fold} of {options.folds}.", hint=f"They go from 0 to {options.folds - 1}."
            )
        return ResourceSpec(cpus=min(0.25, granted.cpus), memory=768 * 2**20)

    def run(self, context: Context, options: FoldOptions) -> None:
        data = context.inputs["data"]
        meta = data.facts.meta
        kind = KINDS[str(meta.get("kind") or "classification")]
        known = meta.get("labels")
        table = splits.Table(options.seed)
        with Spool(context.scratch / "rows.jsonl") as spool:
            for found in read(data.path):
                if isinstance(found.row, Mapping) and (options.rows == "all" or found.given == "train"):
                    spool.add(found.row)
                    table.add(kind.content(found.row), kind.stratum(found.row), group=None, time=0.0, given=-1)
            kept = splits.chosen(table, None)
            unit = splits.units(table, kept, lambda i: kind.content(spool[i]), options.near_duplicates)
            test = splits.parts(table, kept, unit, options.folds) == options.fold
            if not test.any() or test.all():
                raise EmptyDataError(
                    f"{len(kept)} rows are too few for {options.folds} folds.", hint="Take fewer folds, or more rows."
                )
            name = str(meta.get("name") or "data")
            rows = {"train": kept[~test], "test": kept[test]}
            if (data.path / SIDE).is_dir():
                shutil.copytree(data.path / SIDE, context.output / SIDE)
            write_dataset(
                context,
                name=name,
                language=str(meta.get("language") or "unknown"),
                kind=kind,
                splits={side: (spool[i] for i in splits.shuffled(table, members)) for side, members in rows.items()},
                labels=[str(label) for label in known] if isinstance(known, list) else None,
                source={"kind": "fold", "digest": data.facts.digest, "of": meta.get("source")},
                more=lambda: {"steps": meta.get("steps") or [], "split": {"by": "fold", **options.model_dump()}},
            )
        context.result(rows={side: len(members) for side, members in rows.items()}, name=name)


PLUGIN = Fold()
