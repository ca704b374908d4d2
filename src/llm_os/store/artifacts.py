"""Folders by content: blobs stored once, manifests written last, views made of hard links. Decides nothing.

Layout below the root: `blobs/<2 hex>/<sha256>` (read-only files), `manifests/<sha256>.json`, `trees/<sha256>/` (views).
A kill at any moment leaves either no manifest or a whole artifact: blobs without a manifest are harmless leftovers.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import secrets
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from llm_os.errors import ConflictError, DiskFullError, IntegrityError, InvalidInputError, NotFoundError
from llm_os.spec.api import ExportReport, ExportRequest, RowPage
from llm_os.spec.artifacts import CHUNK_BYTES, ArtifactFacts, Manifest, ManifestFile
from llm_os.spec.base import Digest

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
            manifest = Manifest(kind=kind, files=files, meta=meta)
            digest = digest_of(manifest)
            target = self._manifest_file(digest)
            if not target.exists():
                _write_whole(target, manifest.model_dump_json().encode())
            self._view(digest, manifest)
        return digest, self.facts(digest), manifest

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
        for file in self.manifest(digest).files:
            blob = self._blob(file.sha256)
            if not blob.exists():
                raise IntegrityError(f"{file.path} of {digest} is missing.", hint="Make the artifact again.")
            _, chunks = _hashes(blob)
            for number, (seen, wanted) in enumerate(zip(chunks, file.chunks, strict=False)):
                if seen != wanted:
                    raise IntegrityError(f"{file.path} of {digest} was changed in chunk {number} (8 MiB each).")
            if len(chunks) != len(file.chunks) or blob.stat().st_size != file.size:
                raise IntegrityError(f"{file.path} of {digest} has {blob.stat().st_size} bytes, not {file.size}.")

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
            total = index.seek(0, os.SEEK_END) // 8 - 1
            first = min(max(offset, 0), total)
            last = min(first + min(max(limit, 0), MOST_ROWS), total)
            index.seek(first * 8)
            offsets = struct.unpack(f"<{last - first + 1}Q", index.read((last - first + 1) * 8))
            rows.seek(offsets[0])
            lines = rows.read(offsets[-1] - offsets[0]).splitlines()
        return RowPage(split=split, offset=first, total=total, rows=tuple(json.loads(line) for line in lines))

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
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return ExportReport(path=str(folder), files=len(manifest.files), size=manifest.size)

    def _store(self, folder: Path, path: Path) -> ManifestFile:
        sha256, chunks = _hashes(path)
        blob = self._blob(sha256)
        if not blob.exists():
            blob.parent.mkdir(exist_ok=True)
            incoming = self._root / "incoming" / secrets.token_hex(8)
            try:
                shutil.copyfile(path, incoming)
                os.chmod(incoming, 0o400)
                _sync(incoming)
                os.replace(incoming, blob)
                _sync(blob.parent)
            finally:
                incoming.unlink(missing_ok=True)
        name = path.relative_to(folder).as_posix()
        return ManifestFile(path=name, size=blob.stat().st_size, sha256=sha256, chunks=chunks)

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


def _hashes(path: Path) -> tuple[str, tuple[str, ...]]:
    whole, chunks = hashlib.sha256(), []
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            whole.update(data)
            chunks.append(hashlib.sha256(data).hexdigest())
    return whole.hexdigest(), tuple(chunks)


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
