"""What the fields of specs mean is read off their docstrings, when it is asked."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, create_model

from llm_os.spec.base import Spec, descriptions


class Wheel(Spec):
    spokes: int
    """Counted once.

    From the hub.
    """
    rim: str = Field(default="steel", alias="border")
    """What it is made of."""
    told: int = Field(default=1, description="Declared.")
    """Not this."""
    bare: int = 0

    class Inner(Spec):
        spokes: int
        """Another one's."""

    def spin(self) -> None:
        """No field."""


class Wide(Wheel):
    rim: str = "wood"
    """Made of wood."""


def test_the_docstring_behind_a_field_describes_it() -> None:
    assert descriptions(Wheel) == {
        "spokes": "Counted once.\n\nFrom the hub.",
        "rim": "What it is made of.",
        "told": "Declared.",
    }
    assert descriptions(Wheel.Inner) == {"spokes": "Another one's."}


def test_a_class_inherits_what_it_does_not_say_anew() -> None:
    assert descriptions(Wide) == {**descriptions(Wheel), "rim": "Made of wood."}


def test_a_model_without_source_has_what_it_was_declared_with() -> None:
    fields: dict[str, Any] = {"seats": (int, Field(default=1, description="How many ride."))}
    assert descriptions(create_model("Tandem", __base__=Wheel, **fields)) == {
        **descriptions(Wheel),
        "seats": "How many ride.",
    }


def test_schemas_show_them_under_the_names_that_callers_use() -> None:
    class Bicycle(Spec):
        front: Wheel
        """The steered one."""

    schema = Bicycle.model_json_schema()
    wheel = schema["$defs"]["Wheel"]["properties"]
    assert schema["properties"]["front"]["description"] == "The steered one."
    assert {name: told.get("description") for name, told in wheel.items()} == {
        "spokes": "Counted once.\n\nFrom the hub.",
        "border": "What it is made of.",
        "told": "Declared.",
        "bare": None,
    }


@pytest.mark.parametrize("source", ["  x = 1\n y = 2\n", "class", "", "x = 1\ny = 2\n", None])
def test_a_class_whose_source_is_gone_or_anothers_has_what_it_was_declared_with(
    monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    def read(cls: type) -> str:
        if source is None:
            raise OSError("could not get source code")
        return source

    class Odd(Spec):
        wheels: int = Field(default=2, description="Declared.")
        seats: int = 1
        """Not read."""

    monkeypatch.setattr("inspect.getsource", read)
    assert descriptions(Odd) == {"wheels": "Declared."}
