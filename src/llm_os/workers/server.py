"""The HTTP face of every engine worker, on one Unix socket; must not know which engine is behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiohttp import web

from llm_os.errors import InternalError, LLMOSError, NotFoundError, TooLargeError, UnavailableError
from llm_os.models import settings
from llm_os.spec.attempts import TELL_READ, ServeCall
from llm_os.workers.backend import Backend, Piece, TokenScore
from llm_os.workers.choices import choices_of, merged, paced, primed
from llm_os.workers.ranking import Rerank, Score
from llm_os.workers.refusals import no_adapter
from llm_os.workers.requests import (
    ChatRequest,
    chat_request,
    classify_request,
    completion_request,
    detokenize_request,
    embeddings_request,
    error_body,
    tokenize_request,
)
from llm_os.workers.shapes import Chat, Completion, Shape
from llm_os.workers.texts import StopTexts
from llm_os.workers.tools import ToolCall

log = logging.getLogger("llm_os.worker")

MOST_BODY = 16 * 2**20
"""Bytes of a request's body."""
TOGETHER = 16
"""Prompts of one request that are in the engine at once: they share its batch, and leave room for others."""
NOTHING: Mapping[int, Piece] = MappingProxyType({})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Face:
    """Routes of a worker: chats, completions, tokens, classes and embeddings; `/health` and `/metrics`.

    What a request does not say is as the model's own folder says it (`models.settings`).

    Attributes:
        running, total, failed: requests by now.
        idle: set while no request runs.
    """

    def __init__(self, call: ServeCall, backend: Backend) -> None:
        self._call = call
        self._usual = settings.read(Path(call.model.path))
        self._pause = float(str(call.options.get("stream_interval", 0))) / 1000
        self._backend = backend
        self.running = 0
        self.total = 0
        self.failed = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def app(self) -> web.Application:
        """The application; start it with `handler_cancellation`, so that a caller who leaves ends the work."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(client_max_size=MOST_BODY, middlewares=[guard])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        app.router.add_post("/classify", self._classify)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_post("/v1/rerank", self._rank)
        app.router.add_post("/v1/score", self._rank)
        return app

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        counted = request.method == "POST"
        self.running += counted
        if self.running:
            self.idle.clear()
        self.total += counted
        try:
            return await handler(request)
        except LLMOSError as error:
            self.failed += counted
            return web.json_response(error_body(error), status=error.status)
        except web.HTTPRequestEntityTooLarge:
            large = TooLargeError(f"The body is larger than {MOST_BODY} bytes.", hint="Send it in parts.")
            return web.json_response(error_body(large), status=large.status)
        except web.HTTPException as refused:
            unknown = NotFoundError(f"{request.method} {request.path}: {refused.reason}.", hint="See /health.")
            return web.json_response(error_body(unknown), status=refused.status)
        except ConnectionResetError:  # its caller has just left: nobody reads this
            return web.Response(status=499)
        except Exception as unexpected:  # noqa: BLE001 - the border
            self.failed += counted
            defect = self._told(request, unexpected)
            return web.json_response(error_body(defect), status=defect.status)
        finally:
            self.running -= counted
            if not self.running:
                self.idle.set()

    def _told(self, request: web.Request, error: Exception) -> LLMOSError:
        """What a caller is told of an error; the traceback of an unexpected one goes to the log."""
        if isinstance(error, LLMOSError):
            return error
        log.error("unexpected error while answering %s", request.path, exc_info=error)
        return InternalError(f"An unexpected {type(error).__name__} in the engine {self._call.engine}.")

    async def _health(self, request: web.Request) -> web.Response:
        broken = self._backend.broken
        body = {"status": "broken" if broken else "ok", "engine": self._call.engine, "task": self._call.task}
        return web.json_response(body, status=503 if broken else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        lines = [
            "# TYPE llm_os_worker_requests_running gauge",
            f"llm_os_worker_requests_running {self.running}",
            "# TYPE llm_os_worker_requests_total counter",
            f"llm_os_worker_requests_total {self.total}",
            "# TYPE llm_os_worker_requests_failed_total counter",
            f"llm_os_worker_requests_failed_total {self.failed}",
        ]
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")

    async def _classify(self, request: web.Request) -> web.Response:
        texts = classify_request(await request.read(), self._call.engine)
        if self._call.task == "token-classification":
            tagged = await self._backend.tag(texts)
            spans = [[asdict(span) for span in one] for one in tagged.spans]
            return self._listed([{"index": at, "spans": one} for at, one in enumerate(spans)], tagged.prompt_tokens)
        found = await self._backend.classify(texts)
        data = []
        for index, scores in enumerate(found.scores):
            best = max(range(len(scores)), key=scores.__getitem__)
            named = dict(zip(found.labels, scores, strict=True))
            entry = {"index": index, "label": found.labels[best], "score": scores[best], "scores": named}
            data.append(entry if found.chosen is None else {**entry, "labels": list(found.chosen[index])})
        return self._listed(data, found.prompt_tokens)

    async def _embed(self, request: web.Request) -> web.Response:
        texts, encode = embeddings_request(await request.read(), self._call.engine)
        found = await self._backend.embed(texts)
        data = [
            {"object": "embedding", "index": at, "embedding": encode(vector)} for at, vector in enumerate(found.vectors)
        ]
        return self._listed(data, found.prompt_tokens)

    async def _rank(self, request: web.Request) -> web.Response:
        asked = (Rerank if request.path == "/v1/rerank" else Score)(await request.read(), self._call.engine)
        found = await self._backend.embed(asked.texts)
        return web.json_response(asked.answer(found, self._call.deployment))

    def _listed(self, data: list[dict[str, Any]], tokens: int) -> web.Response:
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response({"object": "list", "model": self._call.deployment, "data": data, "usage": usage})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = chat_request(await request.read(), self._call.engine, self._backend.follows, self._usual)
        return await self._generate(request, (asked,), Chat(self._named(asked)))

    def _named(self, asked: ChatRequest) -> str:
        """What the answer says of its model. Raises NotFoundError for an adapter that is not held here."""
        if asked.adapter and asked.adapter not in self._backend.adapters:
            raise no_adapter(asked.adapter, self._backend.adapters)
        return f"{self._call.deployment}:{asked.adapter}" if asked.adapter else self._call.deployment

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = completion_request(await request.read(), self._call.engine, self._backend.follows, self._usual)
        return await self._generate(request, asked, Completion(self._named(asked[0])))

    async def _generate(self, request: web.Request, asked: Sequence[ChatRequest], shape: Shape) -> web.StreamResponse:
        choices = [one for each in asked for one in choices_of(each)]
        answers = [_stopped_at(self._backend.chat(one), one) for one in choices]
        if self._backend.reads_anew and asked[0].n > 1:
            answers = primed(answers, asked[0].n)
        if asked[0].stream:
            answers = [paced(one, self._pause) for one in answers]
            async with contextlib.aclosing(merged(answers)) as pieces:
                return await self._stream(request, asked[0], pieces, shape)
        turns = asyncio.Semaphore(TOGETHER)
        told = _told_once(request)
        running = [asyncio.create_task(self._whole(one, turns, told)) for one in answers]
        try:
            done = await asyncio.gather(*running)
        finally:  # one that fails ends the others
            for task in running:
                task.cancel()
        return web.json_response(shape.whole(done, asked[0].n))

    async def _whole(
        self, answer: AsyncGenerator[Piece, None], turns: asyncio.Semaphore, told: Callable[[], None]
    ) -> Piece:
        """The answer as one piece; `told` is called at its first token."""
        text, last, scores, calls = "", None, list[TokenScore](), list[ToolCall]()
        async with turns, contextlib.aclosing(answer) as pieces:
            async for last in pieces:
                told()
                text += last.text
                scores.extend(last.scores)
                calls.extend(last.calls)
        if last is None:
            raise UnavailableError("The engine answered nothing.", hint="Ask again.")
        return replace(last, text=text, scores=tuple(scores), calls=tuple(calls))

    async def _stream(
        self, request: web.Request, asked: ChatRequest, pieces: AsyncGenerator[tuple[int, Piece], None], shape: Shape
    ) -> web.StreamResponse:
        # Waiting for the first piece keeps a refusal (too long a prompt) a plain answer with its status.
        index, piece = await anext(pieces)
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        last = {index: piece}
        await response.write(_event(shape.event(piece, index, first=True, usage=asked.usage), last))
        try:
            async for index, piece in pieces:
                event = shape.event(piece, index, first=index not in last, usage=asked.usage)
                last[index] = piece
                await response.write(_event(event, last))
        except ConnectionResetError:  # its caller has left
            raise
        except Exception as error:  # noqa: BLE001 - too late for another status: it is told in the stream
            self.failed += 1
            await response.write(_event(error_body(self._told(request, error))))
            return response
        if asked.usage:
            await response.write(_event(shape.counted(list(last.values()))))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _tokenize(self, request: web.Request) -> web.Response:
        asked = tokenize_request(await request.read(), self._call.engine, self._backend.follows)
        found = await self._backend.tokenize(asked)
        return web.json_response({"tokens": list(found.ids), "count": len(found.ids), "max_model_len": found.context})

    async def _detokenize(self, request: web.Request) -> web.Response:
        text = await self._backend.detokenize(detokenize_request(await request.read(), self._call.engine))
        return web.json_response({"prompt": text})


def _told_once(request: web.Request) -> Callable[[], None]:
    """What says once, if the asker wants to know it, that the prompt is read: an interim answer, which HTTP allows."""
    wanted = TELL_READ in request.headers

    def told() -> None:
        nonlocal wanted
        if wanted and request.transport is not None:
            request.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        wanted = False

    return told


def _event(body: Any, last: Mapping[int, Piece] = NOTHING) -> bytes:
    """An event. The tokens of all answers by then go in a field that readers of SSE ignore; the gateway, which must
    know them also of a caller who leaves early, takes it out."""
    told = f"\ntokens: {sum([piece.completion_tokens for piece in last.values()])}" if last else ""
    return f"data: {json.dumps(body, ensure_ascii=False)}{told}\n\n".encode()


async def _stopped_at(pieces: AsyncGenerator[Piece, None], asked: ChatRequest) -> AsyncGenerator[Piece, None]:
    """The pieces up to the first stop text. A piece that says nothing is not passed on, but for the first.

    Probabilities go with the text that they belong to: those of a text that is held back, or dropped, do not go first.
    """
    stops, first = StopTexts(asked.stop), True
    waiting: deque[TokenScore] = deque()
    said = scored = 0
    try:
        async for piece in pieces:
            text = stops.feed(piece.text, last=piece.finish is not None)
            finish = "stop" if stops.stopped is not None else piece.finish
            said += len(text)
            waiting.extend(piece.scores)
            ready: list[TokenScore] = []
            while waiting and (scored < said or (finish and stops.stopped is None)):
                scored += len(waiting[0].text)
                ready.append(waiting.popleft())
            if text or finish or first or ready or piece.calls:
                yield replace(piece, text=text, finish=finish, stop=stops.stopped or piece.stop, scores=tuple(ready))
            first = False
            if finish:
                return
    finally:
        await pieces.aclose()


async def listen(app: web.Application, socket: str) -> web.AppRunner:
    """Serve `app` on the Unix socket, which only this user can open."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.UnixSite(runner, socket).start()
    return runner


async def drain(runner: web.AppRunner, face: Face, seconds: float) -> None:
    """Take no new connection, let running requests end for so long, then break them off."""
    for site in list(runner.sites):
        await site.stop()
    with contextlib.suppress(TimeoutError):  # what takes longer is broken off
        async with asyncio.timeout(seconds):
            await face.idle.wait()
    await runner.cleanup()
