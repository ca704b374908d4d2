"""What engines refuse of one request, and who else may be asked; knows no HTTP but a status."""

from __future__ import annotations

import json
from collections.abc import Mapping

from llm_os.errors import LLMOSError, from_dict
from llm_os.spec.routing import Endpoint, Route


class EngineAnswerError(Exception):
    """The engine answered with an error; it is passed on with its status, in OpenAI's shape."""

    def __init__(self, status: int, error: LLMOSError, code: str) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.code = code


class Refusals:
    """Of one request: what one engine refuses, another one of the deployment may do (a longer context, a parameter).

    Attributes:
        by: attempts of replicas that are asked no more.
        revisions: of those that were asked and refused, once for each.
        first: what is told where nobody can do it.
    """

    def __init__(self) -> None:
        self.by: set[str] = set()
        self.revisions: list[int] = []
        self.first: EngineAnswerError | None = None

    def note(self, route: Route, endpoint: Endpoint, refusal: EngineAnswerError) -> bool:
        """Whether another engine of the route may be asked."""
        self.first = self.first or refusal
        self.revisions.append(endpoint.revision)
        self.by |= {one.attempt for one in route.endpoints if one.engine == endpoint.engine} | {endpoint.attempt}
        return not all(one.attempt in self.by for one in route.endpoints)

    def left(self, route: Route) -> Route:
        """The route with the replicas that have not refused; with all of them where each has."""
        mine = tuple(one for one in route.endpoints if one.attempt not in self.by)
        return route.model_copy(update={"endpoints": mine}) if mine and self.by else route


def engine_error(status: int, body: bytes) -> EngineAnswerError:
    """What an engine answered in the place of an answer, whatever its shape."""
    try:
        told = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        told = None
    if not isinstance(told, Mapping):
        told = {"message": str(told) if told else f"The engine answered with status {status} and no explanation."}
    error = from_dict({"details": {}, "hint": "", **told})
    if told.get("param"):
        error.details.setdefault("param", told["param"])
    return EngineAnswerError(status, error, str(told.get("code") or "engine_error"))
