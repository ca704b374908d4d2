"""Requests to the gateway: classify and chat, with one deployment's key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx2

from llm_os.client.transport import error_of
from llm_os.errors import UnavailableError

SETTLE_SECONDS = 10.0
"""A route that the kernel has just written reaches the gateway a moment later; so long a miss is tried again."""
MISSES = frozenset({401, 404, 503})


class Gateway:
    """Speaks to one deployment.

    Args:
        url: OpenAI base URL. key: bearer. model: name of the deployment.
    """

    def __init__(self, url: str, key: str, model: str) -> None:
        self.url, self.key, self.model = url, key, model
        self._client = httpx2.Client(headers={"authorization": f"Bearer {key}"}, timeout=600.0)

    def classify(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """One entry a text: label, score, scores."""
        root = self.url.removesuffix("/v1")
        reply = self._post(f"{root}/classify", {"model": self.model, "input": list(texts)})
        data: list[dict[str, Any]] = reply.json()["data"]
        return data

    def chat(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
        body = {"model": self.model, "messages": list(messages), **options}
        return str(self._post(f"{self.url}/chat/completions", body).json()["choices"][0]["message"]["content"])

    def stream(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Iterator[str]:
        """Pieces of the answer as they come. Raises UnavailableError if the stream breaks."""
        body = {"model": self.model, "messages": list(messages), "stream": True, **options}
        with self._client.stream("POST", f"{self.url}/chat/completions", json=body) as reply:
            if reply.status_code >= 400:
                reply.read()
                raise error_of(reply)
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
        until = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                reply = self._client.post(url, json=body)
            except httpx2.ConnectError as error:
                if time.monotonic() > until:
                    raise UnavailableError(f"The gateway at {self.url} does not answer.") from error
                time.sleep(0.2)
                continue
            if reply.status_code < 400:
                return reply
            if reply.status_code not in MISSES or time.monotonic() > until:
                raise error_of(reply)
            time.sleep(0.1)


def as_messages(prompt: str | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A prompt becomes one message of the user; messages stay what they are."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
