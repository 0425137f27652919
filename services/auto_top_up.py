"""Auto top-up on our side: who is short of credits, what may be bought for them, and what follows from how it ended.

Stripe is asked by services/stripe/topups.py. Credits are micro-credits, money is in minor units. All that changes an
account's attempts or its watch does so under the account's lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dateutil.relativedelta import relativedelta
from sqlalchemy import Connection, and_, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

import clock
import database
import ids
from amounts import to_credits
from extensions import db
from models.account import Account, AccountStatus, Subscription
from models.alert import AlertKind
from models.credit import Hold, Lot
from models.top_up import TopUp, TopUpStatus, TopUpWatch
from services import agreed, alerts, catalog, credits
from services.agreed import AutoTopUp
from services.books import Book

COOLDOWN = timedelta(minutes=10)
"""After a success nothing more is bought for so long."""
PAUSES = (timedelta(hours=1), timedelta(hours=6), timedelta(hours=24))
"""After each failure in a row; the one after the last pause turns auto top-up off."""
_RENEWAL = timedelta(hours=1)
"""How long a paid plan's next allowance may be on its way before credits are bought instead."""
_BUYING = (AccountStatus.ACTIVE.value, AccountStatus.PAST_DUE.value)
"""Who is suspended can not spend, so needs nothing."""
_TOLD = timedelta(days=1)
_FAILING = (AlertKind.TOP_UP_FAILED, AlertKind.TOP_UP_CEILING, AlertKind.TOP_UP_OFF)

NO_CARD, NOT_FOR_SALE, REFUSED = "no_card", "not_for_sale", "refused"
UNWANTED, CEILING, VOIDED = "unwanted", "ceiling", "voided"
_NOBODYS_FAULT = (UNWANTED, CEILING, VOIDED)
_WORDS = {
    NO_CARD: "there is no card on file",
    NOT_FOR_SALE: "this amount of credits is not for sale",
    REFUSED: "the payment provider did not take the order",
    UNWANTED: "it was no longer needed",
    CEILING: "it would have passed the month's ceiling",
    VOIDED: "its invoice was voided",
    "insufficient_funds": "the card has insufficient funds",
    "expired_card": "the card has expired",
}


def words(reason: str) -> str:
    """Why an attempt was not paid, for people."""
    return _WORDS.get(reason, "the card was declined")


# What the customer sets


def agree(conn: Connection, account_id: str, wanted: AutoTopUp) -> None:
    """The customer has changed the controls: what happened before no longer holds anything up. Under the lock."""
    values: dict[str, Any] = {"below": wanted.below if wanted.enabled else None}
    values |= {"failures": 0, "not_before": None, "off_reason": None}
    if wanted.enabled:
        insert = (sqlite if conn.dialect.name == "sqlite" else postgresql).insert
        row = insert(TopUpWatch).values(account_id=account_id, **values)
        conn.execute(row.on_conflict_do_update(index_elements=["account_id"], set_=values))
    else:
        conn.execute(update(TopUpWatch).where(TopUpWatch.account_id == account_id).values(values))
    for kind in _FAILING:
        alerts.settle(conn, account_id, kind)
    waiting = update(TopUp).where(TopUp.account_id == account_id, TopUp.status == TopUpStatus.OPEN.value)
    conn.execute(waiting.values(look_at=datetime.now(UTC)))  # it may be to be withdrawn


# Who is short


def due(by_hand: bool) -> list[str]:
    """Accounts for which credits should be bought now, without a lock. `by_hand` ignores the pauses after failures."""
    now = clock.now()
    lots = select(func.coalesce(func.sum(Lot.remaining), 0)).where(
        Lot.account_id == TopUpWatch.account_id,
        text("(lots.open OR lots.current)"),  # as the index says
        or_(Lot.expires_at.is_(None), Lot.expires_at > now),
    )
    holds = select(func.coalesce(func.sum(Hold.amount), 0)).where(
        Hold.account_id == TopUpWatch.account_id, text("holds.state = 'open'"), Hold.expires_at > now
    )
    under_way = select(TopUp.id).where(TopUp.account_id == TopUpWatch.account_id, text("auto_top_ups.status = 'open'"))
    rested = or_(TopUpWatch.not_before.is_(None), TopUpWatch.not_before <= now)
    query = (
        select(TopUpWatch.account_id)
        .join(Account, Account.id == TopUpWatch.account_id)
        .where(
            TopUpWatch.below.is_not(None),
            Account.status.in_(_BUYING),
            or_(rested, TopUpWatch.failures > 0) if by_hand else rested,
            ~under_way.exists(),
            lots.scalar_subquery() - holds.scalar_subquery() < TopUpWatch.below,
        )
        .order_by(TopUpWatch.account_id)
    )
    db.session.rollback()
    return list(db.session.scalars(query))


def is_wanted(book: Book) -> bool:
    """Whether the account still agrees to it, is short, and is served."""
    wanted = book.controls.auto_top_up
    below = wanted.below or 0
    return wanted.enabled and book.account.status in _BUYING and book.available < below


def _may_begin(session: Session, book: Book, wanted: AutoTopUp, by_hand: bool) -> bool:
    watch = session.get_one(TopUpWatch, book.account.id)
    rested = watch.not_before is None or watch.not_before <= book.now or (by_hand and watch.failures > 0)
    changed = book.controls.auto_top_up != wanted
    return not changed and rested and is_wanted(book) and not _renews(session, book) and not _open(session, book)


def _renews(session: Session, book: Book) -> bool:
    """Whether a period of Stripe's has just ended: the next allowance needs Stripe's word, which takes a moment."""
    covered = session.get_one(Subscription, book.account.subscription_id).covered_until
    return covered is not None and covered <= book.now < covered + _RENEWAL


def _open(session: Session, book: Book) -> bool:
    query = select(TopUp.id).where(TopUp.account_id == book.account.id, TopUp.status == TopUpStatus.OPEN.value)
    return session.scalars(query).first() is not None


# Beginning one


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be bought, of which price, by whom at Stripe and with which card."""

    price: str
    quantity: int
    per_unit: int
    amount: int
    currency: str | None
    customer: str
    payment_method: str


@contextmanager
def changing(account_id: str) -> Iterator[tuple[Session, Book]]:
    """A transaction with the account's book."""
    terms = catalog.current()
    with database.transaction() as session, credits.within(session.connection(), [account_id], terms) as books:
        yield session, books[account_id]


@database.retrying
def begin(account_id: str, wanted: AutoTopUp, plan: Plan, by_hand: bool) -> str | None:
    """An attempt's id; None where it is not to be: somebody else was quicker, say, or the ceiling is in the way.

    `wanted` are the controls that the plan was made for.
    """
    with changing(account_id) as (session, book):
        if not _may_begin(session, book, wanted, by_hand):
            return None
        assert wanted.credits is not None
        assert wanted.monthly_ceiling is not None
        if spent(session, account_id, book.now) + plan.amount > wanted.monthly_ceiling:
            _stop_for_the_month(session, book, plan.amount, plan.currency)
            return None
        row = _row(book, wanted.credits)
        row.price_id, row.quantity, row.per_unit = plan.price, plan.quantity, plan.per_unit
        row.amount, row.currency = plan.amount, plan.currency
        row.customer_id, row.payment_method = plan.customer, plan.payment_method
        session.add(row)
        return row.id


@database.retrying
def fail(account_id: str, wanted: AutoTopUp, reason: str, by_hand: bool) -> None:
    """An attempt that failed before anything could be asked for."""
    with changing(account_id) as (session, book):
        if _may_begin(session, book, wanted, by_hand):
            assert wanted.credits is not None
            row = _row(book, wanted.credits)
            row.reason = reason
            session.add(row)
            end(session, book, row)


def _row(book: Book, amount: int) -> TopUp:
    return TopUp(
        id=ids.new("top"),
        account_id=book.account.id,
        status=TopUpStatus.OPEN.value,
        credits=amount,
        amount=0,
        created_at=book.now,
        look_at=datetime.now(UTC),
    )


def month_of(moment: datetime) -> tuple[datetime, datetime]:
    """The UTC calendar month."""
    start = agreed.day_of(moment).replace(day=1)
    return start, start + relativedelta(months=1)


def spent(session: Session, account_id: str, moment: datetime, *, without: str = "") -> int:
    """Minor units that were paid for in the month, and those that are under way."""
    start, end_ = month_of(moment)
    paid = and_(TopUp.status == TopUpStatus.PAID.value, TopUp.finished_at >= start, TopUp.finished_at < end_)
    query = select(func.coalesce(func.sum(TopUp.amount), 0)).where(
        TopUp.account_id == account_id, TopUp.id != without, or_(TopUp.status == TopUpStatus.OPEN.value, paid)
    )
    return int(session.scalar(query) or 0)


# How it ended


def paid(session: Session, book: Book, row: TopUp, amount: int) -> None:
    """Its invoice was paid, with `amount` in all; harmless when that is known. However it had ended before."""
    if row.status == TopUpStatus.PAID:
        return
    row.status, row.finished_at, row.waits_for, row.reason = TopUpStatus.PAID.value, book.now, None, None
    row.amount = amount
    watch = session.get_one(TopUpWatch, row.account_id)
    watch.failures, watch.not_before = 0, book.now + COOLDOWN
    conn = session.connection()
    for kind in (AlertKind.TOP_UP_FAILED, AlertKind.TOP_UP_ACTION):
        alerts.settle(conn, row.account_id, kind)
    alerts.raise_(conn, row.account_id, AlertKind.TOPPED_UP, row.id, _told(row), ends_at=book.now + _TOLD)


def end(session: Session, book: Book, row: TopUp) -> None:
    """It is over and was not paid; harmless when that is known."""
    if row.status != TopUpStatus.OPEN:
        return
    row.reason = row.reason or VOIDED
    row.finished_at, row.waits_for = book.now, None
    alerts.settle(session.connection(), row.account_id, AlertKind.TOP_UP_ACTION)
    row.status = (TopUpStatus.WITHDRAWN if row.reason in _NOBODYS_FAULT else TopUpStatus.FAILED).value
    watch = session.get_one(TopUpWatch, row.account_id)
    if watch.below is None:
        return  # it was turned off meanwhile
    if row.reason == CEILING:
        _stop_for_the_month(session, book, row.amount, row.currency)
    elif row.reason == VOIDED:
        watch.not_before = book.now + PAUSES[0]
    elif row.status == TopUpStatus.FAILED:
        _count(session, book, watch, row)


def _count(session: Session, book: Book, watch: TopUpWatch, row: TopUp) -> None:
    watch.failures += 1
    told = _told(row) | {"failures": watch.failures, "reason": row.reason, "why": words(str(row.reason))}
    conn = session.connection()
    if watch.failures > len(PAUSES):
        _turn_off(conn, book, watch, row)
        alerts.settle(conn, row.account_id, AlertKind.TOP_UP_FAILED)
        alerts.raise_(conn, row.account_id, AlertKind.TOP_UP_OFF, row.id, told)
        return
    watch.not_before = book.now + PAUSES[watch.failures - 1]
    alerts.settle(conn, row.account_id, AlertKind.TOP_UP_FAILED)
    told["next_at"] = clock.rfc3339(watch.not_before)
    alerts.raise_(conn, row.account_id, AlertKind.TOP_UP_FAILED, row.id, told)


def _turn_off(conn: Connection, book: Book, watch: TopUpWatch, row: TopUp) -> None:
    """In the controls, where only the customer turns it on again."""
    watch.below, watch.not_before, watch.off_reason = None, None, row.reason
    after = replace(book.controls, auto_top_up=replace(book.controls.auto_top_up, enabled=False))
    book.account.controls = after.to_json()
    conn.execute(update(Account).where(Account.id == row.account_id).values(controls=book.account.controls))


def _stop_for_the_month(session: Session, book: Book, amount: int, currency: str | None) -> None:
    """Until the ceiling is raised or the month is over; the customer is told once."""
    account_id, (start, end_) = book.account.id, month_of(book.now)
    session.flush()
    session.get_one(TopUpWatch, account_id).not_before = end_
    told = {
        "ceiling": book.controls.auto_top_up.monthly_ceiling,
        "spent": spent(session, account_id, book.now),
        "amount": amount,
        "currency": currency,
    }
    conn = session.connection()
    alerts.raise_(conn, account_id, AlertKind.TOP_UP_CEILING, f"{start:%Y-%m}", told, ends_at=end_)


def ask_customer(session: Session, row: TopUp, url: str | None) -> None:
    """Their bank wants to hear them: told once, with the way to Stripe's page."""
    told = _told(row) | {"url": url}
    alerts.raise_(session.connection(), row.account_id, AlertKind.TOP_UP_ACTION, row.id, told)


def _told(row: TopUp) -> dict[str, Any]:
    return {"credits": to_credits(row.credits), "amount": row.amount, "currency": row.currency}


def card_changed(session: Session, account_id: str) -> None:
    """Another card is on file: what failed with the old one need not wait any longer."""
    failed = update(TopUpWatch).where(TopUpWatch.account_id == account_id, TopUpWatch.failures > 0)
    session.execute(failed.values(not_before=None))


# Reading


def watch_of(account_id: str) -> TopUpWatch | None:
    return db.session.get(TopUpWatch, account_id)


def latest(account_id: str, limit: int) -> list[TopUp]:
    """The account's attempts, newest first."""
    query = select(TopUp).where(TopUp.account_id == account_id)
    return list(db.session.scalars(query.order_by(TopUp.created_at.desc(), TopUp.id.desc()).limit(limit)))
