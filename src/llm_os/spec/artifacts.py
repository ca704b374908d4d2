"""Content-addressed folders: a manifest names every file by size and hash (version 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from llm_os.spec.base import Digest, Json, Record

CHUNK_BYTES = 8 * 2**20
"""Chunks are hashed each, so that reading can verify in parallel and in parts."""


class ManifestFile(Record):
    """One file of an artifact; `path` is relative with forward slashes."""

    path: str
    size: int = Field(ge=0)
    sha256: str
    chunks: tuple[str, ...]
    """sha256 of each 8 MiB chunk, in order."""


class Manifest(Record):
    """A folder by content. Its digest is the sha256 of its canonical JSON without `meta` changes of any kind."""

    version: Literal[1] = 1
    kind: Literal["model", "dataset", "report", "files"]
    files: tuple[ManifestFile, ...]
    meta: Mapping[str, Json] = Field(default_factory=dict)
    """Facts the kernel needs without opening files: rows, labels, parameters, format ..."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class ArtifactFacts(Record):
    """What a task sees of an input before it runs."""

    digest: Digest
    kind: str
    size: int
    meta: Mapping[str, Json] = Field(default_factory=dict)
