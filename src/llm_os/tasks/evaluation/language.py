"""What a causal language model thinks of given tokens: -ln p of each, in windows and batches. Knows no data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation.judging import RUNTIME

if TYPE_CHECKING:
    from llm_os.tasks.evaluation.metrics import Array

LOGITS = 48 * 2**20
"""Numbers that a batch's logits may have: tokens times vocabulary."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens, and the first one that is scored; what lies before is context only."""

    ids: Sequence[int]
    first: int


def sized(model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
    """Weights in fp32, logits of a batch (twice: they are turned into logarithms), and a GGUF file while it is read."""
    weights = 4 * int(str(model.meta.get("parameters") or model.size // 4))
    copies = 2 if model.meta.get("format") == "gguf" else 1
    return ResourceSpec(cpus=min(1.0, granted.cpus), memory=copies * weights + 3 * 4 * LOGITS + RUNTIME)


def load(context: Context) -> tuple[Any, Any, dict[str, Json]]:
    """(model in fp32, tokenizer, what should be noted about them) of the input `model`.

    Raises:
        ModelError and its kinds: see `models.load`, `models.convert`.
    """
    import torch

    from llm_os.models.load import load_language_model

    torch.set_num_threads(context.threads)
    given = context.inputs["model"]
    folder = given.path
    notes: dict[str, Json] = {}
    context.report(stage="loading", step=0, total=0)
    if given.facts.meta.get("format") == "gguf":
        from llm_os.models.convert import gguf_to_safetensors

        folder = context.scratch / "weights"
        gguf_to_safetensors(given.path, folder)
        notes = {"weights": "de-quantized from GGUF to fp32"}
    model, tokenizer = load_language_model(folder)
    return model.to("cuda" if context.devices else "cpu").eval(), tokenizer, notes


def text_of(row: Mapping[str, Any], tokenizer: Any) -> str:
    """The text of a row; a chat as the model's template writes it, or role by role where it has none."""
    if "text" in row:
        return str(row["text"])
    messages = row["messages"]
    if getattr(tokenizer, "chat_template", None):
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def start_token(tokenizer: Any) -> int | None:
    """The token that a text begins after: the beginning of a text, or else its end; None: the model has neither."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return None


def windows(ids: Sequence[int], window: int, stride: int) -> list[Piece]:
    """Pieces of at most `window` tokens in which every token but the first is scored once.

    Each piece but the first has `window - stride` tokens of context that were scored before.

    Raises:
        ValueError: a stride that is not in 1 to window - 1.
    """
    if not 0 < stride < window:
        raise ValueError(f"a stride of {stride} does not fit into a window of {window}")
    pieces, end = [Piece(ids[:window], 1)], window
    while end < len(ids):
        begin = end - (window - stride)
        pieces.append(Piece(ids[begin : begin + window], end - begin))
        end = begin + window
    return [piece for piece in pieces if len(piece.ids) > piece.first]


def losses(model: Any, pieces: Sequence[Piece], told: Callable[[int], None] | None = None) -> list[Array]:
    """-ln p of every scored token of every piece, float64, in the order given.

    Args:
        told: called with the number of pieces done.
    """
    import torch

    found: dict[int, Array] = {}
    for batch in batches(pieces, int(model.config.vocab_size)):
        longest = max(len(pieces[i].ids) for i in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):
            ids[row, : len(pieces[i].ids)] = torch.tensor(list(pieces[i].ids))
            mask[row, : len(pieces[i].ids)] = 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask).logits
            for row, i in enumerate(batch):
                first, end = pieces[i].first, len(pieces[i].ids)
                part = logits[row, first - 1 : end - 1].float()
                loss = torch.nn.functional.cross_entropy(part, ids[row, first:end], reduction="none")
                found[i] = loss.double().cpu().numpy()
        if told is not None:
            told(len(found))
    return [found[i] for i in range(len(pieces))]


def batches(pieces: Sequence[Piece], vocabulary: int) -> list[list[int]]:
    """Indices by length, longest first, so that the logits of a batch stay in `LOGITS`."""
    order = sorted(range(len(pieces)), key=lambda i: -len(pieces[i].ids))
    found: list[list[int]] = []
    for i in order:
        if found and len(pieces[found[-1][0]].ids) * (len(found[-1]) + 1) * vocabulary <= LOGITS:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def continuation(tokenizer: Any, before: str, after: str, longest: int) -> Piece:
    """`after` scored behind `before`, tokenized together, so that no token is cut between them as nobody writes it.

    White space at the end of `before` goes to `after`, as lm-eval does it. What does not fit is cut off at the left.
    """
    kept = before.rstrip()
    after, before = before[len(kept) :] + after, kept
    start = [] if tokenizer.bos_token_id is None or not _begins(tokenizer) else [tokenizer.bos_token_id]
    context = tokenizer(before, add_special_tokens=False)["input_ids"]
    whole = tokenizer(before + after, add_special_tokens=False)["input_ids"]
    first = min(len(context), len(whole) - 1) + len(start)
    ids = [*start, *whole]
    if first == 0:  # nothing before it: the model must have seen something
        token = start_token(tokenizer)
        ids, first = [token if token is not None else ids[0], *ids], 1
    cut = max(0, len(ids) - longest)
    return Piece(ids[cut:], max(1, first - cut))


def _begins(tokenizer: Any) -> bool:
    """Whether the tokenizer sets its token of beginning before every text by itself."""
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def languages_of(facts: Mapping[str, Json], texts: Sequence[str]) -> str:
    """`zh` where the data or most of its texts are Chinese, else `en` or what the data says."""
    from llm_os.tasks.evaluation.slices import by_script

    said = str(facts.get("language") or "unknown")
    if said != "unknown" and said != "en":
        return said
    chinese = sum(by_script(text) == "zh" for text in texts)
    return "zh" if 2 * chinese > len(texts) else "en"
