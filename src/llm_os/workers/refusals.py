"""A refusal that names its parameter, for all that reads requests; must not know what is read."""

from __future__ import annotations

from collections.abc import Iterable

from llm_os.errors import InvalidOptionError, NotFoundError, did_you_mean


def wrong(param: str, message: str, hint: str) -> InvalidOptionError:
    """A refusal that names its parameter."""
    return InvalidOptionError(message, hint=hint, details={"param": param})


def no_adapter(name: str, known: Iterable[str]) -> NotFoundError:
    """The refusal of an adapter that this replica does not hold."""
    message = f"There is no adapter '{name}' here."
    return NotFoundError(message, hint=did_you_mean(name, known), details={"param": "model"})
