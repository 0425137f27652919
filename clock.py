"""The one clock of the business: every decision about money, credits or periods asks `now()`.

Real time is used only where a moved clock would be wrong: leases, rate limits, session age and webhook tolerance.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

_file: Path | None = None


class ClockError(RuntimeError):
    """CLOCK_FILE can not be read as one RFC 3339 time."""


def configure(path: Path | None) -> None:
    """Take the time from `path` (re-read at each call), or from the system when None."""
    global _file
    _file = path
    if path is not None:
        now()


def now() -> datetime:
    """The current time, aware and in UTC.

    Raises ClockError when CLOCK_FILE is set and does not hold an RFC 3339 time with an offset.
    """
    if _file is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(_file.read_text().strip())
    except (OSError, ValueError) as error:
        raise ClockError(f"CLOCK_FILE: {_file} does not hold an RFC 3339 time") from error
    if moment.tzinfo is None:
        raise ClockError(f"CLOCK_FILE: the time in {_file} has no offset")
    return moment.astimezone(UTC)


def rfc3339(moment: datetime) -> str:
    """The moment in UTC as the API writes it: `2026-11-21T10:00:00Z`, with microseconds where there are some."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
