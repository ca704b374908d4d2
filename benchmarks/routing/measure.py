"""What the gateway's choice of a replica saves: its own code on a real trace of conversations, in virtual time.

    python benchmarks/routing/measure.py mooncake_conversation.jsonl [--workers 8] [--blocks 4000] [--speed 6000]

The trace (Mooncake, FAST '25: `FAST25-release/traces/conversation_trace.jsonl`) names the blocks of 512 tokens of every
prompt. Each worker keeps the blocks that it used last, the ends of prompts go first, and it reads and writes so many
tokens a second, one request after the other. Peers: round robin, least work under way, and the cost that is often
written down (work under way plus tokens to read, both in full). "Told who comes back" knows the future, and uses the
evenness that is asked for to the full: what a good guess of it could gain. The limits are caches that everybody
shares: one without end, and one of all the workers' blocks.
With `--evictions N` also one shared cache that keeps some kinds of conversations (by turn and length) longer than
others, as N tries on this very trace find it best: what engines could gain that drop blocks more cleverly.
Also: the time of a decision with 64 workers, on this machine.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_os.server.gateway import balance
from llm_os.server.gateway.balance import Balance, Choice
from llm_os.server.gateway.prefixes import Prefixes

TOKENS = 512
Request = dict[str, Any]


@dataclass(slots=True)
class Worker:
    """A cache of blocks, used last first out last, and a queue."""

    size: int
    held: OrderedDict[int, None] = field(default_factory=OrderedDict)
    free_at: float = 0.0
    work: float = 0.0
    requests: int = 0

    def known(self, names: Sequence[int]) -> int:
        """Blocks at the beginning that are there."""
        count = 0
        for name in names:
            if name not in self.held:
                break
            count += 1
        return count

    def use(self, names: Sequence[int]) -> None:
        for name in reversed(names):
            self.held[name] = None
            self.held.move_to_end(name)
        while len(self.held) > self.size:
            self.held.popitem(last=False)


class Ours:
    """The gateway's code, told what a gateway is told."""

    def __init__(self, workers: int, blocks: int) -> None:
        self.names = [f"w{number}" for number in range(workers)]
        self.balance = Balance(Prefixes(blocks), float(TOKENS))
        self.ends: list[tuple[float, int, Choice, float]] = []
        self.count = 0
        self.choice: Choice | None = None

    def choose(self, request: Request, workers: Sequence[Worker], now: float) -> int:
        while self.ends and self.ends[0][0] <= now:
            at, _, choice, answer = heapq.heappop(self.ends)
            self.balance.end(choice, answer, at)
        self.choice = self.balance.choose(self.names, request["hash_ids"], request["input_length"], now)
        return self.names.index(self.choice.replica)

    def placed(self, request: Request, worker: int, now: float, ends: float) -> None:
        assert self.choice is not None
        self.count += 1
        self.balance.begin(self.choice, now)
        heapq.heappush(self.ends, (ends, self.count, self.choice, request["output_length"]))


class Plain:
    """A rule of one line."""

    def __init__(self, rule: Callable[[Request, Sequence[Worker], float, int], int]) -> None:
        self.rule, self.count = rule, -1

    def choose(self, request: Request, workers: Sequence[Worker], now: float) -> int:
        self.count += 1
        return self.rule(request, workers, now, self.count)

    def placed(self, request: Request, worker: int, now: float, ends: float) -> None:
        """It remembers nothing."""


class Told:
    """Knows who will come back, which no router can: new chats that will go to two workers that are given less to read.

    So what comes back is kept longer. All others get `MOST` of the mean work, and no more may be had by evenness.
    """

    MOST, KEEPERS = 1.09, 2

    def __init__(self, requests: Sequence[Request], workers: int) -> None:
        self.returns, seen = dict[int, bool](), set[int]()
        for request in reversed(requests):
            names = request["hash_ids"]
            self.returns[id(request)] = any(name in seen for name in names[max(1, len(names) - 3) :])
            seen.update(names)
        keeps = (workers - (workers - self.KEEPERS) * self.MOST) / self.KEEPERS
        self.shares = [keeps if number < self.KEEPERS else self.MOST for number in range(workers)]

    def choose(self, request: Request, workers: Sequence[Worker], now: float) -> int:
        load = [worker.work / share for worker, share in zip(workers, self.shares, strict=True)]
        known = [worker.known(request["hash_ids"]) for worker in workers]
        if (most := max(known)) > 1:  # the first block is everybody's
            return min((one for one, blocks in enumerate(known) if blocks == most), key=load.__getitem__)
        wanted = self.returns[id(request)]
        found = min((one for one in range(len(workers)) if (one < self.KEEPERS) == wanted), key=load.__getitem__)
        even = 1.01 * statistics.mean(worker.work for worker in workers) + 50_000
        return found if load[found] <= even else min(range(len(workers)), key=load.__getitem__)

    def placed(self, request: Request, worker: int, now: float, ends: float) -> None:
        """It knows all already."""


def least(request: Request, workers: Sequence[Worker], now: float, _: int) -> int:
    return min(range(len(workers)), key=lambda one: max(0.0, workers[one].free_at - now))


def full_cost(speed: float) -> Callable[[Request, Sequence[Worker], float, int], int]:
    def rule(request: Request, workers: Sequence[Worker], now: float, _: int) -> int:
        return min(
            range(len(workers)),
            key=lambda one: (
                speed * max(0.0, workers[one].free_at - now) - TOKENS * workers[one].known(request["hash_ids"])
            ),
        )

    return rule


def play(
    requests: Sequence[Request], router: Ours | Plain | Told, count: int, blocks: int, speed: float
) -> dict[str, float]:
    """Share of prompt tokens that were not read again, how even the work was, and seconds to the first token."""
    workers = [Worker(blocks) for _ in range(count)]
    saved, waited = 0.0, []
    for request in requests:
        now = request["timestamp"] / 1000
        number = router.choose(request, workers, now)
        worker = workers[number]
        hit = min(TOKENS * worker.known(request["hash_ids"]), request["input_length"])
        to_read = request["input_length"] - hit
        saved += hit
        worker.use(request["hash_ids"])
        worker.work += to_read + request["output_length"]
        worker.requests += 1
        begun = max(now, worker.free_at)
        waited.append(begun + to_read / speed - now)
        worker.free_at = begun + (to_read + request["output_length"]) / speed
        router.placed(request, number, now, worker.free_at)
    total = sum(request["input_length"] for request in requests)
    waited.sort()
    return {
        "saved": saved / total,
        "work": max(worker.work for worker in workers) * count / sum(worker.work for worker in workers),
        "requests": max(worker.requests for worker in workers) * count / len(requests),
        "first_p50": statistics.median(waited),
        "first_p99": waited[int(0.99 * len(waited))],
    }


def limit(requests: Sequence[Request], blocks: int) -> float:
    """What one cache of so many blocks would save that everybody shares."""
    worker, saved = Worker(blocks), 0.0
    for request in requests:
        saved += min(TOKENS * worker.known(request["hash_ids"]), request["input_length"])
        worker.use(request["hash_ids"])
    return saved / sum(request["input_length"] for request in requests)


def kinds(requests: Sequence[Request]) -> tuple[list[int], int]:
    """Of each request how far its conversation is, and how long it is, as one number; and how many kinds there are."""
    turns, last = list[int](), dict[int, int]()
    for at, request in enumerate(requests):
        before = None
        for depth, name in enumerate(request["hash_ids"]):
            if name not in last:
                break
            before = last[name] if depth else None  # the first block is everybody's
        turns.append(1 if before is None else turns[before] + 1)
        last.update(dict.fromkeys(request["hash_ids"], at))
    longest = (3, 15, 63)
    lengths = [sum(len(request["hash_ids"]) > most for most in longest) for request in requests]
    wide = len(longest) + 1
    return [min(turn - 1, 3) * wide + length for turn, length in zip(turns, lengths, strict=True)], 4 * wide


def kept_by_kind(requests: Sequence[Request], blocks: int, kind: Sequence[int], stretch: Sequence[float]) -> float:
    """What one cache of so many blocks would save that drops what is oldest, ages divided by `stretch`."""
    queues = [OrderedDict[int, float]() for _ in stretch]
    where, saved = dict[int, int](), 0.0
    for at, request in enumerate(requests):
        now, known, names = request["timestamp"] / 1000, 0, request["hash_ids"]
        while known < len(names) and names[known] in where:
            known += 1
        saved += min(TOKENS * known, request["input_length"])
        for name in reversed(names):
            if (old := where.get(name)) is not None:
                del queues[old][name]
            where[name] = kind[at]
            queues[kind[at]][name] = now
        while len(where) > blocks:
            ages = [
                (now - next(iter(queue.values())) + 1e-6) / long if queue else -1.0
                for queue, long in zip(queues, stretch, strict=True)
            ]
            del where[queues[ages.index(max(ages))].popitem(last=False)[0]]
    return saved / sum(request["input_length"] for request in requests)


def best_by_kind(requests: Sequence[Request], blocks: int, tries: int) -> float:
    """The most that such a cache saves with any `stretch` that was found by trying on this very trace."""
    rng, (kind, count) = random.Random(0), kinds(requests)
    stretch = [1.0] * count
    best = kept_by_kind(requests, blocks, kind, stretch)
    for _ in range(tries):
        other = list(stretch)
        other[rng.randrange(count)] *= rng.choice((0.5, 0.7, 0.85, 1.2, 1.4, 2.0))
        if (found := kept_by_kind(requests, blocks, kind, other)) > best:
            best, stretch = found, other
    return best


def decision(requests: Sequence[Request], workers: int, blocks: int) -> float:
    """Median microseconds of a choice and its beginning, once the caches are full."""
    router, took = Ours(workers, blocks), []
    for request in requests:
        now = request["timestamp"] / 1000
        names = request["hash_ids"]
        before = time.perf_counter()
        choice = router.balance.choose(router.names, names, request["input_length"], now)
        router.balance.begin(choice, now)
        took.append(time.perf_counter() - before)
        router.balance.end(choice, request["output_length"], now)
    return statistics.median(took[len(took) // 2 :]) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=4000, help="of 512 tokens, in each worker")
    parser.add_argument("--speed", type=float, default=6000.0, help="tokens a second of a worker, read or written")
    parser.add_argument("--weights", action="store_true", help="other weights of our own cost too")
    parser.add_argument("--evictions", type=int, default=0, metavar="N", help="tries at keeping some kinds longer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    requests = [json.loads(line) for line in options.trace.read_text().splitlines()]
    count, blocks, speed = options.workers, options.blocks, options.speed
    best, shared = limit(requests, 10**9), limit(requests, count * blocks)
    found = {
        "round robin": play(requests, Plain(lambda _r, w, _t, n: n % len(w)), count, blocks, speed),
        "least work": play(requests, Plain(least), count, blocks, speed),
        "work + tokens to read": play(requests, Plain(full_cost(speed)), count, blocks, speed),
        "ours": play(requests, Ours(count, blocks), count, blocks, speed),
        "told who comes back": play(requests, Told(requests, count), count, blocks, speed),
    }
    if options.weights:
        usual = balance.LATELY, balance.NOW
        for lately in (0.003, 0.01, 0.03):
            for now in (0.0, 0.03, 0.1, 0.3, 1.0):
                balance.LATELY, balance.NOW = lately, now
                found[f"ours, {lately} and {now}"] = play(requests, Ours(count, blocks), count, blocks, speed)
        balance.LATELY, balance.NOW = usual
    kinder = best_by_kind(requests, count * blocks, options.evictions) if options.evictions else None
    micro = decision(requests, 64, blocks)
    if options.json:
        limits = {"limit": best, "one_cache": shared, "one_cache_by_kind": kinder}
        print(json.dumps({**limits, "decision_us": micro, "routers": found}, indent=1))
        return
    print(
        f"{count} workers of {blocks} blocks, {speed:.0f} tokens/s each; the limit saves {best:.1%} of prompt tokens,"
    )
    print(f"  one cache of all these blocks that everybody shares {shared:.1%} ({shared / best:.1%} of the limit)")
    if kinder:
        print(f"  the same, some kinds kept longer                {kinder:.1%} ({kinder / best:.1%} of the limit)")
    for name, row in found.items():
        print(
            f"  {name:24} saves {row['saved']:6.1%} ({row['saved'] / best:6.1%} of the limit)   max/mean: work "
            f"{row['work']:.2f}, requests {row['requests']:.2f}   first token p50 {row['first_p50']:.2f} s, "
            f"p99 {row['first_p99']:.1f} s"
        )
    print(f"a decision with 64 workers takes {micro:.0f} microseconds (median, caches full)")


if __name__ == "__main__":
    main()
