"""The interface of an application: what a kind of data means for a model, its head, its loss and what is saved.

A plugin file in this folder holds one subclass and ends with `PLUGIN = TheClass()`. The methods of training (full,
lora, ...) are written against this interface and know no application by name.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llm_os import plugins
from llm_os.errors import DataError, EmptyDataError, InvalidOptionError, UnsupportedModelError
from llm_os.models import settings
from llm_os.models.formats import inspect
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.tasks.applications.labels import labels_of
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import prompts
from llm_os.tasks.training import seeds
from llm_os.tasks.training.batches import hold_out, read_rows
from llm_os.tasks.training.examples import Examples
from llm_os.tasks.training.loop import Loop, Outcome
from llm_os.tasks.training.options import LENGTH, TrainingOptions

if TYPE_CHECKING:
    from llm_os.models.load import Loaded

HELD, MOST_HELD = 0.1, 1000
"""What early stopping holds out: this share of the rows, and no more rows than that."""
SPECIAL = ("label_smoothing", "class_weights", "mixup", "packing", "beta")
"""Options of a training that have a meaning for some kinds of data only."""
UNLEARNED = {"checkpoint_every", "threads", "check_prompts"}
"""Options that change nothing of what is learned."""


@dataclass(slots=True)
class Prepared:
    """Everything a training starts from.

    Attributes:
        heads: what names of parameters begin with that learn faster (`heads_of`).
        facts: joins the facts of the version that is made (`labels`, ...).
    """

    model: Any
    tokenizer: Any
    train: Examples
    valid: Examples | None
    heads: tuple[str, ...] = ()
    facts: dict[str, Json] = field(default_factory=dict)


class Application(ABC):
    """See the module.

    Class attributes:
        kinds: kinds of data it learns from (tasks/datasets/kinds.py).
        adapter: peft's name for the task (`SEQ_CLS`, `CAUSAL_LM`, `TOKEN_CLS`, `FEATURE_EXTRACTION`).
    """

    kinds: ClassVar[tuple[str, ...]]
    adapter: ClassVar[str]

    def suits(self, model: ArtifactFacts) -> bool:
        """Whether it is the one for this model, where several applications learn from one kind of data. Pure."""
        return True

    @abstractmethod
    def check(self, model: ArtifactFacts, data: ArtifactFacts) -> None:
        """Raises UnsupportedModelError, DataError and its kinds where the two do not fit. Pure, quick."""

    def supports(self, data: ArtifactFacts) -> frozenset[str]:
        """Which of `SPECIAL` mean something for this data; the others are refused by name. Pure."""
        return frozenset()

    @abstractmethod
    def load(self, context: Context, options: TrainingOptions) -> Prepared:
        """Model and training examples; `valid` only where the data set brings its own."""

    def save(self, prepared: Prepared, folder: Path) -> None:
        """Weights, config and tokenizer in the form that transformers reads."""
        prepared.model.save_pretrained(folder)
        prepared.tokenizer.save_pretrained(folder)


def application_of(model: ArtifactFacts, data: ArtifactFacts) -> Application:
    """The application for a data set, by its kind, and for a model. Raises DataError, UnsupportedModelError."""
    if data.kind != "dataset":
        raise DataError(f"The input is a {data.kind}, not a data set.", hint="Give what load_data returned.")
    kind = kind_of(data)
    known: list[Application] = [plugins.load("application", name) for name in plugins.names("application")]
    fitting = [application for application in known if kind in application.kinds]
    if not fitting:
        raise DataError(f"Data of the kind '{kind}' cannot be trained on.", hint="Prepare it as another kind.")
    for application in fitting:
        if application.suits(model):
            return application
    raise UnsupportedModelError(
        f"A {model.meta.get('task')} model cannot learn from {kind} data.", hint="Take another model, or other data."
    )


def kind_of(data: ArtifactFacts) -> str:
    """Kind of a data set."""
    said = data.meta.get("kind")
    return str(said) if said else ("classification" if data.meta.get("labels") else "score")


def check(inputs: Mapping[str, ArtifactFacts], options: TrainingOptions | None = None) -> Application:
    """The application that fits model, data and options.

    Raises:
        InvalidOptionError: an option means nothing for such data. And what `Application.check` raises.
    """
    model = inputs["model"]
    if model.meta.get("format") not in {"safetensors", "gguf"} or model.kind != "model":
        raise UnsupportedModelError(
            f"A {model.kind} in {model.meta.get('format')} cannot be trained.", hint="Train one in safetensors."
        )
    application = application_of(model, inputs["data"])
    application.check(model, inputs["data"])
    for name in SPECIAL if options is not None else ():
        if getattr(options, name) and name not in application.supports(inputs["data"]):
            known = sorted(application.supports(inputs["data"]))
            raise InvalidOptionError(
                f"'{name}' means nothing for {kind_of(inputs['data'])} data.",
                hint=f"Leave it out; of its kind it knows: {', '.join(known) or 'none'}.",
                details={"option": name},
            )
    return application


def prepare(
    context: Context, options: TrainingOptions, load: Callable[[], Prepared] | None = None
) -> tuple[Application, Prepared]:
    """Load model and examples, and hold some out where the options want it.

    Args:
        load: how, where a method wants more than `Application.load` knows.
    """
    import torch

    torch.set_num_threads(min(context.threads, options.threads or context.threads))
    seeds.seed_all(options.seed)
    context.report(stage="loading", step=0, total=0)
    application = check({role: given.facts for role, given in context.inputs.items()}, options)
    prepared = application.load(context, options) if load is None else load()
    if from_scratch(context):
        prepared.heads = ()  # nothing is less fresh than the head
    train = prepared.train
    share = options.validation or (min(HELD, MOST_HELD / len(train)) if options.patience is not None else None)
    if prepared.valid is None and share is not None:
        kept, held = hold_out(len(train), share, options.seed, train.strata())
        if not kept or not held:
            raise EmptyDataError(
                f"{len(train)} rows are too few to hold some out.", hint="Set early_stopping=False, or give more rows."
            )
        prepared.train, prepared.valid = train.part(kept), train.part(held)
    return application, prepared


def training_rows(context: Context, options: TrainingOptions) -> list[dict[str, Any]]:
    """The rows of the split, or of the slice of it, that is trained on."""
    return read_rows(context.inputs["data"].path, options.split, options.start, options.stop)


def validation_rows(context: Context, options: TrainingOptions) -> list[dict[str, Any]] | None:
    """Rows of the input `validation`; None where none was given."""
    given = context.inputs.get("validation")
    if given is None:
        return None
    return read_rows(given.path, options.validation_split, options.validation_start, options.validation_stop)


def names_of_classes(labels: Sequence[str]) -> dict[str, Any]:
    """Overrides of a model's configuration: its outputs are these classes, in this order."""
    numbered = dict(enumerate(labels))
    return {"num_labels": len(labels), "id2label": numbered, "label2id": {name: i for i, name in numbered.items()}}


def expect_same_labels(context: Context, labels: Sequence[str] | None) -> None:
    """Raises DataError where the validation data has other classes than the training data."""
    if labels_of(context.inputs["validation"].facts) != labels:
        raise DataError("Training and validation data have different classes.", hint="Prepare both alike.")


def expect_safetensors(model: ArtifactFacts, what: str) -> None:
    """Raises UnsupportedModelError for weights in another format."""
    if model.meta.get("format") != "safetensors":
        raise UnsupportedModelError(
            f"A model in {model.meta.get('format')} cannot be trained {what}.",
            hint="Train one in safetensors, such as transformer.",
        )


def length_of(context: Context, options: TrainingOptions) -> int:
    """Tokens kept of an example."""
    most = int(str(context.inputs["model"].facts.meta.get("context_length") or 512))
    return min(options.max_length or LENGTH, most)


def from_scratch(context: Context) -> bool:
    """Whether the model's weights are still random (`llm_os.new_model`)."""
    return bool(context.inputs["model"].facts.meta.get("learning_rate"))


def heads_of(loaded: Loaded) -> tuple[str, ...]:
    """What learns faster in a classifier: what is fresh in it and, below a fresh layer, the pooler.

    An encoder of sentences brings a pooler along that its own training never used (it took the mean of the tokens).
    """
    poolers = [name for name, _ in loaded.model.named_parameters() if ".pooler." in name] if loaded.fresh else []
    return (*loaded.fresh, *(name for name in poolers if name not in loaded.fresh))


def own_rate(context: Context, usual: float) -> float:
    """The highest learning rate that suits the model: what its maker says, for random weights, or the method's."""
    return float(str(context.inputs["model"].facts.meta.get("learning_rate") or usual))


def identity_of(context: Context, options: TrainingOptions, method: str) -> dict[str, str]:
    """What a checkpoint belongs to, by names for people: it is refused for anything else."""
    return {
        "model": context.inputs["model"].facts.digest,
        "data": context.inputs["data"].facts.digest,
        "options": json.dumps(options.model_dump(mode="json", exclude=UNLEARNED), sort_keys=True),
        "method": method,
    }


def train(context: Context, options: TrainingOptions, prepared: Prepared, *, rate: float, method: str) -> Outcome:
    """Run the loop on what was prepared."""
    device = "cuda" if context.devices else "cpu"
    loop = Loop(
        context,
        options,
        model=prepared.model.to(device),
        train=prepared.train,
        valid=prepared.valid,
        identity=identity_of(context, options, method),
        rate=rate,
        heads=prepared.heads,
        device=device,
    )
    return loop.run()


def _prompts(context: Context, options: TrainingOptions) -> None:
    """Put the texts into the output by which engines are compared on it.

    Its own rows are those of the validation data where some were given, else of the training data: never others.
    """
    rows = (validation_rows(context, options) or training_rows(context, options)) if options.check_prompts else []
    prompts.write(context.output, prompts.own(rows))


def finish(
    context: Context,
    options: TrainingOptions,
    prepared: Prepared,
    outcome: Outcome,
    save: Callable[[Path], None],
    extra: Mapping[str, Json] | None = None,
) -> None:
    """Fill the output folder: weights, tokenizer, history, what goes along; then declare it."""
    context.report(stage="saving", step=0, total=0)
    save(context.output)
    settings.hand_on(context.inputs["model"].path, context.output)
    made = inspect(context.output)
    if made["task"] in prompts.COMPARED:
        _prompts(context, options)
    history = {"epochs": outcome.history, "losses": outcome.losses}
    (context.output / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")

    best = outcome.history[outcome.best_epoch - 1]
    metrics = {name: value for name, value in best.items() if isinstance(value, float) and "validation" in name}
    parent = context.inputs["model"].facts.meta
    facts: dict[str, Json] = {
        **made,
        "license": parent.get("license", "not stated"),
        "metrics": dict(metrics),
        "trained_on": context.inputs["data"].facts.meta.get("name"),
        "preparation": context.inputs["data"].facts.meta.get("steps") or [],
        **prepared.facts,
        **(extra or {}),
    }
    context.finish("model", facts)
    context.result(
        history=[dict(entry) for entry in outcome.history],
        epochs_run=outcome.epochs_run,
        best_epoch=outcome.best_epoch,
        stopped_early=outcome.stopped_early,
        precision=outcome.precision,
        seconds=round(outcome.seconds, 3),
        rows={"train": len(prepared.train), "validation": len(prepared.valid) if prepared.valid else 0},
    )


def counts(facts: Mapping[str, Json]) -> tuple[int, int, int]:
    """(parameters, hidden size, layers) of a model's facts."""
    found = [int(str(facts.get(name) or 0)) for name in ("parameters", "hidden_size", "layers")]
    return found[0], found[1], found[2]
