"""Looks at the metrics every few seconds, decides which alerts hold, tells kernel and sinks; must write no state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from llm_os.autopilot.exposition import Page, Sample, read
from llm_os.autopilot.flows import SERIES, Flows
from llm_os.autopilot.history import Group, Measured, series_of
from llm_os.autopilot.policies.alert import decide, ended
from llm_os.autopilot.rules import Rules, load_or_defaults
from llm_os.autopilot.sinks import Sinks
from llm_os.errors import LLMOSError, did_you_mean
from llm_os.kernel.syscalls import Syscalls
from llm_os.spec.alerts import Alert, AlertPage, AlertRule, AlertState, Flow, Form, RuleStatus, Told, Watched

log = logging.getLogger("llm_os.alerts")


class Clock(Protocol):
    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class Watch:
    """The alert policy at work.

    Args:
        read: fetches a page of metrics; raises LLMOSError.
        file: the home's own rules; read again when it changes.
        every: seconds between looks.
    """

    def __init__(
        self,
        syscalls: Syscalls,
        read: Callable[[str], Awaitable[str]],
        sinks: Sinks,
        clock: Clock,
        *,
        file: Path,
        every: float,
    ) -> None:
        self._syscalls = syscalls
        self._read = read
        self._sinks = sinks
        self._clock = clock
        self._file = file
        self._every = every
        self._rules = Rules(rules=())
        self._stamp: object = None
        self._measured: dict[str, tuple[AlertRule, Measured]] = {}
        self._alerts: dict[str, dict[Group, Alert]] = {}
        self._unrecorded: tuple[Told, ...] = ()
        """What the kernel could not write down yet."""
        self._over: list[tuple[Told, tuple[str, ...] | None]] = []
        self._flows = Flows()
        self._restored = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("looking at the metrics failed; the next look is in %s s", self._every)
            await self._clock.sleep(self._every)

    async def look(self) -> None:
        """One look: read, decide, tell."""
        await self._load()
        pages, problems = await self._pages()
        now = self._clock.now()
        statuses: list[RuleStatus] = []
        told, self._over = self._over, []
        for rule in self._rules.rules:
            status, news = self._judge(rule, pages, now, complete=not problems)
            statuses.append(status)
            told += [(one, rule.notify) for one in news]
        if self._rules.problem:
            problems.insert(0, self._rules.problem)
        alerts = tuple(alert for found in self._alerts.values() for alert in found.values())
        page = AlertPage(
            evaluated_at=now,
            problems=(*problems, *self._sinks.problems()),
            rules=tuple(statuses),
            alerts=alerts,
        )
        self._record(page, tuple(one for one, _ in told), self._flows.take(now, pages))
        for one, names in told:
            self._sinks.tell(one, names)

    def _record(self, page: AlertPage, told: tuple[Told, ...], flows: Mapping[str, Flow]) -> None:
        waiting = (*self._unrecorded, *told)
        try:
            self._syscalls.note_alerts(Watched(page=page, told=waiting, flows=flows))
        except Exception as error:  # noqa: BLE001 - a full disk is what an alert may be about: sinks must hear of it
            log.warning("alerts cannot be written down; trying again at the next look: %s", error)
            self._unrecorded = waiting[-100:]
        else:
            self._unrecorded = ()

    async def _load(self) -> None:
        """Take up the file of rules if it changed, and what fired before this kernel started."""
        try:
            facts = self._file.stat()
            stamp: object = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        except OSError:
            stamp = "none"
        if stamp != self._stamp:
            found = load_or_defaults(self._file)
            if found.problem and self._rules.rules:  # half-saved, or a slip: what was in force stays so
                found = replace(self._rules, problem=found.problem)
            self._stamp, self._rules = stamp, found
            if self._rules.problem:
                log.error("%s", self._rules.problem)
            await self._sinks.use(self._rules)
            self._forget({rule.name: rule for rule in self._rules.rules})
        if not self._restored:
            self._restored = True
            self._restore()

    def _forget(self, kept: Mapping[str, AlertRule]) -> None:
        """Drop what is known of rules that are gone or read otherwise now; what fired by them is over."""
        for name, (rule, _) in list(self._measured.items()):
            if kept.get(name) == rule:
                continue
            del self._measured[name]
            for alert in self._alerts.pop(name, {}).values():
                if alert.state is AlertState.FIRING:
                    self._over.append((ended(rule, alert, self._clock.now()), rule.notify))

    def _restore(self) -> None:
        rules = {rule.name: rule for rule in self._rules.rules}
        now = self._clock.now()
        for alert in self._syscalls.alerts().alerts:
            rule = rules.get(alert.rule)
            if rule is None or alert.state is not AlertState.FIRING or set(alert.labels) != set(rule.by):
                continue
            group = tuple(alert.labels[name] for name in rule.by)
            # While nobody looked it may have gone on: it gets its time from now.
            self._alerts.setdefault(rule.name, {})[group] = alert.model_copy(update={"seen": now})

    async def _pages(self) -> tuple[list[Page], list[str]]:
        """The pages that could be read, and why others could not."""
        status = self._syscalls.status()
        urls = [f"{status.management}/metrics"] if status.management else []
        if status.gateway is not None:
            urls.append(status.gateway.removesuffix("/v1") + "/metrics")
        wanted = {name for rule in self._rules.rules for name in series_of(rule)} | SERIES
        pages, problems = [], [] if status.gateway else ["The gateway does not answer: its metrics are missing."]
        for url in urls:
            try:
                text = await self._read(url)
            except LLMOSError as error:
                problems.append(error.message)
            else:
                # A page of a busy gateway has thousands of lines; the kernel's loop has other things to do.
                pages.append(await asyncio.to_thread(read, text, wanted))
        return pages, problems

    def _judge(
        self, rule: AlertRule, pages: list[Page], now: float, *, complete: bool
    ) -> tuple[RuleStatus, tuple[Told, ...]]:
        problem = _problem(rule, pages)
        values: dict[Group, float] = {}
        if problem and not complete and "no metric" in problem:
            problem = "Its metric is on a page that cannot be read now."
        if not problem:
            known = self._measured.get(rule.name)
            if known is None:
                known = self._measured[rule.name] = (rule, Measured(rule))
            values = known[1].take(now, _by_name(pages))
        decision = decide(rule, values, self._alerts.get(rule.name, {}), now)
        self._alerts[rule.name] = dict(decision.alerts)
        numbers = tuple((dict(zip(rule.by, group, strict=True)), value) for group, value in sorted(values.items()))
        own = rule.name in self._rules.own
        return RuleStatus(rule=rule, own=own, problem=problem, values=numbers), decision.told


def _by_name(pages: list[Page]) -> dict[str, tuple[Sample, ...]]:
    found: dict[str, list[Sample]] = {}
    for page in pages:
        for sample in page.samples:
            found.setdefault(sample.name, []).append(sample)
    return {name: tuple(samples) for name, samples in found.items()}


def _problem(rule: AlertRule, pages: list[Page]) -> str:
    """Why a rule cannot be evaluated; empty if it can."""
    for term in (rule, *([rule.of] if rule.of is not None else [])):
        kind = next((kind for page in pages if (kind := page.type_of(term.metric)) is not None), None)
        if kind is None:
            known = [name for page in pages for name in page.types]
            return f"There is no metric '{term.metric}'. {did_you_mean(term.metric, known)}"
        if rule.form is Form.QUANTILE and kind != "histogram":
            return f"'{term.metric}' is a {kind}; only histograms have quantiles."
        if rule.form in {Form.RATE, Form.INCREASE} and kind != "counter":
            return f"'{term.metric}' is a {kind}; only counters have a {rule.form.value}."
        if rule.form is Form.VALUE and kind == "histogram":
            return f"'{term.metric}' is a histogram; take its quantile, or the rate of {term.metric}_count."
    return ""
