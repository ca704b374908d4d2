"""Runs the real kernel and the real store through random misfortune in virtual time, and replays any run exactly.

    python -m llm_os.testing.simulator --seed 17            # one run; --trace shows what happened
    python -m llm_os.testing.simulator --seeds 0:2000       # many
    python -m llm_os.testing.simulator --seed 17 --every-point    # the same run, killed at each point in turn

A run has clients with work (`strategies`), ports in memory (`simulated`), faults (`faults`) and an `Oracle` that checks
after every event. Then all faults end, and everything must come to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from llm_os.drivers.launchers.fake import FakeLauncher
from llm_os.errors import LLMOSError, NotFoundError
from llm_os.kernel.loop import Kernel
from llm_os.settings import Settings
from llm_os.spec.api import CreateDeployment, OpenSession, SetCaps, ShutdownRequest, SubmitJob, UpdateDeployment
from llm_os.spec.base import Json
from llm_os.spec.calibration import Member
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState, Scaling, UpdatePolicy
from llm_os.spec.jobs import Job, JobSpec
from llm_os.spec.resources import Caps
from llm_os.store.database import Database
from llm_os.testing.clock import LoopClock, virtual_time
from llm_os.testing.faults import Crash, FailingDatabase, Incarnation, Luck, Port, SharedDatabase, task_factory
from llm_os.testing.oracle import Oracle
from llm_os.testing.simulated import (
    CORES,
    HOME,
    MEMORY,
    SimulatedArtifacts,
    SimulatedFiles,
    SimulatedHost,
    SimulatedMachine,
    SimulatedPlugins,
    needs,
)
from llm_os.testing.strategies import GIB, PlannedDeployment, PlannedJob, PlannedSession, Scenario, random_scenario

QUIET = {
    "files": frozenset(
        {"attempt", "checkpoints", "socket", "output", "log_tail", "read_reports", "read_exit", "read_usage"}
    ),
    "artifacts": frozenset({"facts", "path"}),
    "launcher": frozenset({"name", "probe"}),
}
"""Calls that change nothing outside the kernel: dying beside one is dying at the point before."""
WRITES = {"files": frozenset({"create", "write_routes"}), "artifacts": frozenset({"ingest"}), "launcher": frozenset()}
RESTS_WITHIN = 90.0
"""Seconds after the last fault within which all that can serve does: a replica that was replaced may take a minute."""
SETTLES_WITHIN = 240.0
"""Seconds after the last fault within which all work must have come to its end."""

KernelClass = Callable[..., Kernel]


class SimulationError(AssertionError):
    """A rule was broken; the message says which, and how to see it again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run was like.

    Attributes:
        trace: what happened, a line each; equal seeds give equal traces.
        points: points that each life of the kernel passed.
        crashes: where it died.
        faults: what else struck.
    """

    trace: tuple[str, ...]
    points: tuple[int, ...]
    crashes: tuple[str, ...]
    faults: tuple[str, ...]
    jobs: int
    seconds: float

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


def simulate(
    seed: int, *, scenario: Scenario | None = None, kernel: KernelClass = Kernel, crash_at: int | None = None
) -> Outcome:
    """One run. Raises SimulationError for the first broken rule.

    Args:
        scenario: what happens; None: drawn from the seed.
        kernel: the class under test.
        crash_at: the point at which the first kernel dies, instead of what the scenario says.
    """
    random = Random(seed)
    drawn = random_scenario(random) if scenario is None else scenario
    if crash_at is not None:
        drawn = replace(drawn, misfortune=replace(drawn.misfortune, crash_at=(crash_at,)))
    with virtual_time() as loop:
        loop.set_task_factory(task_factory)
        run = Simulation(seed, drawn, random, kernel, again="" if crash_at is None else f" --crash-at {crash_at}")
        loop.set_exception_handler(run.unhandled)
        try:
            loop.run_until_complete(run.main())
        finally:
            run.close()
        return run.outcome()


class Simulation:
    """One run; see `simulate`."""

    def __init__(self, seed: int, scenario: Scenario, random: Random, kernel: KernelClass, again: str) -> None:
        self._seed, self._scenario, self._kernel = seed, scenario, kernel
        self._again = again
        self._random = random
        self._clock = LoopClock()
        self._trace: list[str] = []
        self._broken_rules: list[str] = []
        self._lives: list[Incarnation] = []
        self._kernels: dict[int, Kernel] = {}
        self._crashes_left = list(scenario.misfortune.crash_at)
        self._database = _fresh_database()
        self._settings = Settings(home=HOME, cpus=CORES, memory=MEMORY, sweep_every=5.0, linger=1.0)
        self._machine = SimulatedMachine(scenario.accelerators)
        self._plugins = SimulatedPlugins()
        bad = scenario.misfortune
        self._luck = Luck(random, bad.commits, bad.disk)
        self._oracle = Oracle(self._database, self._machine.capacity(), self._now, self._broken, self._tell)
        self._host = SimulatedHost(self._now, self._luck, bad.workers, bad.reports, self._oracle.started, self._tell)
        self._oracle.host = self._host
        self._files = SimulatedFiles(self._host, self._now)
        self._artifacts = SimulatedArtifacts(self._host, self._broken)
        self._clock_seconds = 0.0
        self._told: dict[str, list[tuple[str, int]]] = {}
        self._jobs = 0

    # -- the frame -----------------------------------------------------------------------------------------------------

    async def main(self) -> None:
        """Until everything came to its end, or the first rule is broken."""
        self._stop = asyncio.Event()
        self._up = asyncio.Event()
        self._finished = False
        story, broken = asyncio.ensure_future(self._story()), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({story, broken}, return_when=asyncio.FIRST_COMPLETED)
        problem = story.exception() if story.done() else None
        if problem is not None:
            self._broken(f"The simulation itself failed: {problem!r}")
        story.cancel()
        broken.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await story
        for life in self._lives:
            life.bury()
        await asyncio.sleep(0)
        if self._broken_rules:
            raise SimulationError(self._explain()) from problem

    async def _story(self) -> None:
        keeper = asyncio.ensure_future(self._keep_alive())
        monitor = asyncio.ensure_future(self._monitor())
        await asyncio.gather(*(self._client(plan, n) for n, plan in enumerate(self._scenario.sessions)))
        self._calm()
        await self._comes_to_rest()
        await self._everything_ends()
        monitor.cancel()
        self._finished = True
        await self._shut_down(keeper)
        left = [process.attempt for process in self._host.alive()]
        if left:
            self._broken(f"After the shutdown there still runs {left}.")

    async def _shut_down(self, keeper: asyncio.Future[None]) -> None:
        """Ask until it is done: a kernel that is killed on the way is started again, and knows nothing of it."""
        deadline = self._now() + SETTLES_WITHIN
        while not keeper.done() and self._now() < deadline:
            asked = asyncio.ensure_future(self._ask("shutdown", ShutdownRequest()))
            await asyncio.wait({asked, keeper}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({keeper}, timeout=45.0)
            asked.cancel()
        if not keeper.done():
            self._broken("The kernel was asked to end, and did not.")

    def close(self) -> None:
        for life in self._lives:
            life.bury()

    def outcome(self) -> Outcome:
        return Outcome(
            trace=tuple(self._trace),
            points=tuple(life.points for life in self._lives),
            crashes=tuple(life.died_at for life in self._lives if life.died_at),
            faults=tuple(self._luck.seen),
            jobs=self._jobs,
            seconds=self._clock_seconds,
        )

    def unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nobody asked for: a kernel's death is expected, everything else is a defect."""
        error = context.get("exception")
        if not isinstance(error, Crash):
            self._broken(f"Unhandled: {context.get('message')}: {error!r}")

    def _now(self) -> float:
        return self._clock.now()

    def _tell(self, line: str) -> None:
        self._clock_seconds = asyncio.get_running_loop().time()
        self._trace.append(f"{self._clock_seconds:9.3f} {line}")

    def _broken(self, sentence: str) -> None:
        self._tell(f"BROKEN {sentence}")
        self._broken_rules.append(sentence)
        self._stop.set()

    def _explain(self) -> str:
        tail = "\n".join(self._trace[-25:])
        return (
            f"{self._broken_rules[0]}\n{tail}\n"
            f"Again: python -m llm_os.testing.simulator --seed {self._seed}{self._again} --trace"
        )

    # -- lives of the kernel -------------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        """Start a kernel again whenever it died, as whoever needs one does."""
        while True:
            crash_at = self._crashes_left.pop(0) if self._crashes_left else None
            life = Incarnation(len(self._lives) + 1, crash_at, self._broken)
            self._lives.append(life)
            self._tell(f"kernel {life.number} starts")
            run = asyncio.get_running_loop().create_task(self._live(life), context=life.context)
            died = asyncio.ensure_future(life.died.wait())
            await asyncio.wait({run, died}, return_when=asyncio.FIRST_COMPLETED)
            died.cancel()
            self._up.clear()
            self._oracle.interrupted()
            if not life.died.is_set():
                problem = run.exception()
                life.bury()
                if problem is None and self._finished:
                    return
                self._broken(f"The kernel ended by itself: {problem!r}")
                return
            self._tell(f"kernel {life.number} died at {life.died_at}")
            life.bury()
            await asyncio.sleep(self._random.choice([0.05, 0.5, 3.0]))

    async def _live(self, life: Incarnation) -> None:
        ports: dict[str, Any] = {
            name: Port(name, inner, life, self._luck, QUIET[name], WRITES[name])
            for name, inner in {
                "files": self._files,
                "artifacts": self._artifacts,
                "launcher": FakeLauncher(self._host),
            }.items()
        }
        kernel = self._kernel(
            settings=self._settings,
            database=FailingDatabase(self._database, life, self._luck, self._oracle.committed),
            machine=self._machine,
            plugins=self._plugins,
            clock=self._clock,
            random=self._random,
            gateway=("gateway", "{attempt}") if self._scenario.gateway else None,
            **ports,
        )
        self._kernels[life.number] = kernel
        try:
            await kernel.recover()
        except OperationalError:  # it could not start; whoever needs it starts it again
            life.crash_at = life.points + 1
            life.point("recovery failed")
        self._up.set()
        await kernel.run()

    async def _ask(self, verb: str, *arguments: Any) -> Any:
        """A syscall, again and again until a kernel answers it. Raises LLMOSError."""
        while True:
            answered, answer = await self._ask_once(verb, *arguments)
            if answered:
                return answer
            await asyncio.sleep(0.1)

    async def _ask_once(self, verb: str, *arguments: Any) -> tuple[bool, Any]:
        """(False, None) when the kernel died of it or the database failed: nobody knows whether it was done."""
        await self._up.wait()
        life = self._lives[-1]
        call = getattr(self._kernels[life.number], verb)
        try:
            answer = life.call(call, *arguments)
            if isinstance(answer, Coroutine):
                answer = await self._wait_for(life, answer)
        except (Crash, OperationalError):
            return False, None
        return True, answer

    async def _wait_for(self, life: Incarnation, answer: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.get_running_loop().create_task(answer, context=life.context.copy())
        died = asyncio.ensure_future(life.died.wait())
        await asyncio.wait({task, died}, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        if not task.done():
            raise Crash(life.died_at)
        return task.result()

    # -- clients -------------------------------------------------------------------------------------------------------

    async def _client(self, plan: PlannedSession, number: int) -> None:
        await asyncio.sleep(plan.at)
        session = (await self._ask("open_session", OpenSession(name=plan.name, ttl=plan.ttl))).id
        self._oracle.renewed[session] = (self._now() - plan.ttl, plan.ttl)
        work: list[Awaitable[None]] = [self._renew(session, plan.ttl)]
        if plan.cpus_cap is not None or plan.memory_cap is not None:
            work.append(self._cap(session, plan))
        work += [self._submit(session, job, f"card-{number}") for job in plan.jobs]
        work += [self._deploy(session, deployment, f"card-{number}") for deployment in plan.deployments]
        tasks = [asyncio.ensure_future(_unless_refused(one)) for one in work]
        await asyncio.sleep(plan.ends)
        for task in tasks:
            task.cancel()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                self._broken(f"A client got {error!r}.")
        self._oracle.may_end.add(session)
        if plan.closes:
            await self._ask("close_session", session)

    async def _renew(self, session: str, ttl: float) -> None:
        while True:
            sent = self._now()
            answered, _ = await self._ask_once("renew_session", session)
            if answered:
                self._oracle.renewed[session] = (sent, ttl)
            await asyncio.sleep(ttl / 3)

    async def _cap(self, session: str, plan: PlannedSession) -> None:
        caps = Caps(cpus=plan.cpus_cap, memory=plan.memory_cap)
        await self._ask("set_caps", session, SetCaps(caps=caps))

    async def _submit(self, session: str, plan: PlannedJob, card: str) -> None:
        await asyncio.sleep(plan.at)
        options = {
            "key": plan.key,
            "cpus": plan.cpus,
            "memory": plan.memory,
            "accelerators": plan.accelerators,
            "lasts": plan.lasts,
            "fate": plan.fate,
        }
        name = card if plan.task == "sim/model" else None
        spec = JobSpec(task=plan.task, options=options, name=name, priority=plan.priority)
        request = SubmitJob(spec=spec, session=session, background=plan.background)
        job: Job = await self._ask("submit_job", request)
        self._oracle.acknowledged[job.id] = needs(options)
        self._jobs += 1
        follower = asyncio.ensure_future(_unless_refused(self._follow(job.id))) if plan.followed else None
        try:
            if plan.cancel_after is not None:
                await asyncio.sleep(plan.cancel_after)
                self._oracle.may_end.add(job.id)
                await self._ask("cancel_job", job.id)
            if follower is not None:
                await follower
        finally:
            if follower is not None:
                follower.cancel()

    async def _follow(self, job: str) -> None:
        """Read its reports as a progress bar does, across deaths of the kernel."""
        since, ended = 0, False
        while not ended:
            page = await self._ask("job_reports", job, since, 2.0)
            seen = [(str(report.values.get("attempt")), report.seq) for report in page.reports]
            self._told.setdefault(job, []).extend(seen)
            since, ended = page.next, page.ended

    async def _deploy(self, session: str, plan: PlannedDeployment, card: str) -> None:
        await asyncio.sleep(plan.at)
        options: dict[str, Json] = {"cpus": plan.cpus, "memory": plan.memory}
        several = _side_by_side(plan.engines, options)
        spec = DeploymentSpec(
            name=plan.name,
            model=card,
            options={} if several else options,
            members=several,
            replicas=plan.replicas,
            idle_after=plan.idle_after,
            update=UpdatePolicy(bake=0.5, ready_within=8.0, watch=1.0),
            scaling=None if plan.least is None else Scaling(least=plan.least, most=2, idle_after=1.0, steady=1.0),
        )
        request = CreateDeployment(spec=spec, session=session, keep=plan.keep, private=plan.private)
        for _ in range(20):
            with suppress(NotFoundError):
                await self._ask("create_deployment", request)
                break
            await asyncio.sleep(0.5)
        self._files.busy[plan.name] = self._now() + self._random.choice([0.0, 4.0])
        changes = asyncio.ensure_future(_unless_refused(self._update(plan)))
        try:
            if plan.stop_after is not None:
                await asyncio.sleep(plan.stop_after)
                await self._ask("stop_deployment", plan.name)
            await changes
        finally:
            changes.cancel()

    async def _update(self, plan: PlannedDeployment) -> None:
        """Let it serve with other options, and perhaps take that back."""
        if plan.update_after is None:
            return
        await asyncio.sleep(plan.update_after)
        options: dict[str, Json] = {"cpus": plan.cpus, "memory": plan.memory + 2**20}
        several = _side_by_side(plan.updated_engines, options)
        request = UpdateDeployment(members=several) if several else UpdateDeployment(options=options)
        await self._ask("update_deployment", plan.name, request)
        if plan.roll_back_after is not None:
            await asyncio.sleep(plan.roll_back_after)
            await self._ask("roll_back_deployment", plan.name)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        self._tell("calm")
        self._luck.calm()
        self._host.calm()
        self._crashes_left.clear()
        if not self._again:  # a point that was asked for may lie in what follows
            for life in self._lives:
                life.crash_at = None
        self._oracle.interrupted()

    async def _monitor(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self._up.is_set():
                self._oracle.nothing_waits_that_fits()

    async def _comes_to_rest(self) -> None:
        """What is to be kept serves, and the gateway knows it; what does not fit may wait."""
        problem = ""
        for _ in range(int(RESTS_WITHIN)):
            await asyncio.sleep(1.0)
            problem = self._routes_are_wrong(await self._ask("deployments"))
            if not problem:
                return
        self._broken(problem)

    def _routes_are_wrong(self, deployments: list[Deployment]) -> str:
        """What the gateway was told that is not so; empty: nothing."""
        live = {d.spec.name: d for d in deployments if d.state is not DeploymentState.STOPPING}
        routes = self._files.routes.routes if self._files.routes else ()
        if {route.deployment for route in routes} != set(live):
            return f"The gateway was told of {[r.deployment for r in routes]}, there are {sorted(live)}."
        for route in routes:
            told = {endpoint.attempt for endpoint in route.endpoints}
            if told != {replica.attempt for replica in live[route.deployment].replicas if replica.state == "ready"}:
                return f"The gateway sends requests for {route.deployment} to {sorted(told)}."
            if dead := [attempt for attempt in told if not self._host.processes[attempt].alive]:
                return f"The gateway sends requests for {route.deployment} to {dead}, which run no more."
        if endless := [name for name, record in live.items() if record.updating]:
            return f"The updates of {endless} never end."
        if slow := [name for name, record in live.items() if record.state is DeploymentState.STARTING]:
            return f"{slow} started, but never answers."
        systems = [p for p in self._host.alive() if self._host.owner_of(p.attempt) == "gateway"]
        if len(systems) != int(self._scenario.gateway):
            return f"{len(systems)} gateways run."
        return ""

    async def _everything_ends(self) -> None:
        """Deployments are stopped, endless jobs cancelled; then nothing may be left over."""
        for deployment in await self._ask("deployments"):
            await self._ask("stop_deployment", deployment.spec.name)
        for job in await self._ask("jobs", None, 10_000):
            if job.spec.options["fate"] == "hangs" and not job.state.ended:
                self._oracle.may_end.add(job.id)
                await self._ask("cancel_job", job.id)
        deadline = self._now() + SETTLES_WITHIN
        while self._now() < deadline:
            jobs = await self._ask("jobs", None, 10_000)
            if all(job.state.ended for job in jobs) and not await self._ask("deployments"):
                break
            await asyncio.sleep(1.0)
        if any(self._host.owner_of(p.attempt) != "gateway" for p in self._host.alive()):
            await asyncio.sleep(self._settings.sweep_every + 1.0)
        jobs = await self._ask("jobs", None, 10_000)
        self._oracle.nothing_was_lost(jobs, await self._ask("models"), unlucky="disk" in self._luck.seen)
        self._oracle.reports_are_told_once(self._told)
        left = [d.spec.name for d in await self._ask("deployments")]
        if left:
            self._broken(f"{left} never ended.")
        orphans = [p.attempt for p in self._host.alive() if self._host.owner_of(p.attempt) != "gateway"]
        if orphans:
            self._broken(f"{orphans} runs, and nobody owns it.")


def _side_by_side(engines: int, options: dict[str, Json]) -> tuple[Member, ...]:
    """So many engines, the second one smaller; none where there is but one."""
    half = {"cpus": 0.5, "memory": GIB // 2}
    return (Member(engine="simulated", options=options), Member(engine="other", options=half)) if engines > 1 else ()


async def _unless_refused(work: Awaitable[None]) -> None:
    """A client that is told no gives up; that is its right."""
    with suppress(LLMOSError):
        await work


@cache
def _template() -> tuple[Engine, bytes]:
    """An engine in memory, and the bytes of a database that was just migrated."""
    database = Database("sqlite://")
    raw = database.engine.raw_connection()
    try:
        return database.engine, bytes(raw.driver_connection.serialize())  # type: ignore[union-attr]
    finally:
        raw.close()


def _fresh_database() -> Database:
    """The one database in memory, as it was after its migration: its compiled statements are kept from run to run."""
    engine, template = _template()
    raw = engine.raw_connection()
    raw.rollback()
    raw.driver_connection.deserialize(template)  # type: ignore[union-attr]
    raw.close()
    return SharedDatabase(engine)


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module. Exit code 1: a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m llm_os.testing.simulator", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed")
    parser.add_argument("--seeds", help="run these seeds, FIRST:LAST (LAST not included)")
    parser.add_argument("--crash-at", type=int, help="kill the first kernel at this point, and no other")
    parser.add_argument("--every-point", action="store_true", help="run the seed again for each point of its kernel")
    parser.add_argument("--trace", action="store_true", help="print what happened")
    parser.add_argument("--log", action="store_true", help="print the kernel's log")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.DEBUG if given.log else logging.CRITICAL)
    first, _, last = (given.seeds or f"{given.seed or 0}:{(given.seed or 0) + 1}").partition(":")
    for seed in range(int(first), int(last)):
        points: list[int | None] = [given.crash_at]
        if given.every_point:
            points = list(range(1, simulate(seed, crash_at=0).points[0] + 1))
        for point in points:
            try:
                outcome = simulate(seed, crash_at=point)
            except SimulationError as error:
                print(f"seed {seed}: {error}", file=sys.stderr)
                return 1
            if given.trace:
                print("\n".join(outcome.trace))
        print(f"seed {seed}: {outcome.digest} points {outcome.points} jobs {outcome.jobs} crashes {outcome.crashes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
