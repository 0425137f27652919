"""Days on which an account uses far more than it usually does."""

from __future__ import annotations

import statistics
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, union_all

import clock
from amounts import MICRO, to_credits
from extensions import db
from models.account import Account
from models.alert import Alert, AlertKind
from models.usage import RecentUsage, UsageHour
from services import agreed, alerts, forecast

_DAYS = 28
"""How far the usual reaches back."""
_ENOUGH = 7
"""Days of history without which nothing is usual."""
_TIMES = 3
"""A spike is more than so many times a usual day, and more than all days but the largest of the four weeks."""
_LEAST = 10 * MICRO
"""Smaller sums surprise nobody."""


def look() -> int:
    """Raise an alert for each account that spikes today, once in its period; how many are new."""
    now = clock.now()
    today = agreed.day_of(now)
    kept = (select(table.account_id, table.charged).where(table.hour >= today) for table in (UsageHour, RecentUsage))
    used = union_all(*kept).subquery().c
    busy = db.session.scalars(
        select(used.account_id).group_by(used.account_id).having(func.sum(used.charged) >= _LEAST)
    ).all()
    return sum(_look_at(account_id, now) for account_id in busy)


def _look_at(account_id: str, now: datetime) -> bool:
    account = db.session.get_one(Account, account_id)
    occasion = account.period_start.isoformat()
    if db.session.get(Alert, (account_id, f"{AlertKind.SPIKE}:{occasion}")) is not None:
        return False
    found = judge(forecast.daily(account_id, agreed.day_of(now) - timedelta(days=_DAYS), now), now)
    if found is None:
        return False
    alerts.raise_now(account_id, AlertKind.SPIKE, occasion, found, ends_at=agreed.day_after(now) + timedelta(days=1))
    return True


def judge(daily: dict[datetime, int], now: datetime) -> dict[str, Any] | None:
    """What to tell about today where it is a spike, of micro-credits per day.

    Days before the first use do not count; days without use do, so that a weekly batch is not usual every day but its
    size is known.
    """
    days = sorted(daily)
    first = next((day for day in days if daily[day]), None)
    before = [daily[day] for day in days if first is not None and first <= day < agreed.day_of(now)]
    today = daily.get(agreed.day_of(now), 0)
    if len(before) < _ENOUGH:
        return None
    usual = max(sum(before) // len(before), int(statistics.median(before)))
    if today < _LEAST or today <= _TIMES * usual or today <= sorted(before)[-2]:
        return None
    return {"today": to_credits(today), "usual": to_credits(usual), "day": agreed.day_of(now).date().isoformat()}
