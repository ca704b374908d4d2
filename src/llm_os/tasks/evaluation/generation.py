"""Judges a language model by its answers: exact match, F1 of words, BLEU, chrF and ROUGE against the wanted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from llm_os.errors import UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import language, texts
from llm_os.tasks.evaluation.judging import EvaluationOptions, Judgement, expect, publish
from llm_os.tasks.libraries import TRANSFORMERS
from llm_os.tasks.task import Task
from llm_os.tasks.training.batches import read_rows

TRANSLATES = "text2text-generation"


class GenerationOptions(EvaluationOptions):
    batch_size: int = Field(default=8, ge=1)
    """Answers that are made together."""
    max_tokens: int = Field(default=128, ge=1)
    """Most tokens of an answer."""
    prompt: str = Field(default="{text}", pattern=r"\{text\}")
    """What the model is asked for data of pairs; `{text}` stands for the first text."""
    answer: str | None = None
    """Regular expression that picks the answer for exact match out of both texts, such as `-?\\d+`."""


class Generation(Task[GenerationOptions]):
    Options = GenerationOptions
    inputs = ("model", "data")
    output = "report"
    preload = TRANSFORMERS
    cacheable = True

    def resources(
        self, options: GenerationOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        writes = inputs["model"].meta.get("task") == TRANSLATES
        expect(inputs, ("text-generation", TRANSLATES), ("pairs",) if writes else ("chat", "pairs"), "generation")
        return language.sized(inputs["model"], granted)

    def run(self, context: Context, options: GenerationOptions) -> None:
        rows = read_rows(context.inputs["data"].path, options.split, options.start, options.stop)
        translates = context.inputs["model"].facts.meta.get("task") == TRANSLATES
        said, notes = (_translated if translates else _answers)(context, options, rows)
        facts = context.inputs["data"].facts.meta
        wanted = [wanted_of(row) for row in rows]
        judgement = answered(rows, said, wanted, language.languages_of(facts, wanted), options.answer)
        judgement.notes |= {"sampling": f"greedy, {options.max_tokens} tokens at most", **notes}
        publish(context, options, judgement)


def _answers(
    context: Context, options: GenerationOptions, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[str], dict[str, Json]]:
    """What a causal language model says to each row, and notes on how it was asked."""
    from llm_os.models.generate import Sampling, generate, stops_of

    model, tokenizer, notes = language.load(context)
    longest = int(str(context.inputs["model"].facts.meta.get("context_length") or 1024))
    prompts = [prompt_of(tokenizer, question_of(row, options.prompt)) for row in rows]
    prompts = [ids[-max(1, longest - options.max_tokens) :] for ids in prompts]
    sampling, ends = Sampling(options.max_tokens), stops_of(model, tokenizer)
    said: list[str] = []
    for begin in range(0, len(prompts), 2 * options.batch_size):
        part = prompts[begin : begin + 2 * options.batch_size]
        answers = generate(model, part, sampling, ends=ends, most=options.batch_size)
        said += [str(tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in answers]
        context.report(stage="generating", step=len(said), total=len(prompts))
    template = "the model's chat template" if getattr(tokenizer, "chat_template", None) else "none: plain text"
    return said, {"template": template, **notes}


def _translated(
    context: Context, options: GenerationOptions, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[str], dict[str, Json]]:
    """What an encoder-decoder makes of each first text."""
    import torch

    from llm_os.models.translation import load_translator

    torch.set_num_threads(context.threads)
    translator = load_translator(context.inputs["model"].path)
    asked = [question_of(row, options.prompt)[-1]["content"] for row in rows]
    said: list[str] = []
    for begin in range(0, len(asked), 4 * options.batch_size):
        part = asked[begin : begin + 4 * options.batch_size]
        said += translator.predict(part, options.batch_size, options.max_tokens)
        context.report(stage="generating", step=len(said), total=len(asked))
    return said, {}


def question_of(row: Mapping[str, Any], prompt: str) -> list[dict[str, str]]:
    """The messages that are answered: a chat without its last one, or the first text of a pair."""
    if "messages" in row:
        return [dict(message) for message in row["messages"][:-1]]
    return [{"role": "user", "content": prompt.replace("{text}", str(row["text"]))}]


def wanted_of(row: Mapping[str, Any]) -> str:
    """The reference: the last message of a chat, or the second text of a pair."""
    return str(row["messages"][-1]["content"] if "messages" in row else row["other"]).strip()


def prompt_of(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Ids by the model's chat template; without one the plain contents. Raises UnsupportedModelError."""
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        return list(tokenizer("\n".join(message["content"] for message in messages))["input_ids"])
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise UnsupportedModelError(
            f"The model's chat template refuses these messages: {error}", hint="Check their roles and order."
        ) from error
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def answered(
    rows: Sequence[Mapping[str, Any]],
    said: Sequence[str],
    wanted: Sequence[str],
    code: str,
    pattern: str | None = None,
) -> Judgement:
    """Figures of answers against references, in the language `code`."""
    metrics, notes = texts.judged(said, wanted, language=code, pattern=pattern)
    kept: list[dict[str, Json]] = [
        {"row": at, "said": a, "wanted": b, "exact": bool(metrics[0].statistics[at, 0])}
        for at, (a, b) in enumerate(zip(said, wanted, strict=True))
    ]
    return Judgement(
        kind="generation",
        metrics=metrics,
        shown=("exact_match", "rouge_l", "chrf"),
        rows=rows,
        texts=[question_of(row, "{text}")[-1]["content"] for row in rows],
        targets=("text", "other", "messages", "score", "id"),
        said=kept,
        further={"language": code},
        notes=notes,
    )


PLUGIN = Generation()
