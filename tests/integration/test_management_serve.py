"""The management API on real sockets: who gets in, which port, which folder, and what is left afterwards."""

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llm_os.errors import ConflictError, PortInUseError
from llm_os.server.management import serve as serving_module
from llm_os.server.management.serve import serve
from llm_os.settings import Settings


class NoJobs:
    """The only syscalls these tests need."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def events(self, since: int, limit: int, wait: float) -> list[Any]:
        self.waiting.set()
        await asyncio.sleep(wait)
        return []

    def watchers(self) -> list[Any]:
        return []

    def jobs(self, state: str | None, limit: int, given: str | None) -> list[Any]:
        return []


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    return Settings(home=tmp_path / "home")


def over_socket(settings: Settings) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(uds=str(settings.socket)), base_url="http://llm-os", timeout=5
    )


async def test_answers_on_the_socket_and_on_tcp_and_leaves_nothing(settings: Settings) -> None:
    serving = await serve(NoJobs(), settings, port=0)  # type: ignore[arg-type]
    try:
        assert serving.port > 0
        assert stat.S_IMODE(settings.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(settings.runtime.stat().st_mode) == 0o700
        async with over_socket(settings) as client:
            assert (await client.get("/v1/jobs")).json() == []
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{serving.port}", timeout=5) as client:
            assert (await client.get("/v1/jobs")).status_code == 401
            key = settings.admin_key.read_text().strip()
            answer = await client.get("/v1/jobs", headers={"authorization": f"Bearer {key}"})
            assert answer.json() == []
    finally:
        await serving.close()
    await serving.close()
    assert not settings.socket.exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", serving.port), timeout=2)


async def test_a_peer_of_another_user_is_hung_up_on(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getuid()
    monkeypatch.setattr(serving_module, "peer_uid", lambda sock: mine + 1)
    serving = await serve(NoJobs(), settings, port=0)  # type: ignore[arg-type]
    try:
        async with over_socket(settings) as client:
            with pytest.raises(httpx2.TransportError):
                await client.get("/health")
    finally:
        await serving.close()


def test_the_peers_user_is_read_from_the_socket_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(path)
        listener.listen()
        caller.connect(path)
        accepted, _ = listener.accept()
        with accepted:
            assert serving_module.peer_uid(accepted) == os.getuid()


async def test_a_port_in_use_is_named_with_its_setting(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=str(port)) as caught:
            await serve(NoJobs(), settings, port=port)  # type: ignore[arg-type]
    assert "LLM_OS_MANAGEMENT_PORT" in caught.value.hint
    assert not settings.socket.exists()


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(settings: Settings) -> None:
    settings.runtime.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(settings.socket))
    assert settings.socket.exists()
    serving = await serve(NoJobs(), settings, port=0)  # type: ignore[arg-type]
    try:
        with pytest.raises(ConflictError, match="Another kernel answers"):
            await serve(NoJobs(), settings, port=0)  # type: ignore[arg-type]
        async with over_socket(settings) as client:
            assert (await client.get("/health")).status_code == 200
    finally:
        await serving.close()


async def test_the_end_does_not_wait_for_long_polls(settings: Settings) -> None:
    syscalls = NoJobs()
    serving = await serve(syscalls, settings, port=0)  # type: ignore[arg-type]
    async with over_socket(settings) as client:
        polling = asyncio.create_task(client.get("/v1/events", params={"wait": 60}, timeout=60))
        await syscalls.waiting.wait()
        async with asyncio.timeout(10):
            await serving.close()
            outcome = (await asyncio.gather(polling, return_exceptions=True))[0]
    assert isinstance(outcome, httpx2.TransportError) or outcome.status_code >= 500
