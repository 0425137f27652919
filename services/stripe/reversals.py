"""Money that goes back takes its credits back: refunds and disputes, however often and in whatever order they are told.

A charge's refunded total and what its open or lost disputes hold are compared with what was done about them before, so
only the difference is taken from the lot that the charge paid for, or returned to it. What was spent meanwhile becomes
debt, which the next purchase pays first; granted credits are never touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from errors import StripeRefused
from extensions import db
from models.account import Subscription
from models.base import written
from models.credit import Kind, LedgerEntry, Lot, Reason
from models.stripe import Purchase, Reversal
from models.types import from_microseconds
from rows import run
from services import catalog, credits, debts
from services.books import LOTS, Book
from services.debts import REVERSALS
from services.stripe import customers, gateway, invoices, purchases, topup_invoices
from services.stripe.gateway import Object
from services.stripe.sync import Apply

_HELD = ("needs_response", "under_review", "lost")
"""Disputes in which the money is with the customer's bank. Inquiries (`warning_…`) have moved none."""

_REASONS = (Reason.REFUND, Reason.DISPUTE, Reason.DISPUTE_REVERSAL)


@dataclass(frozen=True)
class _Money:
    """What a charge was and what of it went back, in minor units of its currency."""

    charge: str
    intent: str
    paid: int
    refunded: int
    disputed: int


# What went back


def prepare(charge_id: str) -> Apply | None:
    """What a charge's refunds and disputes mean here; None where it paid for nothing of ours."""
    asked_at = datetime.now(UTC)
    try:
        money = _money_of(gateway.charge(charge_id))
    except StripeRefused as refusal:
        if refusal.stripe_code != "resource_missing":
            raise
        return None
    if money is None:
        return None
    fulfil = _fulfilment(money.intent)
    if fulfil is None and _purchase_of(money.intent) is None:
        found = _invoice_of(money.intent)
        if found is None or not topup_invoices.is_ours(found):
            return _prepare_allowance(money, found, asked_at)
        fulfil = invoices.prepare(str(found["id"]))
    terms = catalog.current()

    def apply(session: Session) -> None:
        if fulfil is not None:  # the refund was told before the purchase, or the purchase never
            fulfil(session)
            session.flush()
        bought = _purchase_of(money.intent, session)
        if bought is not None and bought.lot_id is not None:
            conn = session.connection()
            with credits.within(conn, [bought.account_id], terms) as books:
                _reverse(conn, books[bought.account_id], bought.lot_id, money, asked_at)

    return apply


def _money_of(charge: Object) -> _Money | None:
    intent = charge.get("payment_intent")
    if not intent or not charge.get("paid") or not charge["amount"]:
        return None
    disputed = sum(
        _within(dispute, charge)
        for dispute in gateway.disputes({"charge": charge["id"], "limit": 100})
        if dispute["status"] in _HELD
    )
    return _Money(
        charge=str(charge["id"]),
        intent=str(intent),
        paid=int(charge.get("amount_captured") or charge["amount"]),
        refunded=int(charge["amount_refunded"]),
        disputed=disputed,
    )


def _within(dispute: Object, charge: Object) -> int:
    """A dispute's amount in the charge's currency. Where the bank speaks of another one, all of it is disputed."""
    if dispute["currency"] != charge["currency"]:
        return int(charge["amount"])
    return int(dispute["amount"])


def _purchase_of(intent: str, session: Session | None = None) -> Purchase | None:
    query = select(Purchase).where(Purchase.payment_intent == intent)
    return (session or db.session).scalars(query.execution_options(populate_existing=True)).first()


def _fulfilment(intent: str) -> Apply | None:
    """The purchase's own sync, where it has not been written yet."""
    known = _purchase_of(intent)
    if known is not None and known.lot_id is not None:
        return None
    for session in gateway.sessions({"payment_intent": intent, "limit": 1}):
        return purchases.prepare(str(session["id"]))
    if known is not None and known.invoice_id and known.session_id is None:
        return invoices.prepare(known.invoice_id)
    return None


# A refunded invoice


def _prepare_allowance(money: _Money, found: Object | None, asked_at: datetime) -> Apply | None:
    """The allowance of the period that a refunded invoice paid for."""
    if found is None:
        return None
    customer = customers.known(str(found.get("customer")))
    details = (found.get("parent") or {}).get("subscription_details") or {}
    if customer is None or not details.get("subscription"):
        return None
    account_id, stripe_id = customer.account_id, str(details["subscription"])
    lines = found["lines"]["data"]
    periods = [(_moment(line["period"]["start"]), _moment(line["period"]["end"])) for line in lines]
    terms = catalog.current()

    def apply(session: Session) -> None:
        conn = session.connection()
        with credits.within(conn, [account_id], terms) as books:
            book = books[account_id]
            for lot in _allowance_lots(session, account_id, stripe_id, periods):
                if lot.current or book.now < lot.expires_at:  # type: ignore[operator]  # an allowance always expires
                    _reverse(conn, book, lot.id, money, asked_at)

    return apply


def _invoice_of(intent: str) -> Object | None:
    listed = gateway.invoice_payments({"payment": {"type": "payment_intent", "payment_intent": intent}, "limit": 1})
    for payment in listed:
        return gateway.invoice(str(payment["invoice"]))
    return None


def _moment(seconds: int) -> datetime:
    return from_microseconds(seconds * 1_000_000)


def _allowance_lots(
    session: Session, account_id: str, stripe_id: str, periods: list[tuple[datetime, datetime]]
) -> list[Lot]:
    """The lots issued for the subscription within these periods."""
    own = select(Subscription.id).where(Subscription.stripe_id == stripe_id).scalar_subquery()
    query = select(Lot).where(Lot.account_id == account_id, Lot.kind == Kind.ALLOWANCE, Lot.subscription_id == own)
    found = session.scalars(query.order_by(Lot.created_at, Lot.id)).all()
    return [lot for lot in found if any(start <= lot.period_start < end for start, end in periods if lot.period_start)]


# Taking back, and giving back


def _reverse(conn: Connection, book: Book, lot_id: str, money: _Money, asked_at: datetime) -> None:
    """Bring the lot to where it must be after what went back in all; the steps that remain are written as entries."""
    found = run(conn, [REVERSALS.select(conn, "lot_id IN ?", [lot_id])])[0]
    if not found and not money.refunded and not money.disputed:
        return
    row = found[0] if found else _begun(book, lot_id, money, asked_at)
    if row.synced_at > asked_at:
        return  # somebody asked Stripe after us and was quicker
    lot = _lot(conn, book, lot_id)
    row.synced_at = asked_at
    if money.refunded != row.refunded:
        row.refunded = money.refunded
        _step(conn, book, lot, row, Reason.REFUND, Reason.REFUND)
    if money.disputed != row.disputed:
        row.disputed = money.disputed
        _step(conn, book, lot, row, Reason.DISPUTE, Reason.DISPUTE_REVERSAL)
    changed = ("refunded", "disputed", "taken", "from_lot", "absorbed", "debt", "synced_at")
    run(conn, [REVERSALS.update(conn, [row], changed) if found else REVERSALS.insert(conn, [row])])


def _lot(conn: Connection, book: Book, lot_id: str) -> Lot:
    """Also one with nothing left, which a book does not bring along."""
    if lot_id not in book.lots:
        book.add_loaded_lot(run(conn, [LOTS.select(conn, "id IN ?", [lot_id])])[0][0])
    return book.lots[lot_id]


def _begun(book: Book, lot_id: str, money: _Money, asked_at: datetime) -> Reversal:
    return REVERSALS.make(
        lot_id=lot_id,
        account_id=book.account.id,
        payment_intent=money.intent,
        paid=money.paid,
        refunded=0,
        disputed=0,
        taken=0,
        from_lot=0,
        absorbed=0,
        debt=0,
        created_at=book.now,
        synced_at=asked_at,
    )


def _step(conn: Connection, book: Book, lot: Lot, row: Reversal, taking: Reason, giving: Reason) -> None:
    """The next step, up or down. Refunded and disputed money may be the same: no more than was paid goes back."""
    gone = min(row.paid, row.refunded + row.disputed)
    step = lot.issued * gone // row.paid - row.taken
    if step > 0:
        _take(conn, book, lot, row, step, taking)
    elif step < 0:
        _give(conn, book, lot, row, -step, giving)


def _take(conn: Connection, book: Book, lot: Lot, row: Reversal, amount: int, reason: Reason) -> None:
    """First what left the lot unspent, then what is in it; the rest was spent, and is owed."""
    unspent = lot.removed - row.from_lot - row.absorbed - sum(paid for _, paid in _payments(conn, book, lot=lot.id))
    absorbed = min(amount, max(0, unspent))
    from_lot = min(amount - absorbed, lot.remaining)
    owed = amount - absorbed - from_lot
    row.taken, row.absorbed, row.from_lot = row.taken + amount, row.absorbed + absorbed, row.from_lot + from_lot
    row.debt += owed
    book.take_back(lot, from_lot, reason, ("payment", row.payment_intent))
    book.add_debt(owed)


def _give(conn: Connection, book: Book, lot: Lot, row: Reversal, amount: int, reason: Reason) -> None:
    """The same backwards. Debt that later purchases have paid goes back to them."""
    debt = min(amount, row.taken - row.from_lot - row.absorbed)
    forgiven = min(debt, row.debt)
    from_lot = min(amount - debt, row.from_lot)
    row.taken, row.absorbed = row.taken - amount, row.absorbed - (amount - debt - from_lot)
    row.from_lot, row.debt = row.from_lot - from_lot, row.debt - forgiven
    book.add_debt(-forgiven)
    book.return_taken(lot, from_lot, reason, ("payment", row.payment_intent))
    _pay_back(conn, book, lot, debt - forgiven, reason)


def _pay_back(conn: Connection, book: Book, lot: Lot, amount: int, reason: Reason) -> None:
    """Return to the lots that paid this lot's debt what they paid, the last one first."""
    returned = []
    for payer_id, paid in reversed(_payments(conn, book, owner=lot.id)):
        part = min(amount, paid)
        if part:
            payer = _lot(conn, book, payer_id)
            book.return_taken(payer, part, reason, ("lot", lot.id))
            returned.append(payer)
            amount -= part
    debts.claim(conn, book, returned)


def _payments(
    conn: Connection, book: Book, *, lot: str | None = None, owner: str | None = None
) -> list[tuple[str, int]]:
    """What lots have paid of others' debt: the payments of `lot`, or those for `owner`'s. (lot that paid, amount)."""
    not_usage = LedgerEntry.reason != written(Reason.USAGE.value)  # as the index says it
    of_debts = (LedgerEntry.cause_type == "lot", LedgerEntry.reason.in_(_REASONS), not_usage)
    query = select(LedgerEntry.lot_id, -func.sum(LedgerEntry.change)).where(LedgerEntry.account_id == book.account.id)
    query = query.where(*of_debts)
    query = query.where(LedgerEntry.lot_id == lot) if lot is not None else query.where(LedgerEntry.cause_id == owner)
    grouped = query.group_by(LedgerEntry.lot_id).order_by(func.min(LedgerEntry.seq))
    return [(payer, int(paid)) for payer, paid in conn.execute(grouped)]
