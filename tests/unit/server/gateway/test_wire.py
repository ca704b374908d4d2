"""The gateway's own HTTP client: whatever a replica does, an answer is whole, or its caller is told that it is not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_os.server.gateway import wire
from llm_os.server.gateway.wire import Answer, BrokenConnectionError, Pool, SilentError

OK = b"HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream; charset=utf-8\r\n"
SIZED = OK + b"content-length: 5\r\n\r\nhello"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\ntrailer: t\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + SIZED

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Replica:
    """Answers each request with what `talk` does; counts connections and keeps what was sent."""

    def __init__(self, path: Path, talk: Talk) -> None:
        self.path, self.talk = path, talk
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def __aenter__(self) -> Pool:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        self._pool = Pool(str(self.path))
        return self._pool

    async def __aexit__(self, *_: object) -> None:
        self._pool.close()
        self._server.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(size))
                await self.talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def saying(*parts: bytes) -> Talk:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return talk


async def whole(pool: Pool, body: bytes = b"{}") -> tuple[Answer, bytes]:
    answer = await pool.post("/ask", body, b"x-request-id: req-1\r\n")
    try:
        return answer, await answer.read()
    finally:
        answer.close()


@pytest.mark.parametrize("text", [SIZED, CHUNKED, EARLY])
async def test_an_answer_is_read_and_its_connection_used_again(tmp_path: Path, text: bytes) -> None:
    replica = Replica(tmp_path / "r", saying(text))
    async with replica as pool:
        for number in range(3):
            answer, body = await whole(pool, b"x" * number)
            assert (answer.status, answer.content_type, body) == (200, "text/event-stream", b"hello")
    assert (replica.connections, replica.bodies) == (1, [b"", b"x", b"xx"])
    assert replica.heads[0].startswith(b"POST /ask HTTP/1.1\r\nhost: replica\r\n")
    assert b"\r\nx-request-id: req-1\r\n" in replica.heads[0]


async def test_whoever_wants_to_know_of_an_interim_answer_is_told_before_the_answer(tmp_path: Path) -> None:
    told: list[str] = []
    interim, end = EARLY[: -len(SIZED)], asyncio.Event()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(interim)
        await end.wait()
        writer.write(SIZED)

    def early() -> None:
        told.append("interim")
        end.set()

    async with Replica(tmp_path / "r", talk) as pool:
        answer = await pool.post("/ask", b"", early=early)
        assert (told, await answer.read()) == (["interim"], b"hello")
        answer.close()
        assert (await whole(pool))[1] == b"hello"  # on the same connection, for one who did not ask
        assert told == ["interim"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([SIZED, CHUNKED, EARLY]), st.lists(st.integers(1, 120), max_size=8))
def test_an_answer_cut_anywhere_is_whole(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    parts = [text[a:b] for a, b in pairwise(edges)]

    async def run() -> None:
        async with Replica(tmp_path_factory.mktemp("w") / "r", saying(*parts)) as pool:
            assert (await whole(pool))[1] == b"hello"

    asyncio.run(run())


async def test_a_body_without_a_length_ends_with_its_connection(tmp_path: Path) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\nhello")
        writer.close()

    async with Replica(tmp_path / "r", talk) as pool:
        assert (await whole(pool))[1] == b"hello"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nconte", SIZED[:-2], CHUNKED[:-9], b"SSH-2.0 hello\r\n"])
async def test_an_answer_that_breaks_off_is_told(tmp_path: Path, said: bytes) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    async with Replica(tmp_path / "r", talk) as pool:
        with pytest.raises(BrokenConnectionError) as caught:
            await whole(pool)
        assert (caught.value.sent, caught.value.stale) == (True, False)


async def test_nobody_there_means_nothing_was_sent(tmp_path: Path) -> None:
    with pytest.raises(BrokenConnectionError) as caught:
        await Pool(str(tmp_path / "nothing")).post("/ask", b"")
    assert not caught.value.sent


async def test_a_break_on_a_connection_that_was_idle_is_called_so(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "r", saying(SIZED))
    async with replica as pool:
        await whole(pool)
        replica.talk = saying()

        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        replica.talk = hang_up
        with pytest.raises(BrokenConnectionError) as caught:
            await whole(pool)
        assert caught.value.stale
        replica.talk = saying(SIZED)
        answer = await pool.post("/ask", b"", fresh=True)
        assert await answer.read() == b"hello"
        answer.close()


async def test_a_connection_that_ends_while_idle_is_not_used(tmp_path: Path) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SIZED)
        writer.close()

    replica = Replica(tmp_path / "r", talk)
    async with replica as pool:
        for _ in range(2):
            await whole(pool)
            await asyncio.sleep(0.05)
    assert replica.connections == 2


async def test_an_answer_that_nobody_wants_any_more_breaks_its_connection_off(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: 500\r\n\r\nhello")
        await reader.read()
        gone.set()

    replica = Replica(tmp_path / "r", talk)
    async with replica as pool:
        answer = await pool.post("/ask", b"")
        assert await answer.readany() == b"hello"
        answer.close()
        answer.close()
        async with asyncio.timeout(5):
            await gone.wait()
        replica.talk = saying(SIZED)
        await whole(pool)
    assert replica.connections == 2


async def test_a_caller_who_leaves_before_the_head_breaks_it_off(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with Replica(tmp_path / "r", talk) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.post("/ask", b"")
        async with asyncio.timeout(5):
            await gone.wait()


async def test_a_second_answer_is_no_part_of_the_first(tmp_path: Path) -> None:
    async with Replica(tmp_path / "r", saying(SIZED + SIZED.replace(b"200", b"500"))) as pool:
        answer, body = await whole(pool)
        assert (answer.status, body) == (200, b"hello")


async def test_silence_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENT_FOR", 0.05)

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Replica(tmp_path / "r", talk) as pool:
        with pytest.raises(SilentError):
            await pool.post("/ask", b"")


@pytest.mark.parametrize("before", [0, 1])
async def test_silence_is_told_after_something_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(wire, "SILENT_FOR", 1.5)
    wholes = iter(range(before))  # answers on the same connection, before the one that stops

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if next(wholes, None) is not None:
            writer.write(SIZED)
            return
        writer.write(OK + b"content-length: 100\r\n\r\n")
        for _ in range(2):
            await asyncio.sleep(0.4)
            writer.write(b"x")
        await reader.read()

    async with Replica(tmp_path / "r", talk) as pool:
        for _ in range(before):
            assert (await whole(pool))[1] == b"hello"
        answer = await pool.post("/ask", b"")
        assert b"".join([await answer.readany() for _ in range(2)]) == b"xx"
        with pytest.raises(SilentError):
            await answer.readany()
        answer.close()


async def test_a_slow_reader_makes_the_replica_wait(tmp_path: Path) -> None:
    size, sent = 16 * 2**20, [0]

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: %d\r\n\r\n" % size)
        for _ in range(size // 2**16):
            writer.write(b"x" * 2**16)
            await writer.drain()
            sent[0] += 2**16

    async with Replica(tmp_path / "r", talk) as pool:
        answer = await pool.post("/ask", b"")
        await asyncio.sleep(0.3)
        assert sent[0] < size // 2
        assert len(await answer.read()) == size
        answer.close()


async def test_many_ask_at_once(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "r", saying(CHUNKED))
    async with replica as pool:
        found = await asyncio.gather(*(whole(pool) for _ in range(50)))
        assert {body for _, body in found} == {b"hello"}
        await asyncio.gather(*(whole(pool) for _ in range(50)))
    assert replica.connections <= 50


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(0)
