"""Judges a language model on plain text or chats: perplexity by token and by byte, in a sliding window."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from llm_os.errors import InvalidOptionError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import language
from llm_os.tasks.evaluation.judging import EvaluationOptions, Judgement, expect, publish
from llm_os.tasks.libraries import TRANSFORMERS
from llm_os.tasks.task import Task
from llm_os.tasks.training.batches import read_rows


class PerplexityOptions(EvaluationOptions):
    window: int = Field(default=512, ge=8)
    """Tokens the model sees at once; at most its context length."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens by which the window moves; none: half of it. Fewer give each token more context and cost more."""


class Perplexity(Task[PerplexityOptions]):
    Options = PerplexityOptions
    inputs = ("model", "data")
    output = "report"
    preload = TRANSFORMERS
    cacheable = True

    def resources(
        self, options: PerplexityOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        expect(inputs, ("text-generation",), ("text", "chat"), "perplexity")
        if options.stride is not None and options.stride >= options.window:
            raise InvalidOptionError(
                f"A stride of {options.stride} does not fit into a window of {options.window}.",
                hint="Take a smaller stride: what the window keeps of the text before it is context.",
            )
        return language.sized(inputs["model"], granted)

    def run(self, context: Context, options: PerplexityOptions) -> None:
        model, tokenizer, notes = language.load(context)
        rows = read_rows(context.inputs["data"].path, options.split, options.start, options.stop)
        texts = [language.text_of(row, tokenizer) for row in rows]
        longest = int(str(context.inputs["model"].facts.meta.get("context_length") or options.window))
        window = min(options.window, longest)
        stride = min(options.stride or window // 2, window - 1)
        begin = language.start_token(tokenizer)
        pieces, owners = [], []
        for number, text in enumerate(texts):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            cut = language.windows([begin, *ids] if begin is not None else ids, window, stride)
            pieces += cut
            owners += [number] * len(cut)

        def told(done: int) -> None:
            context.report(stage="evaluating", step=done, total=len(pieces))

        parts = language.losses(model, pieces, told)
        sums = [[0.0, 0] for _ in rows]
        for owner, part in zip(owners, parts, strict=True):
            sums[owner] = [sums[owner][0] + float(part.sum()), sums[owner][1] + len(part)]
        judgement = measured(rows, texts, [one for one, _ in sums], [int(count) for _, count in sums])
        judgement.notes |= {
            "window": f"{window} tokens, moved by {stride}",
            "first token": "after the token of beginning" if begin is not None else "not scored",
            **notes,
        }
        publish(context, options, judgement)


def measured(
    rows: Sequence[Mapping[str, Any]], texts: Sequence[str], sums: Sequence[float], tokens: Sequence[int]
) -> Judgement:
    """Perplexity and mean loss by token; perplexity and bits by byte of UTF-8, which do not depend on the tokenizer.

    Args:
        sums: -ln p of each text, in nats. tokens: how many were scored.
    """
    import numpy as np

    from llm_os.tasks.evaluation.metrics import Metric

    total, count = np.array(sums, dtype=np.float64), np.array(tokens, dtype=np.float64)
    size = np.array([len(text.encode()) for text in texts], dtype=np.float64)
    by_token, by_byte = np.stack([total, count], axis=1), np.stack([total, size], axis=1)
    metrics = [
        Metric("perplexity", "exponential", by_token, "lower"),
        Metric("loss", "ratio", by_token, "lower"),
        Metric("byte_perplexity", "exponential", by_byte, "lower"),
        Metric("bits_per_byte", "ratio", np.stack([total / math.log(2), size], axis=1), "lower"),
    ]
    return Judgement(
        kind="perplexity",
        metrics=metrics,
        shown=("perplexity", "bits_per_byte"),
        rows=rows,
        texts=texts,
        targets=("text", "messages", "id"),
        said=[
            {"row": at, "loss": round(float(t / max(1.0, c)), 6), "tokens": int(c), "bytes": int(b)}
            for at, (t, c, b) in enumerate(zip(total, count, size, strict=True))
        ],
        further={"tokens": int(count.sum()), "bytes": int(size.sum())},
    )


PLUGIN = Perplexity()
