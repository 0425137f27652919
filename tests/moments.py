"""Moving the business clock as an operator would: by writing the CLOCK_FILE."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import clock


class At:
    """Called with a time it sets the clock; each call returns the new time, in UTC."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, moment: str | datetime) -> datetime:
        """`moment` has an offset: an RFC 3339 text or an aware datetime."""
        text = moment if isinstance(moment, str) else moment.isoformat()
        draft = self._path.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self._path)
        return clock.now()

    def forward(self, **distance: float) -> datetime:
        """As timedelta: `forward(days=1, seconds=5)`."""
        return self(clock.now() + timedelta(**distance))
