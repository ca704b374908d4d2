"""A runnable model from a folder: safetensors only, nothing remote, nothing that could run code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os.errors import BrokenWeightsError, InvalidInputError, ModelError, UnsupportedModelError
from llm_os.models import remote
from llm_os.models.formats import NAMES, inspect
from llm_os.models.generate import stops_of
from llm_os.models.padding import padded, read

LONGEST = 512
"""Tokens of a text that a classifier looks at, at most."""
HEADS: Mapping[str, str] = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "feature-extraction": "AutoModel",
}
"""What a model shall do -> the class of transformers that gives it the head for it."""
ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
"""Names by which architectures call the dropout inside the attention."""


SAFE: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with one head, in fp32 on the CPU, and its tokenizer.

    Attributes:
        fresh: names of parameters that the folder did not hold, and which are random now (a new head).
    """

    model: Any
    tokenizer: Any
    fresh: tuple[str, ...]


@dataclass(slots=True)
class Classifier:
    """A sequence classifier (or a regression with one output) and what it needs to read texts.

    Attributes:
        labels: names in the order of their ids; empty for a regression.
        max_length: tokens kept of a text.
        thresholds: of a multi-label classifier, for each label the probability from which it is said; else empty.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    max_length: int
    precision: str = "fp32"
    thresholds: tuple[float, ...] = ()

    def predict(self, texts: list[str], batch_size: int = 32) -> list[list[float]]:
        """For each text the probabilities by label id, or the one number of a regression; in the order given.

        They sum to 1, but for a multi-label classifier, whose labels are said each on its own.
        """
        ids = self.read(texts)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        answers: list[list[float]] = [[] for _ in texts]
        for begin in range(0, len(order), batch_size):
            part = order[begin : begin + batch_size]
            for index, row in zip(part, self.scores([ids[i] for i in part]), strict=True):
                answers[index] = row
        return answers

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, cut at `max_length`."""
        return read(self.tokenizer, texts, self.max_length)

    def scores(self, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """As `predict`, of texts that were read, in one batch."""
        import torch

        with torch.inference_mode():
            logits = self._logits(ids)
            rows: list[list[float]] = (self._probabilities(logits) if self.labels else logits).tolist()
        return rows

    def chosen(self, probabilities: Sequence[float]) -> tuple[str, ...]:
        """Labels that are said: of a multi-label classifier all above their thresholds, else the likeliest one."""
        if self.thresholds:
            known = zip(self.labels, probabilities, self.thresholds, strict=True)
            return tuple(label for label, sure, cut in known if sure >= cut)
        return (self.labels[max(range(len(self.labels)), key=probabilities.__getitem__)],)

    def _probabilities(self, logits: Any) -> Any:
        return logits.sigmoid() if self.thresholds else logits.softmax(-1)

    def logits(self, texts: list[str]) -> Any:
        """float32 [texts, outputs]."""
        return self._logits(self.read(texts))

    def _logits(self, ids: Sequence[Sequence[int]]) -> Any:
        import torch

        device = self.model.device
        rows, mask = padded(ids, self.tokenizer)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return self.model(input_ids=rows.to(device), attention_mask=mask.to(device)).logits.float()


def load_classifier(folder: Path, *, dtype: str = "fp32", device: str = "cpu") -> Classifier:
    """Load a tuned classifier for inference.

    Args:
        dtype: `fp32`, or `bf16` for matrix products in bf16 (weights stay fp32).

    Raises:
        UnsafeWeightsError, BrokenWeightsError, ModelError: see `models.formats`.
        UnsupportedModelError: the folder holds a model without a classification head.
    """
    facts = inspect(folder)
    if facts["task"] not in {"text-classification", "multi-label-classification"}:
        raise UnsupportedModelError(
            f"This model ({facts['architecture']}) has no classification head.",
            hint="Train it first: model.train(data).",
        )
    loaded = load_transformer(folder, "text-classification")
    labels = facts["labels"] if isinstance(facts["labels"], list) and loaded.model.config.num_labels > 1 else []
    return Classifier(
        model=loaded.model.to(device).eval(),
        tokenizer=loaded.tokenizer,
        labels=tuple(str(label) for label in labels),
        max_length=min(LONGEST, int(str(facts["context_length"]))),
        precision=dtype,
        thresholds=_thresholds(loaded.model.config, len(labels)) if facts["task"] != "text-classification" else (),
    )


def _thresholds(config: Any, count: int) -> tuple[float, ...]:
    """Of a multi-label classifier, as it was saved with it; a half where it was made elsewhere."""
    found = getattr(config, "thresholds", None) or [0.5] * count
    return tuple(float(cut) for cut in found)


@dataclass(slots=True)
class ChatModel:
    """A causal language model that knows how a chat is written.

    Attributes:
        ends: ids that end an answer.
        context: tokens of prompt and answer together, at most.
    """

    model: Any
    tokenizer: Any
    ends: tuple[int, ...]
    context: int

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Ids of the messages and of the beginning of an answer, by the model's own template (sandboxed Jinja).

        Args:
            tools: functions that the template tells the model of, in OpenAI's shape.

        Raises InvalidInputError when the template refuses the messages.
        """
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=[dict(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=True,
            )
        except TemplateError as error:
            raise InvalidInputError(
                f"The model's chat template refuses these messages: {error}", hint="Check their roles and order."
            ) from error
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, ids: Sequence[int]) -> str:
        """Text of an answer, without marks of turns."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def load_chat(folder: Path) -> ChatModel:
    """Load a chat model for inference, in fp32.

    Raises:
        UnsafeWeightsError, BrokenWeightsError, ModelError: see `models.formats`.
        UnsupportedModelError: the folder holds no causal language model, or its tokenizer has no chat template.
    """
    facts = inspect(folder)
    if facts["task"] != "text-generation":
        raise UnsupportedModelError(f"This model ({facts['architecture']}) generates no text.", hint="Take another.")
    if not facts["chat_template"]:
        raise UnsupportedModelError("The model has no chat template.", hint="Take an instruction-tuned model.")
    model, tokenizer = load_language_model(folder)
    window = getattr(model.config, "sliding_window", None)  # beyond it, layers of a sliding kind would see too much
    context = min(int(str(facts["context_length"])), window or 10**9)
    return ChatModel(model.eval(), tokenizer, stops_of(model, tokenizer), context)


def load_language_model(folder: Path) -> tuple[Any, Any]:
    """(causal language model in fp32, tokenizer). Raises as `load_transformer`."""
    loaded = load_transformer(folder, "text-generation")
    return loaded.model, loaded.tokenizer


def load_transformer(
    folder: Path,
    task: str,
    *,
    fresh: bool = False,
    attention_dropout: float | None = None,
    layers: int | None = None,
    **config: Any,
) -> Loaded:
    """Any encoder, decoder or encoder-decoder that transformers knows, with the head for `task` (see `HEADS`).

    Args:
        fresh: weights of the head that are missing, or of another size, become random instead of an error.
        attention_dropout: set where the architecture has one; 0 lets its attention take the fused kernel.
        layers: only so many of its layers, from the bottom; None: all.
        config: overrides of its configuration, such as `num_labels`.

    Raises:
        BrokenWeightsError: damaged weights. ModelError: an architecture that cannot do it, or weights are missing.
    """
    _has_weights(folder)
    import torch
    import transformers
    from safetensors import SafetensorError

    from llm_os.models import recurrent, wide

    quiet()
    recurrent.register()
    wide.register()
    try:
        given = transformers.AutoConfig.from_pretrained(folder, **SAFE)
        _change(given, attention_dropout, layers, config)
        words = {"add_prefix_space": True} if task == "token-classification" else {}  # for byte-level tokenizers
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **SAFE, **words)
        model, seen = getattr(transformers, HEADS[task]).from_pretrained(
            folder,
            config=given,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=fresh,
            output_loading_info=True,
            **SAFE,
        )
    except SafetensorError as error:
        raise BrokenWeightsError(f"The weights are broken: {error}.", hint="Copy the model again.") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The model cannot be loaded: {error}", hint="It must be an encoder or decoder that transformers knows."
        ) from error
    missing = sorted({*seen["missing_keys"], *(name for name, *_ in seen["mismatched_keys"])})
    if missing and not fresh:
        raise ModelError(
            f"The weights lack {len(missing)} of the model's parameters, such as '{missing[0]}'.",
            hint=f"They were not made for {task}; train the model for it first.",
        )
    _ensure_padding(model, tokenizer)
    return Loaded(model, tokenizer, tuple(missing))


def _ensure_padding(model: Any, tokenizer: Any) -> None:
    """A token of padding that the model knows."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= model.config.get_text_config().vocab_size:
        _pad_with_end(tokenizer)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def _has_weights(folder: Path) -> None:
    """Raises UnsupportedModelError for a model that another server has."""
    if (folder / remote.FILE).exists():
        raise UnsupportedModelError(
            f"The weights of this model are not here: {remote.read(folder).origin} has them.",
            hint="It can be deployed and asked; for anything else take a model with weights.",
        )


def _change(config: Any, attention_dropout: float | None, layers: int | None, more: Mapping[str, Any]) -> None:
    """Put the overrides of `load_transformer` into a configuration."""
    changes = dict(more)
    if attention_dropout is not None:
        changes |= {name: attention_dropout for name in ATTENTION_DROPOUT if hasattr(config, name)}
    if layers is not None:
        changes |= _lowest(config, layers)
    for name, value in changes.items():
        setattr(config, name, value)


def _lowest(config: Any, layers: int) -> dict[str, Any]:
    """Overrides of a configuration that leave the lowest layers. Raises ModelError."""
    name = next((name for name in NAMES["layers"] if isinstance(getattr(config, name, None), int)), None)
    if name is None or getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"A {config.model_type} cannot lose layers.", hint="Leave `layers` out.")
    kinds = getattr(config, "layer_types", None)
    return {name: layers} | ({"layer_types": kinds[:layers]} if kinds else {})


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, with a token for padding. Raises ModelError."""
    from transformers import AutoTokenizer

    quiet()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The tokenizer cannot be loaded: {error}", hint="Copy the model again.") from error
    if tokenizer.pad_token_id is None:
        _pad_with_end(tokenizer)
    return tokenizer


def _pad_with_end(tokenizer: Any) -> None:
    """Decoders come without a token for padding, or with one they have no vector for."""
    if tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token


def quiet() -> None:
    """transformers keeps its warnings and progress bars to itself: what matters becomes an error of ours."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
