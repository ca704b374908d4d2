"""A refusal that names its parameter, for all that reads requests; must not know what is read."""

from __future__ import annotations

from llm_os.errors import InvalidOptionError


def wrong(param: str, message: str, hint: str) -> InvalidOptionError:
    """A refusal that names its parameter."""
    return InvalidOptionError(message, hint=hint, details={"param": param})
