"""Invoices of our customers: mirrored for the pages. What they pay for is asked of their subscription, or stands on
them where auto top-up has made them.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from errors import StripeRefused
from extensions import db
from models.account import Account
from models.stripe import StripeInvoice
from services import catalog
from services.stripe import gateway, overage, subscriptions, sync, topup_invoices
from services.stripe.gateway import Object
from services.stripe.sync import Apply, moment

_DRAFT = "draft"


def prepare(invoice_id: str) -> Apply | None:
    """What an invoice is now, and with it its subscription; None for invoices that are not ours."""
    asked_at = sync.asking()
    try:
        found = gateway.invoice(invoice_id)
    except StripeRefused as refusal:
        if refusal.stripe_code != "resource_missing":
            raise
        return _forgotten(invoice_id)
    parent = (found.get("parent") or {}).get("subscription_details") or {}
    subscription_id = _id(parent.get("subscription"))
    owned = subscriptions.ask(subscription_id) if subscription_id else None
    if subscription_id and owned is None:
        return None  # also: our customer's subscription of another product of the same Stripe account
    account_id = owned.account_id if owned is not None else subscriptions.owner(found)
    if account_id is None:
        return None
    terms = catalog.current()
    bought = topup_invoices.prepare(found, account_id) if owned is None else None

    def apply(session: Session) -> None:
        session.get_one(Account, account_id, with_for_update=True)  # one writer of the row at a time
        _mirror(session, account_id, subscription_id, found, asked_at)
        if owned is not None:
            owned.apply(session)
        elif bought is not None:
            bought(session)
        else:
            overage.note_collection(session, account_id, found, terms)

    return apply


def _id(value: object) -> str | None:
    """Of an object that came as its id, or expanded."""
    found = value.get("id") if isinstance(value, dict) else value
    return str(found) if found else None


def _forgotten(invoice_id: str) -> Apply | None:
    """A draft that was deleted at Stripe is not shown here either."""
    kept = db.session.get(StripeInvoice, invoice_id)
    if kept is None or kept.status != _DRAFT:
        return None

    def apply(session: Session) -> None:
        row = session.get(StripeInvoice, invoice_id, with_for_update=True)
        if row is not None and row.status == _DRAFT:
            session.delete(row)

    return apply


def _mirror(session: Session, account_id: str, subscription_id: str | None, found: Object, asked_at: datetime) -> None:
    row = session.get(StripeInvoice, found["id"], populate_existing=True)
    if row is not None and sync.is_older(asked_at, row.synced_at):
        return
    if row is None:
        row = StripeInvoice(id=found["id"], account_id=account_id)
        session.add(row)
    start, end = _period(found)
    row.subscription_id, row.number, row.status = subscription_id, found.get("number"), found["status"]
    row.billing_reason, row.currency = found.get("billing_reason"), found["currency"]
    row.total, row.amount_due, row.amount_paid = found["total"], found["amount_due"], found["amount_paid"]
    row.attempt_count = found.get("attempt_count") or 0
    row.next_attempt_at = moment(found.get("next_payment_attempt"))
    row.hosted_url, row.pdf_url = found.get("hosted_invoice_url"), found.get("invoice_pdf")
    row.period_start, row.period_end = moment(start), moment(end)
    created = moment(found["created"])
    assert created is not None
    row.created_at, row.synced_at = created, asked_at
    session.flush()


def _period(found: Object) -> tuple[int | None, int | None]:
    """The time of service: its lines know it, the invoice's own period is only when items were collected."""
    lines = (found.get("lines") or {}).get("data") or []
    spans = [line["period"] for line in lines if line.get("period")]
    if not spans:
        return found.get("period_start"), found.get("period_end")
    latest = max(spans, key=lambda span: (span["end"], span["start"]))
    return latest["start"], latest["end"]


# Reading


def account_of(invoice_id: str) -> str:
    """Whose mirrored invoice it is."""
    db.session.rollback()
    return db.session.get_one(StripeInvoice, invoice_id).account_id


def listing(account_id: str, limit: int, before: tuple[datetime, str] | None = None) -> list[StripeInvoice]:
    """Invoices that were sent, newest first, older than the (created_at, id) `before`. Drafts may still change."""
    query = select(StripeInvoice).where(StripeInvoice.account_id == account_id, StripeInvoice.status != _DRAFT)
    if before is not None:
        created_at, invoice_id = before
        older = (StripeInvoice.created_at == created_at) & (StripeInvoice.id < invoice_id)
        query = query.where(or_(StripeInvoice.created_at < created_at, older))
    newest = query.order_by(StripeInvoice.created_at.desc(), StripeInvoice.id.desc())
    return list(db.session.scalars(newest.limit(limit)))
