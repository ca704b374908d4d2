"""What a request asks of an engine that not every engine can, so that it goes to one that can; knows no engine.

The names are those of the conformance suite, by which an engine tells what it lacks (`drivers.engine.Engine.gaps`).
What stands nowhere here (a prompt that is too long for one of them) shows by a refusal: the request is then sent to
another engine of the deployment, see `proxy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_os.spec.routing import Route


def needs(value: Mapping[str, Any]) -> frozenset[str]:
    """Abilities that the body of a chat or a completion asks for."""
    found = set()
    told, likeliest = value.get("logprobs"), value.get("top_logprobs")
    if told is not None and told is not False:
        found.add("probabilities_of_tokens_are_told")
    if likeliest or (isinstance(told, int) and not isinstance(told, bool) and told > 0):
        found.add("the_likeliest_tokens_are_told")
    form = value.get("response_format")
    if isinstance(form, Mapping) and form.get("type") not in (None, "text"):
        found.add("an_answer_is_held_to_a_schema")
    if value.get("tools") and _must_call(value):
        found.add("a_tool_is_called_where_it_must_be")
    return frozenset(found)


def _must_call(value: Mapping[str, Any]) -> bool:
    """Whether a call is asked for, or one that keeps its schema."""
    if value.get("tool_choice") not in (None, "none", "auto"):
        return True
    tools = value["tools"]
    functions = [one.get("function") for one in tools if isinstance(one, Mapping)] if isinstance(tools, list) else []
    return any(isinstance(function, Mapping) and bool(function.get("strict")) for function in functions)


def able(route: Route, value: Mapping[str, Any]) -> Route:
    """The route with the endpoints that can answer this body; with all of them where none can, or all can."""
    if len({one.lacks for one in route.endpoints}) < 2:
        return route
    asked = needs(value)
    mine = tuple(one for one in route.endpoints if not asked.intersection(one.lacks))
    if not mine or len(mine) == len(route.endpoints):
        return route
    return route.model_copy(update={"endpoints": mine})


def missed(route: Route, value: Mapping[str, Any]) -> str | None:
    """An engine that could answer this body if it were there, where none of the endpoints can; None: it is not so."""
    if not route.absent:
        return None
    asked = needs(value)
    if any(asked.isdisjoint(one.lacks) for one in route.endpoints):
        return None
    return next((engine for engine, lacks in route.absent.items() if asked.isdisjoint(lacks)), None)
