"""The watch over pages of metrics that a fake tells, a virtual clock, and sinks that record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_os.autopilot.rules import DEFAULTS, Rules
from llm_os.autopilot.runner import Watch
from llm_os.errors import UnavailableError
from llm_os.spec.alerts import Alert, AlertPage, AlertState, Told, Watched
from llm_os.spec.api import KernelStatus


class FakeSyscalls:
    """Three verbs; `full` makes writing fail, as a full disk does."""

    def __init__(self) -> None:
        self.noted: list[Watched] = []
        self.before = AlertPage()
        self.full = False
        self.gateway: str | None = "http://gateway/v1"

    def status(self) -> KernelStatus:
        return KernelStatus(
            version="1", home="/h", pid=1, started_at=0, ephemeral=False, management="http://kernel", socket="/s",
            gateway=self.gateway, jobs={}, deployments={}, sessions=0,
        )  # fmt: skip

    def alerts(self) -> AlertPage:
        return self.noted[-1].page if self.noted else self.before

    def note_alerts(self, watched: Watched) -> None:
        if self.full:
            raise OSError("disk full")
        self.noted.append(watched)


class FakeSinks:
    def __init__(self) -> None:
        self.told: list[tuple[str, AlertState, tuple[str, ...] | None]] = []
        self.used: list[Rules] = []

    async def use(self, rules: Rules) -> None:
        self.used.append(rules)

    def tell(self, told: Told, names: tuple[str, ...] | None) -> None:
        self.told.append((told.alert.rule, told.alert.state, names))

    def problems(self) -> tuple[str, ...]:
        return ()


class FakeClock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


class Bench:
    def __init__(self, folder: Path) -> None:
        self.syscalls, self.sinks, self.clock = FakeSyscalls(), FakeSinks(), FakeClock()
        self.file = folder / "alerts.toml"
        self.pages: dict[str, Any] = {
            "http://kernel/metrics": "# TYPE free gauge\nfree 10\n# TYPE size gauge\nsize 100\n",
            "http://gateway/metrics": "# TYPE llm_os_gateway_queue_seconds histogram\n# TYPE bad_total counter\n",
        }
        self.watch = self.another()

    def another(self) -> Watch:
        syscalls: Any = self.syscalls
        sinks: Any = self.sinks
        return Watch(syscalls, self.read, sinks, self.clock, file=self.file, every=15)

    async def read(self, url: str) -> str:
        text = self.pages[url]
        if isinstance(text, Exception):
            raise text
        return str(text)

    def rules(self, text: str) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self.file)

    async def look(self, seconds: float = 15) -> Watched:
        self.clock.at += seconds
        await self.watch.look()
        return self.syscalls.noted[-1]


LITTLE = """
[[rule]]
name = "little"
metric = "free"
of = { metric = "size" }
below = 0.2
for = "20s"
keep_firing_for = "10s"
notify = ["oncall"]
[webhook.oncall]
url = "http://x"
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_an_alert_goes_to_the_kernel_and_to_the_sinks_of_its_rule(bench: Bench) -> None:
    bench.rules(LITTLE)
    assert (await bench.look()).told == ()
    assert (await bench.look()).told == ()
    (told,) = (await bench.look()).told
    assert told.message.startswith("little: 10.0%, below 20.0% for 20.0 s")
    bench.pages["http://kernel/metrics"] = "# TYPE free gauge\nfree 90\n# TYPE size gauge\nsize 100\n"
    (over,) = (await bench.look()).told
    assert over.alert.state is AlertState.RESOLVED
    assert bench.sinks.told == [
        ("little", AlertState.FIRING, ("oncall",)),
        ("little", AlertState.RESOLVED, ("oncall",)),
    ]


async def test_a_wrong_file_is_named_and_the_defaults_go_on(bench: Bench) -> None:
    bench.rules("[[rule]\n")
    page = (await bench.look()).page
    assert "it is not TOML" in page.problems[0]
    assert [status.rule for status in page.rules] == list(DEFAULTS)
    bench.rules(LITTLE)
    page = (await bench.look()).page
    assert page.problems == ()
    assert [status.rule.name for status in page.rules if status.own] == ["little"]
    bench.rules("[[rule]\n")  # half saved: nobody's alerts end for it
    page = (await bench.look()).page
    assert "it is not TOML" in page.problems[0]
    assert "little" in [status.rule.name for status in page.rules]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("metric = 'fre'\nabove = 1", "There is no metric 'fre'. Did you mean 'free'?"),
        ("metric = 'free'\nform = 'rate'\nabove = 1", "'free' is a gauge; only counters have a rate."),
        ("metric = 'free'\nform = 'quantile'\nquantile = 0.5\nabove = 1", "'free' is a gauge; only histograms"),
        ("metric = 'llm_os_gateway_queue_seconds'\nabove = 1", "take its quantile"),
    ],
)
async def test_a_rule_that_cannot_be_evaluated_says_why(bench: Bench, fields: str, says: str) -> None:
    bench.rules(f"[[rule]]\nname = 'odd'\n{fields}\n")
    (status,) = [status for status in (await bench.look()).page.rules if status.rule.name == "odd"]
    assert says in status.problem


async def test_a_gateway_that_does_not_answer_is_told_and_its_rules_wait(bench: Bench) -> None:
    bench.rules("[[rule]]\nname = 'odd'\nmetric = 'bad_total'\nform = 'rate'\nabove = 1\n")
    bench.pages["http://gateway/metrics"] = UnavailableError("It does not answer.")
    page = (await bench.look()).page
    assert page.problems == ("It does not answer.",)
    (status,) = [status for status in page.rules if status.rule.name == "odd"]
    assert status.problem == "Its metric is on a page that cannot be read now."
    bench.syscalls.gateway = None
    assert "gateway does not answer" in (await bench.look()).page.problems[0]


async def test_what_fired_before_a_restart_is_not_told_anew_and_ends(bench: Bench) -> None:
    bench.rules(LITTLE)
    for _ in range(3):
        await bench.look()
    bench.watch = bench.another()
    assert (await bench.look()).told == ()
    bench.pages["http://kernel/metrics"] = "# TYPE free gauge\nfree 90\n# TYPE size gauge\nsize 100\n"
    assert [told.alert.state for told in (await bench.look()).told] == [AlertState.RESOLVED]


async def test_what_fired_by_a_rule_that_is_gone_is_over(bench: Bench) -> None:
    bench.rules(LITTLE)
    for _ in range(3):
        await bench.look()
    bench.rules("")
    assert [(told.alert.rule, told.alert.state) for told in (await bench.look()).told] == [
        ("little", AlertState.RESOLVED)
    ]


async def test_a_full_disk_keeps_no_alert_from_the_sinks_and_it_is_written_down_later(bench: Bench) -> None:
    bench.rules(LITTLE)
    await bench.look()
    bench.syscalls.full = True
    for _ in range(2):
        await bench.look()
    assert [(rule, state) for rule, state, _ in bench.sinks.told] == [("little", AlertState.FIRING)]
    bench.syscalls.full = False
    assert [told.alert.rule for told in (await bench.look()).told] == ["little"]
    assert (await bench.look()).told == ()
    assert len(bench.sinks.told) == 1


async def test_labels_of_another_rule_of_that_name_are_not_taken_over(bench: Bench) -> None:
    stale = Alert(rule="little", labels={"model": "a"}, state=AlertState.FIRING, value=1, since=1, seen=1)
    bench.syscalls.before = AlertPage(alerts=(stale,))
    bench.rules(LITTLE)
    assert [alert.labels for alert in (await bench.look()).page.alerts] == [{}]


async def test_it_is_told_where_the_time_of_requests_goes(bench: Bench) -> None:
    def page(requests: int) -> str:
        lines = ["# TYPE llm_os_gateway_queue_seconds histogram"]
        for name, value in (
            ("queue_seconds_count", requests),
            ("queue_seconds_sum", 3.0 * requests),
            ("request_seconds_count", requests),
            ("request_seconds_sum", 4.0 * requests),
            ("in_flight", 64),
            ("waiting", 20),
            ("slots", 64),
        ):
            lines.append(f'llm_os_gateway_{name}{{model="chat"}} {value}')
        return "\n".join(lines)

    bench.pages["http://gateway/metrics"] = page(0)
    await bench.look()
    bench.pages["http://gateway/metrics"] = page(10)
    flow = (await bench.look()).flows["chat"]
    assert (flow.requests, flow.queue_seconds, flow.answer_seconds) == (10, 3, 4)
    assert (flow.in_flight, flow.waiting, flow.slots, flow.seconds) == (64, 20, 64, 15)


async def test_a_look_that_fails_does_not_end_the_watch(bench: Bench) -> None:
    bench.pages["http://kernel/metrics"] = RuntimeError("a defect")

    class End(BaseException):
        pass

    looks = 0

    async def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise End

    bench.clock.sleep = sleep  # type: ignore[method-assign]
    with pytest.raises(End):
        await bench.watch.run()
    assert looks == 3
