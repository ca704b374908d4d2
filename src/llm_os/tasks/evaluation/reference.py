"""Writes down what a model says of the check texts in PyTorch with fp32 weights, for engines to be compared with.

Must not know an engine. A version is asked what lies in its artifact (`prompts`), and the texts that ship with us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_os.errors import UnavailableError, UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, Spec
from llm_os.spec.parity import FILE, CheckText, Place, Reading, Reference, ScoredText
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import language, prompts
from llm_os.tasks.evaluation.judging import sized
from llm_os.tasks.libraries import TRANSFORMERS
from llm_os.tasks.task import Task

PLACES = 1040
"""Places where an engine is asked: the interval of 98 % is then 1 point wide on each side."""
FIRST = 4
"""Tokens of the shortest beginning: behind fewer a model says hardly anything."""
LONGEST = 96
"""Tokens of a text that are used, at most: longer beginnings cost an engine more and tell the same."""
CUTS = 4
"""Beginnings of each text that a classifier judges."""
FEWEST = 30
"""Texts that are too few for a classifier: ours are judged beside them."""
UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no whole character."""


class ReferenceOptions(Spec):
    pass


class ReferenceTask(Task[ReferenceOptions]):
    Options = ReferenceOptions
    inputs = ("model",)
    output = "report"
    preload = TRANSFORMERS
    cacheable = True

    def resources(
        self, options: ReferenceOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        model = inputs["model"]
        task = model.meta.get("task")
        if task in prompts.CLASSIFIERS:
            return sized(model, granted, copies=2.0)
        if task != "text-generation":
            raise UnsupportedModelError(
                f"Engines are not compared on a {task} model.",
                hint=f"Only on {', '.join(prompts.COMPARED)}.",
            )
        return language.sized(model, granted)

    def run(self, context: Context, options: ReferenceOptions) -> None:
        model = context.inputs["model"]
        brought, more = prompts.asked(model.path)
        try:
            if model.facts.meta.get("task") in prompts.CLASSIFIERS:
                reference = _scored(context, [*brought, *(more if len(brought) < FEWEST else [])])
            else:
                reference = said(context, brought, more)
        except ModuleNotFoundError as error:
            raise UnavailableError(
                f"{error.name} is not installed, which runs the reference.", hint="pip install 'llm-os[train]'"
            ) from error
        (context.output / FILE).write_text(reference.model_dump_json() + "\n", encoding="utf-8")
        figures: dict[str, Json] = {
            "places": sum(len(text.places) for text in reference.texts),
            "readings": len(reference.readings),
            "scored": len(reference.scored),
            "own": sum(bool(row.get("own")) for row in brought),
        }
        context.finish("report", {"report": "reference", "model": model.facts.digest, **figures})
        context.result(**figures)


def _taken(row: Mapping[str, Any], tokenizer: Any) -> bool:
    """Whether the model's template takes it: some refuse a system message."""
    from jinja2 import TemplateError

    try:
        language.text_of(row, tokenizer)
    except TemplateError:
        return False
    return True


def said(context: Context, rows: Sequence[Mapping[str, Any]], more: Sequence[Mapping[str, Any]] = ()) -> Reference:
    """Of a causal language model: its likeliest token at `PLACES` places, spread evenly over all that there are.

    Args:
        more: asked where `rows` have too few places.
    """
    from llm_os.models.generate import stops_of

    model, tokenizer, _ = language.load(context)
    ends = frozenset(stops_of(model, tokenizer))
    found: list[tuple[list[int], list[Place], list[float]]] = []
    read: list[Mapping[str, Any]] = []
    seen: set[tuple[int, ...]] = set()
    for number, row in enumerate([*rows, *more], start=1):
        if number == len(rows) + 1 and sum(len(places) for _, places, _ in found) >= PLACES:
            break
        if not _taken(row, tokenizer) or len(ids := _ids(tokenizer, row)[:LONGEST]) < FIRST:
            continue
        read.append(row)
        places, logprobs = _places(model, tokenizer, ends, ids)
        found.append((ids, [one for one in places if tuple(ids[: one.at]) not in seen], logprobs))
        seen |= {tuple(ids[:at]) for at in range(len(ids) + 1)}  # chats begin alike
        context.report(stage="reference", step=number, total=len(rows))
    keep = spread([len(places) for _, places, _ in found], PLACES)
    texts = [
        CheckText(ids=tuple(ids), places=tuple(places[i] for i in kept), logprobs=tuple(logprobs))
        for (ids, places, logprobs), kept in zip(found, keep, strict=True)
    ]
    return Reference(texts=tuple(texts), readings=tuple(_readings(tokenizer, read)))


def _places(model: Any, tokenizer: Any, ends: frozenset[int], ids: list[int]) -> tuple[list[Place], list[float]]:
    """What the model says behind every beginning of the ids that is long enough, and how likely it finds the ids."""
    import torch

    with torch.inference_mode():
        given = torch.tensor([ids], device=model.device)
        logits = model(input_ids=given).logits[0].float()
        logprobs = logits[:-1].log_softmax(-1).gather(1, given[0, 1:, None])[:, 0].tolist()
    top = logits[FIRST - 1 :].topk(2)
    margins = (top.values[:, 0] - top.values[:, 1]).tolist()
    told = enumerate(zip(top.indices[:, 0].tolist(), margins, strict=True), start=FIRST)
    places = (_place(tokenizer, ends, at, token, margin) for at, (token, margin) in told)
    return [place for place in places if place is not None], [round(one, 5) for one in logprobs]


def _ids(tokenizer: Any, row: Mapping[str, Any]) -> list[int]:
    """A text as the tokenizer reads it; a chat as the model's template writes it."""
    written = "messages" in row and bool(getattr(tokenizer, "chat_template", None))
    return list(tokenizer(language.text_of(row, tokenizer), add_special_tokens=not written)["input_ids"])


def _place(tokenizer: Any, ends: frozenset[int], at: int, token: int, margin: float) -> Place | None:
    """None: the token has no text of its own by which an engine that tells no ids could be compared."""
    if token in ends:
        return Place(at=at, token=token, text="", ends=True, margin=margin)
    text = str(tokenizer.decode([token], skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return Place(at=at, token=token, text=text, margin=margin) if text and UNFINISHED not in text else None


def _readings(tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> list[Reading]:
    """How texts are read, and how chats are written up to the beginning of their last answer."""
    found = []
    for row in rows:
        if "text" in row:
            found.append(Reading(text=row["text"], ids=tuple(tokenizer(row["text"])["input_ids"])))
        elif getattr(tokenizer, "chat_template", None):
            messages = row["messages"][:-1]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            found.append(Reading(messages=tuple(messages), ids=tuple(ids)))
    return found


def spread(sizes: Sequence[int], wanted: int) -> list[list[int]]:
    """For lists of so many items the indices that are kept: `wanted` in all, spread evenly; all, if there are fewer."""
    total = sum(sizes)
    kept = {number * total // wanted for number in range(wanted)} if wanted < total else set(range(total))
    found, begin = [], 0
    for size in sizes:
        found.append([i for i in range(size) if begin + i in kept])
        begin += size
    return found


def _scored(context: Context, rows: Sequence[Mapping[str, Any]]) -> Reference:
    """Of a classifier: its scores of beginnings of the texts."""
    import torch

    from llm_os.models.load import load_classifier

    torch.set_num_threads(context.threads)
    classifier = load_classifier(context.inputs["model"].path)
    texts = beginnings(rows)
    scores = classifier.predict(texts)
    labels = classifier.labels or ("value",)  # of a regression, as workers name it
    scored = [
        ScoredText(text=text, scores=dict(zip(labels, row, strict=True)))
        for text, row in zip(texts, scores, strict=True)
    ]
    return Reference(scored=tuple(scored))


def beginnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each text, and its first quarters; of a chat its last answer."""
    texts = [str(row["text"] if "text" in row else row["messages"][-1]["content"]) for row in rows]
    return [text[: max(1, len(text) * part // CUTS)] for text in texts for part in range(1, CUTS + 1)]


PLUGIN = ReferenceTask()
