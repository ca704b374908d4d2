"""The reference generation loop: several answers at once over one cache of keys and values; knows no HTTP and no job.

It is the shape of a continuous-batching pipeline (`add_request`, `step`, `has_non_finished_requests`), so the worker
that drives openvino-genai drives it too. Each step reads a part of one new prompt and gives every running answer one
token; answers come and go between steps (iteration-level scheduling: Yu et al., Orca, OSDI '22, section 4.1). Each
answer has a cache of its own, and may have an adapter of its own, with which it ends though nobody can ask for it any
more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from llm_os.models.cache import Grid
from llm_os.models.lora import Adapter, Adapters

COLD = 1e-4
"""A lower temperature takes the likeliest token: logits divided by it are no numbers any more."""
PREFILL = 512
"""Tokens of a new prompt that are read in a step: running answers wait so long and no longer."""


class Finish(Enum):
    """Why an answer ended; NONE while it goes on, BROKEN where what the model says is no number."""

    NONE = 0
    STOP = 1
    LENGTH = 2
    BROKEN = 3


class Status(Enum):
    """Where a request is."""

    RUNNING = 0
    FINISHED = 1
    CANCELLED = 2


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn.

    Attributes:
        max_tokens: most new tokens.
        temperature: 0 takes the likeliest token. top_p: share of the probability that is drawn from.
        seed: of the draw; the same seed gives the same answer whoever else is served.
        logprobs: likeliest tokens that are told for every place, with the token's own probability; None: none is told.
        adapter: that the answer is given with, from its first token to its last; None: the model alone.
        top_k: likeliest tokens that are drawn from; 0: all.
        repetition_penalty: by which logits of tokens that are there already are divided, or multiplied where they are
            below 0 (Keskar et al. 2019, CTRL, section 4.1); 1 is none.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    logprobs: int | None = None
    adapter: Adapter | None = None
    top_k: int = 0
    repetition_penalty: float = 1.0


Told = tuple[float, tuple[tuple[int, float], ...]]
"""Logarithm of a token's probability, and those of the likeliest ids in its place."""


@dataclass(frozen=True, slots=True)
class Output:
    """What is new. `generated_log_probs` and `tops` belong to the ids; they are empty where they were not asked for."""

    generated_ids: tuple[int, ...]
    finish_reason: Finish
    generated_log_probs: tuple[float, ...] = ()
    tops: tuple[tuple[tuple[int, float], ...], ...] = ()


@dataclass(slots=True, eq=False)
class Request:
    """One answer in work, and its caller's end of it.

    Attributes:
        tokens: prompt and answer so far. size: tokens of the prompt.
        read_tokens: tokens whose keys and values are in `cache` while the prompt is read.
    """

    tokens: list[int]
    sampling: Sampling
    size: int
    draw: Any = None
    cache: Any = None
    read_tokens: int = 0
    fresh: list[int] = field(default_factory=list)
    told_of: list[Told] = field(default_factory=list)
    finish: Finish = Finish.NONE
    told: bool = False
    status: Status = Status.RUNNING

    def can_read(self) -> bool:
        """Whether there is something new."""
        return bool(self.fresh) or (self.finish is not Finish.NONE and not self.told)

    def read(self) -> Mapping[int, Output]:
        """What is new since the last call."""
        new, self.fresh = tuple(self.fresh), []
        told, self.told_of = self.told_of, []
        self.told = self.finish is not Finish.NONE
        return {0: Output(new, self.finish, tuple(own for own, _ in told), tuple(top for _, top in told))}

    def cancel(self) -> None:
        """Nobody waits for it any more; it leaves at the next step."""
        self.status = Status.CANCELLED

    def get_status(self) -> Status:
        return self.status


class Generation:
    """See the module. Not safe for several threads: one owns it.

    Args:
        model: a causal language model of transformers, in the precision to run in.
        ends: ids that end an answer; they are not part of it.
        budget: cells of the cache: rows times the longest. A single request may always have as many as its context.
        most: most answers in work at once.
    """

    def __init__(self, model: Any, *, ends: Sequence[int], budget: int, most: int = 8) -> None:
        self._model = model
        self._ends = frozenset(ends)
        self._budget, self._most = budget, most
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._grid = Grid()
        self.adapters = Adapters(model)

    def add_request(self, number: int, prompt: Sequence[int], config: Sampling) -> Request:
        """Take a prompt of at least one token in; it is begun when there is room."""
        import torch

        draw = torch.Generator().manual_seed(config.seed) if config.temperature > 0 else None
        request = Request(list(prompt), config, len(prompt), draw)
        self._waiting.append(request)
        return request

    def has_non_finished_requests(self) -> bool:
        return bool(self._waiting or self._running)

    def step(self) -> None:
        """Read a part of the first waiting prompt, then give each running answer a token."""
        import torch

        with torch.inference_mode():
            self._leave()
            self._make_room()
            running = list(self._running)
            if self._waiting and self._fits(self._waiting[0]):
                self._read_prompt(self._waiting[0])
            if running:
                self._decode(running)

    def _leave(self) -> None:
        """Drop what was cancelled."""
        for request in [r for r in self._waiting if r.status is not Status.RUNNING]:
            self._waiting.remove(request)
        self._keep([r for r in self._running if r.status is Status.RUNNING])

    def _keep(self, kept: list[Request]) -> None:
        if len(kept) < len(self._running):
            self._grid.keep([self._running.index(request) for request in kept])
            self._running = kept

    def _fits(self, request: Request) -> bool:
        longest = max([len(request.tokens), *(len(r.tokens) for r in self._running)]) + 1
        return len(self._running) < self._most and (
            not self._running or (len(self._running) + 1) * longest <= self._budget
        )

    def _make_room(self) -> None:
        """When answers outgrow the cache, the youngest goes back to the queue and is read again later."""
        while len(self._running) > 1:
            longest = max(len(request.tokens) for request in self._running) + 1
            if len(self._running) * longest <= self._budget:
                return
            youngest = self._running[-1]
            self._keep(self._running[:-1])
            youngest.cache, youngest.read_tokens = None, 0
            self._waiting.appendleft(youngest)

    def _read_prompt(self, request: Request) -> None:
        import torch
        from transformers import DynamicCache

        if request.cache is None:
            request.cache = DynamicCache()
        part = request.tokens[request.read_tokens : request.read_tokens + PREFILL]
        with self.adapters.rows([request.sampling.adapter]):
            out = self._model(
                input_ids=torch.tensor([part]), past_key_values=request.cache, use_cache=True, logits_to_keep=1
            )
        request.read_tokens += len(part)
        if request.read_tokens < len(request.tokens):
            return
        self._waiting.popleft()
        self._grid.join(request.cache, len(request.tokens))
        request.cache = None
        self._running.append(request)
        self._take([request], out.logits[:, -1])

    def _decode(self, running: list[Request]) -> None:
        import torch

        last = torch.tensor([[request.tokens[-1]] for request in running])
        lengths = [len(request.tokens) - 1 for request in running]
        given = self.adapters.rows([request.sampling.adapter for request in running])
        with self._grid.rows(len(running), lengths) as (cache, mask, positions), given:
            out = self._model(
                input_ids=last, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
            )
        self._take(running, out.logits[:, -1])

    def _take(self, requests: Sequence[Request], logits: Any) -> None:
        """Draw one token for each and end those that are done."""
        logits = logits.float()
        broken = logits.isnan().any(-1).tolist()
        for request, row, no_number in zip(requests, logits, broken, strict=True):
            if no_number:  # of this one, such as by its adapter: the others go on
                request.finish, request.status = Finish.BROKEN, Status.FINISHED
                continue
            token = drawn(_penalized(row, request), request.sampling, request.draw)
            if token in self._ends:
                request.finish = Finish.STOP
            else:
                request.tokens.append(token)
                request.fresh.append(token)
                if request.sampling.logprobs is not None:
                    request.told_of.append(told(row, token, request.sampling.logprobs))
                if len(request.tokens) - request.size >= request.sampling.max_tokens:
                    request.finish = Finish.LENGTH
            if request.finish is not Finish.NONE:
                request.status = Status.FINISHED


def told(logits: Any, token: int, most: int) -> Told:
    """What is told of a token of float32 logits [vocabulary]: by the model, before temperature and nucleus."""
    import torch

    logs = torch.log_softmax(logits, -1)
    values, ids = logs.topk(most) if most else (logs[:0], logs[:0].long())
    return float(logs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True))


def _penalized(logits: Any, request: Request) -> Any:
    """The logits [vocabulary] after the repetition penalty."""
    import torch

    penalty = request.sampling.repetition_penalty
    if penalty == 1.0:
        return logits
    there = torch.tensor(sorted(set(request.tokens)), device=logits.device)
    known = logits[there]
    return logits.index_copy(0, there, torch.where(known < 0, known * penalty, known / penalty))


def drawn(logits: Any, sampling: Sampling, draw: Any) -> int:
    """One token of float32 logits [vocabulary]: the likeliest, or drawn from the nucleus (Holtzman et al. 2020)."""
    import torch

    if sampling.temperature < COLD:
        return int(logits.argmax())
    shares, order = torch.softmax(logits / sampling.temperature, -1).sort(descending=True)
    if sampling.top_k:
        shares, order = shares[: sampling.top_k], order[: sampling.top_k]
        shares = shares / shares.sum()
    before = shares.cumsum(-1) - shares  # the first token is always kept
    kept = torch.where(before < sampling.top_p, shares, torch.zeros_like(shares))
    return int(order[torch.multinomial(kept, 1, generator=draw)])


def generate(
    model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling, *, ends: Sequence[int], most: int = 8
) -> list[list[int]]:
    """New tokens of every prompt, in the order given; for evaluation and tests, where nobody streams."""
    longest = max(len(prompt) for prompt in prompts) + sampling.max_tokens + 1
    work = Generation(model, ends=ends, budget=most * longest, most=most)
    requests = [work.add_request(number, prompt, sampling) for number, prompt in enumerate(prompts)]
    while work.has_non_finished_requests():
        work.step()
    return [request.tokens[request.size :] for request in requests]


def stops_of(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer: what the generation config says, and the tokenizer's end of a turn."""
    said = getattr(model.generation_config, "eos_token_id", None)
    ids = list(said) if isinstance(said, list | tuple) else [said]
    return tuple({int(one) for one in [*ids, tokenizer.eos_token_id] if one is not None})
