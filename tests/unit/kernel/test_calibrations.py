"""What is tried, what is known of it, and what is taken: a real database, with engines and a machine of a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from sqlalchemy import Connection

from llm_os.drivers.device import Available, Probe, Unavailable
from llm_os.drivers.engine import AdapterRoom, Engine
from llm_os.errors import InvalidInputError, InvalidOptionError, NotFoundError, UnsupportedModelError
from llm_os.kernel import references
from llm_os.kernel.calibrations import TASK, calibration_for, candidates_for, completed, judged, taken
from llm_os.kernel.revisions import chosen_anew, planned, still_unasked
from llm_os.kernel.routing import speeds_of
from llm_os.kernel.submission import cache_key
from llm_os.memory.ledger import Ledger
from llm_os.settings import Settings
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.calibration import Calibration, Member, Speed, Trial
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState, Revision, Scaling
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion
from llm_os.spec.parity import Parity, Share
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, Caps, Holding, ResourceSpec
from llm_os.store import rows
from llm_os.store.database import Database
from llm_os.tasks.serving.calibration import PLUGIN

GIB = 2**30
DIGEST = "sha256:" + "a" * 64
SAID = "sha256:" + "b" * 64


class Sized(Spec):
    memory: int = GIB
    precision: str = "file"


class Toy(Engine):
    """An engine whose whole character are its arguments."""

    formats: ClassVar[tuple[str, ...]] = ("gguf",)
    tasks: ClassVar[tuple[str, ...]] = ("text-generation",)
    Options = Sized

    def __init__(self, name: str, preference: int, *options: Sized, here: bool = True, version: str = "1") -> None:
        self.name, self.preference = name, preference  # type: ignore[misc]
        self._options, self._here, self.version = options or (Sized(),), here, version

    def probe(self) -> Probe:
        return Available(version=self.version) if self._here else Unavailable("it is not installed")

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        return ResourceSpec(cpus=0.5, memory=options.model_dump()["memory"])

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        return ProcessSpec(argv=("{python}", self.name, "{attempt}"), env={"A": "{threads}"}, resources=resources)

    def candidates(self, model: ArtifactFacts, granted: Capacity, precision: str | None = None) -> tuple[Spec, ...]:
        return tuple(one for one in self._options if precision in (None, one.precision))


class Refusing(Toy):
    """It opens such files, but not this one."""

    def refuses(self, model: ArtifactFacts) -> str | None:
        return "it is of another kind"


class Roomy(Toy):
    """It holds adapters beside its model."""

    def adapter_room(self, options: Spec, task: str) -> AdapterRoom | None:
        return AdapterRoom(2, 16)


class Place:
    """What of a kernel's state is looked at."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder)
        self.database = Database(f"sqlite:///{folder / 'state.db'}")
        self.engines: Sequence[Engine] = (Toy("quick", 1), Toy("steady", 2))
        self.plugins: Any = SimpleNamespace(engines=lambda: self.engines, task=self._task)
        self.memory = 8 * GIB + 12345
        self.held: list[Holding] = []
        self.caps: dict[str, Caps] = {}
        self.machine = SimpleNamespace(kind=lambda: self.kind)
        self.kind = "a processor"
        self.artifacts = SimpleNamespace(facts=self._facts)

    @staticmethod
    def _task(name: str) -> Any:
        assert name == TASK
        return PLUGIN

    @staticmethod
    def _facts(digest: str) -> ArtifactFacts:
        if digest not in {DIGEST, SAID}:
            raise NotFoundError("It is gone.")
        meta = {"format": "gguf", "task": "text-generation", "precision": "int4"}
        return ArtifactFacts(digest=digest, kind="model", size=1, meta=meta)

    def ledger(self, tx: Connection) -> Ledger:
        return Ledger(Capacity(cpus=2, memory=self.memory), self.held, self.caps)


@pytest.fixture
def place(tmp_path: Path) -> Any:
    place = Place(tmp_path)
    with place.database.transaction() as tx:
        rows.add_model(tx, VERSION)
        rows.add_model(tx, VERSION.model_copy(update={"number": 2}))
    return place


@pytest.fixture
def tx(place: Any) -> Iterator[Connection]:
    with place.database.transaction() as tx:
        yield tx


VERSION = ModelVersion(
    card="chat", number=1, manifest=DIGEST, format="gguf", precision="int4", task="text-generation", size=1,
    created_at=0,
)  # fmt: skip


def spec(**more: Any) -> DeploymentSpec:
    return DeploymentSpec(name="chat", model="chat@1", **more)


def speeds(*rates: float) -> tuple[Speed, ...]:
    return tuple(Speed(streams=n, per_second=rate, first=0.1) for n, rate in zip((1, 8, 32), rates, strict=True))


def measured(
    place: Any, tx: Connection, *chosen: int, parity: Parity | None = None, precision: str | None = None,
    rates: Any = MappingProxyType({}),
) -> None:  # fmt: skip
    """As if the job had run and come to this."""
    options = {} if precision is None else {"precision": precision}
    job = completed(place, tx, JobSpec(task=TASK, inputs={"model": "chat@1"}, options=options), None)
    whole = PLUGIN.Options.model_validate(dict(job.options))
    trials = tuple(
        Trial(member=one.member, speeds=speeds(*rates.get(one.member.engine, (10, 20, 30))), parity=parity)
        for one in whole.candidates  # type: ignore[attr-defined]
    )
    found = Calibration(version=DIGEST, fingerprint="f", trials=trials, chosen=chosen, why="because of figures")
    key = cache_key(TASK, whole.model_dump(mode="json"), dict(job.inputs))
    rows.put_result(tx, key, "job-1", {"artifact": SAID, "calibration": found.model_dump(mode="json")})


def names(place: Any, tx: Connection, **more: Any) -> list[str]:
    return [one.member.engine for one in candidates_for(place, tx, DIGEST, more.pop("session", None), **more)]


def test_every_engine_that_is_here_and_opens_it_is_tried_the_preferred_one_first(place: Any, tx: Connection) -> None:
    other = Toy("other", 9)
    other.formats = ("safetensors",)  # type: ignore[misc]
    place.engines = (Toy("named", -1), Toy("quick", 1), Toy("away", 5, here=False), Toy("steady", 2), other)
    assert names(place, tx) == ["steady", "quick"]
    assert names(place, tx, engine="named") == ["named"]


def test_an_engine_that_refuses_this_model_is_neither_tried_nor_taken_nor_named(place: Any, tx: Connection) -> None:
    place.engines = (Toy("quick", 1), Refusing("steady", 2))
    assert names(place, tx) == ["quick"]
    asked, why = taken(place, tx, spec(precision="file"), VERSION, None)
    assert asked.engine == "quick"
    assert planned(place, tx, spec(), VERSION, None).because.startswith("quick is the only engine here"), why


def test_what_can_never_fit_is_not_tried(place: Any, tx: Connection) -> None:
    place.engines = (Toy("quick", 1, Sized(memory=9 * GIB), Sized(memory=2 * GIB)),)
    place.caps = {"ses-1": Caps(memory=GIB)}
    assert [one.resources.memory for one in candidates_for(place, tx, DIGEST, None)] == [2 * GIB]
    assert names(place, tx, session="ses-1") == []


def test_a_candidate_says_which_program_is_to_be_started_and_leaves_what_only_its_place_tells(
    place: Any, tx: Connection
) -> None:
    (first, _) = candidates_for(place, tx, DIGEST, None)
    assert first.argv[0].endswith("python")
    assert first.argv[1:] == ("steady", "{attempt}")
    assert first.env["A"] == "{threads}"


def test_programs_are_named_by_the_kernel_alone(place: Any, tx: Connection) -> None:
    job = JobSpec(task=TASK, inputs={"model": "chat@1"}, options={"candidates": []})
    with pytest.raises(InvalidOptionError, match="'candidates' is not yours"):
        completed(place, tx, job, None)
    other = JobSpec(task="evaluation/reference", inputs={"model": "chat@1"})
    assert completed(place, tx, other, None) is other


def test_one_candidate_is_not_measured_and_named(place: Any, tx: Connection) -> None:
    place.engines = (Toy("quick", 1),)
    with pytest.raises(InvalidInputError, match="quick is the only one here that serves text-generation from gguf"):
        completed(place, tx, JobSpec(task=TASK, inputs={"model": "chat@1"}), None)
    assert calibration_for(place, tx, VERSION) is None
    told = taken(place, tx, spec(), VERSION, None)
    assert told == (spec(), "quick is the only engine here that serves text-generation from gguf")


def test_where_nothing_was_measured_the_preferred_one_stays_and_it_is_said(place: Any, tx: Connection) -> None:
    found, why = taken(place, tx, spec(), VERSION, None)
    assert found == spec()
    assert why == "steady is preferred to quick; nothing was measured on this machine"
    revision = planned(place, tx, spec(), VERSION, None)
    assert (revision.engine, revision.because) == ("steady", why)


def test_what_was_measured_best_is_taken(place: Any, tx: Connection) -> None:
    measured(place, tx, 1)
    found, why = taken(place, tx, spec(), VERSION, None)
    assert (found.engine, found.options, found.members) == ("quick", {"memory": GIB, "precision": "file"}, ())
    assert why == "because of figures"
    known = calibration_for(place, tx, VERSION)
    assert known is not None
    assert known.version == "chat@1"


def test_what_somebody_named_stays(place: Any, tx: Connection) -> None:
    measured(place, tx, 1)
    for asked in (spec(engine="steady"), spec(options={"memory": 5}), spec(members=(Member(engine="steady"),))):
        assert taken(place, tx, asked, VERSION, None) == (asked, "")


def test_two_side_by_side_become_members_where_there_is_room_for_both(place: Any, tx: Connection) -> None:
    measured(place, tx, 1, 0)
    both, _ = taken(place, tx, spec(), VERSION, None)
    assert [member.engine for member in both.members] == ["quick", "steady"]
    assert both.engine == "steady", "the one for many requests"
    place.held = [Holding(attempt="att-1", owner="other", kind="replica", cpus=0.5, memory=7 * GIB)]
    single, _ = taken(place, tx, spec(), VERSION, None)
    assert (single.engine, single.members) == ("steady", ())


def test_an_on_demand_replica_and_one_that_may_sleep_are_of_one_engine(place: Any, tx: Connection) -> None:
    measured(place, tx, 1, 0)
    private, _ = taken(place, tx, spec(), VERSION, None, alone=True)
    assert (private.engine, private.members) == ("quick", ())
    scaled, _ = taken(place, tx, spec(scaling=Scaling(least=0)), VERSION, None)
    assert (scaled.engine, scaled.members) == ("steady", ())


def test_what_carries_adapters_gets_the_quickest_engine_that_has_room_for_them(place: Any, tx: Connection) -> None:
    place.engines = (Toy("quick", 3), Roomy("slow", 1), Roomy("slower", 2))
    carrying = spec(adapters={"one": "a@1"})
    found, why = taken(place, tx, carrying, VERSION, None)
    assert (found.engine, why) == (
        None, "slower holds adapters and is preferred to slow; nothing was measured on this machine",
    )  # fmt: skip
    measured(place, tx, 0, rates={"slower": (1, 2, 9), "slow": (5, 5, 5)})
    found, why = taken(place, tx, carrying, VERSION, None)
    assert found.engine == "slow"
    assert why == "slow is the quickest that has room for adapters; without them: because of figures"
    assert taken(place, tx, spec(), VERSION, None)[0].engine == "quick"
    many = spec(adapters=dict.fromkeys("abc", "a@1"))
    assert taken(place, tx, many, VERSION, None)[0].engine == "slow", "whose refusal says how to make room"


def test_a_precision_is_served_by_an_engine_that_has_room_for_the_adapters(place: Any, tx: Connection) -> None:
    place.engines = (Toy("quick", 3), Roomy("slow", 1))
    found, _ = taken(place, tx, spec(precision="file", adapters={"one": "a@1"}), VERSION, None)
    assert found.engine == "slow"


def test_engines_side_by_side_serve_in_the_precision_that_was_asked_for(place: Any, tx: Connection) -> None:
    place.engines = (Toy("quick", 1, Sized(), Sized(precision="int8")), Toy("steady", 2, Sized(precision="int8")))
    both = (Member(engine="quick", options={"memory": 5}), Member(engine="steady"))
    found, why = taken(place, tx, spec(precision="int8", members=both), VERSION, None)
    assert [member.options for member in found.members] == [
        {"memory": 5, "precision": "int8"}, {"memory": GIB, "precision": "int8"},
    ]  # fmt: skip
    assert (found.precision, why) == (None, "")
    with pytest.raises(UnsupportedModelError, match="in int3"):
        taken(place, tx, spec(precision="int3", members=both), VERSION, None)


def test_one_of_two_is_told_to_stand_alone_and_why(place: Any, tx: Connection) -> None:
    measured(place, tx, 1, 0)
    _, why = taken(place, tx, spec(scaling=Scaling(least=0)), VERSION, None)
    assert why == "steady alone, because it scales; because of figures"
    place.held = [Holding(attempt="att-1", owner="other", kind="replica", cpus=0.5, memory=7 * GIB)]
    _, why = taken(place, tx, spec(), VERSION, None)
    assert why.startswith("steady alone, because there is no room for both beside what runs now; ")


def test_both_have_the_room_of_what_they_replace_and_need_it_for_each_replica(place: Any, tx: Connection) -> None:
    measured(place, tx, 1, 0)
    place.held = [Holding(attempt="att-1", owner="dep-1", kind="replica", cpus=0.5, memory=7 * GIB)]
    rows.add_deployment(tx, row("figures").deployment, ResourceSpec(memory=1), private=False)
    assert len(taken(place, tx, spec(), VERSION, None)[0].members) == 2
    assert len(taken(place, tx, spec(replicas=4), VERSION, None)[0].members) == 2
    assert len(taken(place, tx, spec(replicas=5), VERSION, None)[0].members) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda place: setattr(place, "kind", "another processor"),
        lambda place: setattr(place, "memory", 5 * GIB),
        lambda place: setattr(place, "engines", (Toy("quick", 1, version="2"), Toy("steady", 2))),
        lambda place: setattr(place, "engines", (*place.engines, Toy("new", 0))),
    ],
)
def test_figures_hold_for_this_machine_and_these_versions(place: Any, tx: Connection, change: Any) -> None:
    measured(place, tx, 1)
    place.memory += 4096  # an update of the system
    assert calibration_for(place, tx, VERSION) is not None
    change(place)
    assert calibration_for(place, tx, VERSION) is None


def test_figures_hold_for_what_a_session_is_granted(place: Any, tx: Connection) -> None:
    measured(place, tx, 1)
    place.caps = {"ses-1": Caps(cpus=1)}
    assert calibration_for(place, tx, VERSION, "ses-1") is None
    assert calibration_for(place, tx, VERSION, "ses-2") is not None


def test_a_reference_that_comes_later_asks_for_new_figures(place: Any, tx: Connection) -> None:
    measured(place, tx, 1)
    rows.put_result(tx, cache_key(references.TASK, {}, {"model": DIGEST}), "job-2", {"artifact": SAID})
    assert calibration_for(place, tx, VERSION) is None
    job = completed(place, tx, JobSpec(task=TASK, inputs={"model": "chat@1"}), None)
    assert job.inputs == {"model": DIGEST, "reference": SAID}


def test_a_precision_narrows_the_candidates(place: Any, tx: Connection) -> None:
    place.engines = (Toy("quick", 1, Sized(), Sized(precision="int8")), Toy("steady", 2, Sized(precision="int8")))
    assert names(place, tx, precision="int8") == ["steady", "quick"]
    first, why = taken(place, tx, spec(precision="int8"), VERSION, None)
    assert (first.engine, first.options["precision"]) == ("steady", "int8")
    assert why == "steady serves it in int8; nothing was measured on this machine"
    measured(place, tx, 1, precision="int8")
    best, why = taken(place, tx, spec(precision="int8"), VERSION, None)
    assert (best.engine, best.options["precision"], why) == ("quick", "int8", "because of figures")
    assert calibration_for(place, tx, VERSION) is None, "of all precisions nothing is known"


def test_a_precision_with_a_named_engine_becomes_its_options(place: Any, tx: Connection) -> None:
    place.engines = (Toy("named", -1, Sized(), Sized(precision="int8")), Toy("steady", 2))
    found, why = taken(place, tx, spec(engine="named", precision="int8", options={"memory": 5}), VERSION, None)
    assert (found.engine, found.options, why) == ("named", {"memory": 5, "precision": "int8"}, "")
    assert found.precision is None, "it would bind whatever engine comes later"
    with pytest.raises(UnsupportedModelError, match="No engine here serves text-generation from gguf in int8"):
        taken(place, tx, spec(engine="steady", precision="int8"), VERSION, None)
    with pytest.raises(UnsupportedModelError, match="in int3"):
        taken(place, tx, spec(precision="int3"), VERSION, None)


def revision(engine: str, because: str = "", **options: Any) -> Revision:
    return Revision(
        number=1, version="chat@1", task="text-generation", engine=engine, because=because,
        options=Sized(**options).model_dump(), resources=ResourceSpec(memory=GIB),
    )  # fmt: skip


def test_what_was_compared_while_it_was_measured_need_not_be_compared_again(place: Any, tx: Connection) -> None:
    share = Share(count=10, agreed=10, low=0.7, high=1.0)
    agreed = Parity(everywhere=share, sure=share)
    measured(place, tx, 0, parity=agreed)
    of, second = row("figures").deployment, revision("quick").model_copy(update={"version": "chat@2"})
    assert judged(place, tx, second, second.members[0], of) == agreed, "of the same content"
    other = revision("quick", memory=5)
    assert judged(place, tx, other, other.members[0], of) is None, "other options"


def test_what_was_chosen_for_a_precision_is_known_by_its_figures(place: Any, tx: Connection) -> None:
    place.engines = (Toy("quick", 1, Sized(precision="int8")), Toy("steady", 2, Sized(precision="int8")))
    share = Share(count=10, agreed=10, low=0.7, high=1.0)
    agreed = Parity(everywhere=share, sure=share)
    measured(place, tx, 1, 0, precision="int8", parity=agreed)
    asked, served = spec(precision="int8"), planned(place, tx, spec(precision="int8"), VERSION, None)
    of = row("figures").deployment.model_copy(update={"spec": asked})
    assert len(served.members) == 2
    for mine in served.members:
        assert judged(place, tx, served, mine, of) == agreed
        assert [one.per_second for one in speeds_of(place, tx, served, mine, of)] == [10, 20, 30]


def test_a_reference_that_comes_later_takes_nobody_the_speeds(place: Any, tx: Connection) -> None:
    measured(place, tx, 1)
    rows.put_result(tx, cache_key(references.TASK, {}, {"model": DIGEST}), "job-2", {"artifact": SAID})
    served, of = revision("quick"), row("figures").deployment
    assert speeds_of(place, tx, served, served.members[0], of)
    assert judged(place, tx, served, served.members[0], of) is None


def test_engines_side_by_side_keep_the_figures_that_they_were_chosen_by(place: Any, tx: Connection) -> None:
    measured(place, tx, 1, 0)
    served, of = planned(place, tx, spec(), VERSION, "ses-1"), row("figures").deployment
    assert [len(one.speeds) for one in served.members] == [3, 3]
    place.kind = "after an update of the system"
    assert calibration_for(place, tx, VERSION) is None
    for mine in served.members:
        assert [one.per_second for one in speeds_of(place, tx, served, mine, of)] == [10, 20, 30]


def test_another_build_of_the_same_version_is_measured_and_compared_anew(place: Any, tx: Connection) -> None:
    share = Share(count=10, agreed=10, low=0.7, high=1.0)
    measured(place, tx, 0, parity=Parity(everywhere=share, sure=share))
    served, of = revision("quick"), row("figures").deployment
    assert judged(place, tx, served, served.members[0], of) is not None
    place.engines[0].identity = lambda options: "another build"
    assert judged(place, tx, served, served.members[0], of) is None


def test_what_a_plugin_or_a_record_does_wrong_ends_no_turn_of_the_loop(place: Any, tx: Connection) -> None:
    measured(place, tx, 1)
    served, of = revision("quick"), row("figures").deployment
    place.engines[0].candidates = lambda *_: 1 / 0
    assert speeds_of(place, tx, served, served.members[0], of) == ()
    assert judged(place, tx, served, served.members[0], of) is None


def row(because: str) -> rows.DeploymentRow:
    asked = spec(engine="steady", options=Sized().model_dump())
    deployment = Deployment(
        id="dep-1", spec=asked, version="chat@1", task="text-generation", engine="steady", session=None,
        state=DeploymentState.READY, history=(revision("steady", because),), created_at=0,
    )  # fmt: skip
    return rows.DeploymentRow(deployment, 1, False, None, 0, ResourceSpec(memory=GIB))


def test_an_engine_that_nobody_asked_for_is_chosen_anew_for_another_version(place: Any, tx: Connection) -> None:
    second = VERSION.model_copy(update={"number": 2})
    asked = row("figures").deployment.spec
    assert chosen_anew(place, tx, row("figures"), asked, second) is asked, "nothing was measured"
    measured(place, tx, 1)
    assert chosen_anew(place, tx, row(""), asked, second) is asked, "somebody asked for it"
    assert chosen_anew(place, tx, row("figures"), asked, VERSION) is asked, "it is the same version"
    anew = chosen_anew(place, tx, row("figures"), asked, second)
    assert planned(place, tx, anew, second, None).engine == "quick"


def test_an_engine_that_stays_for_want_of_figures_is_still_one_that_nobody_asked_for(
    place: Any, tx: Connection
) -> None:
    second = VERSION.model_copy(update={"number": 2})
    before = row("figures")
    target = planned(place, tx, before.deployment.spec, second, None, 2)
    assert target.because == "", "as if somebody had asked for it"
    kept = still_unasked(before, target)
    assert kept.because == "kept from chat@1: figures"
    again = replace(before, deployment=before.deployment.model_copy(update={"version": "chat@2", "history": (kept,)}))
    assert still_unasked(again, target).because == "kept from chat@1: figures", "not longer with every version"
    measured(place, tx, 1)
    third = VERSION.model_copy(update={"number": 3})
    assert chosen_anew(place, tx, again, again.deployment.spec, third).engine is None
    assert still_unasked(row(""), target).because == "", "somebody asked for it"
    other = target.model_copy(update={"engine": "quick"})
    assert still_unasked(before, other).because == ""
    assert still_unasked(before, target.model_copy(update={"version": "chat@1"})).because == "figures"
