"""Callers of a server that take hardly any processor time themselves: raw HTTP on kept connections, one process."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(slots=True)
class Seen:
    """Latencies in seconds, the text each is of, seconds of the measurement, processor seconds of the callers."""

    latencies: list[float] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    seconds: float = 0.0
    processor: float = 0.0

    def note(self, text: int, seconds: float) -> None:
        self.latencies.append(seconds)
        self.texts.append(text)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def quantile(self, part: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class Connection(asyncio.Protocol):
    """One request at a time; answers must have a content-length."""

    def __init__(self) -> None:
        self._got = bytearray()
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._got.lower().find(b"content-length:", 0, head)
        assert at >= 0, bytes(self._got[:head])
        length = int(self._got[at + 15 : self._got.find(b"\r", at)])
        if len(self._got) < head + 4 + length:
            return
        whole = bytes(self._got[: head + 4 + length])
        del self._got[: head + 4 + length]
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(whole)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server closed the connection"))

    async def ask(self, request: bytes) -> float:
        """Seconds until the answer is there."""
        self._answer = asyncio.get_running_loop().create_future()
        begun = time.perf_counter()
        self.transport.write(request)  # type: ignore[attr-defined]
        answer = await self._answer
        assert answer.startswith(b"HTTP/1.1 200"), answer[:500]
        return time.perf_counter() - begun


class Callers:
    """Asks `POST /classify` of one deployment with these texts, in a shuffled order."""

    def __init__(self, url: str, key: str, model: str, texts: Sequence[str]) -> None:
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port
        self._requests = [self._request(key, model, text) for text in texts]
        random.Random(1).shuffle(self._requests)
        self._next = 0
        self.answered = 0

    def _request(self, key: str, model: str, text: str) -> bytes:
        body = json.dumps({"model": model, "input": text}).encode()
        head = f"POST /classify HTTP/1.1\r\nhost: {self._host}\r\nauthorization: Bearer {key}\r\n"
        return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    def _one(self) -> tuple[int, bytes]:
        self._next += 1
        number = self._next % len(self._requests)
        return number, self._requests[number]

    async def _connections(self, count: int) -> list[Connection]:
        loop = asyncio.get_running_loop()
        return [(await loop.create_connection(Connection, self._host, self._port))[1] for _ in range(count)]

    async def closed(self, clients: int, seconds: float, warm: float = 1.0) -> Seen:
        """Each client asks again when he has his answer; answers of the first `warm` seconds are not counted."""
        seen, begin = Seen(seconds=seconds), time.perf_counter() + warm
        connections = await self._connections(clients)
        spent = 0.0

        async def client(connection: Connection) -> None:
            while (now := time.perf_counter()) < begin + seconds:
                text, request = self._one()
                took = await connection.ask(request)
                self.answered += 1
                if begin <= now + took < begin + seconds:
                    seen.note(text, took)

        async def clock() -> None:
            nonlocal spent
            await asyncio.sleep(warm)
            spent = time.process_time()
            await asyncio.sleep(seconds)
            seen.processor = time.process_time() - spent

        await asyncio.gather(clock(), *(client(one) for one in connections))
        for one in connections:
            one.transport.close()
        return seen

    async def open(self, rate: float, seconds: float, seed: int = 0) -> Seen:
        """Requests come when they come (Poisson): latencies count from then on, also while no connection is free."""
        seen, rng, clock = Seen(seconds=seconds), random.Random(seed), time.perf_counter
        free = await self._connections(8)
        tasks = []

        async def one(due: float) -> None:
            connection = free.pop() if free else (await self._connections(1))[0]
            text, request = self._one()
            await connection.ask(request)
            seen.note(text, clock() - due)
            free.append(connection)

        begun, spent = clock(), time.process_time()
        due = begun + rng.expovariate(rate)
        while due < begun + seconds:
            await asyncio.sleep(max(0.0, due - clock()))
            tasks.append(asyncio.create_task(one(due)))
            due += rng.expovariate(rate)
        await asyncio.gather(*tasks)
        seen.processor = time.process_time() - spent
        for connection in free:
            connection.transport.close()
        return seen
