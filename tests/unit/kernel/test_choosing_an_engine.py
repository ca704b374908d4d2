"""Which engine serves a model that nobody named one for, and what is said when one cannot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from llm_os import plugins
from llm_os.drivers.device import Available, Probe, Unavailable
from llm_os.drivers.engine import Engine
from llm_os.errors import UnsupportedModelError
from llm_os.kernel.revisions import chosen_engine, fitted
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.deployments import DeploymentSpec
from llm_os.spec.models import ModelVersion
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec

MANIFEST = "sha256:" + "a" * 64


class Options(Spec):
    context: int = 1


class Quick(Engine):
    """The one that is preferred; it opens llamas only."""

    name = "quick"
    formats: ClassVar[tuple[str, ...]] = ("gguf",)
    tasks: ClassVar[tuple[str, ...]] = ("text-generation",)
    Options = Options
    preference = 20

    def __init__(self, answer: Probe = Available(version="1")) -> None:  # noqa: B008 - a frozen value
        self._answer = answer

    def probe(self) -> Probe:
        return self._answer

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        return ResourceSpec(memory=1)

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        return ProcessSpec(argv=("{python}", "{attempt}"), resources=resources)

    def refuses(self, model: ArtifactFacts) -> str | None:
        kind = model.meta["architecture"]
        return None if kind == "llama" else f"it opens llamas, and this is {kind}"


class Patient(Quick):
    """Opens everything."""

    name = "patient"
    preference = 10

    def refuses(self, model: ArtifactFacts) -> str | None:
        return None


def state(architecture: str, *engines: Engine) -> Any:
    meta = {"format": "gguf", "architecture": architecture}
    facts = ArtifactFacts(digest=MANIFEST, kind="model", size=1, meta=meta)
    return SimpleNamespace(
        plugins=SimpleNamespace(engines=lambda: engines), artifacts=SimpleNamespace(facts=lambda _: facts)
    )


CHAT = ModelVersion(
    card="chat", number=1, manifest=MANIFEST, format="gguf", precision="int4", task="text-generation", size=1,
    created_at=0,
)  # fmt: skip


def spec(engine: str | None = None, **more: Any) -> DeploymentSpec:
    return DeploymentSpec(name="chat", model="chat@1", engine=engine, **more)


def test_an_engine_that_cannot_open_the_architecture_is_not_taken_unasked() -> None:
    both = (Quick(), Patient())
    assert chosen_engine(state("llama", *both), spec(), CHAT)[0].name == "quick"
    assert chosen_engine(state("mamba", *both), spec(), CHAT)[0].name == "patient"


def test_one_that_is_named_says_what_it_opens() -> None:
    with pytest.raises(UnsupportedModelError, match="quick cannot serve chat@1: it opens llamas, and this is mamba"):
        chosen_engine(state("mamba", Quick(), Patient()), spec("quick"), CHAT)


def test_where_no_engine_is_left_the_reason_of_each_is_told() -> None:
    absent = Patient(Unavailable("There is no patient here.", hint="Install it."))
    with pytest.raises(UnsupportedModelError) as caught:
        chosen_engine(state("mamba", Quick(), absent), spec(), CHAT)
    assert caught.value.hint == "quick: it opens llamas, and this is mamba.; patient: There is no patient here."


def test_an_update_to_what_the_engine_cannot_open_has_one_chosen_anew() -> None:
    given = spec("quick", options={"context": 5})
    assert fitted(state("llama", Quick()), given, CHAT) is given
    anew = fitted(state("mamba", Quick(), Patient()), given, CHAT)
    assert (anew.engine, anew.options) == (None, {})


@pytest.mark.parametrize(("kind", "opened"), [("llama", True), ("qwen2", True), ("qwen3", True), ("gemma3", False)])
def test_openvino_knows_what_its_reader_builds_a_graph_for(kind: str, opened: bool) -> None:
    engine = plugins.load("engine", "openvino")
    facts = ArtifactFacts(digest=MANIFEST, kind="model", size=1, meta={"format": "gguf", "architecture": kind})
    said = engine.refuses(facts)
    assert (said is None) is opened
    assert opened or kind in str(said)
