"""Trains the head alone, on features that the frozen model computes once (a linear probe, Alain and Bengio 2016)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from pydantic import Field

from llm_os.errors import InvalidOptionError, UnsupportedModelError
from llm_os.memory import training as memory
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.applications import application
from llm_os.tasks.applications.labels import labels_of
from llm_os.tasks.applications.text_classification import PLUGIN as CLASSIFIER
from llm_os.tasks.context import Context
from llm_os.tasks.training import sizing
from llm_os.tasks.training.loop import Outcome
from llm_os.tasks.training.method import Method
from llm_os.tasks.training.options import LENGTH, TrainingOptions

STEPS = ("optimizer", "beta1", "beta2", "momentum", "weight_decay", "schedule", "warmup", "clip", "layer_decay")
MEANINGLESS = (*STEPS, "freeze", "gradient_checkpointing", "ema", "label_smoothing", "mixup", "learning_rate")
"""Options about steps, of which a probe takes none. (`epochs` is an upper bound, and stays.)"""


FORMS = 5
"""Copies of all features, in double precision, that the solver holds at once: as they are, standardized, chosen, ..."""


class ProbeOptions(TrainingOptions):
    layers: int | None = Field(default=None, ge=1)
    """Layers of the model that are kept, from the bottom; none: all. The middle ones often know most of a text."""
    prompt: str = Field(default="", max_length=2000)
    """What is put behind every text, such as a question (decoders judge by their last token); saved with the model."""
    strength: float | None = Field(default=None, gt=0)
    """Inverse of the regularization of the head; none: what is best on held-out rows of 1e-4 to 1."""
    ngrams: int = Field(default=0, ge=0, le=3)
    """Weigh runs of up to so many tokens too (TF-IDF), and add what they say; 0: not. Only LLM OS loads the result."""


class Probe(Method[ProbeOptions]):
    Options = ProbeOptions
    name = "training/probe"

    def trainable(self, options: ProbeOptions, inputs: Mapping[str, ArtifactFacts]) -> int:
        """The head: a number for each feature and class."""
        _, hidden, _ = application.counts(inputs["model"].meta)
        return hidden * max(1, len(labels_of(inputs["data"]) or ()))

    def resources(self, options: ProbeOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        _check(options, inputs)
        need = super().resources(options, inputs, granted)
        if not need.accelerators:
            return need
        return need.model_copy(update={"memory": need.memory + _features(options, inputs)})

    def _size(self, options: ProbeOptions, inputs: Mapping[str, ArtifactFacts]) -> sizing.Size:
        """Without gradients one layer's activations are held at a time, and all features in several forms."""
        _, hidden, _ = application.counts(inputs["model"].meta)
        size = super()._size(options, inputs)
        per_text = memory.per_sequence(hidden, 1, options.max_length or LENGTH)
        return replace(size, still=size.still + _features(options, inputs), per_text=per_text)

    def run(self, context: Context, options: ProbeOptions) -> None:
        from llm_os.tasks.training import features, probing

        _check(options, {role: given.facts for role, given in context.inputs.items()})

        def load() -> application.Prepared:
            return CLASSIFIER.load(context, options, layers=options.layers, prompt=options.prompt)

        found, prepared = application.prepare(context, options, load)
        computed = features.compute(context, options, prepared)
        context.report(stage="solving", step=0, total=0)
        begun = time.monotonic()
        done = probing.learn(options, prepared, computed, again="validation" not in context.inputs)
        for sentence in done.because:
            context.message(sentence)
        probing.put(prepared, done, int(str(context.inputs["model"].facts.meta.get("context_length") or 512)))
        outcome = Outcome(
            history=[{"epoch": 1, **done.figures}],
            losses=[],
            epochs_run=1,
            best_epoch=1,
            stopped_early=False,
            precision=computed.precision,
            seconds=computed.seconds + time.monotonic() - begun,
        )
        application.finish(context, options, prepared, outcome, lambda folder: found.save(prepared, folder))


def _check(options: ProbeOptions, inputs: Mapping[str, ArtifactFacts]) -> None:
    """Raises UnsupportedModelError, InvalidOptionError, and what `application.check` raises."""
    if application.check(inputs, options) is not CLASSIFIER:
        raise UnsupportedModelError(
            f"A probe learns classes or a score, not {application.kind_of(inputs['data'])} data.",
            hint="Take method='lora', or data with a label for each text.",
        )
    for name in MEANINGLESS:
        if getattr(options, name) != ProbeOptions.model_fields[name].default:
            raise InvalidOptionError(
                f"'{name}' means nothing for method='probe': its head has one best solution, which is computed.",
                hint="Leave it out, or take another method.",
                details={"option": name},
            )
    if options.ngrams and (options.validation, options.patience, inputs.get("validation")) == (None, None, None):
        raise InvalidOptionError(
            "`ngrams` needs held-out rows, by which it is weighed.",
            hint="Give validation=0.1.",
            details={"option": "ngrams"},
        )
    _, _, layers = application.counts(inputs["model"].meta)
    if options.layers is not None and options.layers > layers:
        raise InvalidOptionError(
            f"layers={options.layers} is more than the model has: {layers}.",
            hint=f"Take 1 to {layers}, or leave it out: all.",
            details={"option": "layers"},
        )


def _features(options: ProbeOptions, inputs: Mapping[str, ArtifactFacts]) -> int:
    """Bytes of the features of all rows, as far as the data sets say how many they have."""
    _, hidden, _ = application.counts(inputs["model"].meta)
    rows = _rows(inputs["data"], options.split, options.start, options.stop)
    if "validation" in inputs:
        rows += _rows(inputs["validation"], options.validation_split, options.validation_start, options.validation_stop)
    return FORMS * 8 * hidden * rows


def _rows(data: ArtifactFacts, split: str, start: int, stop: int | None) -> int:
    splits = data.meta.get("splits")
    known = splits.get(split) if isinstance(splits, dict) else None
    count = known.get("rows") if isinstance(known, dict) else None
    most = count if isinstance(count, int) else 0
    return max(0, (most if stop is None else min(most, stop)) - start)


PLUGIN = Probe()
