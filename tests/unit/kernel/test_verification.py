"""Comparisons of live replicas: who is asked, whose answer stays with which engine, and what crosses on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_os.errors import ConflictError
from llm_os.kernel import verification
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.folders import HomeFiles
from llm_os.kernel.state import Watch
from llm_os.kernel.verification import Verifications, noted
from llm_os.settings import Settings
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import AdapterInput, Control, Report
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState, Revision, RevisionMember
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.parity import Parity, Share
from llm_os.spec.placement import Placement
from llm_os.spec.resources import ResourceSpec
from llm_os.store import rows
from llm_os.store.database import Database

SAID = "sha256:" + "b" * 64
ONE = ResourceSpec(memory=1)


def attempt(number: int, member: int = 0, state: AttemptState = AttemptState.READY) -> Attempt:
    return Attempt(
        id=f"a{number}", owner_kind="replica", owner="dep", number=number, token=number, state=state, member=member,
        placement=Placement(node="local", cpus=1, memory=1), endpoint=f"unix:/a{number}", created_at=0,
    )  # fmt: skip


class Place:
    """What of a kernel's state is looked at, with real folders; nothing runs."""

    def __init__(self, folder: Path, live: Sequence[Attempt]) -> None:
        settings = Settings(home=folder)
        self.now = 100.0
        self.database = Database(f"sqlite:///{folder / 'state.db'}")
        self.clock = SimpleNamespace(now=lambda: self.now)
        self.files = HomeFiles(settings)
        self.artifacts = SimpleNamespace(
            facts=lambda digest: ArtifactFacts(digest=digest, kind="reference", size=1), path=lambda digest: folder
        )
        self.watches: dict[str, Watch] = {}
        self.verifications = Verifications(self, Deployments(self))  # type: ignore[arg-type]
        first = Revision(
            number=1, version="m@1", task="t", engine="llamacpp", resources=ONE,
            beside=(RevisionMember(engine="openvino", resources=ONE),),
        )  # fmt: skip
        record = Deployment(
            id="dep", spec=DeploymentSpec(name="chat", model="m@1"), version="m@1", task="t", engine="llamacpp",
            session=None, state=DeploymentState.READY, history=(first,), created_at=0,
        )  # fmt: skip
        with self.database.transaction() as tx:
            rows.add_deployment(tx, record, ONE, private=False)
            for one in live:
                rows.add_attempt(tx, one, None)
                self.files.attempt(one.id).mkdir()

    def watch(self, name: str) -> Watch:
        return self.watches.setdefault(name, Watch())

    def tells(self, name: str, number: int, **values: Any) -> Report:
        reports = self.watch(name).reports
        reports.append(Report(seq=len(reports) + 1, at=1, kind="parity", values={"number": number, **values}))
        return reports[-1]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(verification, "reference_behind", lambda *_: SAID)
    return Place(tmp_path, [attempt(1), attempt(2, member=1)])


def parity(agreed: int) -> Parity:
    share = Share(count=100, agreed=agreed, low=0.0, high=1.0)
    return Parity(everywhere=share, sure=share, complaints=() if agreed > 90 else ("too few",))


def test_each_engine_keeps_its_own_figures_however_bad_those_of_the_other_are(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[str, Any]] = []
    monkeypatch.setattr(verification, "keep", lambda _s, _tx, one, told, anyway: kept.append((one.id, told)))
    bad = place.tells("a1", 7, parity=parity(50).model_dump(mode="json"))
    good = place.tells("a2", 7, parity=parity(99).model_dump(mode="json"))
    with place.database.transaction() as tx:
        noted(place, tx, attempt(2, member=1), [good])  # type: ignore[arg-type]
        noted(place, tx, attempt(1), [bad])  # type: ignore[arg-type]
    assert kept == [("a2", good), ("a1", bad)]


def test_what_came_out_says_of_which_engine(place: Place) -> None:
    found = place.verifications.begin("chat")
    assert found.engine == "llamacpp and openvino"
    assert [one.engine for one in found.replicas] == ["llamacpp", "openvino"]


def test_a_replica_that_became_ready_meanwhile_was_not_asked_and_is_not_waited_for(place: Place) -> None:
    with place.database.transaction() as tx:
        rows.add_attempt(tx, attempt(3, state=AttemptState.RUNNING), None)
    number = place.verifications.begin("chat").number
    with place.database.transaction() as tx:
        rows.update_attempt(tx, attempt(3), was=AttemptState.RUNNING)
    assert [one.attempt for one in place.verifications.told("chat", number).replicas] == ["a1", "a2"]
    with pytest.raises(ConflictError, match="ended while they were compared"):
        place.verifications.told("chat", number + 1)


def test_who_asks_while_a_comparison_goes_on_joins_it(place: Place) -> None:
    first = place.verifications.begin("chat").number
    place.now += 0.1
    assert place.verifications.begin("chat").number == first
    for name in ("a1", "a2"):
        place.tells(name, first, parity=parity(99).model_dump(mode="json"))
    assert place.verifications.told("chat", first).agrees
    assert place.verifications.begin("chat").number > first


def test_a_later_comparison_that_was_heard_of_in_its_place_answers_an_earlier_one(place: Place) -> None:
    first = place.verifications.begin("chat").number
    place.now += 0.1
    with place.database.transaction() as tx:
        rows.add_attempt(tx, attempt(3), None)
        place.files.attempt("a3").mkdir()
    second = place.verifications.begin("chat").number
    assert second > first
    for name in ("a1", "a2", "a3"):
        place.tells(name, second, parity=parity(99).model_dump(mode="json"))
    assert place.verifications.told("chat", first).agrees


def test_what_a_replica_was_told_before_it_read_it_is_not_lost(place: Place) -> None:
    carried = (AdapterInput(name="one", version="a@1", path="/a"),)
    place.files.write_control("a1", Control(adapters=carried))
    number = place.verifications.begin("chat").number
    place.files.write_control("a1", Control(adapters=()))
    place.files.write_control("a1", Control(stop=True, reason="replaced", grace=5.0))
    place.files.write_control("a1", Control(adapters=carried))
    told = place.files.read_control("a1")
    assert told.compare is not None
    assert (told.adapters, told.compare.number, told.stop, told.grace) == (carried, number, True, 5.0)
