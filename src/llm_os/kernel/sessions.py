"""Client leases and caps: who owns work, and what happens to it when its owner is gone."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os.errors import CapacityError, NotFoundError
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.jobs import Jobs
from llm_os.kernel.state import State
from llm_os.memory.ledger import cores
from llm_os.spec.api import OpenSession, SessionEnd, SetCaps
from llm_os.spec.base import new_id
from llm_os.spec.conditions import Reason
from llm_os.spec.events import EventKind
from llm_os.spec.resources import Capacity, Caps, Resources
from llm_os.spec.sessions import Session
from llm_os.spec.units import format_bytes
from llm_os.store import rows


class Sessions:
    def __init__(self, state: State, jobs: Jobs, deployments: Deployments) -> None:
        self._state = state
        self._jobs = jobs
        self._deployments = deployments
        self._renewed: dict[str, float] = {}
        """When each renewed session expires. A heartbeat makes no transaction: after a restart all of them get a whole
        `ttl` again."""

    def open(self, request: OpenSession) -> Session:
        now = self._state.clock.now()
        session = Session(
            id=new_id("ses", self._state.random),
            name=request.name,
            ttl=request.ttl,
            opened_at=now,
            expires_at=now + request.ttl,
        )
        with self._state.database.transaction() as tx:
            rows.put_session(tx, session)
            rows.add_event(tx, now, EventKind.SESSION_OPENED, session.id, f"{request.name} opened a session.")
        self._state.pulse.beat()
        return session

    def renew(self, session: str) -> Session:
        """Raises NotFoundError for a session that was closed or has expired."""
        with self._state.database.reading() as tx:
            found = self._live(tx, session)
        expires_at = self._renewed[session] = self._state.clock.now() + found.ttl
        return found.model_copy(update={"expires_at": expires_at})

    def close(self, session: str) -> SessionEnd:
        with self._state.database.transaction() as tx:
            found = rows.get_session(tx, session)
            if found is None or found.closed:
                return SessionEnd()
            end = self._end(tx, found, EventKind.SESSION_CLOSED)
        self._state.pulse.beat()
        return end

    def expire(self, tx: Connection) -> bool:
        """End what has expired; called by the loop in its own transaction. True if anything changed."""
        now = self._state.clock.now()
        live = rows.open_sessions(tx)
        for gone in set(self._renewed) - {session.id for session in live}:
            del self._renewed[gone]  # here, not where it ends: that commit may fail
        expired = [session for session in live if self.expires_at(session) <= now]
        for session in expired:
            self._end(tx, session, EventKind.SESSION_EXPIRED)
        return bool(expired)

    def expires_at(self, session: Session) -> float:
        """Seconds since the epoch."""
        return max(session.expires_at, self._renewed.get(session.id, 0.0))

    def set_caps(self, session: str, request: SetCaps) -> Resources:
        with self._state.database.transaction() as tx:
            found = self._live(tx, session)
            missing = missing_of(request.caps, self._state.grant())
            if missing and request.strict:
                raise CapacityError(
                    f"This machine has not all that was asked for: {'; '.join(missing)}.",
                    hint="Ask for what is there, or leave strict out to go on with less.",
                    details={"missing": list(missing)},
                )
            rows.put_session(tx, found.model_copy(update={"caps": request.caps}))
            answer = self._resources(tx, session)
        self._state.pulse.beat()
        return answer

    def resources(self, session: str | None) -> Resources:
        with self._state.database.reading() as tx:
            if session is not None:
                self._live(tx, session)
            return self._resources(tx, session)

    def _resources(self, tx: Connection, session: str | None) -> Resources:
        ledger = self._state.ledger(tx)
        caps = self._state.caps(tx).get(session or "", Caps())
        return Resources(
            machine=self._state.machine.capacity(),
            granted=ledger.granted(session),
            in_use=ledger.holdings(),
            free=ledger.free(session),
            missing=missing_of(caps, self._state.grant()),
        )

    def _live(self, tx: Connection, session: str) -> Session:
        found = rows.get_session(tx, session)
        if found is None or found.closed:
            raise NotFoundError(f"Session {session} is not open.", hint="It was closed or it expired; open a new one.")
        return found

    def _end(self, tx: Connection, session: Session, kind: EventKind) -> SessionEnd:
        ended = self._jobs.end_session(tx, session.id, Reason.SESSION_ENDED)
        ended += self._deployments.end_session(tx, session.id, Reason.SESSION_ENDED)
        rows.put_session(tx, session.model_copy(update={"closed": True}))
        how = "closed" if kind is EventKind.SESSION_CLOSED else "did not renew"
        message = f"{session.name} {how} its session; ended with it: {', '.join(ended) or 'nothing'}."
        rows.add_event(tx, self._state.clock.now(), kind, session.id, message, {"ended": list(ended)})
        kept = [row.job.id for row in rows.jobs_in(tx, self._jobs.LIVE) if row.job.session is None]
        kept += [
            row.deployment.spec.name
            for row in rows.all_deployments(tx, include_ended=False)
            if row.deployment.session is None
        ]
        return SessionEnd(ended=tuple(ended), kept=tuple(kept))


def missing_of(caps: Caps, granted: Capacity) -> tuple[str, ...]:
    """What was asked for and is not there, one phrase each."""
    phrases = []
    if caps.gpus:
        there = {device.index for device in granted.devices}
        lost = [str(index) for index in caps.gpus if index not in there]
        if lost:
            has = f"it has GPU {', '.join(map(str, sorted(there)))}" if there else "it has no GPU"
            phrases.append(f"GPU {', '.join(lost)} asked for, {has}")
    if caps.cpus is not None and caps.cpus > granted.cpus:
        phrases.append(f"{cores(caps.cpus)} asked for, {granted.cpus:g} granted")
    if caps.memory is not None and caps.memory > granted.memory:
        phrases.append(f"{format_bytes(caps.memory)} asked for, {format_bytes(granted.memory)} granted")
    return tuple(phrases)
