"""What the gateway costs: beside the bare replica and beside a bare aiohttp pass-through, in interleaved rounds.

    python benchmarks/gateway/measure.py [--rounds 5] [--requests 600] [--json]
    python benchmarks/gateway/measure.py --peers nginx,vllm-router,sglang-router,litellm --python PYTHON

Four processes: a replica that answers at once (so that nothing but the way there is measured), a pass-through that
copies bytes and does nothing else, the gateway as the kernel starts it, and a load generator (this file, `--load`).
The gateway's caller has a key with quotas; fair turns, accounts and metrics are on. Peers (`peers.py`) check no key.
Ratios are formed inside a round; medians are over rounds. The replica alone is the physical limit of the minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent))
from peers import PEERS, begun, free_port

from llm_os.server import keys
from llm_os.spec.quotas import Quota
from llm_os.spec.routing import Endpoint, KeyEntry, Route
from llm_os.testing.gateway_bed import GatewayBed

PATHS = ("direct", "pass", "gateway")
CASES: dict[str, tuple[bool, int]] = {
    "whole answers, one at a time": (False, 1),
    "whole answers, 16 at once": (False, 16),
    "streams of 32 events, 16 at once": (True, 16),
}
"""Name -> (stream, concurrency)."""

MESSAGE = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "chat",
    "choices": [],
    "usage": {"completion_tokens": 1},
}
WHOLE = json.dumps(MESSAGE).encode()
CHUNK = {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "word "}}]}
EVENT = b"data: " + json.dumps(CHUNK).encode() + b"\n\n"
EVENTS = 32
SECRET = "sk-measured"
QUOTA = Quota(requests_per_minute=10**9, tokens_per_minute=2 * 10**9, concurrent=10**6)
KEY = KeyEntry(id="measured", sha256=keys.digest(SECRET), role="user", tenant="lab", quota=QUOTA)
HEADERS = {"authorization": f"Bearer {SECRET}", "content-type": "application/json"}


async def answer(request: web.Request) -> web.StreamResponse:
    """The replica: no work at all."""
    if not json.loads(await request.read()).get("stream"):
        return web.Response(body=WHOLE, content_type="application/json")
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for _ in range(EVENTS):
        await response.write(EVENT)
        await asyncio.sleep(0)
    await response.write(b"data: [DONE]\n\n")
    return response


def passing(socket: str) -> Any:
    """The pass-through: copies a request there and the bytes back, checks nothing, counts nothing."""
    sessions: list[aiohttp.ClientSession] = []

    async def copy(request: web.Request) -> web.StreamResponse:
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=socket, limit=0)))
        body = await request.read()
        async with sessions[0].post("http://replica" + request.path, data=body) as answer:
            response = web.StreamResponse(
                status=answer.status, headers={"content-type": answer.headers["content-type"]}
            )
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response

    return copy


async def health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "data": [{"id": "chat", "object": "model"}]})


async def serve(role: str, socket: str, port: int) -> None:
    """Run the replica (on `port` too) or the pass-through until this process is ended; prints its port."""
    logging.getLogger("aiohttp.server").disabled = True  # sglang-router tries HTTP/2 first, and is told of HTTP/1.1
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer if role == "replica" else passing(socket))
    app.router.add_get("/{any:.*}", health)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    if role == "replica":
        await web.UnixSite(runner, socket).start()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(port, flush=True)
    else:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def load(target: str, stream: bool, at_once: int, requests: int) -> dict[str, float]:
    """Ask `requests` times, `at_once` at a time; milliseconds of the median and of the 99th percentile, requests/s."""
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hello"}], "stream": stream}).encode()
    if target.startswith("unix:"):
        connector: aiohttp.BaseConnector = aiohttp.UnixConnector(path=target.removeprefix("unix:"), limit=0)
        url = "http://replica/v1/chat/completions"
    else:
        connector, url = aiohttp.TCPConnector(limit=0), target + "/v1/chat/completions"
    took: list[float] = []
    left = iter(range(requests))

    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:

        async def worker() -> None:
            for _ in left:
                before = time.perf_counter()
                async with session.post(url, data=body) as response:
                    text = await response.read()
                took.append((time.perf_counter() - before) * 1000)
                assert response.status == 200, text
                assert not stream or text.count(b"word ") == EVENTS, text[-100:]
                assert not stream or text.rstrip().endswith(b"[DONE]"), text[-100:]

        begun = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(at_once)))
        seconds = time.perf_counter() - begun
    took.sort()
    return {"median_ms": statistics.median(took), "p99_ms": took[int(0.99 * len(took))], "per_s": requests / seconds}


async def started(*arguments: str) -> tuple[asyncio.subprocess.Process, int]:
    """A process of this file, and the port that it printed."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


async def loaded(target: str, stream: bool, at_once: int, requests: int) -> dict[str, float]:
    """One measurement by a load generator in a process of its own."""
    arguments = ["--load", target, str(int(stream)), str(at_once), str(requests)]
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return json.loads(out)


async def measure(rounds: int, requests: int, peers: Sequence[str], python: str) -> dict[str, Any]:
    """All cases, each `rounds` times, the ways in turn."""
    paths = (*PATHS, *peers)
    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder) / "replica.sock")
        bed = GatewayBed(Path(folder) / "home")
        endpoint = Endpoint(attempt="a", url=f"unix:{socket}")
        bed.route(
            Route(
                deployment="chat",
                version="c@1",
                task="text-generation",
                engine="x",
                endpoints=(endpoint,),
                created_at=1,
            ),
            keys=(KEY,),
        )
        processes: list[asyncio.subprocess.Process] = []
        try:
            process, replica = await started("--serve", "replica", socket, str(free_port()))
            processes.append(process)
            process, port = await started("--serve", "pass", socket, "0")
            processes.append(process)
            before = time.perf_counter()
            await bed.start()
            start = time.perf_counter() - before
            targets = {"direct": f"unix:{socket}", "pass": f"http://127.0.0.1:{port}", "gateway": bed.url}
            for name in peers:
                place = Path(folder) / name
                place.mkdir()
                try:
                    process, targets[name] = await begun(name, place, python, replica, socket)
                except RuntimeError as silent:
                    print(f"left out: {silent}", file=sys.stderr)
                    continue
                processes.append(process)
            paths = tuple(path for path in paths if path in targets)
            for target in targets.values():
                await loaded(target, False, 8, 100)  # once unmeasured: connections, caches
            seen: dict[str, dict[str, list[dict[str, float]]]] = {case: {path: [] for path in paths} for case in CASES}
            for number in range(rounds):
                for case, (stream, at_once) in CASES.items():
                    first = number % len(paths)
                    for path in paths[first:] + paths[:first]:
                        many = max(200, requests // 5) if path == "litellm" else requests
                        seen[case][path].append(await loaded(targets[path], stream, at_once, many))
            assert bed.process is not None
            resident = psutil.Process(bed.process.pid).memory_info().rss
        finally:
            await bed.close()
            for process in processes:
                if process.returncode is None:
                    process.terminate()
                await process.wait()
    cases = {case: summary(found) for case, found in seen.items()}
    return {"start_seconds": start, "resident_mb": resident / 1e6, "cases": cases}


def summary(paths: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over rounds, and ratios that were formed inside each round."""
    result: dict[str, Any] = {
        path: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for path, rows in paths.items()
    }
    for other in (path for path in paths if path != "gateway"):
        ratios = [mine["per_s"] / its["per_s"] for mine, its in zip(paths["gateway"], paths[other], strict=True)]
        result[f"gateway/{other}"] = {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        }
    for other in ("pass", "direct"):
        pairs = list(zip(paths["gateway"], paths[other], strict=True))
        added = {key: statistics.median(mine[key] - its[key] for mine, its in pairs) for key in ("median_ms", "p99_ms")}
        result[f"added over {other}"] = added
    return result


def show(found: Mapping[str, Any], rounds: int) -> None:
    """Print a table for people."""
    print(f"{rounds} rounds, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors at the end")
    print(
        f"the gateway was ready after {found['start_seconds']:.2f} s, and has {found['resident_mb']:.0f} MB at the end"
    )
    for case, rows in found["cases"].items():
        print(f"\n{case}")
        for path, row in rows.items():
            if "/" in path or path.startswith("added"):
                continue
            print(
                f"  {path:13} {row['per_s']:8.0f}/s   median {row['median_ms']:7.2f} ms   p99 {row['p99_ms']:7.2f} ms"
            )
        for other, ratio in rows.items():
            if not other.startswith("gateway/"):
                continue
            print(f"  {other}: {ratio['median']:.2f} of its rate ({ratio['least']:.2f} to {ratio['most']:.2f})")
        for other in ("pass", "direct"):
            added = rows[f"added over {other}"]
            print(f"  the gateway adds to {other} {added['median_ms']:.2f} ms (median), {added['p99_ms']:.2f} ms (p99)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=600, help="in each measurement")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peers", default="", help=f"any of {','.join(PEERS)}")
    parser.add_argument("--python", default=sys.executable, help="of the environment that has the peers")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if options.serve:
            role, socket, port = options.serve
            runner.run(serve(role, socket, int(port)))
        elif options.load:
            target, stream, at_once, requests = options.load
            print(json.dumps(runner.run(load(target, stream == "1", int(at_once), int(requests)))))
        else:
            peers = [name for name in options.peers.split(",") if name]
            found = runner.run(measure(options.rounds, options.requests, peers, options.python))
            if options.json:
                print(json.dumps({"rounds": options.rounds, **found}, indent=1))
            else:
                show(found, options.rounds)


if __name__ == "__main__":
    main()
