"""Monthly periods that keep the day of their anchor: 31 January, 28 February, 31 March."""

from __future__ import annotations

from datetime import datetime

from dateutil.relativedelta import relativedelta


def month_period(anchor: datetime, moment: datetime) -> tuple[datetime, datetime]:
    """The half-open period `[start, end)` of the monthly anchor that holds `moment`, before the anchor too."""
    months = (moment.year - anchor.year) * 12 + moment.month - anchor.month
    if anchor + relativedelta(months=months) > moment:
        months -= 1
    return anchor + relativedelta(months=months), anchor + relativedelta(months=months + 1)


def months_between(earlier: datetime, later: datetime) -> int:
    """How many whole months lie between the end of one period and the start of another (neighbours: 0)."""
    months = (later.year - earlier.year) * 12 + later.month - earlier.month
    return max(0, months - (earlier + relativedelta(months=months) > later))
