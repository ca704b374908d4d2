"""What a person sees who waits for a deployment, or no longer wants to; must not know how it is waited for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from llm_os.client.watch import Display, display
from llm_os.spec.attempts import Report
from llm_os.spec.deployments import Deployment


@contextmanager
def interrupted(goes_on: str) -> Iterator[None]:
    """At Ctrl-C say what goes on all the same; it is raised again."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{goes_on}", file=sys.stderr)
        raise


class Starting:
    """Shows how far a replica's start is, on standard error, once there is something to show.

    Attributes:
        title: of the line. quiet: nothing is shown.
    """

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self._title, self._quiet = title, quiet
        self._shown: Display | None = None
        self._at = 0.0

    def look(self, record: Deployment) -> bool:
        """Show what is new; whether it came a step further since the last look."""
        progress = [replica.progress for replica in record.replicas]
        told, at = max(
            ((one, float(at)) for one in progress if isinstance(at := one.get("at"), int | float)),
            key=lambda found: found[1],
            default=({}, 0.0),
        )  # of engines side by side one may hang while the other comes on
        if at <= self._at:
            return False
        self._at = at
        self._shown = self._shown or display(self._title, quiet=self._quiet)
        self._shown.show(Report(seq=1, at=at, kind="progress", values=told))
        return True

    def close(self) -> None:
        """Leave the line as it is. May be called twice."""
        if self._shown is not None:
            self._shown.close(None)
            self._shown = None


def update_goes_on(name: str) -> str:
    """What a person reads who no longer waits for an update."""
    return f"The update of {name} goes on: llm-os why {name}. Take it back with: llm-os rollback {name}"
