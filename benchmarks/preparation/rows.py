"""Data as `load_data` prepares it, without a kernel: the same tasks, run in folders of their own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os import plugins
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.context import Context, InputFolder
from llm_os.tasks.training.batches import read_rows

Row = dict[str, Any]
Step = str | tuple[str, Mapping[str, Any]]


@dataclass
class Data:
    """Training and test rows, and what the steps recorded."""

    train: list[Row]
    test: list[Row]
    steps: list[dict[str, Any]]
    folder: Path


def load(source: str, steps: Sequence[Step], *, model: Path | None = None, **options: Any) -> Data:
    """`load_data(source, steps=steps, ...)`."""
    task = "datasets/sentic_data" if source == "sentic_data" else "datasets/table"
    if source != "sentic_data":
        options["path"] = source
    root = Path(tempfile.mkdtemp(prefix="preparation-"))
    folders = [root / name for name in ("output", "checkpoints", "scratch")]
    for folder in folders:
        folder.mkdir()
    inputs = {}
    if model is not None:
        facts = ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1)
        inputs["tokenizer"] = InputFolder(model, facts)
    context = Context(inputs=inputs, output=folders[0], checkpoints=folders[1], scratch=folders[2])
    written = [{"step": s} if isinstance(s, str) else {"step": s[0], "options": dict(s[1])} for s in steps]
    plugin = plugins.load("task", task)
    plugin.run(context, plugin.Options.model_validate({"steps": written, **options}))
    meta = json.loads((folders[0] / "artifact.json").read_text())["meta"]
    return Data(read_rows(folders[0], "train"), read_rows(folders[0], "test"), meta["steps"], folders[0])


def file_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """The path of a file with these rows."""
    path = Path(tempfile.mkdtemp(prefix="preparation-")) / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def table(title: str, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for line in lines:
        print(
            "| " + " | ".join(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in line) + " |",
            flush=True,
        )
