"""A real gateway process with replicas whose faults are scripted; must not know the kernel.

For tests and measurements: the bed writes the routing table that the kernel would write, and replicas answer on Unix
sockets as engine workers do.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from llm_os.server import keys
from llm_os.settings import Settings
from llm_os.spec.attempts import TELL_READ, Report
from llm_os.spec.routing import DeploymentUsage, Endpoint, GatewayUsage, KeyEntry, Route, RoutingTable

ADMIN = "sk-admin"
USER = "sk-user"
MONITOR = "sk-monitor"
LIMITED = "sk-limited"
"""A key that may use the deployment `chat` only."""

KEYS = (
    KeyEntry(id="admin", sha256=keys.digest(ADMIN), role="admin"),
    KeyEntry(id="user", sha256=keys.digest(USER), role="user"),
    KeyEntry(id="monitor", sha256=keys.digest(MONITOR), role="monitor"),
    KeyEntry(id="limited", sha256=keys.digest(LIMITED), role="user", deployments=("chat",)),
)


class ScriptedReplica:
    """Answers chats with `words`, one event each, and classifications with `positive`; its fields are its faults.

    Prompts are read at once: an answer that is no stream is announced at once where that is asked for.

    Attributes:
        delay: seconds before each event, or before a whole answer.
        break_before: this many requests are broken off before the first byte.
        break_after: break every stream after this many events.
        fail_after: end every stream with an error event after this many events, as an engine that fails does.
        refuse_with: status and error body that every request gets.
        garbage: events that no engine sends, written before the end of a stream.
        finish, stop_reason: why answers end, and the stop text that they met.
        seen, heads: bodies and headers of all requests, in order.
        hung_up: how many callers left before the end.
        in_flight: requests under way; `most_in_flight` is the highest number seen.
    """

    def __init__(self, path: Path, words: Sequence[str] = ("one ", "two ", "three")) -> None:
        self.path = path
        self.words = tuple(words)
        self.delay = 0.0
        self.break_before = 0
        self.break_after: int | None = None
        self.fail_after: int | None = None
        self.refuse_with: tuple[int, Any] | None = None
        self.garbage: tuple[bytes, ...] = ()
        self.finish = "stop"
        self.stop_reason: str | None = None
        self.seen: list[dict[str, Any]] = []
        self.heads: list[Mapping[str, str]] = []
        self.hung_up = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on the Unix socket."""
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/chat/completions", self._counted)
        app.router.add_post("/v1/completions", self._counted)
        app.router.add_post("/tokenize", self._counted)
        app.router.add_post("/classify", self._counted)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()

    async def close(self) -> None:
        """Break every connection and stop listening. Idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def endpoint(self) -> Endpoint:
        """What the routing table says of it."""
        return Endpoint(attempt=self.path.stem, url=f"unix:{self.path}")

    async def until(self, fact: Any, seconds: float = 10.0) -> None:
        """Wait until `fact()` is true; it is looked at whenever a request begins or ends."""
        async with asyncio.timeout(seconds):
            while not fact():
                self.changed.clear()
                await self.changed.wait()

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _counted(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.seen.append(body)
        self.heads.append(request.headers)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.changed.set()
        try:
            return await self._answer(request, body)
        except (asyncio.CancelledError, ConnectionResetError):
            self.hung_up += 1
            raise
        finally:
            self.in_flight -= 1
            self.changed.set()

    async def _answer(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        if self.break_before > 0:
            self.break_before -= 1
            return self._abort(request)
        if self.refuse_with is not None:
            status, error = self.refuse_with
            return web.json_response(error, status=status)
        if "input" in body:
            await asyncio.sleep(self.delay)
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
            scores = {"negative": 0.1, "positive": 0.9}
            data = [{"index": n, "label": "positive", "score": 0.9, "scores": scores} for n in range(len(texts))]
            return web.json_response({"model": body["model"], "data": data, "usage": {"prompt_tokens": len(texts)}})
        if request.path == "/tokenize":
            return web.json_response({"count": 5, "tokens": [1, 2, 3, 4, 5], "max_model_len": 64})
        if "prompt" in body:
            choice = {"index": 0, "text": "".join(self.words), "finish_reason": self.finish}
            return web.json_response(self._object("text_completion", body, [choice], usage=True))
        if body.get("stream"):
            return await self._stream(request, body)
        if TELL_READ in request.headers and request.transport is not None:
            request.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(self.delay)
        message = {"role": "assistant", "content": "".join(self.words)}
        choice = {"index": 0, "message": message, "finish_reason": self.finish, "stop_reason": self.stop_reason}
        return web.json_response(self._object("chat.completion", body, [choice], usage=True))

    async def _stream(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        """Events as engine workers send them; without `include_usage`, the last one holds the counts all the same."""
        counts = bool((body.get("stream_options") or {}).get("include_usage"))
        extra: dict[str, Any] = {"usage": None} if counts else {}
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, word in enumerate(self.words):
            await asyncio.sleep(self.delay)
            if number == self.break_after:
                # Half an event, then nothing: what a killed worker leaves behind.
                await response.write(b'data: {"half')
                return self._abort(request)
            if number == self.fail_after:
                await response.write(self._event({"error": {"message": "The engine broke.", "code": "unavailable"}}))
                return response
            role = {} if number else {"role": "assistant"}
            choice = {"index": 0, "delta": {**role, "content": word}, "finish_reason": None}
            await response.write(self._event(self._object("chat.completion.chunk", body, [choice]) | extra))
        stopped = {"stop_reason": self.stop_reason} if self.stop_reason else {}
        last = {"index": 0, "delta": {}, "finish_reason": self.finish, **stopped}
        await response.write(self._event(self._object("chat.completion.chunk", body, [last], usage=not counts) | extra))
        if counts:
            await response.write(self._event(self._object("chat.completion.chunk", body, [], usage=True)))
        for event in self.garbage:
            await response.write(event)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _object(self, kind: str, body: Mapping[str, Any], choices: list[Any], *, usage: bool = False) -> dict[str, Any]:
        answer = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": body["model"], "choices": choices}
        if usage:
            out = len(self.words)
            answer["usage"] = {"prompt_tokens": 7, "completion_tokens": out, "total_tokens": 7 + out}
        return answer

    @staticmethod
    def _event(value: Mapping[str, Any]) -> bytes:
        return b"data: " + json.dumps(value).encode() + b"\n\n"

    @staticmethod
    def _abort(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


def a_route(
    deployment: str, *replicas: ScriptedReplica, task: str = "text-generation", version: str | None = None
) -> Route:
    """A route to ready replicas."""
    return Route(
        deployment=deployment,
        version=version or f"{deployment}-model@1",
        task=task,
        engine="fake",
        endpoints=tuple(replica.endpoint() for replica in replicas),
        created_at=1_700_000_000.0,
    )


class GatewayBed:
    """One home with one gateway process.

    Attributes:
        url: `http://127.0.0.1:PORT`, once started.
    """

    def __init__(self, home: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.settings = Settings(home=home, gateway_port=0)
        self._env = dict(env or {})
        self.folder = self.settings.attempts / "gateway-1"
        self.folder.mkdir(parents=True)
        self.url = ""
        self._arguments = arguments
        self._version = 0
        self.process: asyncio.subprocess.Process | None = None

    def route(self, *routes: Route, keys: Sequence[KeyEntry] = ()) -> None:
        """Put a table into force, as the kernel does: written beside and renamed. `keys` come to those of the bed."""
        self._version += 1
        table = RoutingTable(version=self._version, routes=routes, keys=(*KEYS, *keys))
        beside = self.settings.routes.with_suffix(".new")
        beside.write_text(table.model_dump_json(), encoding="utf-8")
        beside.replace(self.settings.routes)

    async def start(self, *, port: int = 0) -> None:
        """Start the process and wait until it reported `ready` or ended."""
        environment = {
            **os.environ,
            "LLM_OS_HOME": str(self.settings.home),
            "LLM_OS_GATEWAY_PORT": str(port),
            **self._env,
        }
        argv = [sys.executable, "-m", "llm_os.server.gateway.main", str(self.folder), *self._arguments]
        self.process = await asyncio.create_subprocess_exec(*argv, env=environment)
        async with asyncio.timeout(30):
            while self.process.returncode is None and not self.url:
                for report in self.reports():
                    if report.kind == "ready":
                        self.url = str(report.values["url"])
                await asyncio.sleep(0.02)

    async def restart(self) -> None:
        """Start the next process, with an attempt of its own, after the last one has ended."""
        self.url = ""
        number = int(self.folder.name.split("-")[1])
        self.folder = self.settings.attempts / f"gateway-{number + 1}"
        self.folder.mkdir()
        await self.start()

    def reports(self) -> list[Report]:
        """What the gateway reported to its attempt folder."""
        path = self.folder / "reports.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [Report.model_validate_json(line) for line in text.splitlines()]

    def usage(self) -> GatewayUsage:
        """What the kernel would read."""
        return GatewayUsage.model_validate_json(self.settings.usage.read_bytes())

    def counted(self, deployment: str) -> DeploymentUsage:
        """What the file says of a deployment; all zero before its first request is written."""
        none = DeploymentUsage(last_request_at=0, in_flight=0, requests=0)
        return self.usage().deployments.get(deployment, none)

    async def until(self, fact: Any, seconds: float = 10.0) -> None:
        """Wait until `fact()` is true, looking every 20 ms: for files that another process writes."""
        ends = time.monotonic() + seconds
        while not fact():
            if time.monotonic() > ends:
                raise AssertionError("it did not become true in time")
            await asyncio.sleep(0.02)

    async def close(self) -> int | None:
        """End the process with SIGTERM and return its exit code. Idempotent."""
        if self.process is None:
            return None
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(15):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise
