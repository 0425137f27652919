"""What was bought at Checkout, and the credits for it: once for each session, from whichever side the news comes.

The webhook, the customer's return and the reconciliation all come here. Each asks Stripe what became of the session
and writes it under the account's lock; the lot and the purchase that names it commit together. So it is with what auto
top-up buys on invoices of its own (`write_invoice`).
"""

from __future__ import annotations

import logging
import re
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

import amounts
import database
import ids
from amounts import to_credits
from errors import StripeRefused
from extensions import db
from models.account import Account
from models.credit import Kind, Lot, Reason
from models.stripe import Purchase, PurchaseStatus
from models.types import from_microseconds
from services import balances, catalog, credits, debts, grants, outgoing
from services.books import Book
from services.catalog.prices import read_price
from services.catalog.terms import CreditPrice
from services.stripe import customers, gateway, subscriptions
from services.stripe.gateway import Object
from services.stripe.orders import Order
from services.stripe.sync import Apply

_log = logging.getLogger("spillway.stripe")
_OUR_ID = re.compile(r"pur_[0-9a-z]{23}", re.ASCII)
_PAID = ("paid", "no_payment_required")
_MODES = ("payment", "subscription")
_BEFORE = {
    PurchaseStatus.OPEN: (),
    PurchaseStatus.PENDING: (PurchaseStatus.OPEN,),
    PurchaseStatus.EXPIRED: (PurchaseStatus.OPEN,),
    PurchaseStatus.FAILED: (PurchaseStatus.OPEN, PurchaseStatus.PENDING),
    PurchaseStatus.PAID: tuple(PurchaseStatus),
}
"""What each status may follow: an answer of Stripe's that is older than the last one changes nothing."""


# A session that was begun


@database.retrying
def keep_open(purchase_id: str, account_id: str, order: Order, session: Object) -> None:
    """Keep a session that its customer was just sent to."""
    values = {"price_id": order.price, "credits": order.credits}
    with database.transaction() as db_session:
        _insert(db_session, purchase_id, account_id, session, values)


def _insert(session: Session, purchase_id: str, account_id: str, found: Object, values: dict[str, Any]) -> None:
    """A row for the session unless it has one: its payment may have been quicker than we."""
    insert = sqlite.insert if database.is_sqlite() else postgresql.insert
    row = {
        "id": purchase_id,
        "account_id": account_id,
        "session_id": found["id"],
        "mode": found["mode"],
        "status": PurchaseStatus.OPEN.value,
        "currency": found.get("currency"),
        "amount": found.get("amount_total"),
        "created_at": from_microseconds(int(found["created"]) * 1_000_000),
        **values,
    }
    session.execute(insert(Purchase).values(row).on_conflict_do_nothing())


# What became of it


def prepare(session_id: str) -> Apply | None:
    """What a session's end means here; None for sessions that are none of ours."""
    try:
        found = gateway.session(session_id)
    except StripeRefused as refusal:
        if refusal.stripe_code != "resource_missing":
            raise
        return None
    return prepare_found(found)


def prepare_found(found: Object) -> Apply | None:
    """The same for a session that was just fetched, with its line items, their prices and products."""
    if not customers.is_tagged(found.get("metadata")) or found["mode"] not in _MODES:
        return None
    account_id = _account_of(found)
    if account_id is None:
        return None
    status = _status(found)
    paid = status is PurchaseStatus.PAID
    bought = credits_of(found) if paid and found["mode"] == "payment" else 0
    subscription_id = found.get("subscription")
    subscribed = subscriptions.prepare(str(subscription_id)) if subscription_id else None
    terms = catalog.current()

    def apply(session: Session) -> None:
        with credits.within(session.connection(), [account_id], terms) as books:
            row = _row(session, account_id, found)
            _advance(row, status, found, books[account_id].now)
            if bought and row.lot_id is None:
                _issue(session, books[account_id], row, bought)
        if subscribed is not None:
            subscribed(session)

    return apply


def _row(session: Session, account_id: str, found: Object) -> Purchase:
    """The session's row; made here where the process that began it died before it could."""
    query = select(Purchase).where(Purchase.session_id == found["id"])
    row = session.scalars(query).first()
    if row is None:
        named = str(found["metadata"].get("purchase"))
        purchase_id = named if _OUR_ID.fullmatch(named) and session.get(Purchase, named) is None else ids.new("pur")
        _insert(session, purchase_id, account_id, found, {"credits": 0})
        row = session.scalars(query).one()
    return row


def _advance(row: Purchase, status: PurchaseStatus, found: Object, now: datetime) -> None:
    if row.status not in _BEFORE[status]:
        return
    if status is PurchaseStatus.PAID:
        row.paid_at = row.paid_at or now
    row.status = status.value
    row.currency = found.get("currency") or row.currency
    row.amount = found["amount_total"] if found.get("amount_total") is not None else row.amount
    row.price_id = row.price_id or _price_of(found)
    row.payment_intent = found.get("payment_intent") or row.payment_intent
    row.invoice_id = found.get("invoice") or row.invoice_id
    row.subscription_id = found.get("subscription") or row.subscription_id


def _issue(session: Session, book: Book, row: Purchase, amount: int) -> None:
    """The lot, whatever became of the account meanwhile: what was paid for is written down, also of a closed one."""
    key = f"purchase:{row.session_id or row.invoice_id}"
    row.credits = amount
    known = session.scalars(select(Lot.id).where(Lot.source_key == key)).first()
    if known is not None:
        row.lot_id = known
        return
    lot = book.issue(Kind.PURCHASED, amount, Reason.PURCHASE, ("purchase", row.id), source_key=key)
    row.lot_id = lot.id
    debts.pay(session.connection(), book, lot)
    grants.settle_unfunded(session.connection(), book, lot)
    told = {"purchase": row.id, "lot": lot.id, "credits": to_credits(amount), "balance": balances.short_balance(book)}
    outgoing.emit(session.connection(), "credits.purchased", row.account_id, told)


# Bought on an invoice


def write_invoice(session: Session, book: Book, found: Object, price: str, bought: int, intent: str | None) -> None:
    """What became of an invoice of ours that sells `bought` micro-credits; in the caller's transaction."""
    status = _INVOICE_STATUS.get(found["status"])
    if status is None:
        return
    query = select(Purchase).where(Purchase.invoice_id == found["id"], Purchase.session_id.is_(None))
    row = session.scalars(query).first()
    if row is None:
        row = Purchase(
            id=ids.new("pur"),
            account_id=book.account.id,
            mode="payment",
            status=PurchaseStatus.OPEN.value,
            price_id=price,
            credits=bought,
            invoice_id=found["id"],
            created_at=from_microseconds(int(found["created"]) * 1_000_000),
        )
        session.add(row)
    shown = {"currency": found["currency"], "amount_total": found["total"], "payment_intent": intent}
    _advance(row, status, shown, book.now)
    if status is PurchaseStatus.PAID and row.lot_id is None:
        _issue(session, book, row, bought)


_INVOICE_STATUS = {
    "open": PurchaseStatus.OPEN,
    "paid": PurchaseStatus.PAID,
    "void": PurchaseStatus.FAILED,
    "uncollectible": PurchaseStatus.FAILED,
}


# Reading a session


def _status(found: Object) -> PurchaseStatus:
    if found["status"] == "expired":
        return PurchaseStatus.EXPIRED
    if found["status"] != "complete":
        return PurchaseStatus.OPEN
    if found["payment_status"] in _PAID:
        return PurchaseStatus.PAID
    return PurchaseStatus.FAILED if _has_failed(found) else PurchaseStatus.PENDING


def _has_failed(found: Object) -> bool:
    """A payment that takes days has failed for good: the session itself says only that it is not paid."""
    intent_id = found.get("payment_intent")
    if not intent_id:
        return False
    return gateway.payment_intent(str(intent_id))["status"] in ("requires_payment_method", "canceled")


def _account_of(found: Object) -> str | None:
    """The account that the session was made for; None where its customer is known to be somebody else's."""
    kept = by_session(str(found["id"]))
    account = db.session.get(Account, kept.account_id if kept else str(found["metadata"].get("account")))
    if account is None:
        _log.warning("session %s names an account that is not here", found["id"])
        return None
    customer_id = found.get("customer")
    if customer_id and not _belongs(str(customer_id), account.id):
        _log.error("session %s names account %s, its customer is another's", found["id"], account.id)
        return None
    return account.id


def _belongs(customer_id: str, account_id: str) -> bool:
    row = customers.known(customer_id)
    if row is not None:
        return row.account_id == account_id
    metadata = gateway.customer(customer_id).get("metadata") or {}
    if customers.is_tagged(metadata):
        return bool(metadata.get("account", account_id) == account_id)
    return customers.of_account(account_id) is None


def credits_of(found: Object) -> int:
    """Micro-credits that a session bought: its quantities times what was promised for each when it was made."""
    lines = found["line_items"]
    shown = gateway.session_lines(str(found["id"])) if lines.get("has_more") else lines["data"]
    total = sum(_credits_of_line(line, found["metadata"]) for line in shown)
    if not total:
        _log.error("session %s is paid, and nothing says how many credits that buys", found["id"])
    return total


def _credits_of_line(line: Object, promised: dict[str, str]) -> int:
    """What the session promised counts. One made elsewhere under our tag promised what its price's metadata say."""
    price = line.get("price") or {}
    quantity = int(line.get("quantity") or 0)
    if price.get("id") == promised.get("price"):
        try:
            return quantity * amounts.to_micros(amounts.parse(promised["credits_per_unit"]))
        except (KeyError, ValueError):
            pass
    product = price.get("product")
    if not isinstance(product, dict) or not customers.is_tagged(product.get("metadata")):
        return 0
    offer = read_price({**price, "active": True}, str(price.get("id")), [])
    return quantity * offer.credits_per_unit if isinstance(offer, CreditPrice) else 0


def _price_of(found: Object) -> str | None:
    lines = (found.get("line_items") or {}).get("data") or [{}]
    price = (lines[0].get("price") or {}).get("id")
    return str(price) if price else None


# Reading what was bought


def by_session(session_id: str) -> Purchase | None:
    return db.session.scalars(select(Purchase).where(Purchase.session_id == session_id)).first()


def listing(
    account_id: str, limit: int, before: tuple[datetime, str] | None = None, *, begun: bool = True
) -> list[Purchase]:
    """The account's purchases, newest first, older than the (created_at, id) `before`.

    Without `begun` those are left out that were begun and never paid.
    """
    query = select(Purchase).where(Purchase.account_id == account_id)
    if not begun:
        query = query.where(Purchase.status.not_in((PurchaseStatus.OPEN, PurchaseStatus.EXPIRED)))
    if before is not None:
        moment, purchase_id = before
        query = query.where(
            or_(Purchase.created_at < moment, (Purchase.created_at == moment) & (Purchase.id < purchase_id))
        )
    return list(db.session.scalars(query.order_by(Purchase.created_at.desc(), Purchase.id.desc()).limit(limit)))


def render(purchase: Purchase) -> dict[str, Any]:
    """As the API shows it; `amount` is in minor units of `currency`."""
    return {
        "id": purchase.id,
        "session": purchase.session_id,
        "mode": purchase.mode,
        "status": purchase.status,
        "price": purchase.price_id,
        "credits": to_credits(purchase.credits),
        "amount": purchase.amount,
        "currency": purchase.currency,
        "invoice": purchase.invoice_id,
        "subscription": purchase.subscription_id,
        "lot": purchase.lot_id,
        "created_at": purchase.created_at,
        "paid_at": purchase.paid_at,
    }
