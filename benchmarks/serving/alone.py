"""openvino-genai without us, in a process of its own: what a burst of chats takes when its pipeline is given all of it.

    python benchmarks/serving/alone.py FILE.gguf            # reads a burst a line from standard input

The weights are the file's as it is; settings are those of our worker, with a cache that holds a whole burst of 32.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Burst(NamedTuple):
    """Seconds until the last answer is whole, those that processors worked, and tokens of all answers."""

    seconds: float
    work: float
    tokens: int


Ask = Callable[[list[dict[str, Any]]], Awaitable[Burst]]
"""Bodies of chats, all of them with as many tokens at most -> what they took together."""


def main(file: str) -> None:
    """Answer bursts until the input ends."""
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks, scheduler.enable_prefix_caching = 1024, True  # of 32 tokens
    scheduler.max_num_seqs, scheduler.max_num_batched_tokens, scheduler.dynamic_split_fuse = 32, 512, True
    properties = {"NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY", "KV_CACHE_PRECISION": "u8"}
    properties |= {"INFERENCE_NUM_THREADS": os.cpu_count(), "ENABLE_CPU_PINNING": False}
    pipeline = openvino_genai.ContinuousBatchingPipeline(file, scheduler, "CPU", properties)
    config, tokenizer = openvino_genai.GenerationConfig(), pipeline.get_tokenizer()
    config.do_sample = False
    config.set_eos_token_id(tokenizer.get_eos_token_id())
    print("ready", flush=True)
    for line in sys.stdin:
        begun, worked, burst = time.perf_counter(), time.process_time(), json.loads(line)
        config.max_new_tokens = burst["tokens"]
        asked = [tokenizer.apply_chat_template(one, add_generation_prompt=True) for one in burst["chats"]]
        handles = [pipeline.add_request(number, text, config) for number, text in enumerate(asked)]
        while pipeline.has_non_finished_requests():
            pipeline.step()
        took = time.perf_counter() - begun, time.process_time() - worked
        tokens = sum(len(output.generated_ids) for handle in handles for output in handle.read_all())
        print(json.dumps([*took, tokens]), flush=True)


@asynccontextmanager
async def engine_alone(file: Path) -> AsyncIterator[Ask]:
    """Such a process, ended at the end."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(file), stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    source, sink = process.stdout, process.stdin
    assert await source.readline() == b"ready\n", "the engine alone did not start"

    async def ask(asked: list[dict[str, Any]]) -> Burst:
        burst = {"chats": [body["messages"] for body in asked], "tokens": asked[0]["max_tokens"]}
        sink.write(json.dumps(burst).encode() + b"\n")
        return Burst(*json.loads(await source.readline()))

    try:
        yield ask
    finally:
        sink.close()
        await process.wait()


if __name__ == "__main__":
    main(sys.argv[1])
