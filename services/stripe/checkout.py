"""Sending a customer to Stripe's Checkout, and to its portal. Prices and quantities go there, never an amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

import ids
import settings
from amounts import to_credits
from errors import AccountClosed, AlreadySubscribed, StripeNotConfigured, StripeRefused, ValidationError
from extensions import db
from models.stripe import OVER, StripeSubscription
from services import accounts
from services.stripe import customers, gateway, orders, purchases, returns
from services.stripe.gateway import Object
from services.stripe.orders import Order

_AMOUNT_CODES = ("amount_too_small", "amount_too_large")


@dataclass(frozen=True)
class Started:
    """A Checkout Session: its id at Stripe, and where its customer has to go."""

    session: str
    url: str


def may_buy(account_id: str) -> None:
    """Who is suspended may pay, and who is past due has to. Raises StripeNotConfigured, AccountClosed."""
    if not gateway.is_configured():
        raise StripeNotConfigured()
    if accounts.get(account_id).is_closed:
        raise AccountClosed()


def start(
    account_id: str,
    *,
    price: str | None = None,
    tier: str | None = None,
    interval: str | None = None,
    credits: int | None = None,
    success_path: str | None = None,
    cancel_path: str | None = None,
) -> Started:
    """A Checkout Session for one thing of the catalog; nothing is bought until its customer pays there.

    `credits` are micro-credits. Raises StripeNotConfigured, AccountClosed, ValidationError, AlreadySubscribed,
    StripeUnavailable.
    """
    returns.check("success_path", success_path)
    returns.check("cancel_path", cancel_path)
    orders.check(price, tier, interval, credits)
    may_buy(account_id)
    order = orders.find(price=price, tier=tier, interval=interval, credits=credits)
    if order.mode == "subscription":
        _refuse_second(account_id)
    purchase_id = ids.new("pur")

    def create(customer_id: str) -> Object:
        if order.mode == "subscription":
            _refuse_second_at_stripe(customer_id)
        params = _params(account_id, customer_id, purchase_id, order)
        params["success_url"] = returns.success_url(success_path)
        params["cancel_url"] = returns.absolute(cancel_path or _cancelled(order))
        return gateway.create_session(params, f"checkout-{purchase_id}-{customer_id}")

    try:
        session = customers.for_customer(account_id, create)
    except StripeRefused as refusal:
        raise _explained(refusal) from refusal
    purchases.keep_open(purchase_id, account_id, order, session)
    return Started(str(session["id"]), str(session["url"]))


def _params(account_id: str, customer_id: str, purchase_id: str, order: Order) -> dict[str, Any]:
    """What Stripe is told. The session remembers what was promised: the price's metadata may change meanwhile."""
    tags = customers.tags(account_id) | {"purchase": purchase_id}
    line: dict[str, Any] = {"price": order.price}
    if order.quantity is not None:
        line["quantity"] = order.quantity
    params: dict[str, Any] = {
        "mode": order.mode,
        "customer": customer_id,
        "client_reference_id": account_id,
        "line_items": [line],
        "metadata": tags | {"price": order.price},
    }
    if order.mode == "payment":
        promised = {"credits": str(to_credits(order.credits)), "credits_per_unit": str(to_credits(order.per_unit))}
        params["metadata"] |= promised
        params["payment_intent_data"] = {"metadata": tags}
        params["invoice_creation"] = {"enabled": True, "invoice_data": {"metadata": tags}}
    else:
        params["subscription_data"] = {"metadata": tags, "billing_mode": {"type": "flexible"}}
    return params | _switches()


def _switches() -> dict[str, Any]:
    env = settings.current()
    params: dict[str, Any] = {}
    if env.stripe_promotion_codes:
        params["allow_promotion_codes"] = True
    if env.stripe_automatic_tax:
        params["automatic_tax"] = {"enabled": True}
        params["customer_update"] = {"address": "auto"}  # a known customer's address is asked for and kept
    return params


def _cancelled(order: Order) -> str:
    if order.mode == "subscription":
        return "/billing?cancelled=1"
    chosen = f"&credits={to_credits(order.credits)}" if order.quantity != 1 else ""
    return f"/buy?cancelled=1{chosen}"


def _refuse_second(account_id: str) -> None:
    query = select(StripeSubscription.id).where(
        StripeSubscription.account_id == account_id, StripeSubscription.status.not_in(OVER)
    )
    if db.session.scalars(query).first() is not None:
        raise AlreadySubscribed()


def _refuse_second_at_stripe(customer_id: str) -> None:
    """The event of a subscription that was just begun may be on its way still."""
    for subscription in gateway.subscriptions({"customer": customer_id, "limit": 100}):
        if subscription["status"] not in OVER:
            raise AlreadySubscribed()


def _explained(refusal: StripeRefused) -> Exception:
    """What the customer can do something about."""
    if refusal.stripe_code in _AMOUNT_CODES or "quantity" in (refusal.stripe_param or ""):
        return ValidationError({"credits": ["No single payment can have this amount. Choose another one."]})
    return refusal


def portal(account_id: str, return_path: str | None = None) -> str:
    """The address of Stripe's billing portal for this account, good for a short while.

    Raises StripeNotConfigured, AccountClosed, ValidationError, StripeUnavailable.
    """
    returns.check("return_path", return_path)
    may_buy(account_id)
    onward = returns.absolute(return_path or "/billing")

    def create(customer_id: str) -> Object:
        return gateway.create_portal_session({"customer": customer_id, "return_url": onward}, ids.new("portal"))

    return str(customers.for_customer(account_id, create)["url"])
