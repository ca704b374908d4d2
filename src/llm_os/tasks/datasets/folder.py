"""Own folders: texts in a folder for each class, data files in splits, or what `datasets` wrote (`save_to_disk`)."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from llm_os.errors import DataError, EmptyDataError, NotFoundError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, slug
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.datasets.format import endings, format_of, formats
from llm_os.tasks.datasets.given import chosen, split_of
from llm_os.tasks.datasets.ingest import Ingest, Source, SourceRow
from llm_os.tasks.datasets.lines import LONGEST, not_utf8, too_long
from llm_os.tasks.datasets.options import SplitNames
from llm_os.tasks.preparation.step import choose
from llm_os.tasks.task import Task

TEXTS = (".txt", ".md", ".html", ".htm")
"""Endings of files that are one text each."""


class FolderOptions(SplitNames):
    path: str = Field(min_length=1, examples=["/data/reviews"])
    """Absolute path of the folder."""
    content: str | None = None
    """Fingerprint of its files when it was submitted; a folder that changed since is refused."""


class Folder(Task[FolderOptions]):
    Options = FolderOptions
    optional_inputs = ("tokenizer",)
    output = "dataset"
    cacheable = True

    def resources(self, options: FolderOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        choose(options.steps or ())
        return ResourceSpec(cpus=min(0.25, granted.cpus), memory=768 * 2**20)

    def run(self, context: Context, options: FolderOptions) -> None:
        folder = Path(options.path)
        files = files_of(folder)
        if options.content is not None and fingerprint(folder, files) != options.content:
            raise DataError(f"'{folder.name}' was changed since it was submitted.", hint="Run the same call again.")
        parts = saved(folder) or shards(folder, files)
        by_class = not parts
        parts = parts or texts(folder, files)
        sides = chosen(list(parts), options.train_split, options.test_split, f"'{folder.name}'", context.message)
        source = Source(
            options.name or slug(folder.name),
            f"'{folder.name}'",
            _rows(folder, parts, sides, by_class=by_class),
            {"kind": "folder", "name": folder.name, "sha256": options.content},
            options.asked,
        )
        if by_class and all(_class_of(folder, file) is None for members in parts.values() for file in members):
            source.kind = "text"
        Ingest(context, options, source).run()


def files_of(folder: Path) -> list[Path]:
    """All files, sorted; hidden ones are left out. Raises NotFoundError, EmptyDataError."""
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder '{folder}'.", hint="Check the path.")
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and not _hidden(p.relative_to(folder))]
    if not found:
        raise EmptyDataError(f"'{folder.name}' has no files.", hint="Is it the right folder?")
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def fingerprint(folder: Path, files: Sequence[Path]) -> str:
    """sha256 over names and contents, as `client/sources.py` computes it."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\x00{digest}\n".encode())
    return whole.hexdigest()


def saved(folder: Path) -> dict[str, list[Path]]:
    """Arrow files by split of what `save_to_disk` wrote; empty for another folder."""
    if (folder / "dataset_dict.json").exists():
        splits = _json(folder / "dataset_dict.json").get("splits", [])
        return {str(name): _arrows(folder / str(name)) for name in splits}
    return {"": _arrows(folder)} if (folder / "state.json").exists() else {}


def _arrows(folder: Path) -> list[Path]:
    found = [folder / str(part["filename"]) for part in _json(folder / "state.json").get("_data_files", [])]
    missing = [path for path in found if not path.exists()]
    if missing:
        raise DataError(f"'{missing[0].name}' is missing from '{folder.name}'.", hint="Copy the whole folder again.")
    return found


def _json(path: Path) -> dict[str, list[dict[str, str]]]:
    try:
        found: dict[str, list[dict[str, str]]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"'{path.name}' of '{path.parent.name}' cannot be read: {error}.", hint="Copy the whole folder again."
        ) from error
    return found


def shards(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Data files by the split that folder or file name speak of, as on the hub; empty where there are none."""
    known = set(formats()) - {".txt", ".json"}
    data = [path for path in files if endings(path)[0] in known]
    data = data or [p for p in files if endings(p)[0] == ".json" and p.name != "dataset_infos.json"]
    parts: dict[str, list[Path]] = {}
    for path in data:
        words = re.split(r"[^A-Za-z0-9]+", path.relative_to(folder).as_posix())
        parts.setdefault(split_of(words) or "", []).append(path)
    return parts


def texts(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Text files by split. Raises DataError where there are none."""
    found = [path for path in files if path.suffix.lower() in TEXTS]
    if not found:
        counts = Counter(path.suffix.lower() or "no ending" for path in files)
        raise DataError(
            f"'{folder.name}' has no file of data or text, only {', '.join(f'{n} {e}' for e, n in counts.items())}.",
            hint=f"Known endings: {', '.join(sorted({*formats(), *TEXTS}))}.",
        )
    parts: dict[str, list[Path]] = {}
    for path in found:
        parts.setdefault(split_of(path.relative_to(folder).parts[:-1][:1]) or "", []).append(path)
    if len(parts) > 1 and "" in parts:
        del parts[""]  # a README beside train/ and test/
    return parts


def _class_of(folder: Path, path: Path) -> str | None:
    """The folder above, below the split; None for texts that lie in no folder of a class."""
    parts = path.relative_to(folder).parts[:-1]
    parts = parts[1:] if parts and split_of(parts[:1]) else parts
    return parts[0] if parts else None


def _rows(
    folder: Path, parts: Mapping[str, Sequence[Path]], sides: Mapping[str, str | None], *, by_class: bool
) -> Iterator[SourceRow]:
    for split, side in sides.items():
        for path in parts[split]:
            name = path.relative_to(folder).as_posix()
            if not by_class:
                for number, row in format_of(path).rows(path):
                    yield SourceRow(f"Row {number} of '{name}'", row, side)
                continue
            found: dict[str, Json] | DataError = _text(path, name)
            label = _class_of(folder, path)
            if not isinstance(found, DataError) and label is not None:
                found["label"] = label
            yield SourceRow(f"'{name}'", found, side)


def _text(path: Path, name: str) -> dict[str, Json] | DataError:
    with path.open("rb") as file:
        raw = file.read(LONGEST + 1)
    if len(raw) > LONGEST:
        return too_long(f"'{name}'")
    try:
        return {"text": raw.decode("utf-8-sig").replace("\x00", "")}
    except UnicodeDecodeError as error:
        return not_utf8(f"'{name}'", error.start)


PLUGIN = Folder()
