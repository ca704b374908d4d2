"""What people wrote, as the model that the API wants, or an error that names the first thing that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llm_os.errors import InvalidOptionError, did_you_mean
from llm_os.spec.base import slug

Body = TypeVar("Body", bound=BaseModel)


def checked(kind: type[Body], values: Mapping[str, Any], what: str) -> Body:
    """The values as this model. Raises InvalidOptionError.

    Args:
        what: is wrong, for the message: `A deployment`.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        hint = did_you_mean(where, kind.model_fields) if first["type"] == "extra_forbidden" else ""
        given = first.get("input")
        raise InvalidOptionError(
            f"{what}: {where or 'the whole'} cannot be {given!r}: {first['msg']}.", hint=hint, details={"option": where}
        ) from error


def checked_name(name: str | None, what: str) -> str | None:
    """The name as it was given; requests must find a deployment under just that. Raises InvalidOptionError."""
    if name is not None and (not isinstance(name, str) or slug(name) != name):
        raise InvalidOptionError(
            f"{name!r} cannot be the name of {what}.",
            hint=f"At most 64 small letters, digits, '.', '_' and '-', for example '{slug(str(name))}'.",
        )
    return name
