"""Monthly periods that keep the day of their anchor."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.periods import month_period, months_between

MOMENTS = st.datetimes(datetime(1999, 1, 1), datetime(2101, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def day(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}T10:30:00Z")


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        ("2026-01-31", "2026-01-31", "2026-02-28"),
        ("2026-02-27", "2026-01-31", "2026-02-28"),
        ("2026-02-28", "2026-02-28", "2026-03-31"),
        ("2026-03-30", "2026-02-28", "2026-03-31"),
        ("2026-03-31", "2026-03-31", "2026-04-30"),
        ("2026-12-31", "2026-12-31", "2027-01-31"),
        ("2028-02-29", "2028-02-29", "2028-03-31"),
        ("2028-02-28", "2028-01-31", "2028-02-29"),
        ("2025-12-31", "2025-12-31", "2026-01-31"),
        ("2025-11-30", "2025-11-30", "2025-12-31"),
    ],
)
def test_a_month_end_anchor_falls_on_each_months_last_day_and_comes_back(moment: str, start: str, end: str) -> None:
    assert month_period(day("2026-01-31"), day(moment)) == (day(start), day(end))


def test_the_end_is_no_longer_inside() -> None:
    anchor, end = day("2026-01-15"), day("2026-02-15")
    assert month_period(anchor, end - timedelta(microseconds=1)) == (anchor, end)
    assert month_period(anchor, end) == (end, day("2026-03-15"))


def test_a_period_keeps_the_anchors_time_of_day() -> None:
    anchor = datetime(2026, 3, 15, 23, 59, 59, 999999, tzinfo=UTC)
    start, end = month_period(anchor, datetime(2026, 11, 15, 23, 59, 59, 999998, tzinfo=UTC))
    assert (start, end) == (anchor.replace(month=10), anchor.replace(month=11))


@given(anchor=MOMENTS, moment=MOMENTS)
@example(anchor=datetime(2024, 2, 29, tzinfo=UTC), moment=datetime(2025, 2, 28, tzinfo=UTC))
@example(anchor=datetime(2026, 1, 31, 12, tzinfo=UTC), moment=datetime(2026, 2, 28, 11, 59, tzinfo=UTC))
def test_every_moment_lies_in_one_period_and_the_periods_leave_no_gap(anchor: datetime, moment: datetime) -> None:
    start, end = month_period(anchor, moment)
    assert start <= moment < end
    assert month_period(anchor, start) == (start, end)
    assert month_period(anchor, end)[0] == end
    assert month_period(anchor, start - timedelta(microseconds=1))[1] == start
    for edge in (start, end):
        assert edge.day == min(anchor.day, calendar.monthrange(edge.year, edge.month)[1])
        assert edge.time() == anchor.time()


@pytest.mark.parametrize(
    ("end", "start", "between"),
    [
        ("2026-01-31", "2026-01-31", 0),
        ("2026-01-31", "2026-02-27", 0),
        ("2026-01-31", "2026-02-28", 1),
        ("2026-02-28", "2026-04-30", 2),
        ("2025-11-30", "2026-02-28", 3),
        ("2026-01-15", "2027-01-15", 12),
        ("2026-01-15", "2026-01-01", 0),
    ],
)
def test_whole_months_between_the_end_of_a_period_and_the_start_of_another(end: str, start: str, between: int) -> None:
    assert months_between(day(end), day(start)) == between
