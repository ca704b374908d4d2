"""Carries one request to a replica and its answer back; must not know keys, names or how the answer is made.

Before the first byte has gone to the caller, a broken connection is tried once more, elsewhere if there is an
elsewhere. After it, never: the caller could not tell what it has twice. A caller who hangs up cancels this coroutine,
which closes the connection to the replica at once, so that the engine stops.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from llm_os.errors import LLMOSError, UnavailableError, from_dict
from llm_os.server import envelope
from llm_os.server.gateway.frames import Frames, error_event, usage_of
from llm_os.server.gateway.translation import Translation
from llm_os.server.gateway.upstream import SILENT_FOR, Upstreams
from llm_os.spec.routing import Endpoint, Route

log = logging.getLogger("llm_os.gateway")

_EVENTS = "text/event-stream"
_HUNG_UP = 499
"""What the log and the counters call a caller who left before the end (nginx's number)."""


@dataclass(slots=True)
class Exchange:
    """What is known of one request for log and counters; the proxy fills it in."""

    request_id: str
    started: float
    route: str = ""
    model: str = ""
    key: str = ""
    status: int = 0
    first_byte: float | None = None
    """When the first byte of the answer was ready, on the clock of `started`."""
    tries: int = 0
    broken: bool = False
    """The replica broke off after the first byte."""
    usage: Mapping[str, Any] = field(default_factory=dict)


def identified(exchange: Exchange) -> dict[str, str]:
    """Headers that name the request: as OpenAI's clients read it, and Anthropic's."""
    return {"x-request-id": exchange.request_id, "request-id": exchange.request_id}


class BrokenConnectionError(Exception):
    """The replica went away before it had answered."""


class EngineAnswerError(Exception):
    """The engine answered with an error; it is passed on with its status, in OpenAI's shape."""

    def __init__(self, status: int, error: LLMOSError, code: str) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.code = code


class Proxy:
    """Stateless but for the pools.

    Args:
        upstreams: connections to replicas.
        clock: monotonic seconds.
    """

    def __init__(self, upstreams: Upstreams, clock: Any) -> None:
        self._upstreams = upstreams
        self._clock = clock

    async def relay(
        self,
        request: web.Request,
        route: Route,
        path: str,
        body: bytes,
        exchange: Exchange,
        translation: Translation | None = None,
    ) -> web.StreamResponse:
        """Answer `request` from a replica of `route`, in the words of `translation` if there is one.

        Raises:
            UnavailableError: no replica could be reached, twice.
            EngineAnswerError: the engine refused or failed.
        """
        avoid: str | None = None
        for exchange.tries in (1, 2):
            endpoint = self._upstreams.choose(route.endpoints, avoid)
            with self._upstreams.busy(endpoint):
                try:
                    answer, first, frames = await self._begin(endpoint, path, body, exchange)
                except BrokenConnectionError as broken:
                    log.warning("%s: replica %s broke off: %s", exchange.request_id, endpoint.attempt, broken)
                    avoid = endpoint.attempt
                    continue
                try:
                    return await self._pass_on(request, answer, first, frames, exchange, translation)
                finally:
                    answer.close()
        raise UnavailableError(
            f"The replicas of '{route.deployment}' broke the connection before they answered.",
            hint=f"Try again in a moment; 'llm-os logs {route.deployment}' shows what they said.",
            details={"retry_after": 1},
        )

    async def _begin(
        self, endpoint: Endpoint, path: str, body: bytes, exchange: Exchange
    ) -> tuple[aiohttp.ClientResponse, bytes, Frames | None]:
        """The replica's answer with its first events, or the whole of it when it is no stream."""
        headers = {"content-type": "application/json", "x-request-id": exchange.request_id}
        answer: aiohttp.ClientResponse | None = None
        try:
            answer = await self._upstreams.session(endpoint).post(f"http://replica{path}", data=body, headers=headers)
            if answer.status == 200 and answer.content_type == _EVENTS:
                frames = Frames()
                first = b""
                while not first:
                    chunk = await answer.content.readany()
                    if not chunk:
                        raise BrokenConnectionError("the stream ended before its first event")
                    first = frames.feed(chunk)
                return answer, first, frames
            whole = await answer.read()
            if answer.status >= 400:
                raise _engine_error(answer.status, whole)
            return answer, whole, None
        except BaseException as error:
            if answer is not None:
                answer.close()
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
                raise UnavailableError(
                    f"The replica {endpoint.attempt} said nothing for {SILENT_FOR:.0f} s.",
                    hint="It may be hung or far too busy; look at its log, or stop and deploy it again.",
                ) from error
            if isinstance(error, aiohttp.ClientError | OSError):
                raise BrokenConnectionError(f"{type(error).__name__}: {error}") from error
            raise

    async def _pass_on(
        self,
        request: web.Request,
        answer: aiohttp.ClientResponse,
        first: bytes,
        frames: Frames | None,
        exchange: Exchange,
        translation: Translation | None,
    ) -> web.StreamResponse:
        exchange.first_byte = self._clock()
        exchange.status = answer.status
        headers = identified(exchange)
        if frames is None:
            exchange.usage = usage_of(first)
            kind = answer.headers.get("content-type", "application/json")
            told = first if translation is None else translation.whole(first)
            return web.Response(status=answer.status, body=told, headers={**headers, "content-type": kind})
        tell = _as_it_is if translation is None else translation.events
        response = web.StreamResponse(headers={**headers, "content-type": _EVENTS, "cache-control": "no-cache"})
        try:
            await response.prepare(request)
            await response.write(tell(first))
            async for events in _rest(answer, frames):
                await response.write(tell(events))
            if not frames.done and not frames.failed:
                exchange.broken = True
                await response.write(_last_words("The replica broke off in the middle of the answer.", translation))
                response.force_close()
            await response.write_eof()
        except ConnectionResetError:
            exchange.status = _HUNG_UP  # the caller left; closing the answer ends the engine's work
        except Exception:  # the head is sent: an answer of its own would be read as part of the stream
            log.exception("%s: the stream cannot be told on", exchange.request_id)
            exchange.broken = True
            await response.write(_last_words("The answer cannot be told on; its traceback is in the log.", translation))
            response.force_close()
        finally:
            exchange.usage = frames.usage
        return response


def _last_words(what: str, translation: Translation | None) -> bytes:
    """The event that ends a stream which failed."""
    body = envelope.openai_body(UnavailableError(what, hint="What came so far is whole; ask again."))
    return error_event(body) if translation is None else translation.error(body["error"])


def _as_it_is(events: bytes) -> bytes:
    return events


async def _rest(answer: aiohttp.ClientResponse, frames: Frames) -> Any:
    """The following whole events; ends early, without an error, where the replica broke off."""
    while True:
        try:
            chunk = await answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            log.warning("a replica broke off in the middle of a stream: %s: %s", type(error).__name__, error)
            return
        if not chunk:
            return
        events = frames.feed(chunk)
        if events:
            yield events


def _engine_error(status: int, body: bytes) -> EngineAnswerError:
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
