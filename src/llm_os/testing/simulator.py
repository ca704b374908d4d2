"""Runs the real kernel and the real store through random misfortune in virtual time, and replays any run exactly.

    python -m llm_os.testing.simulator --seed 17            # one run; --trace shows what happened
    python -m llm_os.testing.simulator --seeds 0:2000       # many
    python -m llm_os.testing.simulator --seed 17 --every-point    # the same run, killed at each point in turn

A run has clients (`simulated_clients`) with work (`strategies`), a kernel that dies and comes back
(`simulated_kernel`), ports in memory (`simulated`), faults (`faults`) and an `Oracle` that checks after every event.
Then all faults end, and everything must come to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from llm_os.drivers.launchers.fake import FakeLauncher
from llm_os.kernel.loop import Kernel
from llm_os.settings import Settings
from llm_os.spec.api import ShutdownRequest
from llm_os.spec.deployments import Deployment, DeploymentState
from llm_os.testing.clock import LoopClock, virtual_time
from llm_os.testing.faults import Crash, FailingDatabase, Incarnation, Luck, Port, fresh_database, task_factory
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
)
from llm_os.testing.simulated_clients import SimulatedClients
from llm_os.testing.simulated_kernel import SimulatedKernel
from llm_os.testing.strategies import Scenario, random_scenario

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
        self._seed, self._scenario, self._kernel_class = seed, scenario, kernel
        self._again = again
        self._random = random
        self._clock = LoopClock()
        self._trace: list[str] = []
        self._broken_rules: list[str] = []
        self._database = fresh_database()
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
        self._kernel = SimulatedKernel(self._build, bad.crash_at, self._oracle, random, self._tell, self._broken)
        self._clients = SimulatedClients(self._kernel, self._files, self._oracle, random, self._now, self._broken)

    # -- the frame -----------------------------------------------------------------------------------------------------

    async def main(self) -> None:
        """Until everything came to its end, or the first rule is broken."""
        self._stop = asyncio.Event()
        story, broken = asyncio.ensure_future(self._story()), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({story, broken}, return_when=asyncio.FIRST_COMPLETED)
        problem = story.exception() if story.done() else None
        if problem is not None:
            self._broken(f"The simulation itself failed: {problem!r}")
        story.cancel()
        broken.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await story
        self._kernel.bury()
        await asyncio.sleep(0)
        if self._broken_rules:
            raise SimulationError(self._explain()) from problem

    async def _story(self) -> None:
        keeper = asyncio.ensure_future(self._kernel.keep_alive())
        monitor = asyncio.ensure_future(self._monitor())
        await asyncio.gather(*(self._clients.live(plan, n) for n, plan in enumerate(self._scenario.sessions)))
        self._calm()
        await self._comes_to_rest()
        await self._everything_ends()
        monitor.cancel()
        self._kernel.finished = True
        await self._shut_down(keeper)
        left = [process.attempt for process in self._host.alive()]
        if left:
            self._broken(f"After the shutdown there still runs {left}.")

    async def _shut_down(self, keeper: asyncio.Future[None]) -> None:
        """Ask until it is done: a kernel that is killed on the way is started again, and knows nothing of it."""
        deadline = self._now() + SETTLES_WITHIN
        while not keeper.done() and self._now() < deadline:
            asked = asyncio.ensure_future(self._kernel.ask("shutdown", ShutdownRequest()))
            await asyncio.wait({asked, keeper}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({keeper}, timeout=45.0)
            asked.cancel()
        if not keeper.done():
            self._broken("The kernel was asked to end, and did not.")

    def close(self) -> None:
        self._kernel.bury()

    def outcome(self) -> Outcome:
        return Outcome(
            trace=tuple(self._trace),
            points=tuple(life.points for life in self._kernel.lives),
            crashes=tuple(life.died_at for life in self._kernel.lives if life.died_at),
            faults=tuple(self._luck.seen),
            jobs=self._clients.jobs,
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

    def _build(self, life: Incarnation) -> Kernel:
        """The kernel of one life: what it holds is lost with it, what is behind its ports stays."""
        ports: dict[str, Any] = {
            name: Port(name, inner, life, self._luck, QUIET[name], WRITES[name])
            for name, inner in {
                "files": self._files,
                "artifacts": self._artifacts,
                "launcher": FakeLauncher(self._host),
            }.items()
        }
        return self._kernel_class(
            settings=self._settings,
            database=FailingDatabase(self._database, life, self._luck, self._oracle.committed),
            machine=self._machine,
            plugins=self._plugins,
            clock=self._clock,
            random=self._random,
            gateway=("gateway", "{attempt}") if self._scenario.gateway else None,
            **ports,
        )

    # -- the end -------------------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        self._tell("calm")
        self._luck.calm()
        self._host.calm()
        self._kernel.calm(points_stay=bool(self._again))  # a point that was asked for may lie in what follows
        self._oracle.interrupted()

    async def _monitor(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self._kernel.up.is_set():
                self._oracle.nothing_waits_that_fits()

    async def _comes_to_rest(self) -> None:
        """What is to be kept serves, and the gateway knows it; what does not fit may wait."""
        problem = ""
        for _ in range(int(RESTS_WITHIN)):
            await asyncio.sleep(1.0)
            problem = self._routes_are_wrong(await self._kernel.ask("deployments"))
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
        for deployment in await self._kernel.ask("deployments"):
            await self._kernel.ask("stop_deployment", deployment.spec.name)
        for job in await self._kernel.ask("jobs", None, 10_000):
            if job.spec.options["fate"] == "hangs" and not job.state.ended:
                self._oracle.may_end.add(job.id)
                await self._kernel.ask("cancel_job", job.id)
        deadline = self._now() + SETTLES_WITHIN
        while self._now() < deadline:
            jobs = await self._kernel.ask("jobs", None, 10_000)
            if all(job.state.ended for job in jobs) and not await self._kernel.ask("deployments"):
                break
            await asyncio.sleep(1.0)
        if any(self._host.owner_of(p.attempt) != "gateway" for p in self._host.alive()):
            await asyncio.sleep(self._settings.sweep_every + 1.0)
        jobs = await self._kernel.ask("jobs", None, 10_000)
        self._oracle.nothing_was_lost(jobs, await self._kernel.ask("models"), unlucky="disk" in self._luck.seen)
        self._oracle.reports_are_told_once(self._clients.told)
        left = [d.spec.name for d in await self._kernel.ask("deployments")]
        if left:
            self._broken(f"{left} never ended.")
        orphans = [p.attempt for p in self._host.alive() if self._host.owner_of(p.attempt) != "gateway"]
        if orphans:
            self._broken(f"{orphans} runs, and nobody owns it.")


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
