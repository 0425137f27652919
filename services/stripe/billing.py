"""What the billing page tells, from the mirror alone: no call of Stripe's draws it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select

import money
from extensions import db
from models.account import Account, Subscription
from models.stripe import OVER, Purchase, StripeCustomer, StripeInvoice, StripeStatus, StripeSubscription
from services import agreed, overages
from services.stripe import customers, purchases

_ROWS = 24
_RENEWING = (StripeStatus.ACTIVE, StripeStatus.TRIALING, StripeStatus.PAST_DUE)


@dataclass(frozen=True)
class NextInvoice:
    """`amount` in minor units, before taxes and discounts; None where usage decides it."""

    at: datetime
    amount: int | None
    currency: str


@dataclass(frozen=True)
class Beyond:
    """Usage beyond all credits in the running period, in micro-credits, and what it costs so far, in minor units.

    `limit` is the most that was agreed to; None: no limit is set.
    """

    credits: int
    amount: int
    limit: int | None
    currency: str


@dataclass(frozen=True)
class Overview:
    """The account's side of Stripe. `subscription` is the one in force, else one that waits for its first payment.

    `overage` is None where none is agreed.
    """

    customer: StripeCustomer | None
    subscription: StripeSubscription | None
    next_invoice: NextInvoice | None
    invoices: list[StripeInvoice]
    purchases: list[Purchase]
    overage: Beyond | None


def overview(account: Account) -> Overview:
    subscription = _subscription(account)
    invoices = db.session.scalars(
        select(StripeInvoice)
        .where(StripeInvoice.account_id == account.id, StripeInvoice.status != "draft")
        .order_by(StripeInvoice.created_at.desc(), StripeInvoice.id.desc())
        .limit(_ROWS)
    )
    return Overview(
        customer=customers.of_account(account.id),
        subscription=subscription,
        next_invoice=next_invoice(subscription) if subscription else None,
        invoices=list(invoices),
        purchases=purchases.listing(account.id, _ROWS, begun=False),
        overage=_overage(account),
    )


def _overage(account: Account) -> Beyond | None:
    if account.overage_terms is None:
        return None
    terms = overages.parse(account.overage_terms)
    limit = agreed.of(account.controls).overage.cap_amount
    return Beyond(account.overage, terms.amount(account.overage), limit, terms.currency)


def _subscription(account: Account) -> StripeSubscription | None:
    current = db.session.get(Subscription, account.subscription_id)
    if current is not None and current.stripe_id is not None:
        found = db.session.get(StripeSubscription, current.stripe_id)
        if found is not None:
            return found
    return db.session.scalars(
        select(StripeSubscription)
        .where(StripeSubscription.account_id == account.id, StripeSubscription.status.not_in(OVER))
        .order_by(StripeSubscription.created_at, StripeSubscription.id)
        .limit(1)
    ).first()


def next_invoice(subscription: StripeSubscription) -> NextInvoice | None:
    """What renewal will cost and when; None for a subscription that does not renew."""
    ends_first = subscription.cancel_at is not None and subscription.cancel_at <= subscription.period_end
    if subscription.status not in _RENEWING or ends_first:
        return None
    return NextInvoice(subscription.period_end, price_of(subscription), subscription.currency)


def price_of(subscription: StripeSubscription) -> int | None:
    """Minor units of one period; None where it is metered."""
    if subscription.unit_amount is None or subscription.quantity is None:
        return None
    return money.total(Decimal(subscription.unit_amount), subscription.quantity)


def plan_name(purchase: Purchase) -> str | None:
    """The name of the plan that was bought."""
    if not purchase.subscription_id:
        return None
    bought = db.session.get(StripeSubscription, purchase.subscription_id)
    return bought.name if bought is not None else None


def invoice_of(purchase: Purchase) -> StripeInvoice | None:
    """The receipt of a purchase, once its event has come."""
    return db.session.get(StripeInvoice, purchase.invoice_id) if purchase.invoice_id else None
