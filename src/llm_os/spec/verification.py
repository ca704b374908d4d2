"""What comes out when something that is there already is held again against what it should be."""

from __future__ import annotations

from collections.abc import Mapping

from llm_os.spec.base import Digest, Json, Record
from llm_os.spec.parity import Parity


class BrokenFile(Record):
    """A file of an artifact whose bytes are not those of its manifest."""

    path: str
    problem: str
    """What is wrong with it, and where, for people."""


class ModelVerification(Record):
    """The stored bytes of a version against the digests of its manifest."""

    version: str
    digest: Digest
    files: int
    size: int
    """Bytes."""
    done: bool
    """False: it is still being read; ask again."""
    broken: tuple[BrokenFile, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all of it was read and is as it was stored."""
        return self.done and not self.broken


class ReplicaVerification(Record):
    """A replica that was asked again what the reference says."""

    attempt: str
    engine: str = ""
    """That it runs with."""
    begun: bool = False
    """It has heard of it. A worker of an older release never does."""
    parity: Parity | None = None
    """None: it is not through yet, or it failed."""
    differences: tuple[tuple[str, str, str], ...] = ()
    """Where they part most: what was read, what the reference says, what the replica says."""
    error: Mapping[str, Json] | None = None

    @property
    def done(self) -> bool:
        return self.parity is not None or self.error is not None


class Verification(Record):
    """A live deployment against the reference of what it serves."""

    deployment: str
    version: str
    engine: str
    """All of them, where several stand side by side: `llamacpp and openvino`."""
    number: int
    """Of this comparison: ask for it by this number."""
    replicas: tuple[ReplicaVerification, ...] = ()
    """Those that were ready when it began and still live."""

    @property
    def done(self) -> bool:
        return all(one.done for one in self.replicas)

    @property
    def agrees(self) -> bool:
        """Whether every replica was compared and keeps the limits."""
        return bool(self.replicas) and all(one.parity is not None and one.parity.agrees for one in self.replicas)
