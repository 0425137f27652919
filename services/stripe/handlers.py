"""Which events act, and how: one table. An event is a hint that something changed; what it changed to is asked anew.

A handler fetches without any lock and answers what is to be written, or None where the object is none of ours. What is
not in the table is ignored, such as charges that succeed: what they pay for is told by checkout or subscription.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.stripe import cards, catalog, customers, invoices, overage, purchases, reversals, subscriptions, sync
from services.stripe.gateway import Object
from services.stripe.sync import Apply


@dataclass(frozen=True, slots=True)
class Event:
    """One event of Stripe's. `object` is what it was about as it was then."""

    id: str
    type: str
    object: Object

    @property
    def object_id(self) -> str:
        return str(self.object.get("id") or "")


Handler = Callable[[Event], Apply | None]


def catalog_changed(event: Event) -> Apply | None:
    """A product or price may change plans, rates and prices in any combination: all of the catalog is read anew."""
    return catalog.changed(event.object)


def session_changed(event: Event) -> Apply | None:
    """Somebody paid at Checkout, or will not: credits and plans come of sessions that are paid, however late."""
    return purchases.prepare(event.object_id)


def customer_changed(event: Event) -> Apply | None:
    """Their card may be another one; a customer deleted at Stripe is replaced when one is next needed."""
    return customers.prepare(event.object_id)


def card_saved(event: Event) -> Apply | None:
    """A card we asked for was saved: invoices are paid with it from now on."""
    return cards.prepare_setup(event.object_id)


def card_changed(event: Event) -> Apply | None:
    """A card came or went, here or in the portal: the one that pages show may be gone."""
    return cards.prepare_method(event.object_id)


def money_went_back(event: Event) -> Apply | None:
    """A refund or a dispute: what the charge paid for is taken back or restored in the same part."""
    charge_id = event.object_id if event.object.get("object") == "charge" else event.object.get("charge")
    return reversals.prepare(str(charge_id)) if charge_id else None


def subscription_changed(event: Event) -> Apply | None:
    """Plan and allowance follow the status, the period and the price that is paid."""
    return subscriptions.prepare(event.object_id)


def invoice_begun(event: Event) -> Apply | None:
    """A renewal's draft is open for about an hour: what the period before it used beyond the plan goes on it."""
    apply = invoices.prepare(event.object_id)
    if sync.run(apply):
        overage.bill_account(invoices.account_of(event.object_id))
    return apply


def invoice_changed(event: Event) -> Apply | None:
    """The pages show it; a renewal that was paid, or was not, shows on its subscription, which is asked with it."""
    return invoices.prepare(event.object_id)


TABLE: dict[str, Handler] = {
    "product.created": catalog_changed,
    "product.updated": catalog_changed,
    "product.deleted": catalog_changed,
    "price.created": catalog_changed,
    "price.updated": catalog_changed,
    "price.deleted": catalog_changed,
    "checkout.session.completed": session_changed,
    "checkout.session.async_payment_succeeded": session_changed,
    "checkout.session.async_payment_failed": session_changed,
    "checkout.session.expired": session_changed,
    "customer.updated": customer_changed,
    "customer.deleted": customer_changed,
    "setup_intent.succeeded": card_saved,
    "payment_method.attached": card_changed,
    "payment_method.detached": card_changed,
    "payment_method.updated": card_changed,
    "payment_method.automatically_updated": card_changed,
    "charge.refunded": money_went_back,
    "refund.created": money_went_back,
    "refund.updated": money_went_back,
    "refund.failed": money_went_back,
    "charge.refund.updated": money_went_back,
    "charge.dispute.created": money_went_back,
    "charge.dispute.updated": money_went_back,
    "charge.dispute.closed": money_went_back,
    "charge.dispute.funds_withdrawn": money_went_back,
    "charge.dispute.funds_reinstated": money_went_back,
    "customer.subscription.created": subscription_changed,
    "customer.subscription.updated": subscription_changed,
    "customer.subscription.deleted": subscription_changed,
    "customer.subscription.paused": subscription_changed,
    "customer.subscription.resumed": subscription_changed,
    "customer.subscription.trial_will_end": subscription_changed,
    "invoice.created": invoice_begun,
    "invoice.updated": invoice_changed,
    "invoice.deleted": invoice_changed,
    "invoice.finalized": invoice_changed,
    "invoice.paid": invoice_changed,
    "invoice.payment_succeeded": invoice_changed,
    "invoice.payment_failed": invoice_changed,
    "invoice.payment_action_required": invoice_changed,
    "invoice.marked_uncollectible": invoice_changed,
    "invoice.voided": invoice_changed,
}
NEVER_REFUSED = frozenset({"invoice.created"})
"""Until we take it with 2xx Stripe does not go on with the invoice, for up to three days: we retry it ourselves."""
