"""Data sets by their name on the Hugging Face hub, streamed by `datasets`: no copy of the whole is made first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from llm_os.errors import DataError, SourceError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, slug
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.datasets.given import chosen
from llm_os.tasks.datasets.ingest import Ingest, Source, SourceRow
from llm_os.tasks.datasets.options import SplitNames
from llm_os.tasks.preparation.step import choose
from llm_os.tasks.task import Task


class HubOptions(SplitNames):
    source: str = Field(pattern=r"^hub:.+", examples=["hub:stanfordnlp/imdb"])
    """`hub:owner/name`, or `hub:/a/folder` that looks like one on the hub."""
    config: str | None = None
    """Configuration of a data set that has several (a language, a subset)."""
    revision: str | None = None
    """Branch, tag or commit; none: the newest."""


class Hub(Task[HubOptions]):
    """Not cached: what is behind a name may change."""

    Options = HubOptions
    optional_inputs = ("tokenizer",)
    output = "dataset"

    def resources(self, options: HubOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        choose(options.steps or ())
        return ResourceSpec(cpus=min(0.25, granted.cpus), memory=1024 * 2**20)

    def run(self, context: Context, options: HubOptions) -> None:
        name = options.source.removeprefix("hub:")
        parts = _load(name, options)
        sides = chosen(list(parts), options.train_split, options.test_split, name, context.message)
        facts: dict[str, Json] = {"kind": "hub", "name": name, "config": options.config, "revision": options.revision}
        called = options.name or slug(Path(name).name)
        Ingest(context, options, Source(called, name, _rows(parts, sides, name), facts, options.asked)).run()


def _load(name: str, options: HubOptions) -> Mapping[str, Any]:
    """Streams by split. Raises SourceError, DataError."""
    try:
        import datasets
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise SourceError("Reading the hub needs the package datasets.", hint="pip install 'llm-os[hub]'") from error
    datasets.disable_progress_bars()
    try:
        found: Mapping[str, Any] = datasets.load_dataset(
            name, options.config, revision=options.revision, streaming=True
        )
    except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError) as error:
        raise SourceError(
            f"The hub has no data set '{name}' that can be read: {_first(error)}.",
            hint="Check the name; private ones need HF_TOKEN where the kernel was started.",
        ) from error
    except (ConnectionError, OSError, HfHubHTTPError) as error:
        raise SourceError(
            f"The hub cannot be reached for '{name}': {_first(error)}.",
            hint="Check the network, or save it elsewhere with save_to_disk() and give the folder.",
        ) from error
    except (ValueError, RuntimeError) as error:
        raise DataError(f"'{name}' cannot be read: {_first(error)}.", hint="Is it the right `config`?") from error
    return found


def _rows(parts: Mapping[str, Any], sides: Mapping[str, str | None], name: str) -> Iterator[SourceRow]:
    for split, side in sides.items():
        part = parts[split]
        names = {c: f.names for c, f in (part.features or {}).items() if hasattr(f, "int2str")}
        number = 0
        try:
            for number, row in enumerate(part, 1):
                named = {
                    c: known[row[c]] if row.get(c) is not None and row[c] >= 0 else None for c, known in names.items()
                }
                yield SourceRow(f"Row {number} of {name} ({split})", {**row, **named}, side)
        except OSError as error:
            raise SourceError(f"{name} broke off after row {number} of {split}: {_first(error)}.") from error


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]


PLUGIN = Hub()
