"""Compares a serving backend with the reference once more when its control file asks for it; must not know an engine.

The backend goes on answering: the questions stand in its queue like those of everybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from llm_os.errors import InternalError, LLMOSError
from llm_os.spec.attempts import Compare, Control
from llm_os.spec.base import Json
from llm_os.spec.parity import FILE, Reference
from llm_os.workers.backend import Backend
from llm_os.workers.comparison import figures
from llm_os.workers.parity import SHOWN, complaints

log = logging.getLogger("llm_os.worker")

LOOK_EVERY = 0.5
"""Seconds between looks at the control file: one `stat`."""
Write = Callable[[str, Mapping[str, Json]], None]


async def watch(folder: Path, backend: Backend, write: Write) -> None:
    """Do what the control file of this attempt folder asks, each wish once; until it is cancelled.

    Args:
        write: writes a report of a kind.
    """
    path, seen, done = folder / "control.json", None, 0
    while True:
        await asyncio.sleep(LOOK_EVERY)
        try:
            found = path.stat()
        except OSError:
            continue
        if seen == (now := (found.st_ino, found.st_mtime_ns)):
            continue
        seen, wish = now, _wish(path)
        if wish is not None and wish.number > done:
            done = wish.number
            with contextlib.suppress(OSError):  # no room for a report: the next wish is heard all the same
                await again(wish, backend, write)


def _wish(path: Path) -> Compare | None:
    try:
        return Control.model_validate_json(path.read_bytes()).compare
    except (OSError, ValueError):  # gone, or of a newer release
        return None


async def again(wish: Compare, backend: Backend, write: Write) -> None:
    """Compare, and report: that it has begun, then the figures or why there are none."""
    write("parity", {"number": wish.number})
    try:
        content = await asyncio.to_thread((Path(wish.reference.path) / FILE).read_bytes)
        parity, differences = await figures(Reference.model_validate_json(content), backend)
    except LLMOSError as error:
        write("parity", {"number": wish.number, "error": error.to_dict()})
        return
    except Exception as error:  # an engine's own, or no reference: whoever asked is told, and may ask again
        log.exception("the comparison %d broke", wish.number)
        told = InternalError(f"The comparison broke: {type(error).__name__}: {error}")
        write("parity", {"number": wish.number, "error": told.to_dict()})
        return
    parity = parity.model_copy(update={"complaints": tuple(complaints(parity))})
    shown: list[Json] = [[one.behind, one.expected, one.got] for one in differences[:SHOWN]]
    write("parity", {"number": wish.number, "parity": parity.model_dump(mode="json"), "differences": shown})
