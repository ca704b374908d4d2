"""Requests to the gateway: classify and chat, with one deployment's key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import httpx2

from llm_os.client.transport import error_of
from llm_os.errors import InvalidInputError, UnavailableError
from llm_os.spec.hosts import is_loopback

SETTLE_SECONDS = 10.0
"""A route that the kernel has just written reaches the gateway a moment later; so long a miss is tried again."""
GREEDY = MappingProxyType({"temperature": 0.0})
"""A small model drawn from at the protocol's default temperature of 1 writes nonsense."""
MISSES = frozenset({401, 404, 503})


class Gateway:
    """Speaks to one deployment.

    Args:
        url: OpenAI base URL. key: bearer. model: name of the deployment.
        transport: how requests travel; None: over TCP.
    """

    def __init__(self, url: str, key: str, model: str, transport: httpx2.BaseTransport | None = None) -> None:
        self.url, self.key, self.model = url, key, model
        # A proxy of the environment is for what lies outside: it does not reach this machine's loopback.
        outside = not is_loopback(urlsplit(url).hostname or "")
        self._client = httpx2.Client(
            headers={"authorization": f"Bearer {key}"}, timeout=600.0, transport=transport, trust_env=outside
        )

    def classify(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """One entry a text: label, score, scores."""
        root = self.url.removesuffix("/v1")
        reply = self._post(f"{root}/classify", {"model": self.model, "input": list(texts)})
        data: list[dict[str, Any]] = reply.json()["data"]
        return data

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text."""
        reply = self._post(f"{self.url}/embeddings", {"model": self.model, "input": list(texts)})
        return [entry["embedding"] for entry in reply.json()["data"]]

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        wishes: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """The answer. `wishes`: options that nobody asked for; those that the model refuses by name are left out."""
        body = {"model": self.model, "messages": list(messages), **options}
        with self._wished(f"{self.url}/chat/completions", body, wishes) as reply:
            reply.read()
            return str(reply.json()["choices"][0]["message"]["content"])

    def stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        wishes: Mapping[str, Any] = MappingProxyType({}),
    ) -> Iterator[str]:
        """Pieces of the answer as they come. `wishes` as of `chat`. Raises UnavailableError if the stream breaks."""
        body = {"model": self.model, "messages": list(messages), "stream": True, **options}
        with self._wished(f"{self.url}/chat/completions", body, wishes) as reply:
            for line in reply.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise UnavailableError(str(event["error"].get("message")), hint="Ask again.")
                for choice in event.get("choices", ()):
                    if piece := choice["delta"].get("content"):
                        yield str(piece)

    def _post(self, url: str, body: Mapping[str, Any]) -> httpx2.Response:
        with self._answer(url, body) as reply:
            reply.read()
            return reply

    @contextmanager
    def _wished(self, url: str, body: Mapping[str, Any], wishes: Mapping[str, Any]) -> Iterator[httpx2.Response]:
        with ExitStack() as stack:
            while True:
                try:
                    reply = stack.enter_context(self._answer(url, {**wishes, **body}))
                    break
                except InvalidInputError as refusal:
                    refused = refusal.details.get("param")
                    if refused not in wishes or refused in body:
                        raise
                    wishes = {name: value for name, value in wishes.items() if name != refused}
            yield reply

    @contextmanager
    def _answer(self, url: str, body: Mapping[str, Any]) -> Iterator[httpx2.Response]:
        """The answer once it begins. Raises what the gateway refuses; UnavailableError if it breaks off."""
        try:
            with self._begun(url, body) as reply:
                yield reply
        except httpx2.TransportError as error:
            raise UnavailableError(
                f"The gateway at {self.url} broke off ({type(error).__name__}).", hint="Ask again."
            ) from error

    @contextmanager
    def _begun(self, url: str, body: Mapping[str, Any]) -> Iterator[httpx2.Response]:
        until = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                opened = self._client.send(self._client.build_request("POST", url, json=body), stream=True)
            except httpx2.ConnectError as error:
                if time.monotonic() > until:
                    hint = "`llm-os why gateway` says why."
                    raise UnavailableError(f"The gateway at {self.url} does not answer.", hint=hint) from error
                time.sleep(0.2)
                continue
            with closing(opened):
                if opened.status_code < 400:
                    yield opened
                    return
                opened.read()
            if opened.status_code not in MISSES or time.monotonic() > until:
                raise error_of(opened)
            time.sleep(0.1)


def as_messages(prompt: str | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A prompt becomes one message of the user; messages stay what they are. Raises InvalidInputError for neither."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    messages = list(prompt) if isinstance(prompt, Iterable) else [prompt]
    wrong = next((one for one in messages if not isinstance(one, Mapping)), None)
    if wrong is not None or not isinstance(prompt, Iterable):
        raise InvalidInputError(
            f"A prompt is a text or a list of messages, not {type(wrong if wrong is not None else prompt).__name__}.",
            hint='Such as "Hello", or [{"role": "user", "content": "Hello"}].',
        )
    return messages
