"""How urgent a request is and how long it may take, from its headers; must not know bodies or the network."""

from __future__ import annotations

from collections.abc import Mapping

from llm_os.errors import InvalidOptionError, PermissionDeniedError
from llm_os.spec.quotas import Priority, Quota

PRIORITY = "x-llm-os-priority"
TIMEOUT = "x-llm-os-timeout"
LONGEST = 24 * 3600.0
"""Seconds: a longer timeout is a mistake."""


def priority_of(headers: Mapping[str, str], quota: Quota) -> Priority:
    """The class that is asked for; else standard, or the most urgent that the key may have.

    Raises:
        InvalidOptionError: there is no such class.
        PermissionDeniedError: the key may not ask for it.
    """
    asked = headers.get(PRIORITY)
    if asked is None:
        return quota.priority if quota.priority is Priority.BATCH else Priority.STANDARD
    try:
        priority = Priority(asked.strip().lower())
    except ValueError as error:
        raise InvalidOptionError(
            f"'{asked[:40]}' is no class of priority.",
            hint=f"Send {PRIORITY}: {', '.join(Priority)}.",
            details={"param": PRIORITY},
        ) from error
    if priority.rank < quota.priority.rank:
        raise PermissionDeniedError(
            f"This key may not ask for the class '{priority}'.",
            hint=f"Its most urgent class is '{quota.priority}'.",
            details={"param": PRIORITY},
        )
    return priority


def deadline_of(headers: Mapping[str, str], started: float) -> float | None:
    """When the answer must be complete, on the clock of `started`; None where nothing is asked.

    Raises InvalidOptionError.
    """
    asked = headers.get(TIMEOUT)
    if asked is None:
        return None
    try:
        seconds = float(asked)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= LONGEST:
        raise InvalidOptionError(
            f"'{asked[:40]}' is no time that an answer could take.",
            hint=f"Send {TIMEOUT} in seconds, such as 2.5; at most {LONGEST:.0f}.",
            details={"param": TIMEOUT},
        )
    return started + seconds
