"""Which JSON Schemas an answer can be held to: what grammars can say, and small enough to be made into one at once.

A grammar is compiled in the thread that serves all answers, and one that cannot be compiled would end them all. So what
is not known to compile, or would be left out of the grammar without a word, is refused here by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llm_os.errors import InvalidOptionError

MOST_BYTES = 64 * 2**10
MOST_NODES = 2000
"""Schemas inside a schema."""
DEEPEST = 32
MOST_TIMES = 1000
"""Repetitions that a bound or a pattern may ask for."""
LONGEST_PATTERN = 500

SAID = frozenset(
    {"title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated", "readOnly"}
)
"""Keywords that hold an answer to nothing."""
ONE = frozenset({"items", "additionalProperties"})
"""Keywords whose value is a schema; a truth value means any or none."""
MANY = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
NAMED = frozenset({"properties", "$defs", "definitions"})
COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems"})
PLAIN = frozenset(
    {
        *("type", "required", "enum", "const", "format", "pattern", "$ref"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)
PAIRS = (("minLength", "maxLength"), ("minItems", "maxItems"))
LEAST, MOST = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
KNOWN = SAID | ONE | MANY | NAMED | COUNTS | PLAIN
_UNNAMEABLE = re.compile(r'["\\\x00-\x1f\x7f]')
"""Characters that break the text of a grammar in the name of a property."""
_WHOLE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]|\{\d+(?:,\d*)?\}", re.DOTALL)
"""Parts of a pattern in which a brace is nothing or a repetition: escapes, classes, and repetitions that are right."""
_REPEATED = re.compile(r"\{(\d*),?(\d*)\}")


def vetted(schema: Mapping[str, Any], param: str = "response_format") -> str:
    """The schema as JSON. Raises InvalidOptionError that names `param` and the place of what it cannot be held to."""
    try:
        return _vetted(schema)
    except InvalidOptionError as error:
        error.details["param"] = param
        raise


def _vetted(schema: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(schema, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise _refused("its top", "it is no JSON", "Numbers must be finite, and it must end.") from error
    if len(text) > MOST_BYTES:
        raise _refused("its top", f"it has {len(text)} bytes, {MOST_BYTES} at most", "Send a smaller one.")
    for count, (place, one) in enumerate(_schemas(schema, "", 0)):
        if count >= MOST_NODES:
            raise _refused(place, f"it has more than {MOST_NODES} parts", "Send a smaller one.")
        _check(one, place, schema)
    _valid(schema)
    return text


def _schemas(schema: Any, place: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All schemas inside a schema, with their places."""
    if depth > DEEPEST:
        raise _refused(place, f"it is more than {DEEPEST} deep", "Send a flatter one.")
    if schema is True:
        return
    if not isinstance(schema, dict):
        raise _refused(place, "it is no object", 'A schema is an object, such as {"type": "string"}.')
    yield place, schema
    for name, value in schema.items():
        below = f"{place}/{name}"
        if name in ONE and not isinstance(value, bool):
            yield from _schemas(value, below, depth + 1)
        elif name in MANY and isinstance(value, list):
            for index, each in enumerate(value):
                yield from _schemas(each, f"{below}/{index}", depth + 1)
        elif name in NAMED and isinstance(value, dict):
            for key, each in value.items():
                yield from _schemas(each, f"{below}/{key}", depth + 1)


def _check(schema: Mapping[str, Any], place: str, root: Mapping[str, Any]) -> None:
    for name, value in schema.items():
        if name not in KNOWN:
            raise _refused(place, f"'{name}' cannot be followed", f"These can: {', '.join(sorted(KNOWN - SAID))}.")
        if name in COUNTS and isinstance(value, int) and value > MOST_TIMES:
            raise _refused(place, f"'{name}' is over {MOST_TIMES}", "Ask for less.")
        if name == "allOf" and isinstance(value, list) and len(value) > 1:
            raise _refused(place, "'allOf' of several cannot be followed", "Put them into one.")
        if name in ("properties", "required", "$defs", "definitions"):
            _nameable(value, f"{place}/{name}")
        if name == "enum" and value == []:
            raise _refused(place, "'enum' is empty, so there is no answer", "Name what it may be.")
        if name == "$ref":
            _reachable(value, place, root)
        if name == "pattern":
            _small(value, place)

    _possible(schema, place)


def _nameable(names: Any, place: str) -> None:
    for name in names if isinstance(names, dict | list) else ():
        if isinstance(name, str) and _UNNAMEABLE.search(name):
            message = f"the name {name[:40]!r} has a quote, a backslash or a control character"
            raise _refused(place, message, "Call it otherwise.")


def _possible(schema: Mapping[str, Any], place: str) -> None:
    """A grammar of nothing cannot be compiled."""
    whole = "integer" in (kinds if isinstance(kinds := schema.get("type"), list) else [kinds])
    for name in (*LEAST, *MOST):
        if whole and isinstance(bound := schema.get(name), int | float) and not _is_whole(bound):
            raise _refused(place, f"'{name}' {bound} of a whole number is none, or too large", "Below 2**63, whole.")
    bounds = [(low, high, 0) for low, high in PAIRS]
    bounds += [(low, high, (low in LEAST[1:]) + (high in MOST[1:])) for low in LEAST for high in MOST]
    for low, high, open_ends in bounds:
        least, most = schema.get(low), schema.get(high)
        if not isinstance(least, int | float) or not isinstance(most, int | float):
            continue
        if least > most - (open_ends if whole else 0) or (open_ends and least == most):
            raise _refused(place, f"'{low}' {least} and '{high}' {most} leave nothing", "Mend one of them.")
    least, first = schema.get("minItems", 0), schema.get("prefixItems", ())
    if isinstance(most := schema.get("maxItems"), int) and most < len(first):
        raise _refused(place, f"'maxItems' {most} is less than the 'prefixItems'", "Mend one of them.")
    if schema.get("items") is False and isinstance(least, int) and least > len(first):
        raise _refused(place, f"'minItems' {least} is more than there may be", "Mend it, or allow other 'items'.")


def _is_whole(bound: float) -> bool:
    return bound == int(bound) and abs(bound) < 2**63 if abs(bound) < float("inf") else False


def _reachable(ref: Any, place: str, root: Mapping[str, Any]) -> None:
    found: Any = root
    if not isinstance(ref, str) or not ref.startswith("#"):
        raise _refused(place, f"'$ref' {ref!r} leads elsewhere", "Put what it means into '$defs'.")
    for part in ref.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise _refused(place, f"'$ref' {ref!r} leads nowhere", "Put what it means into '$defs'.")
        found = found[name]


def _small(pattern: Any, place: str) -> None:
    if (
        not isinstance(pattern, str)
        or len(pattern) > LONGEST_PATTERN
        or "(?" in pattern
        or "{" in _WHOLE.sub("", pattern)
        or re.search(r"\\[1-9bB]|\[\^[^\]]*\\[wWsSdD]", pattern)
    ):
        raise _refused(place, "'pattern' cannot be followed", "Send a short one without look-around, groups by number.")
    try:
        re.compile(pattern)
    except re.error as error:
        raise _refused(place, f"'pattern' is none: {error}", "Mend it.") from error
    times = [int(number) for pair in _REPEATED.findall(pattern) for number in pair if number]
    if max(times, default=0) > MOST_TIMES:
        raise _refused(place, f"'pattern' repeats more than {MOST_TIMES} times", "Ask for less.")


def _valid(schema: Mapping[str, Any]) -> None:
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        place = "/".join(str(part) for part in error.absolute_path)
        raise _refused(f"/{place}", error.message, "Mend it there.") from error


def _refused(place: str, why: str, hint: str) -> InvalidOptionError:
    where = place if place not in ("", "/") else "its top"
    return InvalidOptionError(
        f"The JSON Schema cannot be used at {where[:200]}: {why[:300]}.",
        hint=hint,
        details={"param": "response_format"},
    )
