"""What people wrote, as the model that the API wants, or an error that names the first thing that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

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
        hint = _meant(kind, first["loc"]) if first["type"] == "extra_forbidden" else ""
        given = first.get("input")
        said = first["msg"].removeprefix("Value error, ")  # pydantic's words, not a person's
        raise InvalidOptionError(
            f"{what}: {where or 'the whole'} cannot be {given!r}: {said}.", hint=hint, details={"option": where}
        ) from error


def _meant(kind: type[BaseModel], where: Sequence[int | str]) -> str:
    """What a name at this place could have meant: one of the fields beside it."""
    within: Any = kind
    for part in where[:-1]:
        field = within.model_fields.get(part)
        found = [field.annotation, *get_args(field.annotation)] if field is not None else []
        within = next((one for one in found if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if within is None:
            return ""
    return did_you_mean(str(where[-1]), within.model_fields)


def checked_name(name: str | None, what: str) -> str | None:
    """The name as it was given; requests must find a deployment under just that. Raises InvalidOptionError."""
    if name is not None and (not isinstance(name, str) or slug(name) != name):
        raise InvalidOptionError(
            f"{name!r} cannot be the name of {what}.",
            hint=f"At most 64 small letters, digits, '.', '_' and '-', for example '{slug(str(name))}'.",
        )
    return name
