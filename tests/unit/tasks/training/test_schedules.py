"""Schedules: equal to those of transformers and torch where these have them."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from llm_os.tasks.training.schedules import END, FALLS, FLOOR, START, share

TOTAL, WARMUP = 100, 0.2
NAMES = [*FALLS, "inverse_sqrt", "one_cycle"]


def theirs(name: str, **more: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(name, optimizer, 20, TOTAL, scheduler_specific_kwargs=dict(more))
    rates = []
    for _ in range(TOTAL):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("ours", "name", "more"),
    [
        ("linear", "linear", {}),
        ("cosine", "cosine", {}),
        ("polynomial", "polynomial", {"power": 2.0, "lr_end": 0.0}),
        ("constant", "constant_with_warmup", {}),
    ],
)
def test_falls_as_in_transformers_down_to_the_floor(ours: str, name: str, more: dict[str, object]) -> None:
    floor = 0.0 if ours == "constant" else FLOOR
    expected = [floor + (1 - floor) * rate for rate in theirs(name, **more)]
    assert [share(ours, step, TOTAL, WARMUP) for step in range(20, TOTAL)] == pytest.approx(expected[20:], abs=1e-6)


def test_inverse_root_falls_as_in_transformers() -> None:
    expected = theirs("inverse_sqrt")
    assert [share("inverse_sqrt", step, TOTAL, WARMUP) for step in range(20, TOTAL)] == pytest.approx(
        expected[20:], rel=0.03
    )


def test_one_cycle_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, TOTAL, pct_start=WARMUP, div_factor=START, final_div_factor=END, cycle_momentum=False
    )
    for step in range(TOTAL):
        assert share("one_cycle", step, TOTAL, WARMUP) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        if step < TOTAL - 1:
            cycle.step()


@pytest.mark.parametrize("name", NAMES)
def test_rises_to_the_full_rate_and_never_above_it(name: str) -> None:
    shares = [share(name, step, TOTAL, WARMUP) for step in range(TOTAL + 50)]
    assert max(shares) == pytest.approx(1.0)
    assert shares[:20] == sorted(shares[:20])
    assert all(0 < one <= 1.0 for one in shares)
    assert shares[19] == pytest.approx(1.0)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_alone_has_a_rate(name: str) -> None:
    assert 0 < share(name, 0, 1, 0.0) <= 1
