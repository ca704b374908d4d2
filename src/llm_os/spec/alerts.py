"""What shall be watched, and what is known of it: alert rules, their states; knows no metric's source and no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from llm_os.spec.base import Name, Record, Spec
from llm_os.spec.units import Duration

MetricName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", max_length=200)]
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=100)]
LabelValue = Annotated[str, StringConstraints(max_length=200)]
Number = Annotated[float, Field(allow_inf_nan=False)]


INFO = "llm_os_deployment_info"
"""Metric that is 1 for each deployment, with its version, its engine and its owner's labels."""


def series_label(name: str) -> str:
    """What a label of a deployment is called in metrics: `team` is `label_team`, letters that cannot be are `_`."""
    return "label_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)


class Form(StrEnum):
    """How a number is made of a metric's series. Series that differ in other labels than `by` are added up."""

    VALUE = "value"
    """What the metric is now."""
    RATE = "rate"
    """What a counter grew by, a second, over the window."""
    INCREASE = "increase"
    """What a counter grew by over the window."""
    QUANTILE = "quantile"
    """Of a histogram: below it lie `quantile` of the observations of the window."""


class Term(Spec):
    """A metric, and which of its series count."""

    metric: MetricName
    where: Mapping[LabelName, LabelValue] = Field(default_factory=dict)
    """Labels that a series must have; a `*` stands for any text."""


class AlertRule(Term):
    """Tells when a number is beyond a threshold for some time. It can be evaluated here, and written as PromQL."""

    model_config = ConfigDict(populate_by_name=True)

    name: Name
    form: Form = Form.VALUE
    quantile: Number | None = Field(default=None, gt=0, lt=1)
    """Of form `quantile`: 0.95 is the 95th percentile."""
    of: Term | None = None
    """The number is divided by the same one of this metric: a share. Not with `quantile`."""
    labelled: Mapping[Name, LabelValue] = Field(default_factory=dict)
    """Only deployments that have these labels (`llm-os deploy --label`); a `*` stands for any text. The metric must
    have the label `model`."""
    by: tuple[LabelName, ...] = ()
    """One alert for each value of these labels; empty: one for all."""
    window: Duration = Field(default=300.0, ge=1, le=86400)
    """Seconds over which counters and histograms are looked at."""
    above: Number | None = None
    """The threshold: beyond it is bad. One of `above` and `below`."""
    below: Number | None = None
    least_events: Number = Field(default=0.0, ge=0)
    """Of shares and quantiles: fewer events in the window prove nothing."""
    lasting: Duration = Field(default=0.0, alias="for", le=86400)
    """Seconds that it must be so before it is told."""
    keep: Duration = Field(default=60.0, alias="keep_firing_for", le=86400)
    """Seconds that it must not be so before the end is told: one good moment is no cure."""
    severity: Literal["critical", "warning", "info"] = "warning"
    summary: str = Field(default="", max_length=500)
    """A sentence for people. Empty: name, number and threshold."""
    next: str = Field(default="", max_length=500)
    """What to do about it."""
    notify: tuple[Name, ...] | None = None
    """Names of the sinks that are told; None: all of them. An event is written in any case."""

    @model_validator(mode="after")
    def _whole(self) -> AlertRule:
        if (self.above is None) == (self.below is None):
            raise ValueError("give a threshold: either 'above' or 'below'")
        if (self.form is Form.QUANTILE) != (self.quantile is not None):
            raise ValueError("'quantile' (such as 0.95) belongs to form = \"quantile\", and to no other")
        if self.of is not None and self.form is Form.QUANTILE:
            raise ValueError("'of' makes a share, which a quantile is not")
        if self.least_events and (self.form is Form.VALUE or (self.form is not Form.QUANTILE and self.of is None)):
            raise ValueError("'least_events' belongs to quantiles and to shares of counters")
        return self

    @property
    def chosen(self) -> Term | None:
        """The series of the deployments that are meant; None: all."""
        if not self.labelled:
            return None
        return Term(metric=INFO, where={series_label(name): value for name, value in self.labelled.items()})

    @property
    def threshold(self) -> float:
        return self.above if self.above is not None else self.below if self.below is not None else 0.0

    @property
    def sign(self) -> str:
        return ">" if self.above is not None else "<"

    def broken_by(self, value: float) -> bool:
        """Whether this number is beyond the threshold."""
        return value > self.threshold if self.above is not None else value < self.threshold


class AlertState(StrEnum):
    PENDING = "pending"
    """It is so, but not for long enough yet."""
    FIRING = "firing"
    RESOLVED = "resolved"


class Alert(Record):
    """One rule, for one value of its labels."""

    rule: Name
    labels: Mapping[str, str] = Field(default_factory=dict)
    state: AlertState
    value: float | None
    """Number seen last; None where there is none (no request, no such deployment)."""
    since: float
    """Seconds since the epoch at which this state began."""
    seen: float
    """When it was last beyond the threshold."""


class RuleStatus(Record):
    """A rule, and what was found when it was last looked at."""

    rule: AlertRule
    own: bool = False
    """Whether it comes from the file of this home."""
    problem: str = ""
    """Why it cannot be evaluated: no such metric, for example."""
    values: tuple[tuple[Mapping[str, str], float], ...] = ()
    """Labels and number of each of its groups."""


class AlertPage(Record):
    """What `llm-os alerts` shows."""

    evaluated_at: float | None = None
    """None: not yet."""
    problems: tuple[str, ...] = ()
    """What is wrong with the file of rules, with a target that cannot be read or a sink that does not take anything."""
    rules: tuple[RuleStatus, ...] = ()
    alerts: tuple[Alert, ...] = ()
    """Pending and firing ones."""


class Told(Record):
    """An alert began or ended: what sinks are told."""

    alert: Alert
    severity: str
    message: str
    """A sentence for people, with number and threshold."""
    next: str = ""
    at: float
    began: float
    """When it began to fire."""


class Flow(Record):
    """Where the time of a deployment's requests went lately, as the gateway counted it."""

    at: float
    seconds: float
    """Length of the window that was looked at."""
    requests: float
    queue_seconds: float
    """Mean wait for a slot."""
    answer_seconds: float
    """Mean time from arrival to the last byte."""
    in_flight: float = 0
    waiting: float = 0
    slots: float = 0
    """Requests that its ready replicas take at once; 0 where it is not told."""


class Watched(Spec):
    """What the autopilot tells the kernel after each look."""

    page: AlertPage
    told: tuple[Told, ...] = ()
    flows: Mapping[str, Flow] = Field(default_factory=dict)
    """By deployment."""
