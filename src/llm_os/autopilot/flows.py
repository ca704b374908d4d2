"""Where the time of requests goes, by deployment, from the gateway's counters of the last minutes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llm_os.autopilot.exposition import Page
from llm_os.autopilot.history import Growth, current
from llm_os.spec.alerts import Flow, Term

WINDOW = 300.0
"""Seconds."""
_G = "llm_os_gateway"
_COUNTED = {
    "requests": f"{_G}_queue_seconds_count",
    "queue": f"{_G}_queue_seconds_sum",
    "answers": f"{_G}_request_seconds_count",
    "answer": f"{_G}_request_seconds_sum",
}
_NOW = {"in_flight": f"{_G}_in_flight", "waiting": f"{_G}_waiting", "slots": f"{_G}_slots"}
SERIES = frozenset((*_COUNTED.values(), *_NOW.values()))
"""What is read of the pages."""
_BY = ("model",)


class Flows:
    """The last minutes of every deployment."""

    def __init__(self) -> None:
        self._growths = {name: Growth(Term(metric=metric), _BY, WINDOW) for name, metric in _COUNTED.items()}
        self._began: float | None = None

    def take(self, now: float, pages: Sequence[Page]) -> dict[str, Flow]:
        """Take in a reading (`now` in seconds); what is known of each deployment that had requests."""
        samples = [sample for page in pages for sample in page.samples]
        if not any(f"{_G}_queue_seconds" in page.types for page in pages):  # no gateway: nothing is known
            return {}
        self._began = self._began if self._began is not None else now
        grown = {}
        for name, growth in self._growths.items():
            growth.add(now, [sample for sample in samples if sample.name == _COUNTED[name]])
            grown[name] = growth.increase()
        present = {
            name: current(Term(metric=metric), _BY, [sample for sample in samples if sample.name == metric])
            for name, metric in _NOW.items()
        }
        flows = {}
        for group, requests in grown["requests"].items():
            if not group[0]:
                continue
            answers = grown["answers"].get(group, 0.0)
            flows[group[0]] = Flow(
                at=now,
                seconds=min(WINDOW, now - self._began),
                requests=requests,
                queue_seconds=grown["queue"].get(group, 0.0) / requests if requests else 0.0,
                answer_seconds=grown["answer"].get(group, 0.0) / answers if answers else 0.0,
                **{name: found.get(group, 0.0) for name, found in present.items()},
            )
        return flows
