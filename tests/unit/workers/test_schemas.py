"""Schemas that an answer can be held to, and those that are refused before an engine sees them."""

import json
from typing import Any

import pytest

from llm_os.errors import InvalidOptionError
from llm_os.workers.schemas import DEEPEST, MOST_NODES, vetted

GOOD: list[dict[str, Any]] = [
    {},
    {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"], "maxLength": 9}},
        "additionalProperties": False,
    },
    {"$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}, "$ref": "#/$defs/node"},
    {"type": "array", "items": {"anyOf": [{"const": 1}, {"enum": ["a", None]}]}, "minItems": 1, "maxItems": 1000},
    {"type": "string", "pattern": "^[a-z]{2,8}$", "title": "t", "description": "d", "default": {"not": "looked at"}},
    {"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"allOf": [{"type": "integer", "minimum": 0}]}}},
    {"type": "object", "properties": {"const": {"type": "string"}, "not": True}},
    {"type": "string", "pattern": "\\{[{}a]{2}b{1,}"},
    {"type": "integer", "minimum": 2, "maximum": 2},
    {"type": "number", "exclusiveMinimum": 2, "exclusiveMaximum": 3},
    {"type": "array", "prefixItems": [{}], "items": False, "minItems": 1},
    {"type": "string", "minLength": 0, "maxLength": 0},
]


@pytest.mark.parametrize("schema", GOOD)
def test_what_a_grammar_can_say_is_taken(schema: dict[str, Any]) -> None:
    assert json.loads(vetted(schema)) == schema


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


BAD: list[tuple[dict[str, Any], str]] = [
    ({"$ref": "#/$defs/missing"}, "leads nowhere"),
    ({"$ref": "https://example.org/x"}, "leads elsewhere"),
    ({"properties": {"a": False}}, "/properties/a: it is no object"),
    ({"type": "string", "pattern": "(?=x)"}, "'pattern' cannot"),
    ({"type": "string", "pattern": "a{0,1000000}"}, "repeats"),
    ({"type": "string", "pattern": "(a)\\1"}, "'pattern' cannot"),
    ({"const": float("nan")}, "no JSON"),
    ({"type": "integer", "multipleOf": 3}, "'multipleOf' cannot be followed"),
    ({"not": {"type": "string"}}, "'not' cannot"),
    ({"if": {}, "then": {}}, "'if' cannot"),
    ({"allOf": [{"type": "string"}, {"maxLength": 3}]}, "'allOf' of several"),
    ({"type": "string", "maxLength": 10**6}, "over 1000"),
    ({"type": "colour"}, "/type"),
    ({"type": "string", "minLength": 5, "maxLength": 2}, "leave nothing"),
    ({"type": "array", "minItems": 5, "maxItems": 2}, "leave nothing"),
    ({"type": "integer", "minimum": 5, "maximum": 2}, "leave nothing"),
    ({"type": "integer", "exclusiveMinimum": 5, "maximum": 5}, "leave nothing"),
    ({"type": ["integer", "null"], "exclusiveMinimum": 2, "exclusiveMaximum": 3}, "leave nothing"),
    ({"type": "integer", "minimum": 0.5}, "'minimum' 0.5 of a whole number"),
    ({"type": "integer", "maximum": 10**25}, "too large"),
    ({"type": "array", "prefixItems": [{}], "items": False, "minItems": 2}, "more than there may be"),
    ({"type": "array", "prefixItems": [{}, {}], "maxItems": 1}, "less than the 'prefixItems'"),
    ({"type": "string", "pattern": "("}, "'pattern' is none"),
    ({"type": "string", "pattern": "a{,3}"}, "'pattern' cannot"),
    ({"type": "string", "pattern": "a{2"}, "'pattern' cannot"),
    ({"type": "string", "pattern": "[^\\s,]"}, "'pattern' cannot"),
    ({"enum": []}, "'enum' is empty"),
    ({"properties": {'a"b': {}}}, "/properties: the name"),
    ({"properties": {"a\nb": {}}}, "control character"),
    ({"required": ["a\\b"]}, "/required: the name"),
    ({"$defs": {'a"b': {}}}, "$defs: the name"),
    ({"anyOf": ["x"]}, "/anyOf/0"),
    (deep(DEEPEST + 1), "deep"),
    (deep(5000), "no JSON"),
    ({"properties": {str(number): {} for number in range(MOST_NODES)}}, "parts"),
    ({"description": "x" * 70_000}, "bytes"),
]


@pytest.mark.parametrize(("schema", "says"), BAD)
def test_what_no_grammar_can_say_is_refused_where_it_stands(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        vetted(schema)
    assert says in caught.value.message
    assert caught.value.details["param"] == "response_format"
    assert caught.value.hint
