"""Is an error the disk's or the memory's? Libraries in C++ and Rust raise their own classes; only their words tell."""

from __future__ import annotations

import errno
from collections.abc import Iterator

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_SPACE_TEXTS = ("No space left on device", "Disk quota exceeded", "file write failed", "Not enough free space")
NO_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "Cannot allocate memory", "bad_alloc")


def of_disk(error: BaseException) -> bool:
    """Whether it, or what it came of, says that a disk is full."""
    full = any(isinstance(one, OSError) and one.errno in NO_SPACE for one in _chain(error))
    return full or _says(error, NO_SPACE_TEXTS)


def of_memory(error: BaseException) -> bool:
    """Whether it, or what it came of, says that there is no memory left."""
    return any(isinstance(one, MemoryError) for one in _chain(error)) or _says(error, NO_MEMORY_TEXTS)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    telling = (e for e in _chain(error) if isinstance(e, RuntimeError | OSError) or _is_of_safetensors(e))
    return any(text in str(one) for one in telling for text in texts)


def _is_of_safetensors(error: BaseException) -> bool:
    return type(error).__name__ == "SafetensorError"
