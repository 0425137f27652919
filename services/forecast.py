"""The running period in numbers, and where it is heading at the rate of the account's own history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from sqlalchemy import func, select

import database
import money
from amounts import MICRO, to_credits
from models.stripe import StripeStatus
from models.usage import UsageRecord
from rows import run
from services import agreed, alerts, balances, overages, plans, prediction, summaries
from services.books import SUBSCRIPTIONS, Book
from services.usage import AHEAD

_DAY, _MICROSECOND = timedelta(days=1), timedelta(microseconds=1)
_ENOUGH = 3
"""Days of history without which nothing is said about where they lead."""
_AHEAD = 63
"""Days that are foretold one by one; after them the last week goes on."""
_WIDEST = Decimal("0.75")
"""No range of dates is told as if less than a quarter of the expected might be used."""
_FARTHEST = Decimal(3650)
"""Days ahead beyond which credits do not run out."""


def stats(account_id: str) -> dict[str, Any]:
    """GET /usage/stats. `used` is what the period's usage was charged, lots or not; `remaining` what is available.

    `percent` is `used` of both together. `cost` is money in minor units. Raises AccountNotFound.
    """
    with balances.snapshot(account_id) as (conn, book):
        start, end, now, available = book.account.period_start, book.account.period_end, book.now, book.available
        subscription = run(conn, [SUBSCRIPTIONS.select(conn, "id IN ?", [book.account.subscription_id])])[0][0]
        renews = plans.included_in(book, subscription) > 0
        paid = plans.paid_by(conn, subscription)
    used = used_in_period(account_id, start, now)
    average = used / max(Decimal(1), _days(now - start))
    path = _path(account_id, now)
    rest = path.until(end) if path is not None else average * max(Decimal(0), _days(end - now))
    apart = rest * path.spread if path is not None else None
    return {
        "account": account_id,
        "period": {"start": start, "end": end},
        "used": to_credits(used),
        "remaining": to_credits(available),
        "percent": _percent(used, available),
        "daily_average": to_credits(_whole(average)),
        "forecast": {
            "period_end_credits": to_credits(_whole(used + rest)),
            "range": None if apart is None else _range(used + rest, apart),
            "runs_out": _runs_out(path, available, renewal=end if renews else None),
            "enough_history": path is not None,
        },
        "cost": None if paid is None else _cost(book, paid, _whole(rest)),
        "alerts": [alerts.render(alert, now) for alert in alerts.standing(account_id)],
        "as_of": now,
    }


def _cost(book: Book, paid: Any, rest: int) -> dict[str, Any]:
    """What the running period costs a subscriber: the plan, overage so far, and both when `rest` is used, too.

    The plan's fee is None where it is not paid by the month. Overage ends at what was agreed.
    """
    by_month = (paid.interval, paid.interval_count) == ("month", 1)
    priced = by_month and paid.unit_amount and paid.quantity
    fee = money.total(Decimal(paid.unit_amount), paid.quantity) if priced else None
    if paid.status == StripeStatus.TRIALING:
        fee = 0
    so_far = at_end = 0
    if book.account.overage_terms is not None:
        terms, used = overages.parse(book.account.overage_terms), book.account.overage
        beyond = min(max(0, rest - book.available), max(0, book.overage_limit - used))
        so_far, at_end = terms.amount(used), terms.amount(used + beyond)
    return {"currency": paid.currency, "plan": fee, "overage": so_far, "period_end": (fee or 0) + at_end}


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


@dataclass(frozen=True, slots=True)
class _Path:
    """What is expected from now on: first the rest of today, then day by day; afterwards as in the last week of it."""

    now: datetime
    days: list[Decimal]
    spread: Decimal

    def until(self, end: datetime) -> Decimal:
        """Micro-credits from now to `end`."""
        total, moment = Decimal(0), self.now
        for position in range(_days_between(self.now, end)):
            following = min(agreed.day_after(moment), end)
            total += self._of(position) * _days(following - moment)
            moment = following
        return total

    def reaches(self, amount: int, factor: Decimal) -> Decimal | None:
        """After how many days `amount` is used up at `factor` times what is expected; None if not for ages."""
        left, passed, moment = Decimal(amount), Decimal(0), self.now
        if not left:
            return passed
        for position in range(len(self.days)):
            following = agreed.day_after(moment)
            length = _days(following - moment)
            use = self._of(position) * length * factor
            if use >= left:
                return passed + length * left / use
            left, passed, moment = left - use, passed + length, following
        usual = self._of(len(self.days)) * factor
        return passed + left / usual if usual else None

    def _of(self, position: int) -> Decimal:
        if position < len(self.days):
            return self.days[position]
        last = self.days[-7:]
        return sum(last, Decimal(0)) / len(last)


def _path(account_id: str, now: datetime) -> _Path | None:
    """None where the history is too short to tell."""
    today = agreed.day_of(now)
    by_day = daily(account_id, today - prediction.WINDOW * _DAY, now)
    past = [by_day[day] for day in sorted(by_day) if day < today]
    used = [position for position, charged in enumerate(past) if charged]
    if not used or len(past) - used[0] < _ENOUGH:
        return None
    seen = prediction.outlook(past[used[0] :], _AHEAD)
    return _Path(now, seen.days, seen.spread)


def _runs_out(path: _Path | None, available: int, *, renewal: datetime | None) -> dict[str, datetime] | None:
    """When the available credits are used up; None where that is not known or a new allowance comes first.

    With an allowance to come, its renewal is the latest: after that they would not run out.
    """
    if path is None:
        return None
    last = _FARTHEST if renewal is None else _days(renewal - path.now)
    spread = min(path.spread, _WIDEST)
    likely = path.reaches(available, Decimal(1))
    if likely is None or likely >= last:
        return None
    earliest, latest = path.reaches(available, 1 + spread), path.reaches(available, 1 - spread)
    days = {"earliest": earliest or likely, "likely": likely, "latest": last if latest is None else min(last, latest)}
    return {name: path.now + _seconds(count) for name, count in days.items()}


def _seconds(days: Decimal) -> timedelta:
    return timedelta(seconds=int((days * 86400).to_integral_value(ROUND_HALF_UP)))


def _percent(used: int, available: int) -> int | Decimal:
    """With two decimals; 0 where there is neither usage nor credits."""
    if not used + available:
        return 0
    hundredths = (Decimal(used) / (used + available) * 10_000).to_integral_value(ROUND_HALF_UP)
    return to_credits(int(hundredths) * MICRO // 100)


def _range(likely: Decimal, apart: Decimal) -> dict[str, int | Decimal]:
    return {"low": to_credits(_whole(likely - apart)), "high": to_credits(_whole(likely + apart))}


def _days_between(start: datetime, end: datetime) -> int:
    """How many UTC days the time from `start` to `end` touches."""
    return max(0, (agreed.day_of(end - _MICROSECOND) - agreed.day_of(start)).days + 1)


def _days(distance: timedelta) -> Decimal:
    return Decimal(distance // _MICROSECOND) / (_DAY // _MICROSECOND)


def _whole(micros: Decimal) -> int:
    return int(micros.to_integral_value(ROUND_HALF_UP))
