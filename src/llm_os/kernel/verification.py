"""Compares what is there with what it should be: live replicas with the reference, stored bytes with their manifest.

Replicas hear of it by their control file and answer by reports, as of everything else; nothing of it is kept in memory,
so a kernel that starts again finds it going on. Must not know how an engine is compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from llm_os.errors import ConflictError, NotFoundError
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.parity import keep, reference_behind
from llm_os.kernel.references import TASK
from llm_os.kernel.replicas import kind_of
from llm_os.kernel.revisions import in_force, member
from llm_os.kernel.state import State
from llm_os.kernel.submission import find_model
from llm_os.spec.attempts import Compare, Control, Input, Report
from llm_os.spec.base import Json
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.parity import Parity
from llm_os.spec.verification import BrokenFile, ModelVerification, ReplicaVerification, Verification
from llm_os.store import rows

JOINED = 600.0
"""Seconds in which a comparison that goes on is joined by whoever asks for one; one that hangs is begun anew then."""
KIND = "parity"
"""Of the reports of a comparison."""


def noted(state: State, tx: Connection, attempt: Attempt, new: Sequence[Report]) -> None:
    """A replica has told of a comparison that was asked for: the worst of all of its engine stays with the revision."""
    told = next((one for one in reversed(new) if one.kind == KIND and "parity" in one.values), None)
    row = rows.find_deployment(tx, attempt.owner) if told is not None else None
    if told is None or row is None:
        return
    alike = [
        one
        for live in rows.live_attempts_of(tx, row.deployment.id)
        if kind_of(live) == kind_of(attempt)
        for one in state.watch(live.id).reports
        if one.kind == KIND and one.values.get("number") == told.values.get("number") and "parity" in one.values
    ]
    worst = min(alike or [told], key=lambda one: Parity.model_validate(one.values["parity"]).rank)
    keep(state, tx, attempt, worst, anyway=True)


class Verifications:
    def __init__(self, state: State, deployments: Deployments) -> None:
        self._state = state
        self._deployments = deployments
        self._reading: dict[str, asyncio.Task[tuple[BrokenFile, ...]]] = {}

    def begin(self, name: str) -> Verification:
        """Ask every ready replica of what is in force what the reference says; joins a comparison that goes on.

        Raises:
            ConflictError: none is ready. NotFoundError: nobody made the reference of its version.
        """
        state = self._state
        with state.database.reading() as tx:
            row = self._deployments.get(tx, name)
            served = in_force(row)
            ready = self._ready(tx, row)
            digest = reference_behind(state, tx, served)
        if not ready:
            raise ConflictError(
                f"{name} has no replica that answers: it is {row.deployment.state.value}.",
                hint=f"Ask it something, or see 'llm-os why {name}'.",
            )
        if digest is None:
            raise NotFoundError(
                f"Nobody asked {served.version} in PyTorch yet.",
                hint=f"Run the job {TASK} on it; 'llm-os verify' does so by itself.",
            )
        if (number := self._under_way(ready, digest)) is not None:
            return self.told(name, number)
        facts = state.artifacts.facts(digest)
        wish = Compare(
            number=int(state.clock.now() * 1000), reference=Input(path=str(state.artifacts.path(digest)), facts=facts)
        )
        for attempt in ready:
            state.files.write_control(attempt.id, Control(compare=wish))
        return self.told(name, wish.number)

    def told(self, name: str, number: int) -> Verification:
        """How far the comparison of this number is. Raises ConflictError: none of its replicas is there any more."""
        with self._state.database.reading() as tx:
            row = self._deployments.get(tx, name)
            ready = [one for one in self._ready(tx, row) if self._asked(one.id) >= number]
        if not ready:
            raise ConflictError(f"The replicas of {name} ended while they were compared.", hint="Begin anew.")
        served = in_force(row)
        return Verification(
            deployment=row.deployment.spec.name,
            version=served.version,
            engine=" and ".join(one.engine for one in served.members),
            number=number,
            replicas=tuple(
                _replica(attempt.id, member(row, attempt).engine, self._state.watch(attempt.id).reports, number)
                for attempt in ready
            ),
        )

    def _asked(self, attempt: str) -> int:
        """Number of the newest comparison that a replica was asked for; 0: it was asked for none."""
        wish = self._state.files.read_control(attempt).compare
        return 0 if wish is None else wish.number

    def _under_way(self, ready: Sequence[Attempt], reference: str) -> int | None:
        """Number of a comparison with this reference that all of these were asked for lately and are busy with."""
        wishes = [self._state.files.read_control(attempt.id).compare for attempt in ready]
        first = wishes[0]
        if first is None or first.reference.facts.digest != reference or any(wish != first for wish in wishes):
            return None
        if self._state.clock.now() * 1000 - first.number > 1000 * JOINED:
            return None
        busy = all(not _replica(a.id, "", self._state.watch(a.id).reports, first.number).done for a in ready)
        return first.number if busy else None

    def _ready(self, tx: Connection, row: rows.DeploymentRow) -> list[Attempt]:
        """Ready replicas of the revision in force."""
        return [
            attempt
            for attempt in rows.live_attempts_of(tx, row.deployment.id)
            if attempt.state is AttemptState.READY and attempt.revision == row.deployment.revision
        ]

    async def model(self, ref: str, seconds: float) -> ModelVerification:
        """Read the bytes of a version again; after so many seconds it says that it is not through.

        Who asks again while it is read waits for the same reading.
        """
        with self._state.database.reading() as tx:
            version = find_model(tx, ref)
        digest = version.manifest
        manifest = self._state.artifacts.manifest(digest)
        reading = self._reading.get(digest)
        if reading is None:
            reading = self._reading[digest] = asyncio.create_task(self._state.artifacts.broken(digest))
        await asyncio.wait({reading}, timeout=seconds)
        if reading.done():
            self._reading.pop(digest, None)
        return ModelVerification(
            version=version.ref,
            digest=digest,
            files=len(manifest.files),
            size=manifest.size,
            done=reading.done(),
            broken=reading.result() if reading.done() else (),
        )


def _replica(attempt: str, engine: str, reports: Sequence[Report], number: int) -> ReplicaVerification:
    """What a replica told of the comparison of this number, or of a later one, which it has heard of instead."""
    mine = [one for one in reports if one.kind == KIND and _number(one) >= number]
    found: Mapping[str, Json] = {}
    for report in mine:
        if _number(report) == _number(mine[0]):
            found = {**found, **report.values}
    known: dict[str, Json] = {"attempt": attempt, "engine": engine, "begun": bool(found)}
    if "parity" not in found:
        return ReplicaVerification.model_validate({**known, "error": found.get("error")})
    told = {"parity": found["parity"], "differences": found.get("differences", [])}
    return ReplicaVerification.model_validate({**known, **told})


def _number(report: Report) -> int:
    said = report.values.get("number")
    return said if isinstance(said, int) else 0
