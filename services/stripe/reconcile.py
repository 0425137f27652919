"""Does Spillway agree with Stripe? What Stripe lists of the last days is held against the books, and repaired on wish.

There is no second set of rules: each object goes through the very sync that its events start. Without repair the sync
is rolled back, and what it would have changed is the drift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

import clock
import database
from errors import StripeNotConfigured, StripeRefused
from extensions import db
from models.account import Account
from models.credit import Lot
from models.stripe import IN_FORCE, OVER, Purchase, Reversal, StripeInvoice, StripeSubscription
from services import catalog, credits
from services.stripe import customers, gateway, inbox, invoices, overage, purchases, reversals, subscriptions
from services.stripe.gateway import Object
from services.stripe.sync import Apply

DAYS = 7
"""How far back is looked unless told otherwise. Stripe keeps events for thirty days."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing in which the books and Stripe differ, or differed: `repaired` says which."""

    account: str
    object_id: str
    message: str
    repaired: bool = False

    def __str__(self) -> str:
        return f"{self.account} {self.object_id}: {self.message}" + (" (repaired)" if self.repaired else "")


@dataclass(slots=True)
class Report:
    """What was looked at. `backfilled`: events that had not come and were handled now."""

    checked: int = 0
    backfilled: int = 0
    drifts: list[Drift] = field(default_factory=list)

    @property
    def left(self) -> list[Drift]:
        """What still differs."""
        return [drift for drift in self.drifts if not drift.repaired]


@dataclass(frozen=True, slots=True)
class _Object:
    """One object of Stripe's and the sync that knows it."""

    account_id: str
    object_id: str
    prepare: Callable[[str], Apply | None]


def reconcile(days: int = DAYS, *, repair: bool = False, progress: Progress | None = None) -> Report:
    """Hold sessions, subscriptions, invoices, refunds and disputes of the last days against the books.

    Subscriptions that are alive are looked at however old they are. Raises StripeNotConfigured, StripeUnavailable.
    """
    if not gateway.is_configured():
        raise StripeNotConfigured()
    catalog.current()
    since = {"created": {"gte": int((clock.now() - timedelta(days=days)).timestamp())}, "limit": 100}
    found = list(_objects(since))
    report = Report()
    for number, one in enumerate(found, 1):
        report.checked += 1
        report.drifts += _check(one, repair)
        if progress is not None:
            progress(number, len(found))
    report.drifts += _unbilled(repair)
    report.drifts += _doubled()
    if repair:
        report.backfilled = inbox.backfill(gateway.events(since))
    return report


# What Stripe lists


def _objects(since: dict[str, Any]) -> Iterator[_Object]:
    """In the order in which one builds on the other: payments, what runs, what was invoiced, what went back."""
    for found in gateway.sessions(since):
        if customers.is_tagged(found.get("metadata")):
            yield from _ours(found, purchases.prepare)
    alive = select(StripeSubscription.id).where(StripeSubscription.status.not_in([one.value for one in OVER]))
    known = list(db.session.scalars(alive.order_by(StripeSubscription.created_at, StripeSubscription.id)))
    listed = {str(found["id"]): found for found in gateway.subscriptions({**since, "status": "all"})}
    for found in listed.values():
        yield from _ours(found, subscriptions.prepare)
    for subscription_id in (one for one in known if one not in listed):
        account_id = db.session.get_one(StripeSubscription, subscription_id).account_id
        yield _Object(account_id, subscription_id, subscriptions.prepare)
    for found in gateway.invoices(since):
        yield from _ours(found, invoices.prepare)
    yield from _reversed(since)


def _ours(found: Object, prepare: Callable[[str], Apply | None]) -> Iterator[_Object]:
    account_id = subscriptions.owner(found)
    if account_id is not None:
        yield _Object(account_id, str(found["id"]), prepare)


def _reversed(since: dict[str, Any]) -> Iterator[_Object]:
    """Charges of which money went back."""
    charges = dict.fromkeys(
        str(found["charge"]) for found in (*gateway.refunds(since), *gateway.disputes(since)) if found.get("charge")
    )
    for charge_id in charges:
        yield from _ours(gateway.charge(charge_id), reversals.prepare)


# What a sync changes


class _Undo(Exception):
    """Ends a transaction that was only to be looked at."""


def _check(one: _Object, repair: bool) -> list[Drift]:
    try:
        apply = one.prepare(one.object_id)
    except StripeRefused:
        return [Drift(one.account_id, one.object_id, "Stripe lists it, but can not show it")]
    return [] if apply is None else _compare(one, apply, repair)


@database.retrying
def _compare(one: _Object, apply: Apply, repair: bool) -> list[Drift]:
    found: list[Drift] = []
    terms = catalog.current()
    try:
        with database.transaction() as session:
            with credits.within(session.connection(), [one.account_id], terms):
                pass  # what is due by the clock alone is no drift
            before = _picture(session, one)
            apply(session)
            session.flush()
            after = _picture(session, one)
            found = [
                Drift(one.account_id, one.object_id, _told(name, before[name], value), repair)
                for name, value in after.items()
                if before[name] != value
            ]
            if not repair:
                raise _Undo
    except _Undo:
        pass
    return found


def _picture(session: Session, one: _Object) -> dict[str, Any]:
    """What must be the same here as there, in the order in which it is worth telling."""
    session.expire_all()
    account = session.get_one(Account, one.account_id)
    lots = select(Lot.id, Lot.kind, Lot.issued, Lot.removed, Lot.expires_at).where(Lot.account_id == account.id)
    mirrored = {
        "purchase": (Purchase, _purchase_of(one.object_id), ("status", "credits", "amount", "lot_id")),
        "subscription": (
            StripeSubscription,
            StripeSubscription.id == one.object_id,
            ("status", "price_id", "period_start", "period_end", "cancel_at", "trial_end", "past_due_since"),
        ),
        "invoice": (StripeInvoice, StripeInvoice.id == one.object_id, ("status", "total", "amount_paid")),
    }
    picture: dict[str, Any] = {
        "lots": {tuple(row) for row in session.execute(lots)},
        "debt": account.debt,
        "reversed": session.scalars(
            select(Reversal.taken).where(Reversal.account_id == account.id).order_by(Reversal.lot_id)
        ).all(),
        "plan": account.plan,
        "status of the account": account.status,
        "period": (account.period_start, account.period_end),
    }
    for name, (model, which, columns) in mirrored.items():
        row = session.execute(select(*(getattr(model, column) for column in columns)).where(which)).first()
        picture[name] = None if row is None else dict(zip(columns, row, strict=True))
    return picture


def _purchase_of(object_id: str) -> Any:
    """Of a session, or of an invoice without one."""
    of_invoice = (Purchase.invoice_id == object_id) & Purchase.session_id.is_(None)
    return (Purchase.session_id == object_id) | of_invoice


def _told(name: str, before: Any, after: Any) -> str:
    """The difference in words."""
    if name == "lots":
        new = {lot_id for lot_id, *_ in after} - {lot_id for lot_id, *_ in before}
        return "paid in Stripe, no lot here" if new else "its lot here is not what Stripe's money says"
    if isinstance(after, dict):
        if before is None:
            return f"the {name} is not known here"
        changed = [column for column, value in after.items() if before[column] != value]
        return f"the {name} differs: " + ", ".join(f"{column} {before[column]} → {after[column]}" for column in changed)
    return f"the {name} differs: {before} → {after}"


def _unbilled(repair: bool) -> Iterator[Drift]:
    """Overage that is used, agreed to and on no invoice, although its period is over for a day."""
    for bill_id, account_id in overage.overdue():
        try:
            repaired = repair and overage.collect(bill_id)
        except StripeRefused:
            repaired = False
        yield Drift(account_id, bill_id, "its overage is on no invoice", repaired)


def _doubled() -> Iterator[Drift]:
    """Accounts with two live subscriptions: the older one counts, the other is paid for nothing."""
    db.session.rollback()
    live = select(StripeSubscription).where(StripeSubscription.status.in_([one.value for one in IN_FORCE]))
    first: set[str] = set()
    for row in db.session.scalars(live.order_by(StripeSubscription.created_at, StripeSubscription.id)):
        if row.account_id in first:
            yield Drift(row.account_id, row.id, "a second live subscription; cancel it in Stripe")
        first.add(row.account_id)
