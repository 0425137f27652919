"""What comes next, from what was: exact where the past is plain, and better than a run rate where it is not."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import forecasts
from services.prediction import outlook


@pytest.mark.parametrize("length", [1, 3, 8, 20, 21, 60, 200])
def test_a_steady_past_goes_on(length: int) -> None:
    seen = outlook([20_000_000] * length, 30)
    assert [round(day) for day in seen.days] == [20_000_000] * 30
    assert round(seen.spread, 20) == 0


def test_nothing_goes_on_as_nothing() -> None:
    assert outlook([0] * 40, 3).days == [0, 0, 0]


def test_a_week_of_work_has_its_weekend() -> None:
    seen = outlook([10, 10, 10, 10, 10, 0, 0] * 8, 7)
    assert min(seen.days[:5]) > 2 * max(seen.days[5:])
    assert 45 < sum(seen.days) < 55


def test_growth_goes_on_and_fades() -> None:
    days = [int(1000 * 1.03**day) for day in range(60)]
    seen = outlook(days, 60)
    assert seen.days[0] > days[-1] * Decimal("0.85")
    assert sum(seen.days[7:14]) > sum(seen.days[:7])
    assert sum(seen.days[-7:]) < sum(days[-7:]) * 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=120), st.integers(1, 70))
def test_it_always_has_an_answer(past: list[int], count: int) -> None:
    seen = outlook(past, count)
    assert len(seen.days) == count
    assert all(day >= 0 for day in seen.days)
    assert 0 <= seen.spread <= 1


@pytest.mark.parametrize("kind", list(forecasts.KINDS))
def test_it_is_nearer_the_truth_than_a_run_rate(kind: str) -> None:
    """Fewer histories than `make bench` takes."""
    score = forecasts.score(kind, 8)
    assert score.ours < score.run_rate
    assert score.within > 0.5
