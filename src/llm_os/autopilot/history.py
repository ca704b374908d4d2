"""What metrics did over the last minutes: sums of their series by label, in memory; no clock and no I/O.

Counters are added up from their steps, series by series, so that one that begins anew (its program was restarted) does
not look like a fall, and one that appears is counted from zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llm_os.autopilot.exposition import Sample
from llm_os.spec.alerts import INFO, AlertRule, Form, Term

Group = tuple[str, ...]
"""Values of the labels of `by`, in their order."""


def matches(where: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a series is meant: a `*` stands for any text; a label that is not there is empty, as in PromQL."""
    return all(_like(pattern, labels.get(name, "")) for name, pattern in where.items())


def _like(pattern: str, text: str) -> bool:
    first, *others = pattern.split("*")
    if not others:
        return pattern == text
    if not text.startswith(first):
        return False
    text = text[len(first) :]
    *middle, last = others
    for part in middle:
        at = text.find(part)
        if at < 0:
            return False
        text = text[at + len(part) :]
    return text.endswith(last)


@dataclass(slots=True)
class _Line:
    """One group: its running sum at the times when it was read."""

    points: deque[tuple[float, float]] = field(default_factory=deque)
    total: float = 0.0
    seen: float = 0.0


class Growth:
    """How much the counters of a term grew.

    Args:
        by: labels that make groups; series that differ in others are added up.
        window: seconds that are remembered.
    """

    def __init__(self, term: Term, by: tuple[str, ...], window: float) -> None:
        self._term, self._by, self._window = term, by, window
        self._last: dict[tuple[tuple[str, str], ...], float] = {}
        self._lines: dict[Group, _Line] = {}
        self._read: float | None = None

    def add(self, now: float, samples: Iterable[Sample]) -> None:
        """Take in a reading; all of the metric's series there are, at `now` (seconds)."""
        last: dict[tuple[tuple[str, str], ...], float] = {}
        for sample in samples:
            if not matches(self._term.where, sample.labels):
                continue
            series = tuple(sorted(sample.labels.items()))
            last[series] = sample.value
            before = self._last.get(series)
            group = tuple(sample.labels.get(name, "") for name in self._by)
            line = self._lines.get(group)
            if line is None:
                line = self._lines[group] = _Line()
                if self._read is not None:
                    line.points.append((self._read, 0.0))
            line.seen = now
            if before is not None:
                line.total += sample.value - before if sample.value >= before else sample.value
            elif self._read is not None:  # it appeared since; at the very first reading nothing is known of its age
                line.total += sample.value
        self._last, self._read = last, now
        for group, line in list(self._lines.items()):
            if now - line.seen > self._window:
                del self._lines[group]
                continue
            line.points.append((now, line.total))
            while len(line.points) > 2 and line.points[1][0] <= now - self._window:
                line.points.popleft()

    def increase(self) -> dict[Group, float]:
        """What each group grew by over the window, or since it is watched. Nothing of a single reading."""
        return {group: line.points[-1][1] - line.points[0][1] for group, line in self._watched()}

    def rate(self) -> dict[Group, float]:
        """The same, a second."""
        return {
            group: (line.points[-1][1] - line.points[0][1]) / (line.points[-1][0] - line.points[0][0])
            for group, line in self._watched()
        }

    def _watched(self) -> Iterable[tuple[Group, _Line]]:
        return [(g, line) for g, line in self._lines.items() if line.points[-1][0] > line.points[0][0]]


def current(term: Term, by: tuple[str, ...], samples: Iterable[Sample]) -> dict[Group, float]:
    """Sums of what the series are now."""
    found: dict[Group, float] = {}
    for sample in samples:
        if matches(term.where, sample.labels):
            group = tuple(sample.labels.get(name, "") for name in by)
            found[group] = found.get(group, 0.0) + sample.value
    return found


def quantile_of(buckets: Mapping[float, float], share: float) -> float | None:
    """The quantile of a histogram, straight lines between its bounds, as PromQL's `histogram_quantile` has it.

    Args:
        buckets: cumulative counts by upper bound, the last of them infinity.

    Returns:
        None when nothing was observed. Beyond the highest finite bound, that bound.
    """
    bounds = sorted(buckets)
    if not bounds or bounds[-1] != float("inf") or buckets[bounds[-1]] <= 0:
        return None
    wanted = share * buckets[bounds[-1]]
    below = lower = 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == float("inf"):
                return bounds[-2] if len(bounds) > 1 else None
            inside = buckets[bound] - below
            return bound if inside <= 0 else lower + (bound - lower) * (wanted - below) / inside
        below, lower = buckets[bound], bound
    return None


class Measured:
    """The numbers of one rule, from reading to reading."""

    def __init__(self, rule: AlertRule) -> None:
        self._rule = rule
        self._growths: dict[str, Growth] = {}
        for name, (term, by) in _counters(rule).items():
            self._growths[name] = Growth(term, by, rule.window)

    def take(self, now: float, samples: Mapping[str, tuple[Sample, ...]]) -> dict[Group, float]:
        """Take in a reading, by name of series; the number of each group, where there is one."""
        samples = _of_chosen(self._rule, samples)
        for growth, (term, _) in zip(self._growths.values(), _counters(self._rule).values(), strict=True):
            growth.add(now, samples.get(term.metric, ()))
        rule = self._rule
        if rule.form is Form.QUANTILE:
            values = self._quantiles()
        elif rule.form is Form.VALUE:
            values = current(rule, rule.by, samples.get(rule.metric, ()))
            if rule.of is not None:
                values = _shares(values, current(rule.of, rule.by, samples.get(rule.of.metric, ())))
        else:
            values = self._grown("number")
            if rule.of is not None:
                values = _shares(values, self._grown("of"))
        if rule.least_events:
            events = self._growths["events"].increase()
            values = {group: value for group, value in values.items() if events.get(group, 0.0) >= rule.least_events}
        return values

    def _grown(self, name: str) -> dict[Group, float]:
        growth = self._growths[name]
        return growth.rate() if self._rule.form is Form.RATE else growth.increase()

    def _quantiles(self) -> dict[Group, float]:
        buckets: dict[Group, dict[float, float]] = {}
        for (*group, bound), count in self._growths["number"].increase().items():
            buckets.setdefault(tuple(group), {})[float(bound or "inf")] = count
        found = {group: quantile_of(counts, self._rule.quantile or 0.0) for group, counts in buckets.items()}
        return {group: value for group, value in found.items() if value is not None}


def _counters(rule: AlertRule) -> dict[str, tuple[Term, tuple[str, ...]]]:
    """The counters whose growth a rule needs, and by which labels."""
    if rule.form is Form.VALUE:
        return {}
    if rule.form is Form.QUANTILE:
        found = {"number": (Term(metric=f"{rule.metric}_bucket", where=rule.where), (*rule.by, "le"))}
        if rule.least_events:
            found["events"] = (Term(metric=f"{rule.metric}_count", where=rule.where), rule.by)
        return found
    found = {"number": (Term(metric=rule.metric, where=rule.where), rule.by)}
    if rule.of is not None:
        found["of"] = (rule.of, rule.by)
        if rule.least_events:
            found["events"] = (rule.of, rule.by)
    return found


def _of_chosen(rule: AlertRule, samples: Mapping[str, tuple[Sample, ...]]) -> Mapping[str, tuple[Sample, ...]]:
    """Without the series of deployments that the rule does not mean."""
    if rule.chosen is None:
        return samples
    meant = {s.labels.get("model") for s in samples.get(INFO, ()) if matches(rule.chosen.where, s.labels)}
    return {name: tuple(s for s in found if s.labels.get("model") in meant) for name, found in samples.items()}


def _shares(parts: Mapping[Group, float], wholes: Mapping[Group, float]) -> dict[Group, float]:
    return {group: part / wholes[group] for group, part in parts.items() if wholes.get(group)}


def series_of(rule: AlertRule) -> set[str]:
    """Names of all series that a rule reads."""
    names = {term.metric for term, _ in _counters(rule).values()}
    if rule.form is Form.VALUE:
        names |= {rule.metric} | ({rule.of.metric} if rule.of is not None else set())
    return names | ({rule.chosen.metric} if rule.chosen is not None else set())
