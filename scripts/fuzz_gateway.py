"""Asks a real gateway thousands of right and wrong requests, and ends with 1 if it answers one as it never should.

    python scripts/fuzz_gateway.py --minutes 60

First raw requests that break HTTP or JSON, then what schemathesis makes of the gateway's own `/openapi.json`, right and
wrong. The gateway is a process of its own; behind it are workers' real HTTP faces over the fake engine, which follows
every parameter, so that what the document calls right must be answered. A failure is printed with its request.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llm_os.server.gateway.openapi import page
from llm_os.server.gateway.wishes import PRIORITY, TIMEOUT
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Input, ServeCall
from llm_os.spec.routing import Endpoint, Route
from llm_os.testing.gateway_bed import ADMIN, GatewayBed
from llm_os.workers.backend import Embedded
from llm_os.workers.fake import VOCABULARY, FakeBackend, score
from llm_os.workers.requests import FOLLOWED_BY
from llm_os.workers.server import Face, listen

TASKS = {"chat": "text-generation", "mood": "text-classification", "near": "sentence-similarity"}
"""Deployments."""
EXCUSES = re.compile(
    "A stream answers one prompt|answers to .* prompts are over|probabilities would be told|'top_logprobs' needs"
    "|texts and 'text_2'|The last message is not the user's|token ids|Give either 'prompt' or"
    "|Two tools are called|'tool_choice' cannot be followed|do not go together|JSON Schema cannot be used"
    "|no message before it made|no call before has this id|parameters of all tools"
)
"""Why a body that agrees with the document may be refused: what no schema of one field can say."""


class Everything(FakeBackend):
    """Follows every parameter, and embeds."""

    follows = frozenset(FOLLOWED_BY)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        return Embedded([score(text, 4) for text in texts], sum(len(text.split()) for text in texts))


@asynccontextmanager
async def served(home: Path) -> AsyncIterator[GatewayBed]:
    """A gateway with one replica of each deployment."""
    routes, runners = [], []
    facts = ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1, meta={})
    for name, task in TASKS.items():
        socket = home.parent / f"{name}.sock"
        call = ServeCall(
            engine="fake",
            deployment=name,
            model=Input(path=str(home), facts=facts),
            version=f"{name}@1",
            task=task,
            options={},
            socket=str(socket),
        )
        runners.append(await listen(Face(call, Everything(call)).app(), str(socket)))
        endpoint = Endpoint(attempt=name, url=f"unix:{socket}")
        routes.append(
            Route(deployment=name, version=call.version, task=task, engine="fake", endpoints=(endpoint,), created_at=1)
        )
    bed = GatewayBed(home, "--max-body", "300000")
    try:
        bed.route(*routes)
        await bed.start()
        yield bed
    finally:
        await bed.close()
        for runner in runners:
            await runner.cleanup()


# Raw requests ---------------------------------------------------------------------------------------------------------

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
_FUNCTION = {"name": "weather", "strict": True, "parameters": PARAMETERS}
_CALLED = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
_TURNS = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": None, "tool_calls": [_CALLED]},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
]
_ITEMS = [
    {"role": "user", "content": "hello"},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Rome"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
]
_BLOCKS = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "sunny", "is_error": True}]},
]
_CLAUDE_TOOLS = [{"name": "weather", "input_schema": PARAMETERS}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "chat",
        "messages": _TURNS,
        "response_format": None,
        "tools": [{"type": "function", "function": _FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
    },
    "/v1/completions": {"model": "chat", "prompt": ["a", "b"], "max_tokens": 3},
    "/v1/responses": {
        "model": "chat",
        "input": _ITEMS,
        "metadata": {"a": "b"},
        "tools": [{"type": "function", **_FUNCTION}],
        "tool_choice": "required",
        "text": {"format": {"type": "text"}},
    },
    "/v1/messages": {
        "model": "chat",
        "max_tokens": 9,
        "messages": _BLOCKS,
        "tools": _CLAUDE_TOOLS,
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        "output_config": {},
    },
    "/v1/messages/count_tokens": {"model": "chat", "messages": _BLOCKS, "tools": _CLAUDE_TOOLS},
    "/tokenize": {"model": "chat", "messages": _TURNS, "tools": [{"type": "function", "function": _FUNCTION}]},
    "/detokenize": {"model": "chat", "tokens": [1, 2]},
    "/classify": {"model": "mood", "input": ["good", "bad"]},
    "/v1/embeddings": {"model": "near", "input": ["one"], "encoding_format": "base64"},
    "/v1/rerank": {"model": "near", "query": "one", "documents": ["two", {"text": "three"}], "top_n": 1},
    "/v1/score": {"model": "near", "text_1": "one", "text_2": ["two"]},
}
_SCHEMAS = (
    *(
        b'{"$ref":"#"}',
        b'{"$ref":7}',
        b'{"type":["x",{}]}',
        b'{"pattern":"(a+)+$(?<=b)["}',
        b'{"enum":[NaN,1e999]}',
        b"{}",
    ),
    *(
        b'{"properties":[]}',
        b'{"minLength":1e400}',
        b'{"anyOf":' * 400 + b"[]" + b"}" * 400,
        b'{"items":{"$ref":"#/items"}}',
    ),
)
ODD_VALUES = (
    *(b'{"type":"json_schema","json_schema":{"schema":' + schema + b"}}" for schema in _SCHEMAS),
    *(b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"1.5", b"9" * 400, b"9" * 5000, b"-0.0", b"18446744073709551616"),
    *(b"null", b"true", b"{}", b"[]", b'""', b"[[[]]]", b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xff\xfe"'),
    *(b'{"a":' * deep + b"1" + b"}" * deep for deep in (900, 930, 960, 980)),
    *(b"[" * 2000 + b"]" * 2000, b'{"a":' * 2000 + b"1" + b"}" * 2000, b"[" * 100000, b'"' + b"x" * 250000 + b'"'),
    *(
        b'"chat"',
        b'{"role":"user","content":null}',
        b'[{"type":"text"}]',
        b'[{"type":["text"]}]',
        b'{"type":"json_schema"}',
    ),
)
NAMES = (
    *("model", "messages", "stream", "stream_options", "n", "stop", "seed", "max_tokens", "temperature", "logprobs"),
    *("response_format", "tools", "prompt", "input", "metadata", "system", "stop_sequences", "tool_choice", "text"),
    *("parallel_tool_calls", "output_config"),
    *("role", "content", "__class__", "", "\ud800"),
)
ODD_TIMES = (
    "nan",
    "inf",
    "-inf",
    "1e-300",
    "1e-3",
    "0",
    "-1",
    "1_0",
    "٣",
    "0x10",
    "",
    " 5 ",
    "5,5",
    "1e400",
    "9" * 4000,
)
ODD_HEADERS = (
    *(b"content-encoding: gzip", b"content-encoding: deflate", b"content-encoding: br", b"content-encoding: zstd"),
    *(b"content-encoding: x", b"content-type: text/plain; charset=utf-99", b"content-type: multipart/form-data"),
    *(
        b"expect: 100-continue",
        b"expect: something",
        b"upgrade: websocket\r\nconnection: upgrade",
        b"connection: close",
    ),
    *(
        b"origin: null",
        b"origin: http://[::1",
        b"host: [::1",
        b"range: bytes=0-1",
        b"traceparent: 00-zz",
        b"x: \xff\xfe",
    ),
    *(b"traceparent: 00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-ff", b"tracestate: " + b"a=b," * 300, b"te: trailers"),
    *(b"accept: \x00", b"cookie: " + b"a" * 7000, b"x-api-key: \xe4", b"authorization: Basic AAAA", b"authorization: "),
)
ODD_TARGETS = (
    *(
        "/v1/models/%ff",
        "/v1/models/%00",
        "/v1/models/..%2f..",
        "//v1/models",
        "/v1/models?x=%ff",
        "*",
        "/%",
        "/v1/models/",
    ),
    *(
        "http://127.0.0.1/v1/models",
        "http://elsewhere/v1/models",
        "http://[::1/",
        "/v1/models/" + "a" * 7000,
        "?",
        "/é",
    ),
)
_LENGTH = re.compile(rb"^content-length: (\d+)", re.IGNORECASE | re.MULTILINE)
TOGETHER = 100
"""Raw requests at once: many wait for an answer that does not come, as their bodies are not complete."""
METHODS = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FOO", "post", "PRI", "M-SEARCH")


def _odd_body(chance: random.Random, path: str) -> bytes:
    """A right body with something wrong in it, mostly."""
    body = json.dumps(BODIES[path]).encode()
    kind = chance.randrange(7)
    odd = chance.choice(ODD_VALUES)
    if kind == 0:  # a name again, or a new one
        name = json.dumps(chance.choice(NAMES)).encode()
        return body[:-1] + b", " + name + b": " + odd + b"}"
    if kind in (1, 2):  # a value
        places = list(re.finditer(rb'"[^"]*"(?!:)|\d+|null|\[[^\[\]]*\]', body))
        place = chance.choice(places)
        return body[: place.start()] + odd + body[place.end() :]
    if kind == 3:  # a byte
        at = chance.randrange(len(body))
        return body[:at] + bytes([chance.randrange(256)]) + body[at + chance.randrange(2) :]
    if kind == 4:
        return chance.choice((body[: chance.randrange(len(body))], odd, b"", b"\xef\xbb\xbf" + body))
    if kind == 5:
        return body.decode().encode(chance.choice(("utf-16", "utf-32", "utf-16-be")))
    return body


def odd_request(chance: random.Random) -> bytes:
    """One request, as bytes."""
    path = chance.choice(list(BODIES))
    body = _odd_body(chance, path)
    method, target = ("POST", path) if chance.random() < 0.8 else (chance.choice(METHODS), path)
    if chance.random() < 0.1:
        method, target = chance.choice((*METHODS, "GET", "GET")), chance.choice(ODD_TARGETS)
    headers = [b"host: 127.0.0.1", b"content-type: application/json"]
    headers.append(b"authorization: Bearer " + ADMIN.encode())
    if chance.random() < 0.2:
        headers.append(f"{TIMEOUT}: {chance.choice(ODD_TIMES)}".encode())
    if chance.random() < 0.1:
        headers.append(f"{PRIORITY}: {chance.choice(('BATCH', 'ï', '', 'urgent' * 900))}".encode())
    if chance.random() < 0.3:
        headers.append(chance.choice(ODD_HEADERS))
        if chance.random() < 0.5 and b"gzip" in headers[-1]:
            body = chance.choice((gzip.compress(body), gzip.compress(b" " * 2**24), gzip.compress(body)[:-6]))
    if chance.random() < 0.15:
        headers.append(b"transfer-encoding: chunked")
        size = chance.choice((f"{len(body):x}", "ffffffffffffffffff", "-1", f"{len(body):x};x=y", "zz")).encode()
        body = (
            size + b"\r\n" + body + chance.choice((b"\r\n0\r\n\r\n", b"\r\n", b"0\r\n\r\n", b"\r\n0\r\na: b\r\n\r\n"))
        )
    else:
        length = len(body) if chance.random() < 0.95 else chance.choice((0, 1, -1, len(body) + 1, 10**30))
        headers.append(b"content-length: " + str(length).encode())
    return f"{method} {target} HTTP/1.1\r\n".encode() + b"\r\n".join(headers) + b"\r\n\r\n" + body


def fault(request: bytes, answer: bytes) -> str:
    """What is wrong with an answer; empty if nothing is."""
    if not answer:
        return ""  # a body that is announced and never comes, or an end of the connection
    line, _, rest = answer.partition(b"\r\n")
    found = re.fullmatch(rb"HTTP/1\.[01] (\d\d\d) .*", line)
    if found is None:
        return "no HTTP answer"
    status = int(found[1])
    if status == 504 and TIMEOUT.encode() in request:
        return ""
    if status >= 500:
        return f"status {status}"
    head, _, body = rest.partition(b"\r\n\r\n")
    if (length := _LENGTH.search(head)) is not None:
        body = body[: int(length[1])]  # what follows answers what follows in a request that is two
    if status >= 400 and b"application/json" in head and not request.startswith(b"HEAD "):
        try:
            error = json.loads(body)["error"]
            if not {"message", "type", "code", "param", "hint"} <= error.keys():
                return "an error of another shape"
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            return f"an error that cannot be read: {problem!r}"
    return ""


async def asked(port: int, request: bytes) -> bytes:
    """The answer, as far as it comes within a moment after the last byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    parts = []
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(10):
            while part := await asyncio.wait_for(reader.read(2**16), 0.5 if parts else 4):
                parts.append(part)
                if _whole(b"".join(parts)):
                    break
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return b"".join(parts)


def _whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(end and (len(body) >= int(length[1]) if length else answer.endswith(b"0\r\n\r\n")))


async def odd_requests(bed: GatewayBed, number: int, seconds: float, seed: int) -> int:
    """Send them; returns how many were answered as none should be."""
    chance, port, ends = random.Random(seed), int(bed.url.rsplit(":", 1)[1]), time.monotonic() + seconds
    done = wrong = 0
    statuses: Counter[str] = Counter()
    while done < number or (seconds and time.monotonic() < ends):
        requests = [odd_request(chance) for _ in range(TOGETHER)]
        answers = await asyncio.gather(*(asked(port, request) for request in requests))
        done += len(requests)
        statuses.update(answer[9:12].decode("latin-1") or "none" for answer in answers)
        for request, answer in zip(requests, answers, strict=True):
            if problem := fault(request, answer):
                wrong += 1
                print(f"{problem}:\n  asked {request[:600]!r}\n  answered {answer[:600]!r}", flush=True)
    told = ", ".join(f"{status}: {times}" for status, times in sorted(statuses.items()))
    print(f"{done} raw requests, {wrong} answered as none should be ({told})", flush=True)
    return wrong


# What the document says -----------------------------------------------------------------------------------------------


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with models that are served here, tokens that there are, arguments of calls, and time enough."""
    schemas = document["components"]["schemas"]
    ask = {"MessagesRequest": "chat", "ResponsesRequest": "chat", "CountRequest": "chat", "ClassifyRequest": "mood"}
    ask |= dict.fromkeys(("EmbeddingsRequest", "RerankRequest", "ScoreRequest"), "near")
    for name, schema in schemas.items():
        if "model" in schema.get("properties", {}) and name.endswith("Request"):
            schema["properties"]["model"] = {"enum": [ask.get(name, "chat")]}
    document["components"]["parameters"][TIMEOUT]["schema"]["minimum"] = 30  # hardly any is late: raw requests are
    text = json.dumps(document).replace(f'"maximum": {2**31 - 1}', f'"maximum": {VOCABULARY - 1}')
    text = text.replace('"description": "A JSON object, as text."', '"enum": ["{}", "{\\"city\\": 7}"]')
    return dict(json.loads(text))


def by_document(document: Path, url: str, arguments: Sequence[str]) -> int:
    """Run schemathesis; returns its exit code."""
    checks = "sound,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method"
    argv = [sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", url, "--checks", checks]
    argv += ["--header", f"authorization: Bearer {ADMIN}", "--no-color"]
    argv += ["--generation-with-security-parameters", "false", "--generation-database", "none"]
    argv += ["--continue-on-failure", "--request-timeout", "60", "--warnings", "off"]
    argv += ["--suppress-health-check", "all", *arguments]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": Path(__file__).stem, "PYTHONPATH": paths}
    return subprocess.run(argv, env=environment, check=False, cwd=document.parent).returncode


def _register() -> None:
    """What schemathesis is to look at, beside what the document says."""
    import schemathesis

    @schemathesis.check
    def sound(_: Any, response: Any, case: Any) -> None:
        status, text = response.status_code, response.text
        late = status == 504 and TIMEOUT in {name.lower() for name in case.headers or {}}
        assert status < 500 or late, f"status {status}"
        if status >= 400 and case.method.upper() != "HEAD":
            error = json.loads(text)["error"]
            assert {"message", "type", "code", "param", "hint"} <= error.keys(), "an error of another shape"
            assert response.headers.get("x-request-id"), "no request id"
            right = case.meta is not None and case.meta.generation.mode.is_positive
            given = case.body.get(error["param"]) if isinstance(case.body, dict) else None
            if right and status == 400 and not isinstance(given, float):  # a schema takes 1.0 for a whole number
                assert EXCUSES.search(error["message"]), f"a right request was refused: {error['message']}"


if "schemathesis" in sys.modules:
    _register()


async def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.0, help="let schemathesis go on so long")
    parser.add_argument("--raw-minutes", type=float, default=0.0, help="send raw requests so long before")
    parser.add_argument("--examples", type=int, default=20, help="requests of each endpoint, where no time is given")
    parser.add_argument("--raw", type=int, default=500, help="raw requests at least")
    parser.add_argument("--seed", type=int, default=None, help="the same requests again")
    options = parser.parse_args(argv)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="llm-os-fuzz-") as name:
        async with served(Path(name) / "home") as bed:
            wrong = await odd_requests(bed, options.raw, options.raw_minutes * 60, seed)
            document = Path(name) / "openapi.json"
            document.write_text(json.dumps(narrowed(json.loads(page()))))
            more = ["--seed", str(seed)]
            if options.minutes:
                more += ["--phases", "examples,coverage,fuzzing", "--max-time", str(round(options.minutes * 60))]
            else:
                more += ["--phases", "fuzzing", "--max-examples", str(options.examples)]
            code = await asyncio.to_thread(by_document, document, bed.url, more)
            log = (bed.settings.logs / "gateway.log").read_text(encoding="utf-8")
    tracebacks = log.count("Traceback")
    if tracebacks:
        print(
            f"{tracebacks} tracebacks in the gateway's log, the last of them:\n{log[log.rindex('Traceback') :][:3000]}"
        )
    return 1 if wrong or code or tracebacks else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
