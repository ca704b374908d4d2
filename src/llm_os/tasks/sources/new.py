"""Makes a model from scratch: a configuration of given size, random weights from a seed, and a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from llm_os import plugins
from llm_os.errors import DataError, InvalidInputError
from llm_os.models.architecture import Architecture, Sizes, build, use_vectors
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import prompts
from llm_os.tasks.task import Task
from llm_os.tasks.training.batches import read_rows

SIDE = "encoding"
"""Folder of a data set that word vectors lie in."""


class NewOptions(Spec):
    architecture: str = Field(examples=["transformer_encoder"])
    """Name of an architecture: see "architecture" in the list of plugins."""
    layers: int = Field(default=4, ge=1, le=200)
    """Blocks; an encoder-decoder has so many in each half."""
    width: int = Field(default=256, ge=8, le=16384)
    """Numbers of a token's state."""
    heads: int = Field(default=4, ge=1, le=256)
    """Heads of the attention; LSTM and GRU have none."""
    vocabulary: int = Field(default=8000, ge=64, le=1_000_000)
    """Most tokens of the tokenizer that is trained on the data; a borrowed one brings its own number."""
    context: int = Field(default=256, ge=8, le=131072)
    """Tokens of the longest text."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of values that training leaves out at random, between layers."""
    alphabet: Literal["auto", "words", "bytes"] = "auto"
    """How the trained tokenizer cuts texts: pieces of lower-cased words, or pairs of bytes that lose nothing."""
    vectors: bool | Literal["auto"] = "auto"
    """Begin with the word vectors of the data (step `word_vectors`); `auto`: where the data has some of this width."""
    seed: int = 42
    """Same seed, same weights."""
    split: str = "train"
    """Split of the data that the tokenizer is trained on."""
    start: int = Field(default=0, ge=0)
    """First row of the split."""
    stop: int | None = Field(default=None, ge=1)
    """Row to stop before; none: to the end."""


class New(Task[NewOptions]):
    Options = NewOptions
    optional_inputs = ("data", "tokenizer")
    output = "model"
    cacheable = True

    def resources(self, options: NewOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        architecture(options).check(sizes(options, options.vocabulary))
        if "data" not in inputs and "tokenizer" not in inputs:
            raise InvalidInputError(
                "A model needs a tokenizer.", hint="Give data=train_data to train one, or tokenizer=a_model to borrow."
            )
        weights = 4 * (options.vocabulary * options.width + 16 * options.layers * options.width**2)
        return ResourceSpec(cpus=min(0.5, granted.cpus), memory=600 * 2**20 + 3 * weights)

    def run(self, context: Context, options: NewOptions) -> None:
        from llm_os.models.formats import inspect

        chosen, data = architecture(options), context.inputs.get("data")
        context.report(
            stage="training a tokenizer" if "tokenizer" not in context.inputs else "reading", step=0, total=0
        )
        tokenizer = tokenizer_for(context, options, chosen)
        context.report(stage="drawing weights", step=0, total=0)
        model = build(chosen, sizes(options, len(tokenizer)), tokenizer, options.seed)
        facts: dict[str, Json] = {"source": f"new:{options.architecture}", "license": "your own"}
        if data is not None and wants_vectors(options, data.path, model):
            facts["word_vectors"] = use_vectors(model, tokenizer, data.path / SIDE)
        model.save_pretrained(context.output)
        tokenizer.save_pretrained(context.output)
        made = inspect(context.output)
        if made["task"] in prompts.COMPARED:
            prompts.bring(context.output)
        context.finish("model", {**made, **facts, "learning_rate": chosen.rate})
        context.result(parameters=model.num_parameters(), vocabulary=len(tokenizer), **facts)


def architecture(options: NewOptions) -> Architecture:
    """Raises NotFoundError with "did you mean"."""
    found: Architecture = plugins.load("architecture", options.architecture)
    return found


def sizes(options: NewOptions, vocabulary: int) -> Sizes:
    return Sizes(options.layers, options.width, options.heads, vocabulary, options.context, options.dropout)


def tokenizer_for(context: Context, options: NewOptions, chosen: Architecture) -> Any:
    """The one of the input `tokenizer`, or one trained on the data. Raises ModelError, EmptyDataError."""
    from llm_os.models.load import load_tokenizer
    from llm_os.models.vocabulary import train_tokenizer

    if "tokenizer" in context.inputs:
        return load_tokenizer(context.inputs["tokenizer"].path)
    rows = read_rows(context.inputs["data"].path, options.split, options.start, options.stop)
    alphabet = chosen.alphabet if options.alphabet == "auto" else options.alphabet
    return train_tokenizer((text for row in rows for text in texts(row)), options.vocabulary, alphabet, options.context)


def texts(row: Mapping[str, Any]) -> Iterator[str]:
    """Every text of a prepared row, whatever kind it is; names of classes are none."""
    for name, value in row.items():
        if name in {"text", "other", "chosen", "rejected"} and isinstance(value, str):
            yield value
        elif name == "tokens":
            yield " ".join(map(str, value))
        elif name in {"messages", "prompt"} and isinstance(value, list):
            yield from (str(message["content"]) for message in value)


def wants_vectors(options: NewOptions, data: Path, model: Any) -> bool:
    """Raises DataError where vectors are asked for and the data has none."""
    file = data / SIDE / "vectors.safetensors"
    if options.vectors is True and not file.exists():
        raise DataError(
            "The data has no word vectors.", hint='load_data(..., steps=["word_vectors"]) makes some from the texts.'
        )
    if not file.exists() or options.vectors is False:
        return False
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        width = opened.get_slice("vectors").get_shape()[1]
    return options.vectors is True or bool(width == model.get_input_embeddings().weight.shape[1])


PLUGIN = New()
