"""The kernel: one loop, one writer. Knows no HTTP, no processes and no real clock.

A turn of the loop reads what happened, writes what follows in one transaction, plans, writes, and starts effects. The
syscalls (`kernel.calls`) run between turns, on the same thread; nothing is awaited while a transaction is open.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from llm_os.drivers.launcher import Launcher
from llm_os.errors import DiskFullError, StaleError
from llm_os.kernel.adapters import held_by
from llm_os.kernel.adapting import Adapting
from llm_os.kernel.aliases import Aliases
from llm_os.kernel.attempts import (
    GATEWAY,
    GATEWAY_PLACEMENT,
    ask_to_stop,
    gateway_spec,
    grace_of,
    new_attempt,
    serve_spec,
    task_spec,
    with_adapters,
)
from llm_os.kernel.calls import Calls, Parts
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.effects import Effects, Seen
from llm_os.kernel.jobs import Jobs
from llm_os.kernel.keys import Keys
from llm_os.kernel.leadership import Leadership
from llm_os.kernel.observer import Observer
from llm_os.kernel.parity import reference_for
from llm_os.kernel.planner import Planner
from llm_os.kernel.ports import Artifacts, Clock, Files, Machine, Plugins, Random
from llm_os.kernel.revisions import member, revision
from llm_os.kernel.rollouts import Rollouts
from llm_os.kernel.routing import Published
from llm_os.kernel.scaling import Scales
from llm_os.kernel.sessions import Sessions
from llm_os.kernel.spares import Spares, Standby
from llm_os.kernel.state import State
from llm_os.kernel.updates import Updates
from llm_os.settings import Settings
from llm_os.spec.attempts import AttemptSpec
from llm_os.spec.conditions import Reason
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.processes import ProcessPhase
from llm_os.store import rows
from llm_os.store.database import Database

log = logging.getLogger(__name__)

BUSY = 0.25
"""Seconds between turns while attempts live: their folders are polled."""
IDLE = 2.0
"""Seconds between turns while nothing lives; submissions wake the loop at once."""
INSPECT_EVERY = 2.0
"""Seconds between looks at a process that is believed to run."""
WRITE_AGAIN = 1.0
"""Seconds until the next turn after the database refused a write."""
GATEWAY_AT_END = 10.0
"""Seconds more for the gateway to end, where other processes took too long."""
SETTLE_AT_END = 30.0
"""Seconds a shutdown waits for processes to end."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the last turn left behind: as long as nothing moves, the next one would do nothing.

    Attributes:
        version: of the database.
        live: attempts whose folders are to be looked at.
        due: seconds of the clock until which time alone changes nothing.
    """

    version: int
    live: tuple[Attempt, ...]
    due: float


class Kernel(Calls):
    """See the module and `kernel.ports`. Cancelling `run()` is a crash; another kernel on the same home goes on."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        artifacts: Artifacts,
        launcher: Launcher,
        machine: Machine,
        plugins: Plugins,
        clock: Clock,
        random: Random,
        files: Files,
        ephemeral: bool = False,
        gateway: tuple[str, ...] | None = None,
        admin_sha256: str | None = None,
    ) -> None:
        state = State(
            settings=settings,
            database=database,
            artifacts=artifacts,
            launcher=launcher,
            machine=machine,
            plugins=plugins,
            clock=clock,
            random=random,
            files=files,
        )
        jobs, deployments = Jobs(state), Deployments(state)
        self._published = Published(state, admin_sha256)
        keys = Keys(state, self._published.told)
        rollouts, scales = Rollouts(state, deployments), Scales(state, deployments)
        sessions, aliases = Sessions(state, jobs, deployments), Aliases(state)
        adapting = Adapting(state, deployments, self._published.write)
        updates = Updates(state, deployments, rollouts)
        parts = Parts(jobs, deployments, updates, scales, sessions, keys, aliases, adapting)
        super().__init__(state, parts, ephemeral=ephemeral)
        self._rollouts = rollouts
        self._planner = Planner(state, jobs, deployments)
        self._adapting = adapting
        self._observer = Observer(state, jobs, deployments, rollouts, adapting)
        self._effects = Effects(state)
        self._spares, self._standby = Spares(state), Standby(state)
        launcher.bell = self._rung
        self._leadership = Leadership(database)
        self._gateway = gateway
        self._idle_since: float | None = None
        self._seen: _Seen | None = None
        self._swept_at = float("-inf")
        self._unclean: set[str] = set()
        """Attempts whose folders hold what goes when they have ended."""

    async def recover(self) -> None:
        """Take the leadership and re-attach to what runs. Start-up is recovery: there is no other start."""
        state = self._state
        self._leadership.take()
        with state.database.reading() as tx:
            live = rows.live_attempts(tx)
            self._restore_gateway(tx, [row.attempt for row in live])
        self._unclean = set(state.files.leftovers())
        for row in live:
            if row.handle is not None:
                status = await state.launcher.recover(row.handle, state.files.attempt(row.attempt.id))
                with state.database.transaction() as tx:
                    self._observer.apply(tx, Seen(row.attempt.id, status))
        with state.database.transaction() as tx:
            now = state.clock.now()
            for session in rows.open_sessions(tx):  # nobody could renew while no kernel ran
                rows.put_session(tx, session.model_copy(update={"expires_at": now + session.ttl}))
            rows.add_event(tx, now, EventKind.KERNEL_STARTED, "kernel", f"Adopted {len(live)} running attempts.")

    def _restore_gateway(self, tx: Connection, live: list[Attempt]) -> None:
        ready = [a for a in live if a.owner == GATEWAY and a.state is AttemptState.READY]
        self._state.gateway_url = ready[0].endpoint if ready else None

    async def run(self) -> None:
        """Until a shutdown is complete. Raises StaleError when another kernel has taken over."""
        ended = False
        while not ended:
            try:
                ended = False if self._quiet() else await self.turn()
            except (OperationalError, DiskFullError) as error:
                # Nothing was written. Results of effects that were drained are lost, and brought again: each effect
                # is read off its record, and each is idempotent.
                log.warning("The state could not be written; trying again in %s s: %s", WRITE_AGAIN, error)
                self._state.files.spend_reserve()
                await self._state.clock.sleep(WRITE_AGAIN)
                continue
            except StaleError:
                self._effects.abandon()
                raise
            if not ended:
                await self._state.pulse.wait(self._pause())
        await self._effects.settle()
        for role in ("task", GATEWAY):
            await self._state.launcher.prepare(None, role)
        with self._state.database.transaction() as tx:
            left = len(rows.live_attempts(tx))
            rows.add_event(tx, self._state.clock.now(), EventKind.KERNEL_STOPPED, "kernel", f"Left {left} running.")

    def _quiet(self) -> bool:
        """Whether a turn would change nothing: no commit since the last one, no result, no news, no moment due."""
        seen, state = self._seen, self._state
        if seen is None or seen.version != state.database.version or state.clock.now() >= seen.due:
            return False
        return not self._effects.has_results() and not any(map(self._has_news, seen.live))

    def _rung(self, attempt: str) -> None:
        """An attempt has just ended: look now."""
        if (watch := self._state.watches.get(attempt)) is not None:
            watch.inspected_at = float("-inf")
            self._seen = None
            self._state.pulse.beat()

    def _has_news(self, attempt: Attempt) -> bool:
        """Whether its folder holds what was not read yet. An end that is being worked on is none."""
        files, watch = self._state.files, self._state.watch(attempt.id)
        if files.read_reports(attempt.id, watch.offset)[0]:
            return True
        return not self._effects.busy(attempt.id) and files.read_exit(attempt.id) is not None

    async def turn(self) -> bool:
        """One turn of the loop; True when the kernel shall end."""
        self._seen = None
        await self._sweep()
        ingest = self._observe()
        with self._state.database.transaction() as tx:
            changed = self._sessions.expire(tx)
            changed = self._tend(tx) or changed
            changed = self._supervise_gateway(tx) or changed
            changed = self._planner.tick(tx) or changed
        if changed:
            self._state.pulse.beat()
        version = self._state.database.version
        with self._state.database.reading() as tx:
            live = [row.attempt for row in rows.live_attempts(tx)]
            sessions = rows.open_sessions(tx)
            work = bool(rows.any_work(tx))
            stays = not self.ephemeral or self._keeps_any(tx)
        await self._spares.tick({attempt.id for attempt in live}, self._free_memory)
        await self._standby.tick(live, stays, self._spec, self._free_memory)
        self._act(live, ingest)
        self._clean({attempt.id for attempt in live})
        self._published.write()
        self._adapting.tell(live)  # after the table: nobody is sent to a replica for what it is told to let go
        now = self._state.clock.now()
        moments = [self._sessions.expires_at(session) for session in sessions] + [
            self._planner.wake_at or now + IDLE,
            self._rollouts.wake_at or now + IDLE,
            self._scales.wake_at or now + IDLE,
            now + IDLE,
        ]
        self._seen = None if changed else _Seen(version, tuple(live), min(moments))
        return self._finished(live, idle=not sessions and not work)

    def _tend(self, tx: Connection) -> bool:
        """Take deployments a step further: idle ones end, some scale, some are updated. True if any changed."""
        changed, live = False, rows.all_deployments(tx, include_ended=False)
        for tick in (self._deployments.end_idle, self._scales.tick, self._rollouts.tick):
            if tick(tx, live):
                changed, live = True, rows.all_deployments(tx, include_ended=False)
        return changed

    def _observe(self) -> set[str]:
        """Apply what effects brought and what the folders say. Returns attempts whose output is to be ingested."""
        ingest = set()
        with self._state.database.transaction() as tx:
            for result in self._effects.drain():
                self._observer.apply(tx, result)
            for row in rows.live_attempts(tx):
                if row.attempt.state is AttemptState.PLACED and self._effects.busy(row.attempt.id):
                    continue
                if self._observer.look(tx, row.attempt) == "ingest":
                    ingest.add(row.attempt.id)
        return ingest

    def _act(self, live: list[Attempt], ingest: set[str]) -> None:
        """Start the effect that each record asks for; at most one in flight for each attempt."""
        now = self._state.clock.now()
        for attempt in live:
            if self._effects.busy(attempt.id):
                continue
            if attempt.state is AttemptState.PLACED:
                self._effects.start(attempt, lambda attempt=attempt: self._spec(attempt))  # type: ignore[misc]
            elif attempt.state is AttemptState.STOPPING:
                self._effects.stop(attempt, grace_of(attempt))
            elif attempt.id in ingest:
                self._effects.ingest(attempt)
            elif now - self._state.watch(attempt.id).inspected_at >= INSPECT_EVERY:
                self._effects.inspect(attempt)
        alive = {attempt.id for attempt in live}
        for gone in set(self._state.watches) - alive:
            del self._state.watches[gone]

    def _clean(self, live: set[str]) -> None:
        """Remove what ended attempts and their jobs left on the disk; the commit that ended them is durable."""
        ended, self._unclean = self._unclean - live, live
        for name in sorted(ended):
            self._state.files.discard(name)
            with self._state.database.reading() as tx:
                row = rows.get_attempt(tx, name)
                job = rows.get_job(tx, row.attempt.owner) if row and row.attempt.owner_kind == "job" else None
            if job is not None and job.job.state.ended:
                self._state.files.forget_job(job.job.id)

    def _spec(self, attempt: Attempt) -> AttemptSpec:
        """What its worker shall run. Raises LLMOSError when an input is gone."""
        state = self._state
        with state.database.reading() as tx:
            if attempt.owner_kind == "job":
                job = self._jobs.get(tx, attempt.owner)
                spec = task_spec(state, attempt, job.job, job.resources)
                self._spares.started(spec)
                return spec
            if attempt.owner_kind == "replica":
                row = self._deployments.get(tx, attempt.owner)
                served = revision(row, attempt.revision)
                version = self._model(tx, served.version)
                mine = member(row, attempt)
                engine = next(e for e in state.plugins.engines() if e.name == mine.engine)
                reference = reference_for(state, tx, row, attempt, engine)
                spec = serve_spec(state, attempt, row.deployment, served, version.manifest, engine, reference)
                return with_adapters(spec, held_by(state, tx, row.deployment, served, mine))
            port = rows.get_meta(tx, "gateway_port")
        return gateway_spec(state, attempt, self._gateway or (), port or state.settings.gateway_port)

    @staticmethod
    def _keeps_any(tx: Connection) -> bool:
        """Whether a deployment is to outlive its session."""
        return any(row.deployment.session is None for row in rows.all_deployments(tx, include_ended=False))

    def _free_memory(self) -> int:
        """Bytes that are granted and held by nobody."""
        with self._state.database.reading() as tx:
            return self._state.grant().memory - sum(holding.memory for holding in self._state.holdings(tx))

    def _supervise_gateway(self, tx: Connection) -> bool:
        if self._gateway is None or self._state.stopping:
            return False
        url = self._state.gateway_url
        if url and rows.get_meta(tx, "gateway_port") is None:
            rows.set_meta(tx, "gateway_port", int(url.rsplit(":", 1)[1]))
        living = rows.live_attempts_of(tx, GATEWAY)
        if living or self._state.clock.now() < self._observer.gateway_not_before:
            return False
        new_attempt(self._state, tx, kind="system", owner=GATEWAY, placement=GATEWAY_PLACEMENT, session=None)
        return True

    async def _sweep(self) -> None:
        """End what runs and belongs to nobody, renew the reserve; at the first turn and every minute."""
        state = self._state
        if state.clock.now() - self._swept_at < state.settings.sweep_every:
            return
        self._swept_at = state.clock.now()
        state.files.keep_reserve()
        running = await state.launcher.list()
        with state.database.reading() as tx:
            owned = {row.attempt.id for row in rows.live_attempts(tx)}
        for status in running:
            if status.attempt in owned or status.phase is ProcessPhase.EXITED or self._effects.busy(status.attempt):
                continue
            await state.launcher.stop(status.attempt, state.files.attempt(status.attempt), 2.0, "orphan")
            with state.database.transaction() as tx:
                text = f"{status.attempt} ran, and belonged to nobody."
                rows.add_event(tx, state.clock.now(), EventKind.ORPHAN_ENDED, status.attempt, text)

    def _pause(self) -> float:
        """Seconds until the next turn is due if nothing happens before."""
        if self._seen is None:
            return BUSY
        left = self._seen.due - self._state.clock.now()
        return max(0.01, min(BUSY if self._seen.live else IDLE, left))

    def _finished(self, live: list[Attempt], *, idle: bool) -> bool:
        """Whether to end: everything is dead after a shutdown, or an ephemeral kernel has lost its purpose."""
        state, now = self._state, self._state.clock.now()
        if state.stopping:
            if self.keep:
                return True
            others = [attempt for attempt in live if attempt.owner != GATEWAY]
            late = now - self.stopping_since - SETTLE_AT_END
            if not others or late > 0:
                self._stop_gateway([attempt for attempt in live if attempt.owner == GATEWAY])
            return not live or late > GATEWAY_AT_END
        if not self.ephemeral or not idle:
            self._idle_since = None
            return False
        self._idle_since = self._idle_since if self._idle_since is not None else now
        if now - self._idle_since >= state.settings.linger:
            self.begin_shutdown(keep=False)
        return False

    def _stop_gateway(self, live: list[Attempt]) -> None:
        with self._state.database.transaction() as tx:
            for attempt in live:
                ask_to_stop(self._state, tx, attempt, Reason.SHUTDOWN)
