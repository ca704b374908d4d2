"""Data and model that all runs of this folder share: sentic_data English and the encoder, prepared once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_os import plugins
from llm_os.models import sources
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.context import Context, InputFolder


def context(root: Path, inputs: dict[str, InputFolder], threads: int) -> Context:
    """A context in folders of its own below `root`; no kernel."""
    for name in ("output", "checkpoints", "scratch"):
        (root / name).mkdir(parents=True, exist_ok=True)
    folders = {"output": root / "output", "checkpoints": root / "checkpoints", "scratch": root / "scratch"}
    return Context(inputs=inputs, threads=threads, **folders)


def inputs(cache: Path, seed: int = 42) -> dict[str, InputFolder]:
    """Model and data folders, made at the first call and kept in `cache`."""
    model, data = cache / "transformer", cache / f"sentic_data-{seed}"
    if not (model / "facts.json").exists():
        model.mkdir(parents=True, exist_ok=True)
        facts = sources.fetch("transformer", model)
        (model / "facts.json").write_text(json.dumps(facts))
    if not (data / "output" / "artifact.json").exists():
        task = plugins.load("task", "datasets/sentic_data")
        task.run(context(data, {}, 1), task.Options(seed=seed))
    declared = json.loads((data / "output" / "artifact.json").read_text())
    return {
        "model": given(model, "model", json.loads((model / "facts.json").read_text()), "1"),
        "data": given(data / "output", "dataset", declared["meta"], "2"),
    }


def given(folder: Path, kind: str, meta: dict[str, Any], digit: str) -> InputFolder:
    facts = ArtifactFacts.model_validate({"digest": "sha256:" + digit * 64, "kind": kind, "size": 10**8, "meta": meta})
    return InputFolder(folder, facts)
