"""Names of plugins are looked up in files; a wrong one is answered with its kin."""

from __future__ import annotations

import pytest

from llm_os import plugins
from llm_os.errors import NotFoundError


def test_a_wrong_method_is_answered_with_the_methods_there_are() -> None:
    with pytest.raises(NotFoundError, match=r"Did you mean 'training/lora'\? Known: ") as caught:
        plugins.load("task", "training/lor")
    assert "training/full" in caught.value.hint
    assert "datasets/" not in caught.value.hint


def test_a_wrong_family_of_tasks_is_answered_with_all() -> None:
    with pytest.raises(NotFoundError, match="training/full"):
        plugins.load("task", "trainig/full")
    with pytest.raises(NotFoundError, match="Did you mean 'torch'"):
        plugins.load("engine", "torhc")
