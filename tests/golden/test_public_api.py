"""The public signatures are a promise: a change here is a change for every user."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import llm_os

GOLDEN = Path(__file__).parent / "public_api.txt"
CLASSES = ("Model", "Dataset", "Job", "Deployment", "Evaluation", "TrainingResult", "Prediction", "QualityReport")


def described() -> str:
    lines = [f"llm_os: {', '.join(llm_os.__all__)}"]
    for name in ("set_resources", "resources", "load_data", "load_model", "new_model"):
        lines.append(f"{name}{inspect.signature(getattr(llm_os, name))}")
    for name in CLASSES:
        cls: Any = getattr(llm_os, name)
        for member in sorted(vars(cls) | dict.fromkeys(getattr(cls, "__annotations__", {}))):
            value = inspect.getattr_static(cls, member, None)
            if member.startswith("_"):
                continue
            shown = str(inspect.signature(value)) if inspect.isfunction(value) else ""
            lines.append(f"{name}.{member}{shown}")
    return "\n".join(lines) + "\n"


def test_public_signatures_are_those_that_were_promised() -> None:
    assert described() == GOLDEN.read_text(), "write tests/golden/public_api.txt anew only for a wanted change"


def test_everything_public_has_a_docstring() -> None:
    for name in llm_os.__all__:
        value = getattr(llm_os, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="load_model"):
        llm_os.load_modell  # noqa: B018
