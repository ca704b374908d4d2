"""The composition root: what a kernel takes over from one that was killed, and what only tests may see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_os.app import Registry, was_to_stay
from llm_os.errors import NotFoundError
from llm_os.settings import Settings


@pytest.mark.parametrize(
    ("note", "stays"),
    [
        (None, False),
        (json.dumps({"pid": 1, "ephemeral": False}), True),
        (json.dumps({"pid": 1, "ephemeral": True}), False),
        (json.dumps({"pid": 1}), False),
        ("[]", False),
        ('{"pid": 1, "ephem', False),
    ],
)
def test_a_kernel_that_follows_a_killed_one_stays_if_that_one_was_to_stay(
    tmp_path: Path, note: str | None, stays: bool
) -> None:
    settings = Settings(home=tmp_path)
    settings.run.mkdir()
    if note is not None:
        (settings.run / "kernel.json").write_text(note)
    assert was_to_stay(settings) is stays


def test_what_only_tests_the_system_is_hidden_from_users() -> None:
    assert "fake" not in {engine.name for engine in Registry(testing=False).engines()}
    assert "fake" in {engine.name for engine in Registry(testing=True).engines()}
    with pytest.raises(NotFoundError, match="LLM_OS_TESTING"):
        Registry(testing=False).task("testing/steps")
