"""The handle of a model: train, evaluate, predict, generate, save, deploy. Advances to the version it made last."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from llm_os.client.adapters import merged
from llm_os.client.aliases import move_alias
from llm_os.client.answers import Prediction, Prompt, answer, embeddings, predictions
from llm_os.client.calibrations import ensure_calibration, is_chosen
from llm_os.client.cards import Card, card
from llm_os.client.checks import checked, checked_name
from llm_os.client.connection import Connection
from llm_os.client.datasets import Dataset, expect_rows, rows_of
from llm_os.client.deployments import Deployment, deploy
from llm_os.client.deployments import check as check_deployment
from llm_os.client.evaluations import Comparison, Evaluation, compare_evaluations, evaluation, method_for
from llm_os.client.exports import copied_out, curves, history
from llm_os.client.gateway import Gateway
from llm_os.client.gguf import check_base, in_gguf
from llm_os.client.jobs import Job, run, submit
from llm_os.client.members import named, wished
from llm_os.client.quality import Description
from llm_os.client.references import compared, ensure_reference, is_compared
from llm_os.client.results import TrainingResult, training_result
from llm_os.errors import CapacityError, UnsupportedModelError
from llm_os.spec.base import Json, slug
from llm_os.spec.deployments import DeploymentSpec
from llm_os.spec.jobs import Job as JobRecord
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import Lineage, ModelVersion


class Model:
    """A model version. Training leaves the old version where it is and moves this handle to the new one."""

    def __init__(self, connection: Connection, record: ModelVersion, labels: Sequence[str] | None = None) -> None:
        self._connection = connection
        self._record = record
        self._labels = tuple(labels) if labels is not None else None
        self._replica: Deployment | None = None

    @property
    def version(self) -> str:
        """`card@number`."""
        return self._record.ref

    @property
    def digest(self) -> str:
        """Of its files: two versions with one digest are the same model."""
        return self._record.manifest

    @property
    def task(self) -> str:
        """What it does: `feature-extraction` (no head yet), `text-classification`, `sentence-similarity`, ..."""
        return self._record.task

    @property
    def lineage(self) -> Lineage:
        """Parent, source, job, options, data and code that made this version."""
        return self._record.lineage

    def describe(self) -> Description:
        """What is known of this version."""
        record = self._record
        meta = {
            name: record.meta.get(name)
            for name in ("architecture", "parameters", "labels", "context_length", "license", "trained_on")
        }
        return Description(
            {
                "version": record.ref,
                "task": record.task,
                "format": record.format,
                "precision": record.precision,
                **meta,
                "metrics": dict(record.metrics) or None,
                "parent": record.lineage.parent,
                "source": record.lineage.source,
                "digest": record.manifest,
            }
        )

    def card(self) -> Card:
        """What is recorded of this version: data, training, evaluations, limits, licences; as Markdown and JSON."""
        return card(self._connection.transport, self._record)

    @overload
    def train(
        self,
        data: Dataset,
        *,
        epochs: int = 3,
        method: str = "auto",
        validation: Dataset | float | None = None,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: float | Literal["auto"] = "auto",
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        seed: int = 42,
        early_stopping: bool | int | Literal["auto"] = "auto",
        background: Literal[False] = False,
        **options: Any,
    ) -> TrainingResult: ...

    @overload
    def train(
        self,
        data: Dataset,
        *,
        epochs: int = 3,
        method: str = "auto",
        validation: Dataset | float | None = None,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: float | Literal["auto"] = "auto",
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        seed: int = 42,
        early_stopping: bool | int | Literal["auto"] = "auto",
        background: Literal[True],
        **options: Any,
    ) -> Job[TrainingResult]: ...

    def train(
        self,
        data: Dataset,
        *,
        epochs: int = 3,
        method: str = "auto",
        validation: Dataset | float | None = None,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: float | Literal["auto"] = "auto",
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        seed: int = 42,
        early_stopping: bool | int | Literal["auto"] = "auto",
        background: bool = False,
        **options: Any,
    ) -> TrainingResult | Job[TrainingResult]:
        """Tune this model on `data`; the handle then stands for the new version.

        Args:
            data: what `load_data` returned, or a slice of it.
            epochs: the most that are run; early stopping may end sooner.
            method: `full` trains every weight, `lora`, `dora` and `qlora` an adapter, `probe` the head alone; `auto`
                takes the first (but `dora`, `probe`) that fits into the memory granted, and says why.
            validation: rows to judge by; a share of `data`, a data set, or None: a tenth (1,000 rows at most).
            early_stopping: `auto`, True, False, or the epochs to wait for a better one.
            background: return a `Job` at once; it outlives this script.
            options: further options of the method, and `name`, the card of the result.

        Raises:
            InvalidOptionError: an option the method does not have; says which there are.
            NothingLearntError, CapacityError, JobCancelledError, ...: why there is no new version.
        """
        expect_rows(data, "train")
        name = checked_name(options.pop("name", None), "the card of a model")
        inputs = {"model": self._floats().manifest, "data": data.digest}
        given: dict[str, Json] = {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "precision": precision,
            "seed": seed,
            "early_stopping": early_stopping,
            **rows_of(data),
            **options,
        }
        if isinstance(validation, Dataset):
            expect_rows(validation, "train")
            inputs["validation"] = validation.digest
            given |= rows_of(validation, "validation_")
        else:
            given["validation"] = validation
        card = name or slug(f"{self._base}-{data.name}")
        spec = JobSpec(task=f"training/{method}", options=given, inputs=inputs, name=card)
        self._say_what_is_used()
        title = f"Training {card}"
        if background:
            return Job(self._connection, submit(self._connection, spec, background=True), title, self._advance)
        return self._advance(run(self._connection, spec, title))

    @overload
    def evaluate(
        self, data: Dataset, *, against: None = None, method: str | None = None, **options: Any
    ) -> Evaluation: ...

    @overload
    def evaluate(self, data: Dataset, *, against: Model, method: str | None = None, **options: Any) -> Comparison: ...

    def evaluate(
        self, data: Dataset, *, against: Model | None = None, method: str | None = None, **options: Any
    ) -> Evaluation | Comparison:
        """Judge this version on `data`; prints the main figures, returns all of them with intervals.

        Args:
            data: what `load_data` returned, or a slice of it.
            against: another model, judged on the same rows; prints which one is better, and how sure that is.
            method: `classification`, `perplexity`, `generation`, ...; None: what fits the model and the data.
            options: of the method: `slices` (columns, "length", "language"), `confidence`, `resamples`, `batch_size`.

        Raises:
            UnsupportedModelError, DataError: model and data do not fit each other.
            InvalidOptionError: an option the method does not have; says which there are.
        """
        expect_rows(data, "evaluate")
        figures = self._evaluated(data, method, options)
        if against is None:
            print(figures, flush=True)
            return figures
        other = against._evaluated(data, method, options)
        found = compare_evaluations(self._connection, figures, other, options)
        print(found, flush=True)
        return found

    def _evaluated(self, data: Dataset, method: str | None, options: Mapping[str, Any]) -> Evaluation:
        spec = JobSpec(
            task=f"evaluation/{method or method_for(self.task, data.kind)}",
            options={**rows_of(data), **options},
            inputs={"model": self._whole().manifest, "data": data.digest},
        )
        job = run(self._connection, spec, f"Evaluating {self.version}")
        return evaluation(job, self.version, self._connection)

    @overload
    def predict(self, text_or_texts: str) -> Prediction: ...  # type: ignore[overload-overlap] # str is a Sequence[str]

    @overload
    def predict(self, text_or_texts: Sequence[str]) -> list[Prediction]: ...

    def predict(self, text_or_texts: str | Sequence[str]) -> Prediction | list[Prediction]:
        """Classify one text, or a list of texts, or tag their words.

        The first call starts a replica of your own; it ends when idle.
        """
        if not self.task.endswith("-classification"):
            raise UnsupportedModelError(
                f"{self.version} cannot classify: it is a {self.task} model.",
                hint="Train it first: model.train(data)." if self.task == "feature-extraction" else "Use generate.",
            )
        return predictions(self._private(), text_or_texts)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, of length 1 where the model was made so. Starts a replica of your own, as `predict`."""
        if self.task not in {"sentence-similarity", "feature-extraction"}:
            raise UnsupportedModelError(
                f"{self.version} makes no embeddings: it is a {self.task} model.",
                hint='Use an encoder, such as llm_os.load_model("transformer").',
            )
        return embeddings(self._private(), texts)

    @overload
    def generate(self, prompt_or_messages: Prompt, max_tokens: int = 256, stream: Literal[False] = False) -> str: ...

    @overload
    def generate(
        self, prompt_or_messages: Prompt, max_tokens: int = 256, *, stream: Literal[True]
    ) -> Iterator[str]: ...

    def generate(self, prompt_or_messages: Prompt, max_tokens: int = 256, stream: bool = False) -> str | Iterator[str]:
        """Answer a prompt or messages. The first call starts a replica of your own; it ends when idle."""
        if self.task not in {"text-generation", "text2text-generation"}:
            raise UnsupportedModelError(
                f"{self.version} cannot generate text: it is a {self.task} model.",
                hint='Use a chat model, such as llm_os.load_model("smollm2").',
            )
        return answer(self._private(), prompt_or_messages, max_tokens, stream=stream)

    def deploy(
        self,
        name: str | None = None,
        keep: bool = False,
        follow: str | None = None,
        check: bool = True,
        calibrate: bool | None = None,
        **options: Any,
    ) -> Deployment:
        """Serve this version and wait until it answers.

        Args:
            name: what requests call it; None: the card's name.
            keep: leave it serving when this script ends.
            follow: an alias of this model (`production`): when it moves, the deployment is updated.
            check: compare the engine with PyTorch first, unless it is PyTorch; the first time takes a minute or more.
            calibrate: where neither an engine nor options of it are given, try all that could serve this version here
                first and take the best one; a minute, once. None: as the setting `calibrate` says.
            options: `engine`, `precision`, `replicas`, `scaling`, `update`, `labels` and `adapters` (name -> version)
                as in `spec.deployments`, and options of the engine. `engine=["llamacpp", "openvino"]` serves with
                both, the one for few requests first; an option is then for both, and `llamacpp={"parallel": 8}` for
                one of them.

        Raises:
            ParityError: the engine does not say what this version says in PyTorch; shows where.
            ConflictError, CapacityError, UnsupportedModelError, ...: why it cannot be served.
        """
        names = ("engine", "precision", "replicas", "scaling", "update", "labels", "adapters")
        own: dict[str, Any] = {key: options.pop(key) for key in names if key in options}
        name = checked_name(name, "a deployment") or slug(self._record.card)
        whole = self._whole()
        if isinstance(own.get("adapters"), Mapping):
            own["adapters"] = {key: getattr(one, "version", one) for key, one in own["adapters"].items()}
        model = f"{whole.card}@{follow}" if follow else whole.ref
        engines = wished(own.pop("engine", None), options)
        given = {"name": name, "model": model, "check": check, **engines}
        spec = checked(DeploymentSpec, {**given, **own}, "A deployment")
        engine = compared(whole, named(engines))
        measures = is_chosen(spec) and (self._connection.calibrate if calibrate is None else calibrate)
        if measures or (spec.check and is_compared(whole, engine)):
            # What is refused shall not be refused after a minute's work; measuring may find what needs less.
            with contextlib.suppress(*(CapacityError,) if measures else ()):
                check_deployment(self._connection, spec)
        if spec.check and is_compared(whole, engine):
            ensure_reference(self._connection, whole, engine)
        if measures:
            ensure_calibration(self._connection, whole, spec, reference=check and not is_compared(whole, None))
        return deploy(self._connection, spec, keep=keep)

    def alias(self, name: str, *, check: bool = True) -> str:
        """Make `card@name` mean this version; deployments that follow it are updated. Returns the whole name.

        Args:
            check: where a deployment that is compared with PyTorch follows it, ask PyTorch before it moves; the first
                time this takes a minute or more. Where that cannot be done, it says so, and the alias moves.

        Raises:
            InvalidInputError: it cannot be called that.
            JobCancelledError, BrokenWeightsError: while PyTorch was asked; the alias means what it meant.
        """
        whole = self._whole()
        return move_alias(self._connection, whole.card, name, whole, check=check).ref

    def merge(self, base: Model | None = None, name: str | None = None) -> Model:
        """Put this adapter into the weights of its base; the handle then stands for the merged version.

        Args:
            base: the model it was trained on; None: the one recorded when it was trained here.
            name: card of the result; None: the adapter's card with `-merged`.

        Raises:
            UnsupportedModelError: this version is no adapter. NotFoundError: nobody knows its base.
            InvalidOptionError: nothing can have that name.
        """
        card = checked_name(name, "the card of a model")
        if self._record.format != "adapter":
            raise UnsupportedModelError(f"{self.version} is no adapter.", hint="Use it as it is.")
        self._record = self._whole(base, card)
        self._replica = None
        return self

    def to_gguf(self, base: Model | None = None, name: str | None = None) -> Model:
        """Write these weights as GGUF in 8 bits, for `openvino` and `llamacpp`; the handle then stands for them.

        Args:
            base: the GGUF model that they were tuned from; None: the one that is recorded.
            name: card of the result; None: the card with `-gguf`.

        Raises:
            UnsupportedModelError: no chat model of a kind that can be written. NotFoundError: nobody knows its base.
            InvalidOptionError: nothing can have that name.
        """
        card = checked_name(name, "the card of a model")
        if self._record.format == "gguf":
            raise UnsupportedModelError(f"{self.version} is GGUF.", hint="Use it as it is.")
        digest = base._record.manifest if base is not None else None
        check_base(self._record)
        self._record = in_gguf(self._connection, self._whole(), digest, card)
        self._replica = None
        return self

    def _whole(self, base: Model | None = None, card: str | None = None) -> ModelVersion:
        """This version as whole weights: an adapter is merged, at the first time; the rest stays."""
        if self._record.format != "adapter":
            return self._record
        digest = base._record.manifest if base is not None else None
        return merged(self._connection, self._record, card or f"{self._record.card}-merged", digest)

    def save(self, path: str | Path) -> Path:
        """Copy the files of this version into a new folder. Raises ConflictError if it holds anything."""
        return copied_out(self._connection, self._record.manifest, path)

    def export_history(self, format: str, folder: str | Path) -> Path:
        """Write how this version learnt for other tools, into a folder of its own below `folder`.

        Args:
            format: `csv` (epochs and steps), `tensorboard` (event file), `mlflow` (store of files), `png` (picture).
            folder: such as `runs`; the files go to `runs/<card>@<number>`.

        Raises:
            InvalidOptionError: another format. NotFoundError: this version was not trained here.
            ConflictError: the folder holds something already.
        """
        return history(self._connection, self._record, format, folder)

    def curves(self, path: str | Path) -> Path:
        """Write a picture (PNG) of how this version learnt. Raises NotFoundError: it was not trained here."""
        return curves(self._connection, self._record, path)

    @property
    def _base(self) -> str:
        """The card this line began with: tuning a tuned model again on the same data counts up its number."""
        trained = self._record.meta.get("trained_on")
        return self._record.card.removesuffix(f"-{slug(str(trained))}") if trained else self._record.card

    def _floats(self) -> ModelVersion:
        """This version with weights that can be trained: GGUF is converted and an adapter merged, at the first time."""
        if self._record.format == "adapter":
            return self._whole()
        if self._record.format != "gguf":
            return self._record
        spec = JobSpec(
            task="sources/convert", inputs={"model": self._record.manifest}, name=slug(f"{self._record.card}-float")
        )
        job = run(self._connection, spec, f"Converting {self.version} to float weights")
        return self._connection.transport.call("GET", f"/v1/models/{job.result['version']}", ModelVersion)

    def _advance(self, job: JobRecord) -> TrainingResult:
        result = training_result(job.result, job.id)
        path = f"/v1/models/{result.version}"
        self._record = self._connection.transport.call("GET", path, ModelVersion)
        self._replica = None
        return result

    def _private(self) -> Gateway:
        """A replica of this session's own, started on demand and kept warm by use."""
        name = slug(f"private-{self._record.card}-{self._record.number}")[:50] + self._connection.session[-6:]
        if self._replica is None or self._replica.state != "ready":
            spec = DeploymentSpec(name=slug(name), model=self._whole().ref, idle_after=self._connection.idle_after)
            self._replica = deploy(self._connection, spec, private=True)
        return Gateway(self._replica.url, self._replica.key, self._replica.name)

    def _say_what_is_used(self) -> None:
        gpus = len(self._connection.resources().granted.devices)
        if gpus > 1:
            print(f"{gpus} GPUs are granted; this training uses 1 of them.", file=sys.stderr)

    def __repr__(self) -> str:
        return f"<Model {self.version}: {self.task}, {self._record.format}>"
