"""What of a subscription is unpaid, as Stripe tells it: everything else about failed payments follows from that."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

import clock
from models.account import AccountStatus
from models.alert import AlertKind
from models.stripe import StripeStatus
from services import alerts
from services.books import Book
from services.stripe import gateway
from services.stripe.gateway import Object
from services.stripe.sync import moment

_TOLD = 2
"""After so many failed attempts nobody is told of another: that the plan rests is told when it does."""


class Unpaid(NamedTuple):
    """`since` when, after how many failed `attempts`, and Stripe's page where it can be paid."""

    since: datetime | None = None
    attempts: int = 0
    url: str | None = None


_MAY_BE = (StripeStatus.PAST_DUE, StripeStatus.UNPAID, StripeStatus.CANCELED)


def of(found: Object) -> Unpaid:
    """Since when a subscription's oldest unpaid invoice could not be collected, and after how many attempts.

    One that was cancelled may leave an invoice unpaid behind; one that never began to run owes nothing. An invoice
    that is sent instead of charged is unpaid from its due date on.
    """
    if found["status"] not in _MAY_BE:
        return Unpaid()
    oldest = Unpaid()
    for invoice in gateway.invoices({"subscription": found["id"], "status": "open", "limit": 100}):
        since = _failed_at(invoice)
        if since is not None and (oldest.since is None or since < oldest.since):
            oldest = Unpaid(since, int(invoice.get("attempt_count") or 0), invoice.get("hosted_invoice_url"))
    return oldest


def _failed_at(invoice: Object) -> datetime | None:
    """The first attempt follows the invoice's finalization at once."""
    if invoice.get("billing_reason") == "subscription_create":
        return None
    if invoice.get("attempt_count"):
        return moment((invoice.get("status_transitions") or {}).get("finalized_at") or invoice["created"])
    due = moment(invoice.get("due_date"))
    return due if due is not None and due <= clock.now() else None


def tell(conn: Connection, book: Book, subscription_id: str, unpaid: Unpaid) -> None:
    """Alert the account of a failed attempt, once for each; in the transaction that learned of it.

    What was told is no longer true once the account is active again.
    """
    since, attempts, url = unpaid
    if since is not None and book.account.status != AccountStatus.ACTIVE:
        number = min(max(1, attempts), _TOLD)
        occasion = f"{subscription_id}:{since.isoformat()}:{number}"
        told = {"attempts": number, "url": url}
        alerts.raise_(conn, book.account.id, AlertKind.PAYMENT_FAILED, occasion, told)
    elif book.account.status == AccountStatus.ACTIVE:
        alerts.settle(conn, book.account.id, AlertKind.PAYMENT_FAILED)
