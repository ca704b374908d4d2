"""Folders by content: blobs stored once, manifests written last, views made of hard links. Decides nothing.

Layout below the root: `blobs/<2 hex>/<sha256>` (read-only files), `manifests/<sha256>.json`, `trees/<sha256>/` (views).
A kill at any moment leaves either no manifest or a whole artifact: blobs without a manifest are harmless leftovers,
and `clean` removes half-made files. A file comes in as a hard link where nobody else has one (the worker that wrote
it is dead by then), otherwise as a copy.
"""

from __future__ import annotations

import asyncio
import errno
import filecmp
import hashlib
import itertools
import json
import os
import secrets
import shutil
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pydantic import ValidationError

from llm_os.errors import ConflictError, DiskFullError, IntegrityError, InvalidInputError, NotFoundError
from llm_os.spec.api import ExportReport, ExportRequest, RowPage
from llm_os.spec.artifacts import CHUNK_BYTES, ArtifactFacts, Manifest, ManifestFile
from llm_os.spec.base import Digest
from llm_os.spec.verification import BrokenFile

DECLARATION = "artifact.json"
MOST_ROWS = 5000


class ArtifactStore:
    """Blocking methods say so; the kernel awaits `ingest`, `rows` and `export`, which work in threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._facts: dict[Digest, ArtifactFacts] = {}
        for name in ("blobs", "manifests", "trees", "incoming"):
            (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)

    async def ingest(self, folder: Path) -> tuple[Digest, ArtifactFacts, Manifest]:
        """Store a filled output folder. Idempotent; the folder itself is left as it is.

        Raises:
            InvalidInputError: no readable `artifact.json`, or a link or special file inside.
            DiskFullError: nothing half-written stays.
        """
        return await asyncio.to_thread(self.put, folder)

    def put(self, folder: Path) -> tuple[Digest, ArtifactFacts, Manifest]:
        """`ingest`, blocking."""
        kind, meta = _declaration(folder)
        with _room(self._root):
            files = tuple(self._store(folder, path) for path in _regular_files(folder))
            manifest = _manifest(kind, files, meta)
            digest = digest_of(manifest)
            target = self._manifest_file(digest)
            if not target.exists():
                _write_whole(target, manifest.model_dump_json().encode())
            self._view(digest, manifest)
        return digest, self.facts(digest), manifest

    def clean(self) -> int:
        """Remove what a kill left half-made; the number of leftovers. For the one process that writes, at its start."""
        leftovers = [*(self._root / "incoming").iterdir(), *(self._root / "trees").glob(".*")]
        leftovers += (self._root / "manifests").glob(".*")
        for path in leftovers:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return len(leftovers)

    def manifest(self, digest: Digest) -> Manifest:
        """Raises NotFoundError, or IntegrityError for a damaged manifest."""
        try:
            data = self._manifest_file(digest).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                f"There is no artifact {digest}.", hint="`llm-os models` and `llm-os jobs` show what there is."
            ) from None
        manifest = Manifest.model_validate_json(data)
        if digest_of(manifest) != digest:
            raise IntegrityError(f"The manifest of {digest} was changed.", hint="Make the artifact again.")
        return manifest

    def facts(self, digest: Digest) -> ArtifactFacts:
        """Raises NotFoundError."""
        if digest not in self._facts:
            manifest = self.manifest(digest)
            self._facts[digest] = ArtifactFacts(
                digest=digest, kind=manifest.kind, size=manifest.size, meta=manifest.meta
            )
        return self._facts[digest]

    def path(self, digest: Digest) -> Path:
        """A read-only folder with the artifact's files (hard links: it costs no bytes). Raises NotFoundError."""
        tree = self._root / "trees" / _hexadecimal(digest)
        if not tree.exists():
            self._view(digest, self.manifest(digest))
        return tree

    def verify(self, digest: Digest) -> None:
        """Read every byte again. Raises IntegrityError naming the file and the chunk."""
        for file in self.find_broken(digest):
            raise IntegrityError(f"{file.path} of {digest} {file.problem}.", hint="Make the artifact again.")

    async def broken(self, digest: Digest) -> tuple[BrokenFile, ...]:
        """Read every byte again: the files that are not as they were stored. Raises as `manifest`."""
        return await asyncio.to_thread(lambda: tuple(self.find_broken(digest)))

    def find_broken(self, digest: Digest) -> Iterator[BrokenFile]:
        """`broken`, blocking, file by file. What engines and tasks read, the view, is looked at, too."""
        tree = self._root / "trees" / _hexadecimal(digest)
        for file in self.manifest(digest).files:
            problem = self._problem(file) or _view_problem(tree, file.path, self._blob(file.sha256))
            if problem is not None:
                yield BrokenFile(path=file.path, problem=problem)

    def _problem(self, file: ManifestFile) -> str | None:
        try:
            with self._blob(file.sha256).open("rb") as source:
                _, chunks, size = _hashes(source)
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        for number, (seen, wanted) in enumerate(zip(chunks, file.chunks, strict=False)):
            if seen != wanted:
                return f"was changed in chunk {number} of {len(file.chunks)} (8 MiB each, the first is 0)"
        return f"has {size} bytes, not {file.size}" if size != file.size else None

    async def rows(self, digest: Digest, split: str, offset: int, limit: int) -> RowPage:
        """A page of a data set. Raises NotFoundError for a split that is not there."""
        return await asyncio.to_thread(self.read_rows, digest, split, offset, limit)

    def read_rows(self, digest: Digest, split: str, offset: int, limit: int) -> RowPage:
        """`rows`, blocking: two reads in the index, one in the rows."""
        tree = self.path(digest)
        known = sorted(path.parent.name for path in tree.glob("*/rows.idx"))
        if split not in known:
            raise NotFoundError(f"{digest} has no split '{split}'.", hint=f"Known: {', '.join(known) or 'none'}.")
        with (tree / split / "rows.idx").open("rb") as index, (tree / split / "rows.jsonl").open("rb") as rows:
            total = max(index.seek(0, os.SEEK_END) // 8 - 1, 0)
            first = min(max(offset, 0), total)
            last = min(first + min(max(limit, 0), MOST_ROWS), total)
            offsets = _row_offsets(index, first, last)
            rows.seek(offsets[0])
            data = rows.read(offsets[-1] - offsets[0])
        try:
            lines = [data[a - offsets[0] : b - offsets[0]] for a, b in itertools.pairwise(offsets)]
            page = tuple(json.loads(line) for line in lines)
        except ValueError as error:
            raise IntegrityError(f"Rows {first} to {last} of {digest} cannot be read: {error}.") from error
        return RowPage(split=split, offset=first, total=total, rows=page)

    async def export(self, digest: Digest, request: ExportRequest) -> ExportReport:
        """Copy the files into a new or empty folder. Raises ConflictError, DiskFullError."""
        return await asyncio.to_thread(self.copy_out, digest, Path(request.path))

    def copy_out(self, digest: Digest, folder: Path) -> ExportReport:
        """`export`, blocking. The folder appears whole or not at all."""
        if not folder.is_absolute():
            raise InvalidInputError(f"'{folder}' is not an absolute path.", hint="Give the whole path.")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConflictError(f"'{folder}' is there already and not empty.", hint="Name a new folder.")
        manifest = self.manifest(digest)
        beside = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
        try:
            with _room(folder.parent):
                beside.mkdir(parents=True)
                for file in manifest.files:
                    target = beside / file.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self._blob(file.sha256), target)
                os.replace(beside, folder)
        except OSError as error:
            raise InvalidInputError(
                f"'{folder}' cannot be written: {error.strerror}.", hint="Name a folder that you may write to."
            ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return ExportReport(path=str(folder), files=len(manifest.files), size=manifest.size)

    def _store(self, folder: Path, path: Path) -> ManifestFile:
        """Keep the bytes of one file under their hash. What is there already is not written again."""
        incoming = self._root / "incoming" / secrets.token_hex(8)
        try:
            if _own_link(path, incoming):
                with incoming.open("rb") as source:
                    sha256, chunks, size = _hashes(source)
            else:
                with path.open("rb") as source, incoming.open("xb") as copy:
                    sha256, chunks, size = _hashes(source, copy)
            blob = self._blob(sha256)
            if not blob.exists():
                os.chmod(incoming, 0o400)
                _sync(incoming)
                if not blob.parent.exists():
                    blob.parent.mkdir(exist_ok=True)
                    _sync(blob.parent.parent)
                os.replace(incoming, blob)
                _sync(blob.parent)
        finally:
            incoming.unlink(missing_ok=True)
        return ManifestFile(path=_name(folder, path), size=size, sha256=sha256, chunks=chunks)

    def _view(self, digest: Digest, manifest: Manifest) -> None:
        tree = self._root / "trees" / _hexadecimal(digest)
        if tree.exists():
            return
        beside = tree.with_name(f".{tree.name}.{secrets.token_hex(4)}")
        try:
            beside.mkdir()
            for file in manifest.files:
                target = beside / _safe(file.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(self._blob(file.sha256), target)
            try:
                os.rename(beside, tree)
            except OSError as error:  # another thread was quicker: its view is the same
                if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                    raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _blob(self, sha256: str) -> Path:
        return self._root / "blobs" / sha256[:2] / sha256

    def _manifest_file(self, digest: Digest) -> Path:
        return self._root / "manifests" / f"{_hexadecimal(digest)}.json"


def _view_problem(tree: Path, name: str, blob: Path) -> str | None:
    """Whether a view, where one was made, shows other bytes than those that are stored."""
    if not tree.exists():
        return None
    try:
        shown = tree / _safe(name)
        # Two that store the same at once may leave two files of one content.
        same = os.path.samefile(shown, blob) or filecmp.cmp(shown, blob, shallow=False)
        return None if same else "was replaced in the view that engines read"
    except FileNotFoundError:
        return "is missing in the view that engines read"


def digest_of(manifest: Manifest) -> Digest:
    """sha256 of the canonical JSON (sorted keys, no white space, UTF-8)."""
    data = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(data.encode()).hexdigest()


def _hexadecimal(digest: str) -> str:
    name = digest.removeprefix("sha256:")
    if len(name) != 64 or set(name) - set("0123456789abcdef"):
        raise NotFoundError(f"'{digest}' is not a digest.", hint="A digest is `sha256:` and 64 hexadecimal digits.")
    return name


def _declaration(folder: Path) -> tuple[str, dict[str, object]]:
    try:
        data = json.loads((folder / DECLARATION).read_bytes())
        return data["kind"], data["meta"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{folder.name} is no finished output: its {DECLARATION} cannot be read ({error}).",
            hint="The task must call `context.finish(kind, meta)` when its output is whole.",
        ) from error


def _regular_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InvalidInputError(f"{path.name} is a link or special file; an output holds regular files only.")
        if path.is_file():
            yield path


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise IntegrityError(f"A manifest names '{name}', which lies outside its folder.")
    return path


def _manifest(kind: str, files: tuple[ManifestFile, ...], meta: dict[str, object]) -> Manifest:
    try:
        return Manifest.model_validate({"kind": kind, "files": files, "meta": meta})
    except ValidationError as error:
        reason = error.errors()[0]
        raise InvalidInputError(
            f"{DECLARATION} is not right: {'.'.join(map(str, reason['loc']))}: {reason['msg']}.",
            hint="`context.finish(kind, meta)` writes it; kinds are model, dataset, report and files.",
        ) from error


def _name(folder: Path, path: Path) -> str:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"The name of {name!r} is not UTF-8.", hint="Rename the file.") from None
    return name


def _own_link(path: Path, target: Path) -> bool:
    """Link `path` to `target`, unless it has other names through which somebody could change it."""
    if path.stat(follow_symlinks=False).st_nlink > 1:
        return False
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def _hashes(source: BinaryIO, copy: BinaryIO | None = None) -> tuple[str, tuple[str, ...], int]:
    """sha256 of the whole and of each chunk, and the size, in one pass; chunks are hashed beside it in a thread."""
    whole, size = hashlib.sha256(), 0
    chunks: list[str] = []
    pending: deque[Future[str]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:  # its thread starts with the first chunk it gets
        while data := source.read(CHUNK_BYTES):
            size += len(data)
            if size < CHUNK_BYTES:  # a small file is not worth a thread
                chunks.append(_chunk_hash(data))
            else:
                pending.append(pool.submit(_chunk_hash, data))
            whole.update(data)
            if copy is not None:
                copy.write(data)
            if len(pending) > 4:  # at most five chunks in memory
                chunks.append(pending.popleft().result())
        chunks.extend(future.result() for future in pending)
    return whole.hexdigest(), tuple(chunks), size


def _chunk_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _row_offsets(index: BinaryIO, first: int, last: int) -> tuple[int, ...]:
    """Where rows `first` to `last` begin, and where the last one ends."""
    index.seek(first * 8)
    data = index.read((last - first + 1) * 8)
    if len(data) != (last - first + 1) * 8:
        return (0,)  # an empty index: no rows
    return struct.unpack(f"<{last - first + 1}Q", data)


def _write_whole(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _room(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise DiskFullError(f"The disk of {where} is full.") from error
        raise
