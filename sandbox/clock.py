"""The sandbox's time, in whole seconds UTC: it runs with the machine's, or stands still until it is moved."""

import time
from datetime import UTC, datetime
from pathlib import Path

from dateutil.relativedelta import relativedelta

from sandbox.errors import invalid


def parse(text: str) -> int:
    """Unix seconds of an RFC 3339 moment or of a number of seconds; ApiError 400 when it is neither."""
    try:
        if text.strip().isdigit():
            return int(text)
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise invalid(f"Not a moment: {text}", "to") from error
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


def iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def day(seconds: int) -> str:
    """For people: `21 Nov 2026`."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment.day} {moment:%b %Y}"


def after(start: int, interval: str, count: int) -> int:
    """`count` intervals after `start`; a day that the month lacks becomes its last day (Jan 31 → Feb 28 → Mar 31)."""
    step = relativedelta(**{f"{interval}s": count})  # type: ignore[arg-type]
    return int((datetime.fromtimestamp(start, UTC) + step).timestamp())


class Clock:
    """`file` shares the time with another program: its content is the time, each move is written to it at once."""

    def __init__(self, frozen: int | None = None, file: Path | None = None) -> None:
        self._frozen, self._file, self._offset = frozen, file, 0
        self._last: int | None = None
        if file and not file.exists():
            self.set(frozen or int(time.time()))

    def now(self) -> int:
        if self._file:
            return self._read(self._file)
        return self._frozen if self._frozen is not None else int(time.time()) + self._offset

    def _read(self, file: Path) -> int:
        """Half-written by the other program (empty): what it was a moment ago."""
        text = file.read_text().strip()
        if text or self._last is None:
            self._last = parse(text)
        return self._last

    def set(self, moment: int) -> None:
        if self._file:
            part = self._file.with_suffix(".part")
            part.write_text(iso(moment) + "\n")
            part.replace(self._file)
        elif self._frozen is not None:
            self._frozen = moment
        else:
            self._offset = moment - int(time.time())

    @property
    def stands(self) -> bool:
        return self._frozen is not None and not self._file
