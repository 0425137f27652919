"""Plans, their periods and allowances, on a locked account's book. Only services/credits.py hands books out.

A local plan follows a monthly anchor; a period's allowance is one lot, issued once per (subscription, period start).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

import ids
from models.account import AccountStatus, SubscriptionStatus
from models.credit import HoldState, Kind, Reason
from rows import Statement, run
from services import periods
from services.books import SUBSCRIPTIONS, Book

FREE_TIER = "free"


def bring_up_to_date(conn: Connection, book: Book) -> None:
    """Expire what is due and, when the period has ended, start the current one with its allowance."""
    account = book.account
    ended = account.period_end <= book.now
    leftover = 0
    if ended:
        leftover = sum(
            lot.remaining
            for lot in book.lots.values()
            if lot.kind == Kind.ALLOWANCE and lot.expires_at and lot.expires_at == account.period_end
        )
    book.expire_due()
    for hold in book.holds.values():
        if hold.state == HoldState.OPEN and hold.expires_at <= book.now:
            hold.state = HoldState.EXPIRED
            hold.closed_at = hold.expires_at
            book.changed_holds[hold.id] = hold
    if ended and account.status != AccountStatus.CLOSED:
        _renew(conn, book, leftover)


def _renew(conn: Connection, book: Book, leftover: int) -> None:
    """Begin the period that holds now. Periods that passed unseen issue nothing; what they would have carried over
    of an unused allowance is carried all the same.
    """
    account = book.account
    subscription = run(conn, [SUBSCRIPTIONS.select(conn, "id IN ?", [account.subscription_id])])[0][0]
    if subscription.ends_at is not None and subscription.ends_at <= book.now:
        start_plan(conn, book, FREE_TIER, included=0, rollover_max=None, ends_at=None)
        return
    start, end = period_of(subscription, book.now)
    skipped = periods.periods_between(account.period_start, start)
    included = included_in(book, subscription)
    carried = 0
    if subscription.rollover_max:
        carried = min(leftover, subscription.rollover_max)
        for _ in range(skipped):
            carried = min(included + carried, subscription.rollover_max)
    retire_allowance(conn, book)
    account.period_start, account.period_end = start, end
    book.account_changed = True
    issue_allowance(book, subscription, included)
    if carried:
        book.issue(
            Kind.ALLOWANCE,
            carried,
            Reason.ROLLOVER,
            ("subscription", subscription.id),
            expires_at=end,
            subscription_id=subscription.id,
            period_start=start,
            source_key=f"rollover:{subscription.id}:{start.isoformat()}",
        )


def period_of(subscription: Any, moment: datetime) -> tuple[datetime, datetime]:
    """The subscription's period that holds `moment`, cut short by its end."""
    start, end = periods.month_period(subscription.anchor, moment)
    if subscription.ends_at is not None and start < subscription.ends_at < end:
        end = subscription.ends_at
    return start, end


def included_in(book: Book, subscription: Any) -> int:
    """The allowance of a period. The free plan's is the catalog's of today: nobody subscribed to it."""
    if subscription.tier == FREE_TIER:
        return int(book.catalog.free_monthly_credits) if book.account.free_allowance else 0
    return int(subscription.included)


def issue_allowance(book: Book, subscription: Any, amount: int) -> None:
    """The one allowance lot of (subscription, period start)."""
    start, end = book.account.period_start, book.account.period_end
    if amount:
        book.issue(
            Kind.ALLOWANCE,
            amount,
            Reason.ALLOWANCE,
            ("subscription", subscription.id),
            expires_at=end,
            subscription_id=subscription.id,
            period_start=start,
            source_key=f"allowance:{subscription.id}:{start.isoformat()}",
        )


def retire_allowance(conn: Connection, book: Book) -> None:
    """Lots of the period or the reset before no longer count as included."""
    false, true = ("0", "1") if conn.dialect.name == "sqlite" else ("false", "true")
    mark = "?" if conn.dialect.name == "sqlite" else "%s"
    run(
        conn,
        [
            Statement(
                f"UPDATE lots SET current = {false} WHERE account_id = {mark} AND current = {true}",  # noqa: S608
                (book.account.id,),
            )
        ],
    )
    for lot in book.lots.values():
        lot.current = False


def start_plan(
    conn: Connection,
    book: Book,
    tier: str,
    *,
    included: int,
    rollover_max: int | None,
    ends_at: datetime | None,
    rates: str | None = None,
    first: bool = False,
) -> None:
    """End the account's subscription and begin another at once, with its allowance.

    The free plan keeps the account's own anchor. The allowance of the plan before ends with it.
    """
    account = book.account
    if not first:
        take_back_allowance(book, Reason.PLAN_CHANGE, ("account", account.id))
        retire_allowance(conn, book)
        _end_subscription(conn, account.subscription_id, book.now)
    subscription = SUBSCRIPTIONS.make(
        id=ids.new("sub"),
        account_id=account.id,
        source="local",
        tier=tier,
        status=SubscriptionStatus.ACTIVE.value,
        included=included,
        rollover_max=rollover_max,
        anchor=account.created_at if tier == FREE_TIER else book.now,
        ends_at=ends_at,
        created_at=book.now,
    )
    run(conn, [SUBSCRIPTIONS.insert(conn, [subscription])])
    account.subscription_id = subscription.id
    account.plan = tier
    account.rates = rates
    account.period_start, account.period_end = period_of(subscription, book.now)
    book.account_changed = True
    issue_allowance(book, subscription, included_in(book, subscription))


def _end_subscription(conn: Connection, subscription_id: str, now: datetime) -> None:
    row = run(conn, [SUBSCRIPTIONS.select(conn, "id IN ?", [subscription_id])])[0][0]
    row.status, row.ended_at = SubscriptionStatus.ENDED.value, now
    run(conn, [SUBSCRIPTIONS.update(conn, [row], ("status", "ended_at"))])


def take_back_allowance(book: Book, reason: Reason, cause: tuple[str, str]) -> None:
    for lot in book.spending_order():
        if lot.kind == Kind.ALLOWANCE and lot.current:
            book.take_back(lot, lot.remaining, reason, cause)
