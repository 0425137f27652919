"""Cards on file: collected by a SetupIntent in the customer's browser, kept by Stripe, mirrored as brand and digits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import exists, or_, select

import clock
import ids
import settings
from errors import StripeRefused
from extensions import db
from models.alert import AlertKind
from models.stripe import IN_FORCE, StripeCustomer, StripeSubscription
from models.top_up import TopUpWatch
from services import alerts
from services.stripe import customers, gateway, sync
from services.stripe.gateway import Object
from services.stripe.sync import Apply

_SOON = timedelta(days=30)


@dataclass(frozen=True)
class Collecting:
    """A SetupIntent that waits for a card in its customer's browser. The secret is for that browser alone."""

    intent: str
    client_secret: str
    publishable_key: str | None


def collect(account_id: str) -> Collecting:
    """Begin to collect a card, which becomes what invoices are paid with.

    `publishable_key` is None where STRIPE_PUBLISHABLE_KEY is not set. Raises StripeNotConfigured, StripeUnavailable.
    """

    def create(customer_id: str) -> Object:
        params = {"customer": customer_id, "usage": "off_session", "metadata": customers.tags(account_id)}
        return gateway.create_setup_intent(params, ids.new("setup"))

    intent = customers.for_customer(account_id, create)
    return Collecting(str(intent["id"]), str(intent["client_secret"]), settings.current().stripe_publishable_key)


def finish(account_id: str, intent_id: str) -> bool:
    """The customer is back from giving a card; whether it was saved. Anybody else's intent is as good as none.

    Raises StripeUnavailable: the card is shown once the event of it arrives.
    """
    mine = customers.of_account(account_id)
    try:
        intent = gateway.setup_intent(intent_id)
    except StripeRefused as refusal:
        if refusal.stripe_code != "resource_missing":
            raise
        return False
    if mine is None or intent.get("customer") != mine.id or intent["status"] != "succeeded":
        return False
    return sync.run(prepare_setup(intent_id))


def prepare_setup(intent_id: str) -> Apply | None:
    """A card was saved. One that we asked for becomes the default for invoices, unless a newer one is that already."""
    intent = gateway.setup_intent(intent_id)
    customer_id = intent.get("customer")
    if not isinstance(customer_id, str):
        return None
    method = intent.get("payment_method")
    if intent["status"] == "succeeded" and isinstance(method, dict) and customers.is_tagged(intent.get("metadata")):
        _make_default(customer_id, method, intent_id)
    return customers.prepare(customer_id)


def _make_default(customer_id: str, method: Object, intent_id: str) -> None:
    if method.get("customer") != customer_id:
        return  # it was taken off again meanwhile
    found = gateway.customer(customer_id)
    present = (found.get("invoice_settings") or {}).get("default_payment_method")
    if found.get("deleted") or (isinstance(present, dict) and _is_newer(present, method)):
        return
    params = {"invoice_settings": {"default_payment_method": method["id"]}}
    try:
        gateway.update_customer(customer_id, params, f"default-{intent_id}")
    except StripeRefused as refusal:
        if refusal.stripe_code != "resource_missing":
            raise


def _is_newer(present: Object, method: Object) -> bool:
    """Events come late and twice: the card of an old one must not push out the card that was chosen since."""
    return present["id"] == method["id"] or int(present.get("created") or 0) > int(method.get("created") or 0)


def prepare_method(method_id: str) -> Apply | None:
    """A card was added or taken off. Once it is off, nothing at Stripe tells whose it was, but the mirror does."""
    customer_id = gateway.payment_method(method_id).get("customer")
    if not isinstance(customer_id, str):
        query = select(StripeCustomer.id).where(StripeCustomer.payment_method == method_id)
        customer_id = db.session.scalars(query).first()
    return customers.prepare(customer_id) if customer_id else None


# Cards that end


def note_expiring() -> int:
    """Alert the accounts whose card expires this month or within thirty days, once for each card; how many.

    Those that something is charged to by itself: a subscription, or auto top-up.
    """
    now = clock.now()
    soon = now + _SOON
    month = StripeCustomer.card_exp_year * 12 + StripeCustomer.card_exp_month
    query = select(StripeCustomer).where(
        StripeCustomer.deleted_at.is_(None),
        month.between(now.year * 12 + now.month, soon.year * 12 + soon.month),
        or_(
            exists().where(
                StripeSubscription.account_id == StripeCustomer.account_id,
                StripeSubscription.status.in_([status.value for status in IN_FORCE]),
            ),
            exists().where(TopUpWatch.account_id == StripeCustomer.account_id, TopUpWatch.below.is_not(None)),
        ),
    )
    db.session.rollback()
    told = 0
    for row in db.session.scalars(query).all():
        expires = f"{row.card_exp_year:04d}-{row.card_exp_month:02d}"
        occasion = f"{row.payment_method}:{expires}"
        if not alerts.was_told(row.account_id, AlertKind.CARD_EXPIRING, occasion):
            details = {"last4": row.card_last4, "expires": expires}
            alerts.raise_now(row.account_id, AlertKind.CARD_EXPIRING, occasion, details, ends_at=soon)
            told += 1
    return told
