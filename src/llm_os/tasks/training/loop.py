"""The training loop: one page of PyTorch that knows a model, batches and a context, and nothing of jobs.

Works on CPU; on a GPU it is written with care and untested on hardware.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_os.errors import NothingLearntError
from llm_os.tasks.context import Checkpoint, Context
from llm_os.tasks.training import checkpoints, seeds
from llm_os.tasks.training.averaging import Average
from llm_os.tasks.training.batches import epoch_batches, parts, sorted_batches
from llm_os.tasks.training.checkpoints import Progress
from llm_os.tasks.training.examples import Examples
from llm_os.tasks.training.layers import checkpoint_gradients, freeze
from llm_os.tasks.training.mixup import Mixup
from llm_os.tasks.training.optimizers import make_optimizer
from llm_os.tasks.training.options import TrainingOptions, batch_of, part_of
from llm_os.tasks.training.precision import autocast, choose_precision, quick_attention
from llm_os.tasks.training.schedules import share

REPORT_EVERY = 0.25
"""Seconds between progress reports."""
HORIZON = 3
"""Epochs over which the rate falls when early stopping may end the training: it seldom needs more. Unless a patience
was asked for, it does not end before: what was no better while the rate was high often is when it has fallen (measured:
benchmarks/quality)."""
SAME = 1e-7
"""Losses that differ by less than this have not moved."""


@dataclass(slots=True)
class Outcome:
    history: list[dict[str, Any]]
    losses: list[float]
    epochs_run: int
    best_epoch: int
    stopped_early: bool
    precision: str
    seconds: float


class Loop:
    """Trains `model` in place and leaves the best weights in it.

    Args:
        model: a PyTorch module that the examples know how to call.
        train, valid: examples; without `valid` there is no early stopping.
        identity: names model, data and options, so that a checkpoint of another job is refused.
        rate: highest learning rate.
        heads: names that parameters of a fresh head begin with.
        worker: which of several workers this is; each draws its own random numbers.
    """

    def __init__(
        self,
        context: Context,
        options: TrainingOptions,
        *,
        model: Any,
        train: Examples,
        valid: Examples | None,
        identity: Mapping[str, str],
        rate: float,
        heads: Sequence[str] = (),
        device: str = "cpu",
        worker: int = 0,
    ) -> None:
        self._context, self._options, self._model = context, options, model
        self._train, self._valid = train, valid
        self._identity, self._device, self._worker = {**identity, **checkpoints.machine(device)}, device, worker
        self._batch = batch_of(options)
        self._lengths = train.lengths
        self._steps = math.ceil(len(train) / self._batch)
        self._rate = rate
        bounded = valid is not None and options.patience is not None
        self._horizon = min(options.epochs, HORIZON) if bounded else options.epochs
        freeze(model, options.freeze)
        if options.gradient_checkpointing:
            checkpoint_gradients(model)
        if device == "cpu":
            quick_attention(model, max(self._lengths))
        self._optimizer = make_optimizer(model, options, rate, heads)
        self._average = Average(model, options.ema) if options.ema is not None else None
        self._mixup = Mixup(model, options.mixup, seeds.seed_of(options.seed, worker)) if options.mixup else None
        self._progress = Progress()
        self._best: dict[str, Any] | None = None
        self._reported = 0.0

    def run(self) -> Outcome:
        """Raises NothingLearntError, or `Stopped` when the kernel asked it to end (its checkpoint is whole then)."""
        before = fingerprint(self._model)
        found = self._context.latest_checkpoint()
        self._progress.precision = self._choose() if found is None else checkpoints.precision_of(found.folder)
        self._begin()
        if found is not None:
            self._resume(found)
        else:
            seeds.seed_all(self._options.seed, self._worker)
        stopped = False
        saved = time.monotonic()
        while self._progress.epoch < self._options.epochs and not stopped:
            saved = self._epoch(saved)
            stopped = self._close_epoch()
        progress = self._progress
        learnt(progress.losses, before, fingerprint(self._model))
        final = self._best or (self._average.weights if self._average else None)
        if final is not None:
            load_trained(self._model, final)
        return Outcome(
            history=progress.history,
            losses=progress.losses,
            epochs_run=progress.epoch,
            best_epoch=progress.best_epoch or progress.epoch,
            stopped_early=stopped and progress.epoch < self._options.epochs,
            precision=progress.precision,
            seconds=progress.seconds,
        )

    def _begin(self) -> None:
        """Let the examples look at the model at the start."""
        import torch

        self._model.eval()
        with torch.inference_mode():
            for examples in (self._train, self._valid):
                if examples is not None:
                    examples.begin(self._forward(self._progress.precision), self._batch)

    def _resume(self, found: Checkpoint) -> None:
        self._progress, more = checkpoints.restore(found.folder, self._identity, self._model, self._optimizer)
        self._best = more.get("best")
        if self._average is not None:
            self._average.load(more["average"])
        self._context.message(f"Goes on from step {self._progress.step}.")

    def _save(self) -> None:
        more = {"best": self._best, "average": self._average.weights if self._average else None}
        checkpoints.save(self._context, self._progress, self._identity, self._model, self._optimizer, more)

    def _choose(self) -> str:
        if self._options.precision != "auto":
            return self._options.precision
        precision, sentence = choose_precision(self._device)
        self._context.message(sentence)
        return precision

    def _forward(self, precision: str) -> Callable[..., Any]:
        """The model on the loop's device, at a precision; tensors are moved there."""

        def forward(**tensors: Any) -> Any:
            moved = {name: v.to(self._device) if hasattr(v, "to") else v for name, v in tensors.items()}
            with autocast(precision, self._device):
                return self._model(**moved)

        return forward

    def _epoch(self, saved: float) -> float:
        """Run the rest of the epoch. Returns when the last checkpoint was written (monotonic seconds)."""
        progress, context = self._progress, self._context
        batches = epoch_batches(self._lengths, self._batch, self._options.seed, progress.epoch)
        self._model.train()
        begun, tokens, total = time.monotonic(), 0, 0.0
        worked = time.process_time()
        while progress.position < len(batches):
            indices = batches[progress.position]
            loss = self._step(indices)
            progress.position += 1
            progress.step += 1
            progress.losses.append(loss)
            tokens += sum(self._lengths[i] for i in indices)
            total += loss
            now = time.monotonic()
            if now - self._reported > REPORT_EVERY or progress.position == len(batches):
                self._reported = now
                self._report(loss, tokens / max(now - begun, 1e-9))
            asked = context.should_stop()
            if asked or now - saved >= self._options.checkpoint_every:
                progress.epoch_seconds += now - begun
                progress.epoch_cpu += time.process_time() - worked
                self._save()
                saved = begun = time.monotonic()
                worked = time.process_time()
                tokens = 0
                if asked:
                    context.stop_here()
        progress.epoch_seconds += time.monotonic() - begun
        progress.epoch_cpu += time.process_time() - worked
        return saved

    def _step(self, indices: list[int]) -> float:
        """One step. Returns its loss. Raises NothingLearntError as soon as the loss is no number."""
        import torch

        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * group["scale"] * self._schedule(self._progress.step)
        pieces = parts(indices, part_of(self._options))
        weights = [self._train.weight(piece) for piece in pieces]
        value = 0.0
        for number, (piece, weight) in enumerate(zip(pieces, weights, strict=True)):
            loss = self._loss(piece, number) * (weight / sum(weights))
            value += float(loss.detach())
            if not math.isfinite(value):
                raise NothingLearntError(
                    f"The loss became {value} at step {self._progress.step + 1}.",
                    hint="Take a smaller learning_rate (a tenth), or precision='fp32'.",
                    details={"step": self._progress.step + 1},
                )
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained(), self._options.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update(self._progress.step + 1)
        return value

    def _loss(self, indices: Sequence[int], part: int) -> Any:
        """Mean loss of some examples of a step."""
        forward, batch = self._forward(self._progress.precision), self._train.collate(indices)
        if self._mixup is not None:
            return self._mixup.loss(self._train, forward, batch, self._progress.step, part)
        return self._train.loss(forward, batch)

    def _schedule(self, step: int) -> float:
        """Share of the highest rate at `step`."""
        return share(self._options.schedule, step, self._horizon * self._steps, self._options.warmup)

    def _close_epoch(self) -> bool:
        """Judge the epoch that just ended; True when the training shall end early."""
        progress = self._progress
        done = progress.losses[-self._steps :]
        entry: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "loss": sum(done) / len(done),
            "seconds": round(progress.epoch_seconds, 3),
            "cpu_seconds": round(progress.epoch_cpu, 3),
            "tokens_per_second": round(sum(self._lengths) / max(progress.epoch_seconds, 1e-9), 1),
        }
        begun = time.monotonic()
        if self._valid is not None:
            with self._average.in_place() if self._average else contextlib.nullcontext():
                entry |= self.judge(self._valid)
        progress.seconds += progress.epoch_seconds + time.monotonic() - begun
        progress.history.append(entry)
        progress.epoch, progress.position = progress.epoch + 1, 0
        progress.epoch_seconds = progress.epoch_cpu = 0.0
        if self._valid is None:
            return False
        accuracy, loss = entry.get("validation_accuracy", 0.0), entry["validation_loss"]
        best = progress.best_loss
        if best is None or (accuracy, -loss) > (progress.best_accuracy, -best):
            progress.best_accuracy, progress.best_loss, progress.best_epoch = accuracy, loss, progress.epoch
            self._best = self._weights()
        patience = self._options.patience
        if patience is None or progress.epoch - progress.best_epoch < patience:
            return False
        if self._options.early_stopping == "auto" and progress.epoch < self._horizon:
            return False
        if progress.epoch < self._options.epochs:
            self._context.message(
                f"stopped after {progress.epoch} of {self._options.epochs}: no better since {progress.best_epoch}"
            )
        return True

    def judge(self, examples: Examples) -> dict[str, float]:
        """Every figure the examples measure, as `validation_<name>`; `validation_loss` is one of them."""
        import torch

        self._model.eval()
        sums: dict[str, list[float]] = {}
        forward = self._forward(self._progress.precision)
        with torch.inference_mode():
            for indices in sorted_batches(examples.lengths, 2 * self._batch):
                for name, (total, count) in examples.measure(forward, examples.collate(indices)).items():
                    pair = sums.setdefault(name, [0.0, 0.0])
                    pair[0] += total
                    pair[1] += count
        return {f"validation_{name}": total / count for name, (total, count) in sums.items()}

    def _weights(self) -> dict[str, Any]:
        """A copy of what would be saved now: the trained weights, or their average."""
        if self._average is not None:
            return {name: average.clone() for name, average in self._average.weights.items()}
        return {name: p.detach().clone() for name, p in self._model.named_parameters() if p.requires_grad}

    def _trained(self) -> list[Any]:
        return [p for p in self._model.parameters() if p.requires_grad]

    def _report(self, loss: float, speed: float) -> None:
        progress = self._progress
        total = self._steps * self._options.epochs
        left = (total - progress.step) * (sum(self._lengths) / self._steps) / max(speed, 1e-9)
        self._context.report(
            stage="training",
            step=progress.step,
            total=total,
            epoch=progress.epoch + 1,
            epochs=self._options.epochs,
            loss=round(loss, 5),
            tokens_per_second=round(speed, 1),
            eta=round(left, 1),
        )


def fingerprint(model: Any) -> float:
    """A number that changes when trained weights change (sum of absolute values, in double precision)."""
    import torch

    return math.fsum(float(p.detach().abs().sum(dtype=torch.float64)) for p in model.parameters() if p.requires_grad)


def load_trained(model: Any, weights: Mapping[str, Any]) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def learnt(losses: list[float], before: float, after: float) -> None:
    """Raises NothingLearntError when the weights or the loss never moved."""
    if before == after:
        raise NothingLearntError("The weights did not change.", hint="Is the learning_rate 0, or is everything frozen?")
    if len(losses) > 1 and max(losses) - min(losses) < SAME:
        raise NothingLearntError(
            f"The loss stayed at {losses[0]:.6f} in every step.", hint="Check that texts and labels belong together."
        )
