"""Subscriptions and invoices as the API shows them, from the mirror alone: no call of Stripe's draws them.

Amounts are integers in minor units of their currency; a price with fractions of them has `unit_amount_decimal` instead.
"""

from __future__ import annotations

from typing import Any

import clock
from amounts import to_credits
from extensions import db
from models.account import Subscription
from models.stripe import StripeInvoice, StripeSubscription
from services import balances, catalog, dunning, plans
from services.stripe import subscriptions


def subscription(account_id: str) -> dict[str, Any]:
    """The plan that the account is on, and what Stripe shows of its subscription. Raises AccountNotFound.

    Without a subscription at Stripe `status` and what belongs to it are null.
    """
    book = balances.current(account_id).book  # what is due is written before
    account = book.account
    terms = db.session.get_one(Subscription, account.subscription_id)
    paid = subscriptions.of(account_id)
    shown = {
        "account": account_id,
        "plan": account.plan,
        "source": terms.source,
        "status": None,
        "subscription": None,
        "tier": terms.tier,
        "name": _name(terms),
        "price": None,
        "interval": None,
        "amount": None,
        "currency": None,
        "included_credits": to_credits(plans.included_in(book, terms)),
        "period": {"start": account.period_start, "end": account.period_end},
        "cancel_at": None,
        "trial_end": None,
        "past_due": None,
        "ends_at": terms.ends_at,
    }
    return shown if paid is None else shown | _of_stripe(paid)


def _name(terms: Subscription) -> str:
    plan = catalog.current().plan(terms.tier)
    return plan.name if plan is not None else terms.tier.replace("_", " ").replace("-", " ").title()


def _of_stripe(paid: StripeSubscription) -> dict[str, Any]:
    """`period` is what is paid for; an allowance's month may be a part of it."""
    whole = paid.unit_amount is not None and paid.unit_amount.isdecimal()
    shown = {
        "status": paid.status,
        "subscription": paid.id,
        "tier": paid.tier,
        "name": paid.name,
        "price": paid.price_id,
        "interval": paid.interval,
        "amount": int(paid.unit_amount) if whole and paid.unit_amount else None,
        "currency": paid.currency,
        "included_credits": to_credits(paid.included),
        "period": {"start": paid.period_start, "end": paid.period_end},
        "cancel_at": paid.cancel_at,
        "trial_end": paid.trial_end,
        "past_due": _past_due(paid),
    }
    if paid.unit_amount is not None and not whole:
        shown["unit_amount_decimal"] = paid.unit_amount
    if paid.interval_count != 1:
        shown["interval_count"] = paid.interval_count
    return shown


def _past_due(paid: StripeSubscription) -> dict[str, Any] | None:
    """Since when, and what follows when, while it is unpaid."""
    steps = dunning.steps(paid, clock.now(), catalog.current())
    if steps is None:
        return None
    return {
        "since": paid.past_due_since,
        "failed_attempts": paid.failed_attempts,
        "plan_until": steps.lapses_at,
        "suspended_at": steps.suspends_at,
    }


def invoice(row: StripeInvoice) -> dict[str, Any]:
    """`period` is the time of service, null where there is none; the addresses are Stripe's."""
    served = row.period_start is not None and row.period_end is not None and row.period_start != row.period_end
    return {
        "id": row.id,
        "number": row.number,
        "status": row.status,
        "reason": row.billing_reason,
        "subscription": row.subscription_id,
        "currency": row.currency,
        "total": row.total,
        "amount_due": row.amount_due,
        "amount_paid": row.amount_paid,
        "period": {"start": row.period_start, "end": row.period_end} if served else None,
        "next_attempt_at": row.next_attempt_at,
        "hosted_url": row.hosted_url,
        "pdf_url": row.pdf_url,
        "created_at": row.created_at,
    }
