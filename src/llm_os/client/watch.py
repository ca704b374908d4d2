"""Follows a job and shows it: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from llm_os.client.transport import Transport
from llm_os.errors import JobFailedError, UnavailableError, from_dict
from llm_os.spec.api import ReportPage, Why
from llm_os.spec.attempts import Report
from llm_os.spec.base import Json
from llm_os.spec.jobs import Job, JobState
from llm_os.spec.units import format_bytes, format_duration

LINE_EVERY = 10.0
"""Seconds between plain lines."""
POLL = 1.0


class Display(Protocol):
    def say(self, text: str) -> None:
        """A sentence that the person should read."""

    def show(self, report: Report) -> None: ...

    def close(self, job: Job | None) -> None: ...


class Lines:
    """For logs and pipes: a line at each new stage, then one every ten seconds."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._stage = ""
        self._at = 0.0

    def show(self, report: Report) -> None:
        if report.kind == "message":
            self.say(str(report.values.get("text", "")))
            return
        stage, now = str(report.values.get("stage", "")), time.monotonic()
        if report.kind != "progress" or (stage == self._stage and now - self._at < LINE_EVERY):
            return
        self._stage, self._at = stage, now
        self.say(sentence(report.values))

    def close(self, job: Job | None) -> None:
        if job is not None and job.started_at and job.ended_at and not job.cached:
            self.say(f"{job.state.value} in {format_duration(job.ended_at - job.started_at)}")

    def say(self, text: str) -> None:
        print(f"{self._title}: {text}", file=sys.stderr, flush=True)


class Bar:
    """For terminals: one line that moves, messages above it."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task(title, total=None, text="waiting")

    def say(self, text: str) -> None:
        self._bar.console.print(f"  {text}", highlight=False)

    def show(self, report: Report) -> None:
        if report.kind == "message":
            self.say(str(report.values.get("text", "")))
        elif report.kind == "progress":
            total = report.values.get("total")
            known = float(total) if isinstance(total, int | float) and total else None
            done = float(str(report.values.get("step") or 0))
            self._bar.update(self._task, total=known, completed=done, text=sentence(report.values))

    def close(self, job: Job | None) -> None:
        if job is not None:
            self._bar.update(self._task, total=1, completed=1, text=job.state.value)
        self._bar.stop()


def sentence(values: Mapping[str, Json]) -> str:
    """`training, epoch 2 of 10, step 310 of 3550, loss 0.2312, 2,310 tokens/s, 3 min 5 s left`."""
    parts = [str(values.get("stage") or "working")]
    if values.get("epoch"):
        parts.append(f"epoch {values['epoch']} of {values.get('epochs')}")
    step, total = values.get("step"), values.get("total")
    if isinstance(total, int | float) and total:
        large = total > 10**6
        shown = [format_bytes(int(str(n or 0))) if large else f"{n}" for n in (step, total)]
        parts.append(f"{shown[0]} of {shown[1]}" if large else f"step {shown[0]} of {shown[1]}")
    if isinstance(loss := values.get("loss"), float):
        parts.append(f"loss {loss:.4f}")
    if isinstance(speed := values.get("tokens_per_second"), int | float):
        parts.append(f"{speed:,.0f} tokens/s")
    if isinstance(eta := values.get("eta"), int | float) and eta > 1:
        parts.append(f"at most {format_duration(eta)} left")
    return ", ".join(parts)


def display(title: str, *, quiet: bool = False) -> Display:
    """The right display for where standard error goes."""
    if quiet:
        return Silence()
    return Bar(title) if sys.stderr.isatty() else Lines(title)


class Silence:
    def say(self, text: str) -> None:
        """Nothing is said."""

    def show(self, report: Report) -> None:
        """Nothing is shown."""

    def close(self, job: Job | None) -> None:
        """Nothing is shown."""


@contextlib.contextmanager
def _closing(shown: Display) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shown.close(None)
        raise


class Patience:
    """Lets a job wait for room for so long, saying what it waits for; once it runs, it may take its time.

    Args:
        seconds: that it may be queued at a stretch.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = lambda: time.monotonic()) -> None:
        self._seconds, self._clock = seconds, clock
        self._since: float | None = None
        self._said = ""

    def look(self, transport: Transport, job: str, shown: Display) -> None:
        """Call it now and then. Raises UnavailableError, with what it waits for, when it has waited too long."""
        if transport.call("GET", f"/v1/jobs/{job}", Job).state is not JobState.QUEUED:
            self._since = None
            return
        now = self._clock()
        if self._since is None:
            self._since = now
            return  # to be placed takes a moment
        why = transport.call("GET", f"/v1/why/{job}", Why).sentence
        if now - self._since > self._seconds:
            raise UnavailableError(f"it waited {format_duration(self._seconds)} for room: {why}")
        if why != self._said:
            self._said = why
            shown.say(f"waits, at most {format_duration(self._seconds)}: {why}")


def follow(
    transport: Transport, job: Job, shown: Display, timeout: float | None = None, patience: Patience | None = None
) -> Job:
    """Wait for the end of a job, showing its reports.

    Raises:
        TimeoutError: it has not ended. UnavailableError: `patience` is at its end, and the job goes on waiting.
        Anything that the job failed with.
    """
    since, until = 0, None if timeout is None else time.monotonic() + timeout
    with _closing(shown):
        for condition in job.conditions:
            if condition.kind == "chosen":
                shown.say(condition.message)
        while True:
            params: dict[str, Any] = {"since": since, "wait": POLL}
            page = transport.call("GET", f"/v1/jobs/{job.id}/reports", ReportPage, params=params)
            since = page.next
            for report in page.reports:
                shown.show(report)
            if page.ended:
                break
            if patience is not None:
                patience.look(transport, job.id, shown)
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"{job.id} has not ended within {timeout:g} s; it goes on.")
    ended = transport.call("GET", f"/v1/jobs/{job.id}", Job)
    shown.close(ended)
    return finished(ended)


def finished(job: Job) -> Job:
    """The job, or the error it ended with."""
    if job.state is JobState.SUCCEEDED:
        return job
    if job.error is not None:
        raise from_dict(job.error)
    raise JobFailedError(f"{job.id} ended as {job.state.value}.", hint=f"See `llm-os why {job.id}`.")
