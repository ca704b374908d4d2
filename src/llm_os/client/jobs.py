"""The handle of a job."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from llm_os.client.connection import Connection
from llm_os.client.watch import Patience, display, follow
from llm_os.errors import LLMOSError, UnavailableError
from llm_os.spec import api
from llm_os.spec.base import Json
from llm_os.spec.jobs import Job as JobRecord
from llm_os.spec.jobs import JobSpec

R = TypeVar("R")


class Job(Generic[R]):
    """Finite work in the background. `wait()` gives its result."""

    def __init__(self, connection: Connection, record: JobRecord, title: str, build: Callable[[JobRecord], R]) -> None:
        self._connection = connection
        self._record = record
        self._title = title
        self._build = build

    @property
    def id(self) -> str:
        """`job-...`; `llm-os logs`, `why` and `cancel` take it too."""
        return self._record.id

    @property
    def state(self) -> str:
        """`queued`, `running`, `succeeded`, `failed` or `cancelled`, as of now."""
        return self._fetch().state.value

    @property
    def progress(self) -> Mapping[str, Json]:
        """The newest report: `stage`, `step`, `total`, `epoch`, `loss`, `eta` (seconds) and the like."""
        return dict(self._fetch().progress)

    def wait(self, timeout: float | None = None, *, quiet: bool = False) -> R:
        """Wait for the end and return the result, showing progress.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            TimeoutError: it has not ended; it goes on.
            JobFailedError, JobCancelledError, NothingLearntError, DataError ...: what it ended with.
        """
        ended = follow(self._connection.transport, self._record, display(self._title, quiet=quiet), timeout)
        self._record = ended
        return self._build(ended)

    def cancel(self) -> None:
        """Ask it to end. It stops at its next step and keeps its newest checkpoint. Calling it twice is fine."""
        self._connection.transport.call("POST", f"/v1/jobs/{self.id}/cancel", JobRecord)

    def logs(self) -> str:
        """The whole log of its newest attempt."""
        text, offset = "", 0
        while True:
            page = self._connection.transport.call(
                "GET", f"/v1/jobs/{self.id}/logs", api.LogPage, params={"offset": offset}
            )
            text, offset = text + page.text, page.next
            if not page.text:
                return text

    def why(self) -> str:
        """Why it waits, runs or failed, in one sentence."""
        return self._connection.transport.call("GET", f"/v1/why/{self.id}", api.Why).sentence

    def _fetch(self) -> JobRecord:
        return self._connection.transport.call("GET", f"/v1/jobs/{self.id}", JobRecord)

    def __repr__(self) -> str:
        return f"<Job {self.id} {self._title}>"


def submit(connection: Connection, spec: JobSpec, *, background: bool = False, again: bool = False) -> JobRecord:
    """Raises what the kernel refuses. `again`: run it although an equal one was done."""
    request = api.SubmitJob(spec=spec, session=connection.session, background=background, again=again)
    return connection.transport.call("POST", "/v1/jobs", JobRecord, body=request)


def run(
    connection: Connection,
    spec: JobSpec,
    title: str,
    *,
    quiet: bool = False,
    again: bool = False,
    patience: float | None = None,
) -> JobRecord:
    """Submit and wait in the foreground. Ctrl-C cancels the job, says so, and is raised again.

    Args:
        again: run it even where an equal job has succeeded before.
        patience: seconds that it may wait for room; then it is cancelled. None: any time.

    Raises:
        UnavailableError: it waited too long; says for what. Anything that the job failed with.
    """
    record = submit(connection, spec, again=again)
    if record.state.ended:
        return follow(connection.transport, record, display(title, quiet=True))
    waits = None if patience is None else Patience(patience)
    try:
        return follow(connection.transport, record, display(title, quiet=quiet), patience=waits)
    except UnavailableError:
        if waits is not None:  # it would begin when nobody needs it any more; of one that has ended nothing is changed
            with contextlib.suppress(LLMOSError):
                connection.transport.call("POST", f"/v1/jobs/{record.id}/cancel", JobRecord)
        raise
    except KeyboardInterrupt:
        _give_up(connection, record, title)
        raise


def _give_up(connection: Connection, record: JobRecord, title: str) -> None:
    try:
        connection.transport.call("POST", f"/v1/jobs/{record.id}/cancel", JobRecord)
        print(f"\n{title}: {record.id} was asked to end. Ctrl-C again leaves at once.", file=sys.stderr)
        params: dict[str, Any] = {"after": "", "wait": 10}
        connection.transport.call("GET", f"/v1/jobs/{record.id}", JobRecord, params=params)
    except LLMOSError as error:
        print(f"\n{title}: {record.id} could not be cancelled: {error}", file=sys.stderr)
