"""What every task plugin must do, as checks over all of them; knows tasks only by their interface and by name.

`examine()` looks at all tasks in a fresh process, where nothing heavy was loaded before: each imports without a
framework, documents its options, and sizes itself without touching the world. `kill_midway` runs one task and kills it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from llm_os import plugins
from llm_os.errors import InvalidInputError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import EXIT_OK, AttemptSpec, Input, TaskCall
from llm_os.spec.base import Json, Spec, descriptions
from llm_os.spec.resources import Capacity, ResourceSpec

FRAMEWORKS = frozenset(
    (
        *("torch", "transformers", "peft", "accelerate", "safetensors", "sklearn", "numpy", "datasets", "pyarrow"),
        *("openvino", "openvino_genai", "tensorflow", "keras", "jax", "ray", "gguf"),
    )
)
OUTSIDE = frozenset(("socket.connect", "subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.mkdir"))
GRANTED = Capacity(cpus=4, memory=16 * 2**30)
SLOW = 0.5
"""Seconds of processor time in which a task must have sized itself; a good one needs a thousandth."""


def example_facts(role: str) -> tuple[ArtifactFacts, ...]:
    """Facts of inputs as tasks meet them: models of every kind for `model` and `base`, reports for `a` and `b`, else
    data sets."""
    digest = "sha256:" + "0" * 64
    if role in {"model", "base"}:
        kinds = (
            ("feature-extraction", None),
            ("text-classification", ["negative", "positive"]),
            ("multi-label-classification", ["negative", "positive"]),
            ("token-classification", ["B-x", "O"]),
            ("text2text-generation", None),
        )
        metas: list[dict[str, Any]] = [_model(kind, labels, "safetensors") for kind, labels in kinds]
        metas += [_model("text-generation", None, form) for form in ("safetensors", "gguf", "adapter")]
        return tuple(ArtifactFacts(digest=digest, kind="model", size=90 * 2**20, meta=meta) for meta in metas)
    if role in {"a", "b"}:
        meta = {"report": "classification", "rows": digest, "count": 800, "split": "test", "data": {"name": "x"}}
        return (ArtifactFacts(digest=digest, kind="report", size=2**16, meta={**meta, "model": digest}),)
    return tuple(
        ArtifactFacts(digest=digest, kind="dataset", size=2 * 2**20, meta=_dataset(kind, task, labels))
        for kind, task, labels in DATA
    )


def _model(task: str, labels: list[str] | None, form: str) -> dict[str, Any]:
    shape = {"parameters": 22_700_000, "context_length": 512, "hidden_size": 384, "layers": 6, "vocabulary": 30_522}
    names = {"format": form, "precision": "fp32", "architecture": "BertModel", "license": "Apache-2.0", "source": "x"}
    return {"task": task, "labels": labels, **shape, **names}


DATA = (
    ("classification", "text-classification", ["negative", "positive"]),
    ("score", "regression", None),
    ("multi-label", "text-classification", ["negative", "positive"]),
    ("tokens", "token-classification", ["B-x", "O"]),
    *((kind, "text-generation", None) for kind in ("text", "chat", "preference", "choices")),
    ("pairs", "sentence-similarity", None),
)
"""Kinds of data, what is learnt from them, and their classes."""


def _dataset(kind: str, task: str, labels: list[str] | None) -> dict[str, Any]:
    splits = {name: {"rows": 800, "fingerprint": "sha256:" + "1" * 64} for name in ("train", "test")}
    columns = {"columns": ["text", "label"], "text": "text", "label": "label"}
    known = {"name": "x", "language": "en", "kind": kind, "task": task, "labels": labels}
    return {**known, "splits": splits, "source": {}, **columns}


def example_options(options: type[Spec]) -> Spec:
    """Its defaults, and for required fields the first of `Field(examples=...)`, or a word or number.

    Raises:
        ValidationError: a required field needs an example.
    """
    return options.model_validate({n: _example(f) for n, f in options.model_fields.items() if f.is_required()})


def _example(field: FieldInfo) -> Any:
    if field.examples:
        return field.examples[0]
    return 1 if field.annotation in {int, float} else "example"


@contextmanager
def _watched() -> Iterator[list[str]]:
    """What the code inside does to the world outside. Audit hooks stay for ever, so this is for a process that ends."""
    seen: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event in OUTSIDE:
            seen.append(event)
        if event == "open" and not str(arguments[0]).endswith((".py", ".pyc", ".so", ".pth")):
            seen.append(f"open {arguments[0]}")

    sys.addaudithook(hook)
    try:
        yield seen
    finally:
        watching = False


def problems_of(name: str) -> list[str]:
    """What is wrong with one task plugin; empty when nothing is. Call it in a fresh process."""
    task = plugins.load("task", name)
    found = [f"importing it loads {module}" for module in sorted(FRAMEWORKS & set(sys.modules))]
    told = descriptions(task.Options)
    found += [f"its option '{name}' is not documented" for name in task.Options.model_fields if name not in told]
    if not (type(task).__doc__ or sys.modules[type(task).__module__].__doc__):
        found.append("it is not documented")
    try:
        options = example_options(task.Options)
    except ValidationError as error:
        return [*found, f"a required option has no example: {error.errors()[0]['loc']}"]
    return found + sizing_problems(task, options)


def sizing_problems(task: Any, options: Spec) -> list[str]:
    """What is wrong with how a task sizes itself for example inputs; empty when nothing is."""
    roles = (*task.inputs, *task.optional_inputs)
    found, sized, refusals = [], 0, []
    with _watched() as seen:
        for facts in product(*(example_facts(role) for role in roles)):
            inputs = dict(zip(roles, facts, strict=True))
            before = time.process_time()
            try:
                first, second = (task.resources(options, inputs, GRANTED) for _ in range(2))
            except InvalidInputError as error:  # this kind of model with this kind of data; others may do
                refusals.append(str(error))
                continue
            if time.process_time() - before > SLOW:
                found.append("it takes long to size itself")
            if first != second or not isinstance(first, ResourceSpec):
                found.append(f"it sizes itself as {first}, then as {second}")
            sized += 1
    if not sized:
        found.append(f"it refuses all example inputs: {refusals}")
    return found + [f"to size itself it does: {what}" for what in sorted(set(seen))]


def examine(names: tuple[str, ...] | None = None) -> dict[str, list[str]]:
    """Problems of each task, found in one fresh process for each; empty lists when all is well."""
    found = {}
    for name in plugins.names("task") if names is None else names:
        command = [sys.executable, "-m", __name__, name]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
        found[name] = json.loads(done.stdout) if done.returncode == 0 else [done.stderr[-2000:]]
    return found


def kill_midway(
    task: str,
    folder: Path,
    options: Mapping[str, Json],
    inputs: Mapping[str, Input],
    moments: tuple[float, ...] = (0.2, 0.5, 0.8, 0.95, 0.99),
) -> None:
    """Run a task to its end, then again and again with SIGKILL at parts of that time.

    Raises:
        AssertionError: it fails, or a killed run left an `artifact.json` beside an output that is not whole.
    """
    before = time.monotonic()
    process, output = _run(task, folder / "whole", options, inputs)
    assert process.wait(timeout=600) == EXIT_OK, (folder / "whole" / "log").read_text()
    duration = time.monotonic() - before
    whole = _listing(output)
    assert "artifact.json" in whole
    for number, moment in enumerate(moments):
        process, output = _run(task, folder / f"killed-{number}", options, inputs)
        try:
            process.wait(timeout=duration * moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        left = _listing(output)
        assert "artifact.json" not in left or left == whole, f"killed at {moment:.0%}: {left} instead of {whole}"


def _listing(output: Path) -> dict[str, int]:
    """Files and sizes; of `artifact.json` only that it is there, because times and paths may stand in it."""
    files = {p.relative_to(output).as_posix(): p.stat().st_size for p in output.rglob("*") if p.is_file()}
    return {name: 0 if name == "artifact.json" else size for name, size in files.items()}


def _run(
    task: str, folder: Path, options: Mapping[str, Json], inputs: Mapping[str, Input]
) -> tuple[subprocess.Popen[bytes], Path]:
    output = folder / "output"
    output.mkdir(parents=True)
    call = TaskCall(
        task=task, options=options, inputs=inputs, output=str(output), checkpoints=str(folder / "checkpoints")
    )
    argv = (sys.executable, "-m", "llm_os.workers.task", str(folder))
    spec = AttemptSpec(attempt="a", owner="job", token=1, argv=argv, env={}, threads=1, cwd=str(folder), task=call)
    (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(argv, env=env, stdout=log, stderr=log), output


if __name__ == "__main__":
    print(json.dumps(problems_of(sys.argv[1])))
