"""The way to the gateway: a route that settles late is waited for, whatever breaks has a name."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from llm_os.client.gateway import GREEDY, Gateway, as_messages
from llm_os.client.transport import place
from llm_os.errors import InvalidInputError, NotFoundError, UnavailableError

MISS = httpx2.Response(404, json={"error": {"code": "not_found", "message": "Nothing of that name is served."}})
STREAM = 'data: {"choices": [{"delta": {"content": "Pa"}}]}\n\ndata: {"choices": [{"delta": {"content": "ris"}}]}\n\n'


def gateway(*answers: httpx2.Response | Exception) -> Gateway:
    left = list(answers)

    def answer(request: httpx2.Request) -> httpx2.Response:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return Gateway("http://127.0.0.1:1/v1", "key", "talk", httpx2.MockTransport(answer))


def streams(asked: Gateway) -> str:
    return "".join(asked.stream([{"role": "user", "content": "Hello"}], {}))


def chats(asked: Gateway) -> str:
    return asked.chat([{"role": "user", "content": "Hello"}], {})


def test_a_stream_waits_for_a_route_that_settles_late() -> None:
    assert streams(gateway(MISS, httpx2.Response(200, text=STREAM + "data: [DONE]\n\n"))) == "Paris"


def test_an_answer_waits_for_a_gateway_that_starts() -> None:
    whole = httpx2.Response(200, json={"choices": [{"message": {"content": "Paris"}}]})
    assert chats(gateway(httpx2.ConnectError("refused"), whole)) == "Paris"


@pytest.mark.parametrize("ask", [streams, chats])
def test_a_refusal_is_its_own_error(ask: Callable[[Gateway], str]) -> None:
    refusal = httpx2.Response(400, json={"error": {"code": "invalid_input", "message": "'max_tokens' is wrong."}})
    with pytest.raises(InvalidInputError, match="'max_tokens' is wrong"):
        ask(gateway(refusal))


@pytest.mark.parametrize("ask", [streams, chats])
@pytest.mark.parametrize("broken", [httpx2.ReadTimeout("slow"), httpx2.RemoteProtocolError("gone")])
def test_a_connection_that_breaks_is_no_foreign_error(ask: Callable[[Gateway], str], broken: Exception) -> None:
    with pytest.raises(UnavailableError, match="broke off"):
        ask(gateway(broken))


def test_an_error_inside_a_stream_is_raised_after_what_came_before() -> None:
    pieces = gateway(httpx2.Response(200, text=STREAM + 'data: {"error": {"message": "died"}}\n\n')).stream([], {})
    assert [next(pieces), next(pieces)] == ["Pa", "ris"]
    with pytest.raises(UnavailableError, match="died"):
        next(pieces)


@pytest.mark.parametrize("name", ["../x", "a/b", "a?b", "a b", "", ".", "..", "a#b", "a%2fb", "é"])
def test_a_typed_name_never_becomes_another_path(name: str) -> None:
    with pytest.raises(NotFoundError, match="There is no model"):
        place("models", name, "model")


@pytest.mark.parametrize("name", ["job-7k2m9x4q1c", "transformer-sentic_data@1", "a.b_c", "sha256:" + "0" * 64])
def test_real_names_stay_as_they_are(name: str) -> None:
    assert place("models", name, "model") == f"/v1/models/{name}"


REFUSED = httpx2.Response(
    400, json={"error": {"code": "invalid_option", "message": "Only 1.", "details": {"param": "temperature"}}}
)


@pytest.mark.parametrize("stream", [True, False])
def test_a_wish_that_the_model_refuses_is_left_out_and_an_option_is_not(stream: bool) -> None:
    """Models that think take no temperature; that ours is 0 was nobody's request."""
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.content))
        if "temperature" in sent[-1]:
            return REFUSED
        whole = httpx2.Response(200, json={"choices": [{"message": {"content": "Pa"}}]})
        return httpx2.Response(200, text=STREAM) if stream else whole

    asked = Gateway("http://127.0.0.1:1/v1", "key", "talk", httpx2.MockTransport(answer))
    hello = [{"role": "user", "content": "Hello"}]

    def ask(options: dict[str, Any]) -> str:
        found = asked.stream(hello, options, GREEDY) if stream else asked.chat(hello, options, GREEDY)
        return "".join(found)

    assert ask({"max_tokens": 3}) == ("Paris" if stream else "Pa")
    assert [body.get("temperature") for body in sent] == [0.0, None]
    with pytest.raises(InvalidInputError, match="Only 1"):
        ask({"temperature": 0.5})
    assert len(sent) == 3


def test_a_proxy_of_the_environment_is_not_asked_for_this_machines_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    whole = json.dumps({"choices": [{"message": {"content": "Paris"}}]}).encode()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as caller:
                caller.recv(65536)
                caller.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(whole) + whole)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert chats(Gateway(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", "key", "talk")) == "Paris"
        thread.join(5)


@pytest.mark.parametrize("prompt", [5, None, [5], ["Hello"], {"role": "user"}])
def test_what_is_no_prompt_is_refused_by_its_kind(prompt: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"A prompt is a text or a list of messages, not (int|NoneType|str)"):
        as_messages(prompt)
    assert as_messages([]) == []
