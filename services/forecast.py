"""The running period in numbers, and where it is heading at the rate of the account's own history."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from sqlalchemy import func, select

import database
from amounts import MICRO, to_credits
from models.usage import UsageRecord
from rows import run
from services import alerts, balances, plans, summaries
from services.books import SUBSCRIPTIONS
from services.usage import AHEAD

_DAY, _MICROSECOND = timedelta(days=1), timedelta(microseconds=1)
_WINDOWS = (3, 7, 14, 28)
"""Days over which usage is averaged, today among them: the longest tells the likely rate, the extremes the range."""
_ENOUGH = 3
"""Days of history without which nothing is said about when credits run out."""
_FARTHEST = Decimal(3650)
"""Days ahead beyond which credits do not run out."""


def stats(account_id: str) -> dict[str, Any]:
    """GET /usage/stats. `used` is what the period's usage was charged, lots or not; `remaining` what is available.

    `percent` is `used` of both together. Raises AccountNotFound.
    """
    with balances.snapshot(account_id) as (conn, book):
        start, end, now, available = book.account.period_start, book.account.period_end, book.now, book.available
        subscription = run(conn, [SUBSCRIPTIONS.select(conn, "id IN ?", [book.account.subscription_id])])[0][0]
        renews = plans.included_in(book, subscription) > 0
    used = used_in_period(account_id, start, now)
    average = used / max(Decimal(1), _days(now - start))
    rates = _rates(account_id, now)
    rate = rates[-1] if rates else average
    return {
        "account": account_id,
        "period": {"start": start, "end": end},
        "used": to_credits(used),
        "remaining": to_credits(available),
        "percent": _percent(used, available),
        "daily_average": to_credits(_whole(average)),
        "forecast": {
            "period_end_credits": to_credits(_whole(used + rate * max(Decimal(0), _days(end - now)))),
            "runs_out": _runs_out(now, available, rates, renewal=end if renews else None),
            "enough_history": bool(rates),
        },
        "alerts": [alerts.render(alert, now) for alert in alerts.standing(account_id)],
        "as_of": now,
    }


def used_in_period(account_id: str, start: datetime, now: datetime) -> int:
    """Micro-credits charged in the period that began at `start`: usage counts where it was recorded.

    The kept sums go by the time of the usage, so what was recorded on the other side of the start is put right.
    """
    charged = select(func.sum(UsageRecord.charged)).where(
        UsageRecord.account_id == account_id, UsageRecord.voided_at.is_(None)
    )
    backdated = charged.where(
        # As their index says it; with an equality SQLite would take the far larger index by time.
        UsageRecord.occurred_at < UsageRecord.period_start,
        UsageRecord.period_start.between(start, start),
    )
    before = charged.where(
        UsageRecord.period_start < start, UsageRecord.occurred_at >= start, UsageRecord.occurred_at < start + AHEAD
    )
    with database.snapshot() as conn:
        moved = int(conn.scalar(backdated) or 0) - int(conn.scalar(before) or 0)
    return moved + sum(daily(account_id, start, now).values())


def daily(account_id: str, start: datetime, now: datetime) -> dict[datetime, int]:
    """Micro-credits charged per UTC day from `start`, what is dated a little ahead included."""
    end = (now + AHEAD).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    found = summaries.summary(account_id, start, end, "day", "source")["data"]
    return {bucket["start"]: int(bucket["credits"] * MICRO) for bucket in found}


def _rates(account_id: str, now: datetime) -> list[Decimal]:
    """Micro-credits per day over each window, or nothing where the history is too short to tell."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    by_day = daily(account_id, today - (_WINDOWS[-1] - 1) * _DAY, now)
    used = [day for day, charged in by_day.items() if charged]
    if not used or now - used[0] < _ENOUGH * _DAY:
        return []
    rates = []
    for window in _WINDOWS:
        since = max(used[0], today - (window - 1) * _DAY)
        total = sum(charged for day, charged in by_day.items() if day >= since)
        rates.append(total / _days(now - since))
    return rates


def _runs_out(
    now: datetime, available: int, rates: list[Decimal], *, renewal: datetime | None
) -> dict[str, datetime] | None:
    """When the available credits are used up; None where that is not known or a new allowance comes first.

    With an allowance to come, its renewal is the latest: after that they would not run out.
    """
    positive = [rate for rate in rates if rate > 0]
    if not positive:
        return None
    last = _FARTHEST if renewal is None else _days(renewal - now)
    likely = available / rates[-1]
    if likely >= last:
        return None
    days = {
        "earliest": available / max(positive),
        "likely": likely,
        "latest": min(last, available / min(positive)),
    }
    return {name: now + timedelta(seconds=int(count * 86400)) for name, count in days.items()}


def _percent(used: int, available: int) -> int | Decimal:
    """With two decimals; 0 where there is neither usage nor credits."""
    if not used + available:
        return 0
    hundredths = (Decimal(used) / (used + available) * 10_000).to_integral_value(ROUND_HALF_UP)
    return to_credits(int(hundredths) * MICRO // 100)


def _days(distance: timedelta) -> Decimal:
    return Decimal(distance // _MICROSECOND) / (_DAY // _MICROSECOND)


def _whole(micros: Decimal) -> int:
    return int(micros.to_integral_value(ROUND_HALF_UP))
