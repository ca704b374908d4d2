"""Serves classifiers, chat models and what `reading` has with PyTorch on CPU; must not know HTTP or the kernel."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from llm_os.errors import UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.models.generate import Generation, Sampling
from llm_os.models.load import ChatModel, Classifier, load_chat, load_classifier
from llm_os.models.lora import Adapter
from llm_os.spec.attempts import AdapterInput, AttemptSpec, ServeCall
from llm_os.workers import reading
from llm_os.workers.backend import Backend, Classified
from llm_os.workers.batching import Batcher
from llm_os.workers.chatting import QUEUE, ChatBackend
from llm_os.workers.conversation import Message
from llm_os.workers.refusals import no_adapter
from llm_os.workers.requests import ChatRequest
from llm_os.workers.serving import main, pause_of, quick_loop, threads_of
from llm_os.workers.tools import Tool

log = logging.getLogger("llm_os.worker")
Given = TypeVar("Given")
Choose = Callable[[Classifier], tuple[Classifier, str]]

PROBES = (
    "A wonderful film, I would see it again at once.",
    "The battery died after two days and nobody answered my mails.",
    "It is a book about the history of trains in the nineteenth century, with many pictures and few words.",
    "Not bad at all.",
) * 4
"""Texts by which the two precisions are timed and compared."""
FASTER = 1.1
"""bf16 is taken when it is at least so much faster."""
APART = 0.05
"""Largest difference of the probability of a next token with which bf16 serves a chat."""
AGREES = 0.02
"""Largest difference of a score (a share of the value for a regression) with which bf16 counts as equal."""


class TorchBackend(Backend):
    """A classifier behind a batcher.

    Args:
        choose: the classifier in the precision to serve with, and which it is and why; called in the thread that runs
            it, before the first text.
        most: texts in a batch.
        lanes: batches that run side by side, where the classifier can be asked by several threads.
    """

    def __init__(self, classifier: Classifier, choose: Choose, *, most: int = 32, lanes: int = 1) -> None:
        super().__init__()
        self._classifier = classifier
        self._choose = choose
        # Tokens are counted where the model reads them: reading once more took as long as all of the HTTP.
        self._batcher: Batcher[tuple[list[float], int]] = Batcher(
            lambda ids: list(zip(self._classifier.scores(ids), map(len, ids), strict=True)),
            read=classifier.read,
            lanes=lanes,
            most=max(1, most // lanes),
            budget=reading.BATCH_TOKENS // lanes,
        )
        self.labels = classifier.labels or ("value",)

    async def begin(self) -> None:
        self._classifier, why = await self._batcher.on_thread(self._choose, self._classifier)
        log.info("precision %s", why)
        await self._batcher.warm(PROBES[0])

    async def classify(self, texts: Sequence[str]) -> Classified:
        found = await self._batcher.scores(texts)
        scores = [row for row, _ in found]
        many = self._classifier.thresholds
        chosen = [self._classifier.chosen(row) for row in scores] if many else None
        return Classified(self.labels, scores, sum(tokens for _, tokens in found), chosen)

    async def end(self) -> None:
        await self._batcher.end()


def choose(classifier: Classifier, dtype: str) -> tuple[Classifier, str]:
    """The classifier in the precision to serve with, and why. Takes some hundred milliseconds with `auto`."""
    if dtype == "fp32":
        return classifier, "fp32: asked for"
    other = in_bf16(classifier)
    if dtype == "bf16":
        return other, "bf16: asked for"
    texts = list(PROBES)
    difference = distance(classifier.predict(texts), other.predict(texts), bool(classifier.labels))
    if not difference <= AGREES:  # also when it is no number
        return classifier, f"fp32: bf16 differs by {difference:.3g}"
    slow, fast = best_time(classifier.predict, texts), best_time(other.predict, texts)
    if slow < FASTER * fast:
        return classifier, f"fp32: it takes {slow * 1000:.1f} ms, bf16 {fast * 1000:.1f} ms"
    return other, f"bf16: {slow / fast:.2f} times as fast as fp32, differs by {difference:.3g}"


def in_bf16(classifier: Classifier) -> Classifier:
    """A copy with weights in bf16; the given one stays as it is."""
    import torch

    model: Any = copy.deepcopy(classifier.model).to(torch.bfloat16)
    return replace(classifier, model=model)


def distance(one: Sequence[Sequence[float]], two: Sequence[Sequence[float]], probabilities: bool) -> float:
    """Largest difference; of a regression as a share of the larger of 1 and the value."""
    pairs = [(a, b) for row, other in zip(one, two, strict=True) for a, b in zip(row, other, strict=True)]
    found = [abs(a - b) / (1.0 if probabilities else max(1.0, abs(a))) for a, b in pairs]
    return float("nan") if any(value != value for value in found) else max(found)


def best_time(
    predict: Callable[[list[Given]], object], given: list[Given], runs: int = 5, within: float = 0.6
) -> float:
    """Seconds of the fastest of some runs: what others do on the machine makes runs slower, never faster.

    Args:
        within: seconds after which no further run is begun, so that a busy machine does not delay the start.
    """
    times: list[float] = []
    while len(times) < runs and sum(times) < within:
        begun = time.perf_counter()
        predict(given)
        times.append(time.perf_counter() - begun)
    return min(times)


class TorchChat(ChatBackend):
    """The reference generation loop behind a step thread."""

    follows = frozenset({"logprobs", "top_logprobs", "tools", "top_k", "repetition_penalty"})
    cached_tokens = 0  # the loop reads every prompt from its begin

    def __init__(self, chat: ChatModel, pipeline: Generation, *, most: int, pause: float = 0.0) -> None:
        vocabulary = chat.model.get_input_embeddings().num_embeddings
        super().__init__(pipeline, context=chat.context, most=most, vocabulary=vocabulary, pause=pause)
        self._chat = chat
        self._pipeline = pipeline

    async def take_adapter(self, adapter: AdapterInput) -> None:
        """Read beside the steps, on another thread; from the next request on it is there."""
        read = await asyncio.to_thread(self._pipeline.adapters.read, Path(adapter.path), adapter.version)
        gone = self.adapters.get(adapter.name)
        self.adapters[adapter.name] = read
        if gone is not None:
            self._pipeline.adapters.forget(gone)
        log.info("the adapter %s is %s, of rank %d", adapter.name, adapter.version, read.rank)

    async def drop_adapter(self, name: str) -> None:
        if (gone := self.adapters.pop(name, None)) is not None:
            self._pipeline.adapters.forget(gone)

    def chat_template(self) -> str:
        return str(self._chat.tokenizer.get_chat_template(tools=[{}]))  # some models have one of their own for tools

    def token(self, text: str) -> int | None:
        found = self._chat.tokenizer.get_vocab().get(text)
        return None if found is None else int(found)

    def template(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        return self._chat.prompt(messages, [tool.told() for tool in tools])

    def encode(self, text: str) -> list[int]:
        return list(self._chat.tokenizer(text)["input_ids"])

    def sampling(self, request: ChatRequest, most: int) -> Sampling:
        seed = random.getrandbits(63) if request.seed is None else request.seed
        adapter: Adapter | None = self.adapters.get(request.adapter)  # once: this is not the loop's thread
        if request.adapter and adapter is None:  # it went while the request waited
            raise no_adapter(request.adapter, self.adapters)
        return Sampling(
            most,
            request.temperature,
            request.top_p,
            seed,
            request.logprobs,
            adapter,
            top_k=request.top_k,
            repetition_penalty=request.repetition_penalty,
        )

    def decode(self, ids: Sequence[int]) -> str:
        return self._chat.text(ids)

    async def logprobs(self, ids: Sequence[int]) -> list[float] | None:
        """See `Backend`; None while adapters are there, which the steps put into the model."""
        return None if self.adapters else await asyncio.to_thread(logprobs_of, self._chat.model, list(ids))


def choose_chat(chat: ChatModel, dtype: str) -> str:
    """Put the model into the precision to serve with; why. bf16 must be faster and say the same next tokens."""
    import torch

    if dtype == "bf16":
        chat.model.to(torch.bfloat16)
        return "bf16: asked for"
    if dtype == "fp32":
        return "fp32: asked for"
    prompts = [chat.prompt([{"role": "user", "content": text}]) for text in PROBES[:4]]
    other = copy.deepcopy(chat.model).to(torch.bfloat16)
    said = [[next_logits(model, prompt) for prompt in prompts] for model in (chat.model, other)]
    apart = max(float((a.softmax(-1) - b.softmax(-1)).abs().max()) for a, b in zip(*said, strict=True))
    if not apart <= APART:
        return f"fp32: with bf16 a next token's probability differs by {apart:.3g}"
    slow, fast = (best_time(partial(next_logits, model), prompts[0]) for model in (chat.model, other))
    if slow < FASTER * fast:
        return f"fp32: {slow * 1000:.1f} ms, bf16 {fast * 1000:.1f} ms"
    chat.model = other
    return f"bf16: {slow / fast:.2f} times as fast as fp32, a next token's probability differs by {apart:.3g} at most"


def logprobs_of(model: Any, ids: list[int]) -> list[float]:
    """Logarithms of the probabilities of all tokens but the first."""
    import torch

    given = torch.tensor([ids])
    with torch.inference_mode():
        logits = model(input_ids=given, use_cache=False).logits[0, :-1].float()
        found: list[float] = logits.log_softmax(-1).gather(1, given[0, 1:, None])[:, 0].tolist()
    return found


def next_logits(model: Any, ids: list[int]) -> Any:
    """float32 [vocabulary] after these tokens."""
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits[0, -1].float()


def load_chat_backend(folder: Path, options: Mapping[str, Any]) -> Backend:
    """Read the model and choose its precision. Raises what `load_chat` raises."""
    chat = load_chat(folder)
    chat.context = min(chat.context, int(options.get("context", 8192)))
    log.info("precision %s", choose_chat(chat, str(options.get("dtype", "auto"))))
    most = int(options.get("max_batch", 32))
    budget = max(int(options.get("cache_tokens", 16384)), chat.context)
    pipeline = Generation(chat.model, ends=chat.ends, budget=budget, most=most)
    return TorchChat(chat, pipeline, most=most * QUEUE, pause=pause_of(options))


def load(call: ServeCall, spec: AttemptSpec) -> Backend:
    """Read the model. Raises what `load_classifier` and `load_chat` raise."""
    import torch

    options: dict[str, Any] = dict(call.options)
    torch.set_num_threads(threads := threads_of(options, spec))
    if (form := inspect(Path(call.model.path))["format"]) != "safetensors":
        raise UnsupportedModelError(
            f"PyTorch serves models in safetensors, not in {form}.",
            hint="Leave the engine out, or train from it: that turns it into float weights (card NAME-float).",
        )
    if call.task == "text-generation":
        return load_chat_backend(Path(call.model.path), options)
    dtype, most = str(options.get("dtype", "auto")), int(options.get("max_batch", 32))

    def lanes(longest: int) -> int:
        """Batches side by side; each then computes on its share of the threads."""
        found = reading.streams_of(options.get("streams"), threads, longest)
        torch.set_num_threads(-(-threads // found))  # rather one too many than one idle
        log.info("%d batches side by side on %d threads", found, threads)
        return found

    if call.task not in {"text-classification", "multi-label-classification"}:
        return reading.load(call.task, Path(call.model.path), dtype, most, lanes)
    classifier = load_classifier(Path(call.model.path))
    return TorchBackend(classifier, lambda given: choose(given, dtype), most=most, lanes=lanes(classifier.max_length))


if __name__ == "__main__":
    main(load, quick_loop)
