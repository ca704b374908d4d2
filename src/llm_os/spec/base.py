"""Bases and names that every other noun is built of; knows nothing but pydantic."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, JsonValue, StringConstraints
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Json = JsonValue
"""Any JSON value."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")]
"""A card, deployment or queue: lower-case letters, digits, `.`, `_`, `-`; 1 to 64 characters."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""Content address: `sha256:` and 64 hexadecimal digits."""

Ref = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""How people name a thing: `card`, `card@3` or a digest."""

JobId = str
AttemptId = str
SessionId = str

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def from_json(body: bytes) -> Json:
    """The value of a JSON text, as `json.loads` reads it, which looks for the encoding of every text first.

    Raises ValueError, RecursionError.
    """
    utf_8 = body[:1] == b"{" and body[1:2] != b"\0"
    return json.loads(body.decode("utf-8", "surrogatepass") if utf_8 else body)


def half_characters(body: bytes, value: Json) -> bool:
    """Whether a text of `value`, read from this JSON, holds half a character: a surrogate without its partner.

    No UTF-8 can say it, so it would fail wherever it is written next.
    """
    if not any(mark in body for mark in (b"\\u", b"\xed", b"\0")):  # escaped, raw, or not UTF-8 at all
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


DEEPEST = 200
"""Lists and objects inside each other in a JSON text of a caller's."""


def too_deep(body: bytes, value: Json) -> bool:
    """Whether `value`, read from this JSON, is more than DEEPEST lists and objects deep.

    What can just be read cannot be written again from a deeper place of the program, or as part of another value.
    """
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return False
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        inside = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [inner for values in inside for inner in values if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


class Spec(BaseModel):
    """What somebody asked for. Immutable; unknown fields are errors.

    The docstring behind a field describes it, and is read when somebody asks: to read all of them at each start is a
    tenth to a fifth of the time that a worker takes to load.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler, /) -> JsonSchemaValue:
        schema = handler(core)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in descriptions(cls).items():
            for known in {name, cls.model_fields[name].alias} & properties.keys():
                properties[known].setdefault("description", text)
        return schema


class Record(Spec):
    """What the system knows. Only the kernel writes records."""


@functools.cache
def descriptions(model: type[BaseModel]) -> Mapping[str, str]:
    """What each field of a model means: what it was declared with, or the docstring behind it. Others are not named."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            found.update(_docstrings(cls))
    declared = {name: field.description for name, field in model.model_fields.items()}
    return {name: text for name, told in declared.items() if (text := told or found.get(name))}


def _docstrings(cls: type) -> Iterator[tuple[str, str]]:
    """The docstrings behind the fields of this class alone; none where its source is not there."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError, ValueError):  # none, or another one than that which was loaded
        return
    for field, text in pairwise(getattr(tree, "body", ())):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                yield name, inspect.cleandoc(said)


class RandomBits(Protocol):
    """The part of `random.Random` that ids need (injected, so that a simulation can seed it)."""

    def getrandbits(self, k: int, /) -> int: ...


def new_id(prefix: str, random: RandomBits) -> str:
    """A short sortable-by-nothing id such as `job-7k2m9x4q1c` (50 random bits)."""
    bits = random.getrandbits(50)
    return prefix + "-" + "".join(_ALPHABET[(bits >> shift) & 31] for shift in range(45, -1, -5))


def ending_with(name: str, ending: str) -> str:
    """A `Name` of both, whose end is never what is cut off."""
    return slug(slug(name)[: 64 - len(ending)].rstrip("._-") + ending)


def slug(text: str) -> str:
    """The nearest valid `Name` to `text` (`My Reviews.csv` -> `my-reviews.csv`)."""
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:64].strip("._-")
    return cleaned or "unnamed"
