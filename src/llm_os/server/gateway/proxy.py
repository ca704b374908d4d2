"""Carries one request to a replica and its answer back; must not know keys, names or how the answer is made.

Before the first byte has gone to the caller, a request whose replica broke off is tried once more, elsewhere if there
is an elsewhere; one whose replica cannot be reached waits for another. After it, never: the caller could not tell what
it has twice. A caller who hangs up cancels this coroutine, which closes the connection to the replica at once, so that
the engine stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from llm_os.errors import DeadlineError, LLMOSError, UnavailableError
from llm_os.server import envelope
from llm_os.server.gateway.abilities import able, missed
from llm_os.server.gateway.exchange import Exchange, identified
from llm_os.server.gateway.frames import Frames, error_event, usage_of
from llm_os.server.gateway.lanes import Lanes, lane
from llm_os.server.gateway.openai import Call
from llm_os.server.gateway.prefixes import blocks, prompt_of
from llm_os.server.gateway.priming import Turn
from llm_os.server.gateway.refusals import EngineAnswerError, Refusals, engine_error
from llm_os.server.gateway.response_cache import Stored
from llm_os.server.gateway.retries import LATE, Retries, late
from llm_os.server.gateway.shadows import Fares, Shadows
from llm_os.server.gateway.spool import tokens_of
from llm_os.server.gateway.translation import Translation
from llm_os.server.gateway.upstream import Upstreams
from llm_os.server.gateway.wire import SILENT_FOR, Answer, BrokenConnectionError, SilentError
from llm_os.spec.attempts import TELL_READ
from llm_os.spec.routing import Endpoint, Route

log = logging.getLogger("llm_os.gateway")

STALLED = 60.0
"""Seconds in which a caller must take what was written for it."""
READING = ("/v1/chat/completions", "/v1/completions")
"""Where an engine reads a prompt."""
_EVENTS = "text/event-stream"
_HUNG_UP = 499
"""What the log and the counters call a caller who left before the end (nginx's number)."""


class Proxy:
    """Stateless but for the pools.

    Args:
        upstreams: connections to replicas.
        clock: monotonic seconds.
        news: waits for the next routing table, at most so many seconds.
        fares: is told how each revision does (`metering`).
        lanes: deals requests out while a new version is tried.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        clock: Callable[[], float],
        news: Callable[[float], Awaitable[None]],
        fares: Fares,
        lanes: Lanes,
    ) -> None:
        self._upstreams, self._clock, self._news = upstreams, clock, news
        self._fares, self._lanes = fares, lanes
        self.shadows = Shadows(upstreams, clock, fares)

    async def relay(
        self,
        request: web.BaseRequest,
        ready: Callable[[], Awaitable[Route]],
        path: str,
        call: Call,
        exchange: Exchange,
        translation: Translation | None = None,
    ) -> web.StreamResponse:
        """Answer `request` from a replica, in the words of `translation` if there is one.

        Args:
            ready: the route as it is now; waits until it has a replica.

        Raises:
            UnavailableError: two replicas broke off in answering it, or none came, or none that can do it.
            EngineAnswerError: the engine refused or failed.
            DeadlineError: no byte came before the exchange's deadline.
        """
        retries = Retries(exchange, self._clock, self._news)
        names: tuple[int, ...] | None = None
        tried: bool | None = None  # whether a version answers that is being tried; at most once
        refusals, together = Refusals(), exchange.together
        while True:
            whole = await ready()
            exchange.tries += 1
            tried = self._tries(whole, path, call, exchange) if tried is None else tried
            route = _present(_able(lane(whole, tried=tried), path, call), path, call)
            if names is None and path in READING and (len(route.endpoints) > 1 or route.shares_prefixes):
                names = blocks(prompt_of(call.value), route.version if route.adapters else "")
            await self._upstreams.gather(route, together)
            asks = exchange.prompt_tokens, retries.avoid | refusals.by, exchange.answer_tokens, together
            endpoint, choice = self._upstreams.choose(route, names or (), *asks)
            _note(exchange, whole, endpoint)
            self._fares.asked(route.deployment, endpoint.revision)
            with self._upstreams.busy(route, endpoint, choice, lambda: tokens_of(exchange.usage)[1], together):
                turn = self._upstreams.turn(route, endpoint, names or ())
                try:
                    begun = await self._in_time(endpoint, path, call, exchange, turn, fresh=retries.fresh)
                except BrokenConnectionError as broken:
                    self._broke_off(route, endpoint, exchange, broken)
                    tried = tried and broken.stale
                    await retries.after(refusals.left(_able(lane(whole, tried=tried), path, call)), endpoint, broken)
                    continue
                except (EngineAnswerError, UnavailableError, DeadlineError) as failure:
                    if isinstance(failure, EngineAnswerError) and failure.status < 500:
                        tried = self._refused(refusals, route, endpoint, failure, tried=tried)
                        continue
                    self._fares.fared(route.deployment, endpoint.revision, None)
                    if not tried or isinstance(failure, DeadlineError):
                        raise
                    tried = False  # what a version cannot do that is only tried, the proven one does
                    continue
                try:
                    return await self._pass_on(request, *begun, exchange, translation)
                finally:
                    begun[0].close()
                    took = (exchange.first_byte or exchange.asked_at) - exchange.asked_at
                    failed = exchange.broken or (begun[2] is not None and begun[2].failed and not begun[2].done)
                    self._fares.fared(route.deployment, endpoint.revision, None if failed else took)

    def _tries(self, route: Route, path: str, call: Call, exchange: Exchange) -> bool:
        """Whether a version that is being tried shall answer; where it is tried in the shadow, it gets a copy."""
        if route.canary is None or not self._lanes.tries(route, exchange.tenant):
            return False
        if not route.canary.shadow:
            return True
        self.shadows.send(_able(lane(route, tried=True), path, call), path, call, exchange.request_id)
        return False

    def _refused(
        self, refusals: Refusals, route: Route, endpoint: Endpoint, refusal: EngineAnswerError, *, tried: bool
    ) -> bool:
        """Whether the version that is tried is asked on: what all its engines refuse, the proven one may do.

        Raises the first refusal where nobody is left. Then it was the request's fault, and no version was asked.
        """
        if refusals.note(route, endpoint, refusal):
            return tried
        if not tried:
            for revision in refusals.revisions:
                self._fares.refused(route.deployment, revision)
            raise refusals.first or refusal
        refusals.first = None  # nobody needs to know of a version that is only tried
        return False

    def _broke_off(self, route: Route, endpoint: Endpoint, exchange: Exchange, broken: BrokenConnectionError) -> None:
        log.warning("%s: replica %s broke off: %s", exchange.request_id, endpoint.attempt, broken)
        if exchange.trace is not None:
            exchange.trace.failed(str(broken))
        if broken.sent and not broken.stale:
            self._fares.fared(route.deployment, endpoint.revision, None)

    async def _in_time(
        self, endpoint: Endpoint, path: str, call: Call, exchange: Exchange, turn: Turn, *, fresh: bool
    ) -> tuple[Answer, bytes, Frames | None]:
        if exchange.deadline is None:
            return await self._in_turn(endpoint, path, call, exchange, turn, fresh=fresh)
        try:
            async with asyncio.timeout(self._left(exchange)) as limit:
                return await self._in_turn(endpoint, path, call, exchange, turn, fresh=fresh)
        except TimeoutError as expired:
            if limit.expired():
                raise late() from expired
            raise

    async def _in_turn(
        self, endpoint: Endpoint, path: str, call: Call, exchange: Exchange, turn: Turn, *, fresh: bool
    ) -> tuple[Answer, bytes, Frames | None]:
        async with turn:
            exchange.coalesced, exchange.asked_at = exchange.coalesced or turn.followed, self._clock()
            return await self._begin(endpoint, path, call, exchange, turn, fresh=fresh)

    async def _begin(
        self, endpoint: Endpoint, path: str, call: Call, exchange: Exchange, turn: Turn, *, fresh: bool
    ) -> tuple[Answer, bytes, Frames | None]:
        """The replica's answer with its first events, or the whole of it when it is no stream."""
        mark = f"x-request-id: {exchange.request_id}\r\n".encode()
        if exchange.trace is not None:
            mark += exchange.trace.attempted(endpoint.attempt, exchange)
        if turn.leads and not call.stream:  # its first byte is its last one: nobody could follow before
            mark += f"{TELL_READ}: 1\r\n".encode()
        answer: Answer | None = None
        try:
            exchange.sent = True
            answer = await self._upstreams.pool(endpoint).post(path, call.body, mark, fresh=fresh, early=turn.read)
            if answer.status == 200 and answer.content_type == _EVENTS:
                frames = Frames(hides_usage=call.hides_usage)
                first = b""
                while not first:
                    chunk = await answer.readany()
                    if not chunk:
                        raise BrokenConnectionError("the stream ended before its first event")
                    first = frames.feed(chunk)
                return answer, first, frames
            whole = await answer.read()
            if answer.status >= 400:
                raise engine_error(answer.status, whole)
            return answer, whole, None
        except BaseException as error:
            if answer is not None:
                answer.close()
            if isinstance(error, BrokenConnectionError):
                exchange.sent = error.sent and not error.stale
            if isinstance(error, SilentError):
                raise UnavailableError(
                    f"The replica {endpoint.attempt} said nothing for {SILENT_FOR:.0f} s.",
                    hint="It may be hung or far too busy; look at its log, or stop and deploy it again.",
                ) from error
            raise

    async def _pass_on(
        self,
        request: web.BaseRequest,
        answer: Answer,
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
            exchange.hear(first)
            exchange.keep(answer.content_type)
            headers["content-type"] = answer.content_type or "application/json"
            told = first if translation is None else translation.whole(first)
            return web.Response(status=answer.status, body=told, headers=headers)
        tell = _as_it_is if translation is None else translation.events
        response = web.StreamResponse(headers={**headers, "content-type": _EVENTS, "cache-control": "no-cache"})
        try:
            await response.prepare(request)
            self._count(exchange, frames)
            exchange.hear(first)
            await _told(request, response, tell(first))
            async with asyncio.timeout(self._left(exchange)):
                async for events in _rest(answer, frames):
                    self._count(exchange, frames)
                    exchange.hear(events)
                    await _told(request, response, tell(events))
            if frames.done:
                exchange.keep(_EVENTS)
            elif not frames.failed:
                exchange.broken = True
                await response.write(
                    _last_words(_cut("The replica broke off in the middle of the answer."), translation)
                )
        except (ConnectionResetError, StalledError):
            exchange.status = _HUNG_UP  # the caller left; closing the answer ends the engine's work
        except TimeoutError:
            await response.write(_last_words(DeadlineError(LATE, hint="What came so far is whole."), translation))
        except Exception:  # the head is sent: an answer of its own would be read as part of the stream
            log.exception("%s: the stream cannot be told on", exchange.request_id)
            exchange.broken = True
            await response.write(
                _last_words(_cut("The answer cannot be told on; its traceback is in the log."), translation)
            )
        return response

    @staticmethod
    def _count(exchange: Exchange, frames: Frames) -> None:
        """A kill between the last event and its account would lose it, so the account goes first."""
        exchange.usage, exchange.events = frames.usage, frames.events
        if frames.done:
            exchange.count()

    def _left(self, exchange: Exchange) -> float | None:
        """Seconds until the deadline."""
        return None if exchange.deadline is None else max(0.0, exchange.deadline - self._clock())


def _able(route: Route, path: str, call: Call) -> Route:
    """The route with the replicas whose engines can do what is asked."""
    return able(route, call.value) if path in READING and len(route.endpoints) > 1 else route


def _present(route: Route, path: str, call: Call) -> Route:
    """The route. Raises UnavailableError where only an engine could do what is asked that is not there."""
    if path in READING and (engine := missed(route, call.value)):
        raise UnavailableError(
            f"Of the engines of '{route.deployment}' only {engine} can do what is asked, and it has no ready replica.",
            hint=f"Try again in a moment; 'llm-os why {route.deployment}' says what it waits for.",
            details={"retry_after": 5},
        )
    return route


def _note(exchange: Exchange, route: Route, endpoint: Endpoint) -> None:
    """Who answers; the engine where there are several."""
    exchange.version, exchange.revision = endpoint.version or route.version, endpoint.revision
    exchange.engine = endpoint.engine if any(one.engine != endpoint.engine for one in route.endpoints) else ""


async def retell(
    request: web.BaseRequest, stored: Stored, exchange: Exchange, translation: Translation | None
) -> web.StreamResponse:
    """Answer `request` with an answer that was kept, as its engine gave it."""
    exchange.status = 200
    headers = {**identified(exchange), "content-type": stored.content_type}
    if stored.content_type != _EVENTS:
        told = stored.body if translation is None else translation.whole(stored.body)
        return web.Response(body=told, headers=headers)
    response = web.StreamResponse(headers={**headers, "cache-control": "no-cache"})
    try:
        await response.prepare(request)
        await _told(request, response, stored.body if translation is None else translation.events(stored.body))
    except (ConnectionResetError, StalledError):
        exchange.status = _HUNG_UP
    return response


class StalledError(Exception):
    """The caller reads no more."""


async def _told(request: web.BaseRequest, response: web.StreamResponse, events: bytes) -> None:
    """Write events. Raises StalledError for a caller who does not read: its slot is others', too."""
    transport = request.transport
    if transport is None or not transport.get_write_buffer_size():
        await response.write(events)
        return
    try:
        async with asyncio.timeout(STALLED):
            await response.write(events)
    except TimeoutError as error:
        transport.abort()
        raise StalledError from error


def _cut(what: str) -> LLMOSError:
    return UnavailableError(what, hint="What came so far is whole; ask again.")


def _last_words(error: LLMOSError, translation: Translation | None) -> bytes:
    """The event that ends a stream which failed."""
    body = envelope.openai_body(error)
    return error_event(body) if translation is None else translation.error(body["error"])


def _as_it_is(events: bytes) -> bytes:
    return events


async def _rest(answer: Answer, frames: Frames) -> AsyncIterator[bytes]:
    """The following whole events; ends early, without an error, where the replica broke off."""
    while True:
        try:
            chunk = await answer.readany()
        except (BrokenConnectionError, SilentError) as error:
            log.warning("a replica broke off in the middle of a stream: %s: %s", type(error).__name__, error)
            return
        if not chunk:
            return
        events = frames.feed(chunk)
        if events:
            yield events
