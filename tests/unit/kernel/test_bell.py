"""An end that the launcher tells of is looked at now, not at the next turn that is due."""

from types import SimpleNamespace
from typing import Any

from llm_os.kernel.loop import Kernel
from llm_os.kernel.state import Watch


def rung(attempt: str) -> tuple[Any, Watch, int]:
    """What the kernel believes it has seen, what it watches, and how often it was woken."""
    kernel, watch, beats = Kernel.__new__(Kernel), Watch(inspected_at=1000.0), list[None]()
    state: Any = SimpleNamespace(watches={"known": watch}, pulse=SimpleNamespace(beat=lambda: beats.append(None)))
    kernel._state, kernel._seen = state, SimpleNamespace()  # type: ignore[assignment]
    kernel._rung(attempt)
    return kernel._seen, watch, len(beats)


def test_the_loop_wakes_takes_a_turn_and_asks_after_the_process() -> None:
    seen, watch, beats = rung("known")
    assert (seen, beats) == (None, 1)
    assert watch.inspected_at == float("-inf")


def test_an_attempt_that_is_not_watched_wakes_nobody() -> None:
    seen, _, beats = rung("of an earlier day")
    assert seen is not None
    assert beats == 0
