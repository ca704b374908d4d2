"""Adapters where engines stand side by side: all of them hold one, or it is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_os.drivers.device import Available, Probe
from llm_os.drivers.engine import AdapterRoom, Engine
from llm_os.errors import CapacityError, UnsupportedModelError
from llm_os.kernel.adapters import held_by
from llm_os.kernel.adapting import Adapting
from llm_os.kernel.deployments import Deployments
from llm_os.spec.api import AddAdapter
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState, Revision, RevisionMember
from llm_os.spec.models import ModelVersion
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.store import rows
from llm_os.store.database import Database

BASE = "sha256:" + "a" * 64
TUNED = "sha256:" + "b" * 64
ONE = ResourceSpec(memory=1)


class Sized(Spec):
    most: int = 4


class Toy(Engine):
    """It has as much room as its options say; none at all where they say -1."""

    formats = ("safetensors",)
    tasks = ("text-generation",)
    Options = Sized

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]

    def probe(self) -> Probe:
        return Available(version="1")

    def adapter_room(self, options: Spec, task: str) -> AdapterRoom | None:
        most = options.model_dump()["most"]
        return None if most < 0 else AdapterRoom(most, 8)

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        return ONE

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        return ProcessSpec(argv=("{python}", "{attempt}"), resources=resources)


def version(card: str, manifest: str, form: str, **meta: Any) -> ModelVersion:
    return ModelVersion(
        card=card, number=1, manifest=manifest, format=form, precision="fp32", task="text-generation", size=1,
        meta=meta, created_at=0,
    )  # fmt: skip


def served(first: int, second: int) -> Revision:
    return Revision(
        number=1, version="base@1", task="text-generation", engine="a", options={"most": first}, resources=ONE,
        beside=(RevisionMember(engine="b", options={"most": second}, resources=ONE),),
    )  # fmt: skip


def state(folder: Path, revision: Revision) -> Any:
    found: Any = SimpleNamespace(
        database=Database(f"sqlite:///{folder / 'state.db'}"),
        clock=SimpleNamespace(now=lambda: 1.0),
        pulse=SimpleNamespace(beat=lambda: None),
        plugins=SimpleNamespace(engines=lambda: (Toy("a"), Toy("b"))),
        artifacts=SimpleNamespace(path=lambda _: folder),
    )
    record = Deployment(
        id="dep", spec=DeploymentSpec(name="chat", model="base@1"), version="base@1", task="text-generation",
        engine="a", session=None, state=DeploymentState.READY, history=(revision,), created_at=0,
    )  # fmt: skip
    with found.database.transaction() as tx:
        rows.add_model(tx, version("base", BASE, "safetensors"))
        rows.add_model(tx, version("tuned", TUNED, "adapter", base=BASE))
        rows.add_deployment(tx, record, ONE, private=False)
    return found


def added(state: Any) -> Deployment:
    return Adapting(state, Deployments(state), lambda: None).add("chat", AddAdapter(version="tuned@1"))


def test_an_adapter_is_refused_where_one_of_the_engines_has_no_room_for_it(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="b holds no adapters"):
        added(state(tmp_path, served(4, -1)))


def test_an_adapter_is_refused_where_one_of_the_engines_is_full(tmp_path: Path) -> None:
    with pytest.raises(CapacityError, match="room for 0"):
        added(state(tmp_path, served(4, 0)))


def test_each_replica_holds_what_its_own_engine_can(tmp_path: Path) -> None:
    place = state(tmp_path, served(4, 4))
    carrying = added(place)
    mixed = served(-1, 4)
    with place.database.reading() as tx:
        held = [held_by(place, tx, carrying, mixed, one) for one in mixed.members]
    assert [[one.version for one in group] for group in held] == [[], ["tuned@1"]]
