"""What was compared once is not compared again, as long as the code that runs is the same."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from llm_os.drivers.device import Available, Probe
from llm_os.drivers.engine import Engine
from llm_os.errors import NotFoundError
from llm_os.kernel import parity
from llm_os.kernel.parity import _key
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.deployments import Revision
from llm_os.spec.parity import Parity, Share
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec


class Options(Spec):
    environment: str | None = None


class Own(Engine):
    """A program whose build is `build`, by environment."""

    name = "own"
    formats: ClassVar[tuple[str, ...]] = ("gguf",)
    tasks: ClassVar[tuple[str, ...]] = ("text-generation",)
    Options = Options

    def __init__(self, **build: str) -> None:
        self.build = build

    def probe(self) -> Probe:
        return Available(version="1")

    def identity(self, options: Spec) -> str:
        place = Options.model_validate(options.model_dump()).environment or "path"
        if place not in self.build:
            raise NotFoundError(f"There is no environment '{place}'.")
        return self.build[place]

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        return ResourceSpec(memory=1)

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        return ProcessSpec(argv=("{python}", "{attempt}"), resources=resources)


def served(**options: str) -> Revision:
    return Revision(
        number=1, version="chat@1", task="text-generation", engine="own", options=options,
        resources=ResourceSpec(memory=1),
    )  # fmt: skip


def test_a_program_that_was_built_anew_is_compared_anew() -> None:
    one, same, other = Own(path="a"), Own(path="a"), Own(path="b")
    assert _key("d", served(), one) == _key("d", served(), same)
    assert _key("d", served(), one) != _key("d", served(), other)


def test_what_lies_in_the_named_environment_counts_and_not_its_name_alone() -> None:
    before, after = Own(path="a", gpu="x"), Own(path="a", gpu="y")
    assert _key("d", served(environment="gpu"), before) != _key("d", served(environment="gpu"), after)
    assert _key("d", served(), before) == _key("d", served(), after), "the others' keys stay"


@pytest.mark.parametrize("options", [{"environment": "gone"}, {"no_such_option": "x"}])
def test_an_environment_that_is_gone_ends_no_turn_of_the_loop(options: dict[str, str]) -> None:
    assert _key("d", served(**options), Own(path="a"))


def figures(key: str, *complaints: str) -> Parity:
    share = Share(count=1, agreed=1, low=0.0, high=1.0)
    return Parity(everywhere=share, sure=share, key=key, complaints=complaints)


def test_no_older_figure_speaks_for_a_service_that_was_found_to_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    older = figures("k")
    monkeypatch.setattr(parity, "_known", lambda *_: older)
    mine: Any = served()

    def found(known: Parity | None) -> Parity | None:
        own = mine.members[0].model_copy(update={"parity": known})
        return parity._found(None, None, None, mine, own, "k")  # type: ignore[arg-type]

    assert found(None) is found(figures("another build", "too few")) is older
    assert found(figures("k", "too few")) is None
    assert found(again := figures("k")) is again
