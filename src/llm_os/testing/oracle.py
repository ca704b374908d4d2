"""What must be true of any kernel, whatever went wrong: checked from outside, by its processes, events and answers.

Knows the ports and the tables, but none of the kernel's code: its own sums are made here, not by the ledger.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llm_os.drivers.launchers.fake import Process
from llm_os.spec.attempts import EXIT_FAILED, EXIT_USER_ERROR, AttemptSpec
from llm_os.spec.deployments import DeploymentState
from llm_os.spec.events import Event, EventKind
from llm_os.spec.jobs import Job, JobState
from llm_os.spec.models import ModelVersion
from llm_os.spec.resources import Capacity, Caps, ResourceSpec
from llm_os.store import rows
from llm_os.store.database import Database
from llm_os.testing.simulated import SimulatedHost, needs

ENDS = {EventKind.JOB_SUCCEEDED, EventKind.JOB_FAILED, EventKind.JOB_CANCELLED}
DEPLOYMENT_ENDS = {EventKind.DEPLOYMENT_STOPPED, EventKind.DEPLOYMENT_FAILED}
NEEDS_PLACE = {EventKind.JOB_STARTED, EventKind.JOB_RETRIED, EventKind.JOB_FAILED}
PATIENCE = 4.0
"""Seconds that something may wait although it fits: the kernel polls folders, and taking in an output lasts."""
_SLACK = 1e-6


class Oracle:
    """Watches one simulation.

    Args:
        database: the rows that outlive kernels.
        grant: what the node grants.
        broken: called with a sentence for each rule that is broken.
        tell: called with a line for each event.
    """

    def __init__(
        self,
        database: Database,
        grant: Capacity,
        now: Callable[[], float],
        broken: Callable[[str], None],
        tell: Callable[[str], None],
    ) -> None:
        self._database, self._grant, self._now = database, grant, now
        self._broken, self._tell = broken, tell
        connection = database.engine.raw_connection()
        self._raw: Any = connection.driver_connection
        """Asked after every commit whether there are new events: SQLAlchemy would cost more than the answer."""
        connection.close()
        self.host: SimulatedHost
        self.acknowledged: dict[str, ResourceSpec] = {}
        """Jobs whose submission was answered: they must never be lost."""
        self.may_end: set[str] = set()
        """Jobs, or sessions with all they own, that somebody asked to end."""
        self.renewed: dict[str, tuple[float, float]] = {}
        """When a session was renewed last with an answer, and its time to live."""
        self._seq = 0
        self._job: dict[str, EventKind] = {}
        self._placed: dict[str, str] = {}
        self._live_names: set[str] = set()
        self._ended_names: set[str] = set()
        self._fits_since: dict[str, float] = {}

    # -- after every event -------------------------------------------------------------------------------------------

    def started(self, process: Process) -> None:
        """A process begins: it must be owned, alone, and fit."""
        spec = self.host.specs[process.attempt]
        alive = [other for other in self.host.alive() if other is not process]
        self._fits(spec, alive)
        twins = [other.attempt for other in alive if self.host.owner_of(other.attempt) == spec.owner]
        if spec.serve is not None:
            if spec.serve.deployment in self._ended_names:
                self._broken(f"A replica of {spec.serve.deployment} started after its end.")
        elif twins:
            self._broken(f"{process.attempt} of {spec.owner} started while {twins} runs.")
        if spec.task is not None:
            if self._job.get(spec.owner) in ENDS:
                self._broken(f"{process.attempt} of {spec.owner} started after the job had ended.")
            if self._placed.get(spec.owner) != process.attempt:
                self._broken(f"{process.attempt} of {spec.owner} started, but was not placed.")

    def committed(self) -> None:
        """Something was committed: its events must make sense, and what is placed must fit."""
        newest = self._raw.execute("SELECT max(seq) FROM events").fetchone()[0] or 0
        if newest == self._seq:
            return
        with self._database.reading() as tx:
            new = rows.events_since(tx, self._seq, 1000)
            placed = any(event.kind in {EventKind.JOB_PLACED, EventKind.REPLICA_PLACED} for event in new)
            live = [row.attempt for row in rows.live_attempts(tx)] if placed else []
        for event in new:
            if event.seq <= self._seq:
                self._broken(f"Event {event.seq} came after event {self._seq}.")
            self._seq = event.seq
            self._tell(f"event {event.kind.value} {event.subject}")
            self._follow(event)
        work = [attempt for attempt in live if attempt.owner_kind != "system"]
        self._sum(
            "Committed",
            [(a.id, a.placement.cpus, a.placement.memory, a.placement.devices) for a in work],
        )
        owners = Counter(attempt.owner for attempt in work if attempt.owner_kind == "job")
        for owner, count in owners.items():
            if count > 1:
                self._broken(f"{owner} has {count} live attempts.")

    def _follow(self, event: Event) -> None:
        subject, kind = event.subject, event.kind
        if kind is EventKind.DEPLOYMENT_CREATED:
            self._live_names.add(subject)
            self._ended_names.discard(subject)
        elif kind in DEPLOYMENT_ENDS:
            if subject not in self._live_names:
                self._broken(f"{subject} ended twice.")
            self._live_names.discard(subject)
            self._ended_names.add(subject)
        elif kind is EventKind.SESSION_EXPIRED:
            renewed, ttl = self.renewed.get(subject, (float("-inf"), 0.0))
            if event.at - renewed < ttl - _SLACK:
                self._broken(f"{subject} expired {event.at - renewed:.2f} s after a renewal for {ttl} s.")
            self.may_end.add(subject)
        if not kind.value.startswith("job."):
            return
        before = self._job.get(subject)
        if before in ENDS:
            self._broken(f"{subject}: {kind.value} after {before.value}.")
        if (before is None) != (kind is EventKind.JOB_SUBMITTED):
            self._broken(f"{subject}: {kind.value} after {before.value if before else 'nothing'}.")
        if kind is EventKind.JOB_PLACED:
            if subject in self._placed:
                self._broken(f"{subject} was placed twice at once.")
            self._placed[subject] = str(event.data.get("attempt"))
        elif kind in NEEDS_PLACE and subject not in self._placed:
            self._broken(f"{subject}: {kind.value}, but it was not placed.")
        if kind in ENDS or kind is EventKind.JOB_RETRIED:
            attempt = self._placed.pop(subject, None)
            process = self.host.processes.get(attempt or "")
            if process is not None and process.alive:
                self._broken(f"{subject}: {kind.value} while {attempt} still runs.")
        if kind not in {EventKind.JOB_WAITING, EventKind.JOB_CANCEL_REQUESTED}:
            self._job[subject] = kind

    def _fits(self, spec: AttemptSpec, alive: Iterable[Process]) -> None:
        specs = [spec, *(self.host.specs[process.attempt] for process in alive)]
        held = [(s.attempt, n.cpus, int(n.memory), s.devices) for s in specs if (n := _needs(s)) is not None]
        self._sum("Running", held)

    def _sum(self, what: str, held: list[tuple[str, float, int, tuple[int, ...]]]) -> None:
        cpus, memory = sum(h[1] for h in held), sum(h[2] for h in held)
        devices = Counter(index for h in held for index in h[3])
        if cpus > self._grant.cpus + _SLACK or memory > self._grant.memory:
            self._broken(f"{what} is more than there is: {cpus} cores, {memory / 2**30} GiB by {[h[0] for h in held]}.")
        if any(count > 1 for count in devices.values()):
            self._broken(f"{what}: an accelerator is held twice: {dict(devices)}.")

    # -- while nothing goes wrong --------------------------------------------------------------------------------------

    def nothing_waits_that_fits(self) -> None:
        """Asked every second while a kernel is up; `interrupted` when it was not."""
        now, waiting = self._now(), self._waiting()
        cpus, memory, devices = self._left()
        for subject, request in waiting.items():
            room = request.cpus <= cpus + _SLACK and request.memory <= memory and request.accelerators <= devices
            if not room:
                self._fits_since.pop(subject, None)
            elif now - self._fits_since.setdefault(subject, now) > PATIENCE:
                self._broken(f"{subject} waits although it fits: {cpus} cores, {memory / 2**30} GiB are free.")
        for subject in set(self._fits_since) - set(waiting):
            del self._fits_since[subject]

    def interrupted(self) -> None:
        """The kernel was down, or is to be forgiven for something else: waiting counts anew."""
        self._fits_since.clear()

    def _left(self) -> tuple[float, int, int]:
        cpus, memory, devices = self._grant.cpus, int(self._grant.memory), len(self._grant.devices)
        for process in self.host.alive():
            spec = self.host.specs[process.attempt]
            held = _needs(spec)
            if held is not None:
                cpus, memory, devices = cpus - held.cpus, memory - held.memory, devices - len(spec.devices)
        return cpus, memory, devices

    def _waiting(self) -> dict[str, ResourceSpec]:
        """What is due, and not held back by the caps of its own session."""
        with self._database.reading() as tx:
            jobs = [row for row in rows.jobs_in(tx, [JobState.QUEUED]) if (row.not_before or 0.0) <= self._now()]
            deployments = rows.all_deployments(tx, include_ended=False)
            live = rows.live_attempts(tx)
            caps = {session.id: session.caps for session in rows.open_sessions(tx)}
        held: dict[str | None, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for row in live:
            held[row.session][0] += row.attempt.placement.cpus
            held[row.session][1] += row.attempt.placement.memory
        waiting = {
            row.job.id: row.resources
            for row in jobs
            if _inside(row.resources, caps.get(row.job.session or ""), held[row.job.session])
        }
        for place in deployments:
            record = place.deployment
            if record.state is DeploymentState.STOPPING or record.updating:
                continue
            have = Counter(row.attempt.member for row in live if row.attempt.owner == record.id)
            last = record.spec.replicas if record.wanted is None else record.wanted
            members = record.history[-1].members
            for number, member in enumerate(members):
                trouble = record.troubles.get(number)
                again = place.not_before if trouble is None else trouble.not_before
                due = (again or 0.0) <= self._now() and (trouble is None or not trouble.out)
                allowed = _inside(member.resources, caps.get(record.session or ""), held[record.session])
                shall = last if number == len(members) - 1 or record.spec.scaling is None else min(last, 1)
                if due and allowed and have[number] < shall:
                    waiting[f"{record.id}/{number}"] = member.resources
        return waiting

    # -- at the end ----------------------------------------------------------------------------------------------------

    def nothing_was_lost(self, jobs: list[Job], models: list[ModelVersion], unlucky: bool) -> None:
        """Every job that was ever accepted has the end that its workers gave it.

        Args:
            unlucky: disks were full, so work that had finished may have failed.
        """
        known = {job.id: job for job in jobs}
        for lost in set(self.acknowledged) - set(known):
            self._broken(f"{lost} was accepted, and is not known any more.")
        refs = {version.ref for version in models}
        for job in jobs:
            if not job.state.ended:
                self._broken(f"{job.id} never ended: {job.state.value}, attempt {job.attempt}.")
            elif job.state is JobState.SUCCEEDED:
                self._truly_succeeded(job, refs)
            elif job.state is JobState.FAILED:
                self._truly_failed(job, unlucky)
            elif not {job.id, job.session or ""} & self.may_end:
                self._broken(f"{job.id} was cancelled, but nobody asked for it.")
        numbers: dict[str, list[int]] = defaultdict(list)
        for version in models:
            numbers[version.card].append(version.number)
        for card, found in numbers.items():
            if sorted(found) != list(range(1, len(found) + 1)):
                self._broken(f"{card} has the versions {found}.")
        manifests = Counter((version.card, version.manifest) for version in models)
        if any(count > 1 for count in manifests.values()):
            self._broken(f"One content was registered twice: {manifests}.")

    def _truly_succeeded(self, job: Job, refs: set[str]) -> None:
        attempt = str(job.result.get("attempt"))
        ended = self.host.exit_of(attempt)
        if ended is None or ended.code != 0:
            self._broken(f"{job.id} succeeded by {attempt}, which did not.")
        elif not job.cached and self.host.owner_of(attempt) != job.id:
            self._broken(f"{job.id} has the result of {attempt}, which is another's.")
        if job.spec.task != "sim/work" and "artifact" not in job.result:
            self._broken(f"{job.id} succeeded without its artifact.")
        if job.spec.task == "sim/model" and job.result.get("version") not in refs:
            self._broken(f"{job.id} succeeded, but its version {job.result.get('version')} is not registered.")

    def _truly_failed(self, job: Job, unlucky: bool) -> None:
        mine = [p for p in self.host.processes.values() if self.host.owner_of(p.attempt) == job.id]
        codes = [process.exit.code if process.exit else None for process in mine]
        spent = job.attempts >= job.spec.retry.attempts
        if 0 in codes and not unlucky:
            self._broken(f"{job.id} failed, but a worker of it finished: {codes}.")
        said = any(report.kind == "error" for process in mine[-1:] for report in self.host.reports[process.attempt])
        if not unlucky and not spent and not (codes and codes[-1] in {EXIT_USER_ERROR, EXIT_FAILED}) and not said:
            self._broken(f"{job.id} failed after {job.attempts} attempts that ended {codes}.")
        if job.error is None:
            self._broken(f"{job.id} failed and does not say why.")

    def reports_are_told_once(self, told: Mapping[str, list[tuple[str, int]]]) -> None:
        """`told`: for each job what its followers saw, as (attempt, number of the report)."""
        for job, seen in told.items():
            doubled = [pair for pair, count in Counter(seen).items() if count > 1]
            if doubled:
                self._broken(f"{job}: reports were told twice: {doubled}.")


def _needs(spec: AttemptSpec) -> ResourceSpec | None:
    if spec.task is not None:
        return needs(spec.task.options)
    return needs(spec.serve.options) if spec.serve is not None else None


def _inside(request: ResourceSpec, caps: Caps | None, held: list[float]) -> bool:
    if caps is None:
        return True
    cpus = caps.cpus is None or held[0] + request.cpus <= caps.cpus + _SLACK
    return cpus and (caps.memory is None or held[1] + request.memory <= caps.memory)
