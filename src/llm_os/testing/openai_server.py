"""A server that speaks OpenAI's API without a model, as llama.cpp and vLLM do, with faults; must not know our engines.

Its tokens are words. `program` writes it as an executable, for drivers that start one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

ANSWER = "The capital of France is Paris."
LOGPROB = -0.25
ARGUMENTS = '{"city": "Paris", "large": true}'
"""Of every call of a tool that must be made."""


@dataclass
class Faults:
    """What it does wrong.

    Attributes:
        says: it writes this and ends with exit code 1 instead of listening.
        silent: it listens, and is never healthy.
        dies_after: it kills itself in the middle of the answer after this many.
        refuses: (status, error, headers) of every answer.
        breaks: it ends a stream without its last events.
        refuses_parameters: parameters -> None: it does not know it; a number: it takes this value only.
        names_parameters: a refusal of those has `param` and `code`, as OpenAI's; else its message alone tells.
    """

    says: str | None = None
    silent: bool = False
    dies_after: int | None = None
    refuses: tuple[int, Mapping[str, Any], Mapping[str, str]] | None = None
    breaks: bool = False
    refuses_parameters: Mapping[str, float | None] = field(default_factory=dict)
    names_parameters: bool = True


@dataclass
class Server:
    """See the module.

    Attributes:
        asked: bodies of the requests so far. headers: of the last of them.
        left: streams that their reader broke off.
    """

    faults: Faults = field(default_factory=Faults)
    answer: str = ANSWER
    context: int = 4096
    pause: float = 0.002
    usage: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    left: int = 0
    words: list[str] = field(default_factory=list)
    adapters: dict[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    """Prompts that were read: they are in its cache."""

    def app(self) -> web.Application:
        """Its routes, below `/v1` and beside it."""
        app = web.Application(client_max_size=2**24)
        app.router.add_get("/health", self._health)
        app.router.add_post("/apply-template", self._template)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        app.router.add_post("/completion", self._dictated)
        app.router.add_post("/v1/chat/completions", self._generate)
        app.router.add_post("/v1/completions", self._generate)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        return app

    async def _dictated(self, request: web.Request) -> web.Response:
        """As llama.cpp's own completion of one token, told with what it was before any bias.

        A token has -0.01 for each token before it. Of tokens from 500 on nothing is told when they are said; the
        likeliest ones are those from 500 on.
        """
        body = await request.json()
        self.asked.append(body)
        likely, said = -0.01 * len(body["prompt"]), body["logit_bias"][0][0]
        tops = [{"id": 500 + one, "token": "x", "logprob": likely} for one in range(body["n_probs"])]
        told = {"id": said, "token": "x", "logprob": likely, "top_logprobs": tops}
        return web.json_response({"content": "x", **({"completion_probabilities": [told]} if said < 500 else {})})

    async def _load(self, request: web.Request) -> web.Response:
        """As vLLM: by its name and folder, where it was started for that; the answer is a text."""
        body = await request.json()
        if "--enable-lora" not in sys.argv or not os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
            return _error(404, {"message": "Not Found"})
        if not (Path(body["lora_path"]) / "adapter_config.json").exists():
            return _error(404, {"message": f"No adapter found for {body['lora_path']}", "type": "NotFoundError"})
        if body["lora_name"] in self.adapters:
            return _error(400, {"message": "already loaded", "type": "InvalidUserInput"})
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text=f"Success: LoRA adapter '{body['lora_name']}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self.adapters.pop(name, None) is None:
            return _error(404, {"message": f"The lora adapter '{name}' cannot be found.", "type": "NotFoundError"})
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"}, status=503 if self.faults.silent else 200)

    async def _template(self, request: web.Request) -> web.Response:
        messages = (await request.json())["messages"]
        if messages[0]["role"] == "assistant":
            return _error(400, {"message": "roles must alternate", "type": "invalid_request_error"})
        return web.json_response({"prompt": " ".join(f"{one['role']} {one['content']}" for one in messages)})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        text = body.get("content") or body.get("prompt") or ""
        if "messages" in body:
            text = " ".join(f"{one['role']} {one['content']}" for one in body["messages"])
        ids = [self._token(word) for word in text.split()]
        return web.json_response({"tokens": ids, "count": len(ids), "max_model_len": self.context})

    async def _detokenize(self, request: web.Request) -> web.Response:
        text = " ".join(self.words[one] for one in (await request.json())["tokens"])
        return web.json_response({"content": text, "prompt": text})

    def _token(self, word: str) -> int:
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers = dict(request.headers)
        if self.faults.refuses is not None:
            status, error, headers = self.faults.refuses
            return _error(status, error, headers)
        if (refusal := self._unsupported(body)) is not None:
            return _error(400, refusal)
        chat = request.path.endswith("/chat/completions")
        prompt = self._size(body)
        if prompt >= self.context:
            told = {"message": "too long", "code": "context_length_exceeded", "type": "invalid_request_error"}
            return _error(400, told)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            await self._write(response, body, chat, prompt)
        except (ConnectionError, asyncio.CancelledError):
            self.left += 1
            raise
        return response

    def _unsupported(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """OpenAI's words for what a model does not take."""
        for name, value in self.faults.refuses_parameters.items():
            if name not in body or (value is not None and body[name] == value):
                continue
            if value is None:
                told = f"Unsupported parameter: '{name}' is not supported with this model."
                told += " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
            else:
                told = f"Unsupported value: '{name}' does not support {body[name]} with this model. Only {value} is."
            more = {"param": name, "code": "unsupported_value" if value is not None else "unsupported_parameter"}
            return {"message": told, "type": "invalid_request_error", **(more if self.faults.names_parameters else {})}
        return None

    def _size(self, body: Mapping[str, Any]) -> int:
        if "messages" in body:
            return sum(len(one["content"].split()) + 1 for one in body["messages"])
        return len(body["prompt"]) if isinstance(body["prompt"], list) else len(body["prompt"].split())

    async def _write(self, response: web.StreamResponse, body: Mapping[str, Any], chat: bool, prompt: int) -> None:
        if chat and body.get("tool_choice") == "required":
            await self._call(response, body, prompt)
            return
        words = self.answer.split()
        if (folder := self.adapters.get(str(body.get("model")))) is not None:
            words = [Path(folder).name, *words]
        wanted = body.get("max_tokens") or body.get("max_completion_tokens") or len(words)
        if wanted > 1000:
            words = ["sea"] * wanted
        kept, stop = _cut(words[:wanted], body.get("stop") or [])
        for number, word in enumerate(kept, start=1):
            await asyncio.sleep(self.pause)
            if self.faults.dies_after is not None and len(self.asked) > self.faults.dies_after:
                print("ggml: failed to allocate 1 TiB: out of memory", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            text = word if number == 1 else f" {word}"
            choice = {"index": 0, "finish_reason": None, **_text(text, chat), **_told(text, body, chat)}
            await response.write(_event({"choices": [choice], "timings": {"predicted_n": number}}))
        if self.faults.breaks:
            return
        finish = "length" if stop is None and len(kept) < len(words) else "stop"
        end = {"index": 0, "finish_reason": finish, "stop_reason": stop, **_text(" " if stop else "", chat)}
        await response.write(_event({"choices": [end]}))
        if self.usage and (body.get("stream_options") or {}).get("include_usage"):
            usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": len(kept)}
            asked = json.dumps(body.get("messages") or body.get("prompt"))
            if asked in self.read:
                usage["prompt_tokens_details"] = {"cached_tokens": prompt - 1}
            self.read.add(asked)
            await response.write(_event({"choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")

    async def _call(self, response: web.StreamResponse, body: Mapping[str, Any], prompt: int) -> None:
        """A call of the last tool, in parts as OpenAI sends them."""
        function = {"name": body["tools"][-1]["function"]["name"], "arguments": ""}
        parts: list[dict[str, Any]] = [{"id": "call_1", "type": "function", "function": function}]
        parts += [{"function": {"arguments": ARGUMENTS[at : at + 7]}} for at in range(0, len(ARGUMENTS), 7)]
        for part in parts:
            delta = {"tool_calls": [{"index": 0, **part}]}
            await response.write(_event({"choices": [{"index": 0, "finish_reason": None, "delta": delta}]}))
        await response.write(_event({"choices": [{"index": 0, "finish_reason": "tool_calls", "delta": {}}]}))
        usage = {"prompt_tokens": prompt, "completion_tokens": 9}
        await response.write(_event({"choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")


def _cut(words: Sequence[str], stops: Sequence[str]) -> tuple[list[str], str | None]:
    for at, word in enumerate(words):
        if word in stops:
            return list(words[:at]), word
    return list(words), None


def _text(text: str, chat: bool) -> dict[str, Any]:
    return {"delta": {"content": text} if text else {}} if chat else {"text": text}


def _told(text: str, body: Mapping[str, Any], chat: bool) -> dict[str, Any]:
    """Probabilities in the shape that llama.cpp has for both, and OpenAI for chats."""
    if body.get("logprobs") is None or body.get("logprobs") is False:
        return {}
    most = int((body.get("top_logprobs") or 0) if chat else body["logprobs"])
    tops = [{"token": text if rank == 0 else f"other{rank}", "logprob": LOGPROB - rank} for rank in range(most)]
    return {"logprobs": {"content": [{"token": text, "logprob": LOGPROB, "top_logprobs": tops}]}}


def _event(event: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _error(status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": dict(error)}, status=status, headers=headers)


def main(**faults: Any) -> None:
    """Run as `llama-server --host NAME.sock` or `vllm serve MODEL --uds NAME`."""
    server = Server(Faults(**faults))
    if server.faults.says is not None:
        print(server.faults.says, file=sys.stderr, flush=True)
        sys.exit(1)
    place = next(sys.argv[at + 1] for at, word in enumerate(sys.argv) if word in ("--host", "--uds"))
    Path("argv.json").write_text(json.dumps(sys.argv))
    web.run_app(server.app(), path=place, print=None, handler_cancellation=True)


def program(path: Path, **faults: Any) -> Path:
    """Write it as an executable with these faults."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).parents[2]
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(source)!r})\n"
        f"from llm_os.testing.openai_server import main\nmain(**{faults!r})\n"
    )
    path.chmod(0o700)
    return path
