"""The gateway's endpoints and the border around them; must not know the kernel, processes or where files lie."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from llm_os.errors import (
    AuthenticationError,
    DeadlineError,
    InvalidInputError,
    LLMOSError,
    NotFoundError,
    TooLargeError,
)
from llm_os.server import envelope, keys
from llm_os.server.gateway import anthropic, openai, openapi, responses, routes
from llm_os.server.gateway.accounting import Accounting
from llm_os.server.gateway.admission import Admission, Asker
from llm_os.server.gateway.endpoints import Endpoints, Handler, go_on, named_in
from llm_os.server.gateway.exchange import Exchange, identified
from llm_os.server.gateway.metrics import CONTENT_TYPE
from llm_os.server.gateway.openai import Call
from llm_os.server.gateway.prefixes import prompt_of
from llm_os.server.gateway.proxy import READING, Proxy, retell
from llm_os.server.gateway.quotas import Quotas
from llm_os.server.gateway.refusals import EngineAnswerError
from llm_os.server.gateway.response_cache import Recording, ResponseCache, Stored, deterministic, name_of
from llm_os.server.gateway.tracing import Tracing
from llm_os.server.gateway.translation import Translation
from llm_os.server.gateway.wishes import deadline_of, priority_of
from llm_os.server.loopback import refuse_foreign
from llm_os.spec.quotas import Priority
from llm_os.spec.routing import KeyEntry, Route

log = logging.getLogger("llm_os.gateway")

MOST_LOGGED = 4000
"""Characters of what was asked that the access log takes, where it is asked for."""
_HUNG_UP = 499

_EXCHANGE = web.RequestKey("exchange", Exchange)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the endpoints are made of; `main.py` puts them together."""

    routes: routes.Routes
    proxy: Proxy
    admission: Admission
    quotas: Quotas
    accounting: Accounting
    cache: ResponseCache
    max_body: int
    """Bytes of a request's body."""
    body_within: float
    """Seconds in which it must have come."""
    logfile: str
    """Where a traceback can be found."""
    tracing: Tracing | None = None


class Gateway:
    """The endpoints, each a method."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._endpoints = self.endpoints()

    def endpoints(self) -> Endpoints:
        """All of them."""
        gets: dict[str, Handler] = {
            "/health": self.health,
            "/openapi.json": self.openapi,
            "/metrics": self.metrics,
            "/v1/models": self.models,
            "/v1/models/{model}": self.model,
        }
        return Endpoints({"GET": gets, "HEAD": gets, "POST": self._posts()})

    def server(self, **protocol: Any) -> web.Server:
        """The server of aiohttp without its application, which is a tenth of a short request's work.

        Args:
            protocol: see `aiohttp.web.Server`.
        """
        loop, largest = asyncio.get_running_loop(), self._parts.max_body

        def request(message: Any, body: Any, connection: Any, writer: Any, task: Any) -> web.BaseRequest:
            return web.BaseRequest(message, body, connection, writer, task, loop, client_max_size=largest)

        return web.Server(self._border, request_factory=request, **protocol)

    def _posts(self) -> dict[str, Handler]:
        chat = "text-generation"
        return {
            "/v1/chat/completions": partial(self._ask, chat, openai.chat_call),
            "/v1/completions": partial(self._ask, chat, openai.completion_call),
            "/v1/responses": partial(self._translate, responses.Response),
            "/v1/messages": partial(self._translate, anthropic.Message),
            "/v1/messages/count_tokens": partial(self._translate, anthropic.Count),
            "/tokenize": partial(self._ask, chat, openai.any_call),
            "/detokenize": partial(self._ask, chat, openai.any_call),
            "/classify": partial(self._ask, "text-classification", openai.classify_call),
            "/v1/embeddings": partial(self._ask, "sentence-similarity", openai.classify_call),
            "/v1/rerank": partial(self._ask, "sentence-similarity", openai.any_call),
            "/v1/score": partial(self._ask, "sentence-similarity", openai.any_call),
        }

    async def health(self, _: web.BaseRequest) -> web.Response:
        """Without a key; says nothing else."""
        return web.json_response({"status": "ok"})

    async def openapi(self, _: web.BaseRequest) -> web.Response:
        """Without a key; says what every reader of our documents knows."""
        return web.Response(body=openapi.page(), content_type="application/json")

    async def metrics(self, request: web.BaseRequest) -> web.Response:
        self._authorise(request, keys.MAY_WATCH)
        metrics, admission = self._parts.accounting.metrics, self._parts.admission
        metrics.forget_now()
        for route in self._parts.routes.table.routes:
            metrics.waiting.labels(route.deployment).set(admission.waiting(route.deployment))
            metrics.slots.labels(route.deployment).set(admission.slots(route))
            metrics.in_flight.labels(route.deployment).set(self._parts.accounting.metering.in_flight(route.deployment))
        return web.Response(body=metrics.page(), headers={"content-type": CONTENT_TYPE})

    async def models(self, request: web.BaseRequest) -> web.Response:
        entry = self._authorise(request, keys.MAY_INFER)
        return web.json_response(openai.model_list(routes.visible(self._parts.routes.table, entry)))

    async def model(self, request: web.BaseRequest) -> web.Response:
        entry = self._authorise(request, keys.MAY_INFER)
        name = named_in(request)
        seen = routes.visible(self._parts.routes.table, entry)
        for route in seen:
            if name in {route.deployment, route.version}:
                return web.json_response(openai.model_object(route))
            for adapter in openai.adapter_objects(route):
                if name == adapter["id"]:
                    return web.json_response(adapter)
        raise routes.missing(entry, name, [route.deployment for route in seen])

    def _authorise(self, request: web.BaseRequest, roles: frozenset[str]) -> KeyEntry:
        # So that a key or replica that the kernel has just published is never "not known yet".
        self._parts.routes.look()
        header = request.headers.get("authorization")
        if header is None and (key := request.headers.get("x-api-key")):  # where Anthropic's clients put it
            header = f"Bearer {key}"
        entry = self._parts.routes.authorise(header, roles)
        request[_EXCHANGE].key, request[_EXCHANGE].tenant = entry.id, entry.tenant
        return entry

    async def _ask(self, task: str, parse: Callable[[bytes], Call], request: web.BaseRequest) -> web.StreamResponse:
        """A request that an engine reads as it is, at the same path."""
        entry = self._authorise(request, keys.MAY_INFER)
        return await self._relay(request, entry, task, request.path, parse(await self._body(request)))

    async def _translate(
        self, kind: Callable[[Mapping[str, Any]], Translation], request: web.Request
    ) -> web.StreamResponse:
        """A request of another API, which an engine is asked as something that it knows."""
        entry = self._authorise(request, keys.MAY_INFER)
        asked = kind(openai.json_object(await self._body(request)))
        return await self._relay(request, entry, "text-generation", asked.path, openai.any_call(asked.body), asked)

    async def _relay(
        self,
        request: web.BaseRequest,
        entry: KeyEntry,
        task: str,
        path: str,
        call: Call,
        translation: Translation | None = None,
    ) -> web.StreamResponse:
        """Quota, a ready replica, a slot, the answer: in this order, and the account of it at the end."""
        parts, exchange, clock = self._parts, request[_EXCHANGE], time.monotonic
        accounting, size = parts.accounting, len(call.body)
        exchange.prompt = _logged(call) if accounting.logs_prompts else ""
        priority = _wished(request, entry, exchange)

        def until() -> float:
            return clock() + routes.HOLD if exchange.deadline is None else exchange.deadline

        def find(name: str = call.model) -> Route:
            return parts.routes.meant(entry, name, call.model, task)

        def meet(route: Route) -> Route:
            exchange.model, exchange.version = route.deployment, route.version
            return route

        route = meet(find())
        if (stored := self._kept(entry, route, path, call, exchange)) is not None:
            return await self._retell(request, entry, stored, translation)
        estimate = self._guessed(route, path, call, exchange)
        asker = Asker(entry.tenant, entry.quota.share, priority, estimate, exchange.deadline, call.answers)
        use, tokens, left = parts.quotas.admit(entry, estimate), 0.0, False
        try:
            if not route.endpoints:
                with accounting.metering.waiting(route.deployment, exchange), exchange.holding():
                    route = meet(await parts.routes.held(find, entry.tenant, clock, until()))
            name = route.deployment  # from here on it stays with this deployment, whatever else has the version

            async def ready() -> Route:
                return meet(await parts.routes.ready(partial(find, name), name, clock, until()))

            with accounting.metering.request(name, exchange):
                async with parts.admission.slot(routes.whole(parts.routes.table, route), asker) as slot:
                    exchange.queued, exchange.count = slot.waited, partial(accounting.served, exchange, size)
                    try:
                        return await parts.proxy.relay(request, ready, path, call, exchange, translation)
                    except (asyncio.CancelledError, DeadlineError):
                        left = exchange.sent
                        raise
                    except EngineAnswerError as answer:
                        if translation is not None:
                            translation.renamed(answer.error)
                        raise
                    finally:
                        # Work without counts is paid by the estimate: who leaves before the end gets no turns for it.
                        tokens = float(accounting.served(exchange, size)) or (estimate if left else 0.0)
                        slot.tokens = tokens
        finally:
            use.settle(tokens, clock())

    def _guessed(self, route: Route, path: str, call: Call, exchange: Exchange) -> float:
        """Tokens of prompt and answer, before anybody has counted them."""
        name, size, estimates = route.deployment, len(call.body), self._parts.accounting.estimates
        exchange.prompt_tokens, exchange.answers = estimates.prompt(name, size), call.answers
        exchange.streams = call.stream
        if path in READING:
            exchange.answer_tokens = estimates.answer(name, call.most, call.answers)
        return estimates.guess(name, size, call.most, call.answers)

    def _kept(self, entry: KeyEntry, route: Route, path: str, call: Call, exchange: Exchange) -> Stored | None:
        """The answer, where it is kept for this tenant; where it may be, it will be."""
        if not entry.quota.cache or route.canary is not None or not deterministic(path, call.value):
            return None  # while a new version is tried, it shall be asked
        name, cache = name_of(entry.tenant, route, path, call), self._parts.cache
        found = cache.get(name)
        exchange.cache = "miss" if found is None else "hit"
        exchange.recording = Recording(cache, name, route.revision, route.version) if found is None else None
        return found

    async def _retell(
        self, request: web.BaseRequest, entry: KeyEntry, stored: Stored, translation: Translation | None
    ) -> web.StreamResponse:
        """An answer that is there: a request of its key, without tokens, turn or replica."""
        parts, exchange = self._parts, request[_EXCHANGE]
        use = parts.quotas.admit(entry, 0.0)
        try:
            with parts.accounting.metering.request(exchange.model):
                exchange.first_byte = time.monotonic()
                parts.accounting.served(exchange, 0)
                return await retell(request, stored, exchange, translation)
        finally:
            use.settle(0.0, time.monotonic())

    async def _body(self, request: web.BaseRequest) -> bytes:
        limit = self._parts.max_body
        too_large = TooLargeError(
            f"The body is larger than {limit} bytes.", hint="Send fewer or shorter texts.", details={"limit": limit}
        )
        if (request.content_length or 0) > limit:
            raise too_large
        try:
            if request.content.is_eof():  # all of it is here
                body = request.content.read_nowait()
            else:
                async with asyncio.timeout(self._parts.body_within):
                    body = await request.read()
        except TimeoutError as error:
            raise InvalidInputError(
                f"The body did not arrive within {self._parts.body_within:g} s.", hint="Send it in one go."
            ) from error
        except web.HTTPRequestEntityTooLarge as error:
            raise too_large from error
        except (web.RequestPayloadError, ValueError) as error:
            raise InvalidInputError(f"The body cannot be read: {error}.", hint="Send plain JSON.") from error
        if len(body) > limit:
            raise too_large
        return body

    async def _border(self, request: web.BaseRequest) -> web.StreamResponse:
        """Host and Origin before, errors in one shape and the counters after every endpoint."""
        route = self._endpoints.route_of(request)
        exchange = Exchange(f"req-{random.getrandbits(64):016x}", time.monotonic(), route)
        request[_EXCHANGE] = exchange
        if self._parts.tracing is not None:
            exchange.trace = self._parts.tracing.begin(exchange, request.method, request.headers)
        code: str | None = None
        try:
            refuse_foreign(request.headers.get("host"), request.headers.get("origin"))
            if request.headers.get("expect"):
                await go_on(request)
            response = await self._endpoints.handler(request, route)(request)
        except asyncio.CancelledError:
            exchange.status = _HUNG_UP
            raise
        except LLMOSError as error:
            code = error.code
            response = _refusal(request, error, error.status, code)
        except EngineAnswerError as answer:
            code = answer.code
            response = _refusal(request, answer.error, answer.status, code)
        except web.HTTPException as unrouted:
            translated = _of_http(request, unrouted)
            code = translated.code
            response = _refusal(request, translated, unrouted.status, code)
            if (allowed := unrouted.headers.get("allow")) is not None:
                response.headers["allow"] = allowed
        except Exception as defect:  # noqa: BLE001 - the border: nothing unnamed leaves this process
            what = f"{request.method} {exchange.route}"
            internal = envelope.from_unexpected(defect, log, what, self._parts.logfile)
            code = internal.code
            response = _refusal(request, internal, internal.status, code)
        else:
            exchange.status = exchange.status or response.status
        finally:
            self._parts.accounting.ended(exchange, request.method, code)
            if exchange.trace is not None:
                exchange.trace.end(exchange, code)
        return response


def _wished(request: web.BaseRequest, entry: KeyEntry, exchange: Exchange) -> Priority:
    """Notes by when the answer shall have come, and how urgent it is, which is returned. Raises InvalidInputError."""
    priority = exchange.priority = priority_of(request.headers, entry.quota)
    exchange.deadline = deadline_of(request.headers, exchange.started)
    return priority


def _logged(call: Call) -> str:
    """What of a request the access log takes."""
    return (prompt_of(call.value) or str(call.value.get("input") or ""))[:MOST_LOGGED]


def _refusal(request: web.BaseRequest, error: LLMOSError, status: int, code: str) -> web.Response:
    exchange = request[_EXCHANGE]
    exchange.status = status
    if request.path.startswith("/v1/messages"):
        body = anthropic.error_body(error, status, exchange.request_id)
    else:
        body = envelope.openai_body(error, status=status)
    body["error"]["code"] = code
    response = web.json_response(body, status=status, headers={**envelope.headers(error), **identified(exchange)})
    if isinstance(error, TooLargeError | AuthenticationError):
        response.force_close()  # its body may be unread, and is not worth reading
    return response


def _of_http(request: web.BaseRequest, error: web.HTTPException) -> LLMOSError:
    known = openapi.listed()
    if error.status == 404:
        return NotFoundError(f"There is no {request.method} {request.path[:200]}.", hint=f"There are: {known}")
    return InvalidInputError(f"{request.method} {request.path[:200]}: {error.reason}.", hint=f"There are: {known}")
