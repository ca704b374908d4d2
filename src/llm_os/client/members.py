"""Engines side by side as people write them: several names, and options for all of them or for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_os.errors import InvalidOptionError, did_you_mean

Engines = str | Sequence[str] | None


def wished(engines: Engines, options: Mapping[str, Any]) -> dict[str, Any]:
    """`engine` and `options` of a deployment, or its `members` where several engines are named.

    Args:
        options: `context=4096` is for every engine, `{"llamacpp.context": 4096}` or `llamacpp={"context": 4096}` for
            one of several.

    Raises:
        InvalidOptionError: an engine is named twice, or an option is for an engine that is not named.
    """
    if engines is not None and not isinstance(engines, str | list | tuple):
        raise InvalidOptionError(f"An engine is a name, not {engines!r}.", hint='engine=["openvino", "llamacpp"]')
    names = [engines] if isinstance(engines, str) else list(engines or ())
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise InvalidOptionError(f"An engine is a name, not {wrong[0]!r}.", hint='engine=["openvino", "llamacpp"]')
    if len(names) < 2:
        return {"engine": names[0] if names else None, "options": dict(options)}
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidOptionError(
            f"The engine {twice[0]} is named twice.", hint="Ask for more replicas: they are of each engine."
        )
    own: dict[str, dict[str, Any]] = {name: {} for name in names}
    for option, value in options.items():
        engine, dot, rest = option.partition(".")
        if dot and engine not in own:
            raise InvalidOptionError(
                f"'{option}' is for the engine {engine}, which is not among {', '.join(names)}.",
                hint=did_you_mean(engine, names),
            )
        if dot:
            own[engine][rest] = value
        elif option in own and isinstance(value, Mapping):
            own[option] |= value
    shared = {k: v for k, v in options.items() if "." not in k and not (k in own and isinstance(v, Mapping))}
    return {"members": [{"engine": name, "options": {**shared, **own[name]}} for name in names]}


def changed(engines: Engines, options: Mapping[str, Any], now: Sequence[str]) -> dict[str, Any]:
    """What an update names of `engine`, `options` and `members`; options without an engine are for those of `now`.

    An engine that stands beside itself with other options (measuring may come to that) is one with the same options.
    """
    several = list(dict.fromkeys(now)) if len(now) > 1 and not engines and options else engines
    found = wished(several, options)
    if "members" in found:
        return found
    return {"engine": found["engine"], "options": found["options"] or None}


def named(record: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Engines that a body of `wished` or `changed` names; one None where it names none."""
    return tuple(member["engine"] for member in record.get("members") or ()) or (record.get("engine"),)
