"""Options that every training method shares; the names that `model.train` has are the same here."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from llm_os.spec.base import Spec


class TrainingOptions(Spec):
    epochs: int = Field(default=3, ge=1, le=1000)
    """The most epochs that are run; early stopping may end sooner."""
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Texts in a step; `auto` is 32 (where memory is short, accumulation takes fewer of them at a time)."""
    learning_rate: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """Highest rate, reached after the warm-up; `auto` is the method's own."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Type of the matrix products; `auto` measures both at the start and takes the faster."""
    seed: int = 42
    """Same seed, data, machine and threads: the same loss curve, bit for bit."""
    early_stopping: bool | Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """End when no epoch of this many was better on held-out rows (accuracy, then loss); false is never. `auto`, from 3
    epochs on, is 1 once the rate has fallen, after 3."""
    validation: float | None = Field(default=None, gt=0, lt=0.9)
    """Share of the training rows held out for early stopping; none: a tenth (1,000 rows at most) when that is on."""
    split: str = "train"
    """Split of the data set that is trained on."""
    start: int = Field(default=0, ge=0)
    """First row of the split."""
    stop: int | None = Field(default=None, ge=1)
    """Row to stop before; none: to the end."""
    validation_split: str = "test"
    """Split of the input `validation`, if one is given."""
    validation_start: int = Field(default=0, ge=0)
    """First row of that split."""
    validation_stop: int | None = Field(default=None, ge=1)
    """Row of that split to stop before; none: to the end."""
    max_length: int | None = Field(default=None, ge=8, le=8192)
    """Tokens kept of a text; none: what the model can take, at most 256."""
    optimizer: Literal["adamw", "adam", "nadam", "radam", "sgd", "rmsprop", "adagrad", "adafactor"] = "adamw"
    """What turns gradients to steps; sgd has Nesterov's momentum."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the mean of gradients in the Adam family."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the mean of squared gradients in the Adam family."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd and rmsprop."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay (not on biases and norms); decoupled in adamw, nadam, radam and adafactor."""
    schedule: Literal["cosine", "linear", "polynomial", "constant", "inverse_sqrt", "one_cycle"] = "cosine"
    """How the rate moves after the warm-up; cosine, linear and polynomial fall to a tenth."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the schedule in which the rate rises."""
    accumulation: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = "auto"
    """Parts a step's batch is worked through in, one after the other: the same step in less memory; `auto` is 1, or as
    many as make it fit into what is granted."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient of a step."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer learns this much slower than the one above it; 1: all alike."""
    freeze: int | str | None = None
    """What is not trained: a number N is the embeddings and the first N layers; or parts such as `embeddings,0-3`."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of layers and compute the rest again: far less memory, about a third more time."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights, such as 0.999, which is then judged and saved; none: the weights."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of certainty that is spread over the other classes."""
    soft_labels: bool = True
    """Learn how sure each label is, where rows say it (column `probabilities`); false: the label alone."""
    class_weights: Literal["balanced"] | dict[str, PositiveFloat] | None = None
    """What a class counts in the loss: `balanced` is the inverse of its frequency, or give a number for each label."""
    mixup: float = Field(default=0.0, ge=0, le=10)
    """Blend each text with another one: parameter of the beta distribution, such as 0.2; 0: not."""
    packing: bool | None = None
    """Language models: put several texts into one row, where they do not see each other; none: texts yes, chats no."""
    beta: float | None = Field(default=None, gt=0)
    """Preference data: how much departing from the model at the start costs; none: 0.1."""
    check_prompts: bool = True
    """Put the beginnings of some rows (24 at most) into the version, for comparing engines on them; false: none."""
    checkpoint_every: float = Field(default=120.0, ge=0)
    """Seconds between checkpoints; 0: after every step."""
    threads: int | None = Field(default=None, ge=1)
    """Threads at most; none: all that the session may use."""

    @property
    def patience(self) -> int | None:
        """Epochs without progress that end the training; None: never."""
        if self.early_stopping == "auto":
            return 1 if self.epochs >= 3 else None
        if self.early_stopping is False or self.early_stopping == 0:
            return None
        return 1 if self.early_stopping is True else int(self.early_stopping)


BATCH = 32
LENGTH = 256


def batch_of(options: TrainingOptions) -> int:
    """Texts in a step."""
    return BATCH if options.batch_size == "auto" else options.batch_size


def part_of(options: TrainingOptions) -> int:
    """Texts that go through the model at once."""
    return math.ceil(batch_of(options) / parts_of(options))


def parts_of(options: TrainingOptions) -> int:
    """Parts of a step; `auto` that nobody decided is one."""
    return 1 if options.accumulation == "auto" else options.accumulation
