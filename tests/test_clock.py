"""The one clock: real time, a CLOCK_FILE that moves, and files that hold no time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

import clock


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "clock"
    clock.configure(None)


def test_without_a_file_the_time_is_real_and_in_utc() -> None:
    clock.configure(None)
    before = datetime.now(UTC)
    now = clock.now()
    assert before <= now <= datetime.now(UTC)
    assert now.utcoffset() == timedelta(0)


def test_the_file_is_the_time_and_is_read_again_each_time(file: Path) -> None:
    file.write_text("2026-11-21T10:00:00Z\n")
    clock.configure(file)
    assert clock.now() == datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert clock.now() == clock.now()
    file.write_text("2027-01-01T00:00:00.000001Z")
    assert clock.now() == datetime(2027, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


def test_a_time_with_another_offset_is_the_same_moment_in_utc(file: Path) -> None:
    file.write_text("2026-11-21T10:00:00+02:00")
    clock.configure(file)
    assert clock.now() == datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert clock.now().utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "does not hold an RFC 3339 time"),
        ("tomorrow", "does not hold an RFC 3339 time"),
        ("2026-02-30T00:00:00Z", "does not hold an RFC 3339 time"),
        ("2026-11-21T10:00:00", "has no offset"),
        ("2026-11-21", "has no offset"),
    ],
)
def test_a_file_without_a_time_is_refused_by_name(file: Path, content: str, message: str) -> None:
    file.write_text(content)
    with pytest.raises(clock.ClockError, match=rf"^CLOCK_FILE: .*{message}") as error:
        clock.configure(file)
    assert str(file) in str(error.value)


def test_a_missing_file_is_refused_by_name(file: Path) -> None:
    with pytest.raises(clock.ClockError, match=r"^CLOCK_FILE: "):
        clock.configure(file)


def test_a_file_that_vanishes_never_becomes_real_time(file: Path) -> None:
    file.write_text("2026-11-21T10:00:00Z")
    clock.configure(file)
    file.unlink()
    with pytest.raises(clock.ClockError):
        clock.now()


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 21, 10, tzinfo=UTC), "2026-11-21T10:00:00Z"),
        (datetime(2026, 11, 21, 10, 0, 0, 250, tzinfo=UTC), "2026-11-21T10:00:00.000250Z"),
        (datetime(2026, 11, 21, 1, tzinfo=timezone(timedelta(hours=-5))), "2026-11-21T06:00:00Z"),
    ],
)
def test_times_are_written_as_rfc_3339_in_utc(moment: datetime, text: str) -> None:
    assert clock.rfc3339(moment) == text
    assert datetime.fromisoformat(text) == moment
