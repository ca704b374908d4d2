"""NAME=VALUE pairs and numbers of replicas, as people type them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click

from llm_os.errors import InvalidInputError, InvalidOptionError


def further(texts: Iterable[str], **flags: str | None) -> dict[str, Any]:
    """What `--option NAME=VALUE` gave.

    Args:
        flags: names that are no further options, and the flag each has; None: a command knows no such thing.

    Raises:
        InvalidOptionError: one of those, or a text of another form.
    """
    given = {name: plain_value(value) for name, value in map(pair, texts)}
    for name in flags.keys() & given.keys():
        flag = flags[name]
        hint = f"Write {flag} {given[name]}." if flag else "Leave it out."
        raise InvalidOptionError(f"'{name}' cannot be given as --option.", hint=hint)
    return given


def pair(text: str, flag: str = "--option") -> tuple[str, str]:
    """Name and value, as they were written. Raises InvalidOptionError."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        what = "value" if name else "name"
        raise InvalidOptionError(f"{flag} {text} has no {what}.", hint=f"Write {flag} NAME=VALUE.")
    return name, value


def labels_of(texts: Iterable[str]) -> dict[str, str]:
    """What `--label NAME=VALUE` gave, as it was written. Raises InvalidOptionError."""
    return dict(pair(text, "--label") for text in texts)


def plain_value(text: str) -> Any:
    """What the text is as JSON, or the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def scaling_options(function: Any) -> Any:
    """Adds what a deployment scales by to a command: `least`, `most`, `first_token`, `tokens_in_flight`."""
    tokens = click.FloatRange(min=1)
    for option in (
        click.option(
            "--tokens-in-flight", type=tokens, metavar="N", help="Tokens under way that a replica shall have."
        ),
        click.option(
            "--first-token", metavar="TIME", help="Objective: 95 of 100 streams begin within it, such as 0.5s."
        ),
        click.option("--most", type=click.IntRange(1, 64), help="Replicas at most, when many ask."),
        click.option(
            "--least", type=click.IntRange(0, 64), help="Replicas at least; 0 lets it sleep when nobody asks."
        ),
    ):
        function = option(function)
    return function


def scaling_of(
    least: int | None, most: int | None, first_token: str | None = None, tokens_in_flight: float | None = None
) -> dict[str, Any] | None:
    """Between how many replicas a deployment scales: at least one, at most as many as at least, if left out.

    None: nothing of it was asked for. Raises InvalidInputError: an objective that could never be followed.
    """
    objectives = {"first_token": first_token, "tokens_in_flight": tokens_in_flight}
    asked = {name: value for name, value in objectives.items() if value is not None}
    if least is None and most is None and not asked:
        return None
    if asked and most is None:
        flag = "--" + next(iter(asked)).replace("_", "-")
        raise InvalidInputError(f"{flag} says when more replicas come, not how many.", hint="Give --most, too.")
    least = 1 if least is None else least
    return {"least": least, "most": max(1, least) if most is None else most, **asked}
