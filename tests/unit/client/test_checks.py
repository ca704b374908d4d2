"""What people wrote wrongly is named, with what they could have meant, in words that are no library's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel

from llm_os.client.checks import checked
from llm_os.client.deployments import Deployment
from llm_os.errors import InvalidInputError, InvalidOptionError
from llm_os.spec.deployments import DeploymentSpec


def refused(**more: Any) -> InvalidOptionError:
    with pytest.raises(InvalidOptionError) as caught:
        checked(DeploymentSpec, {"name": "x", "model": "m@1", **more}, "A deployment")
    return caught.value


def test_a_name_inside_a_part_is_compared_with_the_names_of_that_part() -> None:
    assert "Did you mean 'canary'?" in refused(update={"canari": 0.1}).hint
    assert "Did you mean 'least'?" in refused(scaling={"leest": 1}).hint
    assert "Did you mean 'replicas'?" in refused(replica=1).hint


def test_words_of_the_library_are_not_told() -> None:
    error = refused(scaling={"least": 3, "most": 1})
    assert error.message.endswith("least (3) cannot be more than most (1).")
    assert "Value error" not in error.message


@pytest.mark.parametrize("given", [{"model": 5}, {"engine": 5}, {"policy": 5}, {"policy": {"bake": "soon"}}])
def test_a_wrong_update_is_named_before_anything_is_asked(given: dict[str, Any]) -> None:
    record = {"id": "d", "spec": {"name": "x", "model": "m@1"}, "version": "m@1", "task": "t", "engine": "e"}
    kernel = FakeKernel({"GET /v1/deployments/x": {**record, "session": None, "state": "ready", "created_at": 0.0}})
    handle = Deployment(kernel, "x", "http://127.0.0.1:1/v1", "key", "m@1")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        handle.update(**given)
    assert not [what for what, _ in kernel.asked if what.startswith("POST")]
