"""An OpenAPI document as a page of docs/reference; knows neither of the APIs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Table = Callable[[tuple[str, ...], Iterable[tuple[Any, ...]]], str]
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
}


def page(document: Mapping[str, Any], table: Table) -> str:
    """Endpoints, then the schemas of bodies and answers."""
    parts = [part for path, found in document["paths"].items() for part in _path(path, found, document, table)]
    parts.append("## Schemas\n")
    for name, schema in document["components"]["schemas"].items():
        parts += _schema(name, schema, table)
    return "\n".join(parts)


def _path(path: str, methods: Mapping[str, Any], document: Mapping[str, Any], table: Table) -> Iterable[str]:
    for method, operation in methods.items():
        said = " ".join(filter(None, (operation["summary"], operation.get("description"))))
        yield f"## {method.upper()} {path}\n\n{said}\n"
        parameters = [_resolved(one, document) for one in operation.get("parameters", ())]
        if parameters:
            rows = [
                (f"`{one['name']}`", one["in"], type_of(one["schema"]), one.get("description", ""))
                for one in parameters
            ]
            yield table(("Parameter", "In", "Type", "Meaning"), rows)
        if "requestBody" in operation:
            yield f"Body: {_content(operation['requestBody'])}\n"
        rows = [
            (status, _content(one), one.get("description", "").removesuffix("Successful Response"))
            for status, one in operation["responses"].items()
        ]
        if any(row[2] for row in rows):
            yield table(("Status", "Answer", "Why"), rows)
        else:
            yield table(("Status", "Answer"), [row[:2] for row in rows])


def _resolved(value: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = document
    for part in value.get("$ref", "#/").removeprefix("#/").split("/"):
        found = found[part] if part else value
    return dict(found)


def _content(value: Mapping[str, Any]) -> str:
    said = []
    for kind, content in value.get("content", {}).items():
        shown = type_of(content.get("schema", {}))
        said.append(shown if kind == "application/json" else f"{shown} (`{kind}`)")
    return ", or ".join(said)


def _schema(name: str, schema: Mapping[str, Any], table: Table) -> Iterable[str]:
    yield f"### {name}\n"
    if first := schema.get("description", "").split("\n")[0]:
        yield f"{first}\n"
    fields = schema.get("properties")
    if not fields:
        yield f"{type_of(schema)}\n"
        return
    required = set(schema.get("required", ()))
    rows = [
        (f"`{field}`", "yes" if field in required else "", type_of(value), _said(value))
        for field, value in fields.items()
    ]
    yield table(("Field", "Required", "Type", "Meaning"), rows)


def _said(schema: Mapping[str, Any]) -> str:
    default = f" Default: `{json.dumps(schema['default'])}`." if schema.get("default") is not None else ""
    return (schema.get("description", "").split("\n\n")[0] + default).strip()


def type_of(schema: Mapping[str, Any]) -> str:
    """A type in a few words, with its limits."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
    if several := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(type_of(one) for one in several))
    kinds = schema.get("type", "anything")
    limits = [text.format(schema[name]) for name, text in _LIMITS.items() if name in schema]
    limits = ["not empty" if limit.startswith("at least 1 ") else limit for limit in limits]
    shown = " or ".join(_kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds))
    return f"{shown} ({', '.join(limits)})" if limits else shown


def _kind(kind: str, schema: Mapping[str, Any]) -> str:
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {type_of(schema['additionalProperties'])}"
    if kind == "object" and schema.get("properties"):
        inner = ", ".join(f"`{name}`: {type_of(value)}" for name, value in schema["properties"].items())
        return f"object with {inner}"
    return kind
