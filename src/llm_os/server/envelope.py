"""Exceptions become HTTP answers of one shape here; must not know routes, the kernel or a web framework's app."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from llm_os.errors import (
    AuthenticationError,
    InternalError,
    InvalidOptionError,
    LLMOSError,
)

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


def management_body(error: LLMOSError) -> dict[str, Any]:
    """`{"error": {...}}` as the client of the management API reads it."""
    return {"error": error.to_dict()}


def openai_body(error: LLMOSError, *, status: int | None = None) -> dict[str, Any]:
    """`{"error": {...}}` as OpenAI's clients read it, with our hint beside."""
    return {
        "error": {
            "message": error.message,
            "type": _OPENAI_TYPES.get(status or error.status, "api_error"),
            "code": error.code,
            "param": error.details.get("param"),
            "hint": error.hint,
        }
    }


def headers(error: LLMOSError) -> dict[str, str]:
    """Headers that belong to an error: `retry-after` in whole seconds, `www-authenticate`."""
    result: dict[str, str] = {}
    if error.status in {429, 503}:
        result["retry-after"] = str(max(1, round(float(error.details.get("retry_after", 1)))))
    if isinstance(error, AuthenticationError):
        result["www-authenticate"] = "Bearer"
    return result


def from_validation(problems: Sequence[Mapping[str, Any]]) -> InvalidOptionError:
    """pydantic's list of problems as one error that names each field."""
    fields: dict[str, str] = {}
    for problem in problems:
        place = [str(part) for part in problem.get("loc", ()) if part not in {"body", "query", "path"}]
        fields.setdefault(".".join(place) or "body", str(problem.get("msg", "is not valid")))
    listed = "; ".join(f"'{field}': {message}" for field, message in fields.items())
    hint = "The fields are listed in /openapi.json."
    if any(problem.get("type") == "extra_forbidden" for problem in problems):
        hint = "Unknown fields are refused; the known ones are listed in /openapi.json."
    return InvalidOptionError(f"The request is not valid: {listed}.", hint=hint, details={"fields": fields})


def from_unexpected(error: BaseException, log: logging.Logger, what: str, logfile: str) -> InternalError:
    """An InternalError that tells the caller nothing of our insides; the traceback goes to the log."""
    log.error("unexpected error while answering %s", what, exc_info=error)
    return InternalError(f"An unexpected {type(error).__name__} while answering {what}; its traceback is in {logfile}.")
