"""A subscription whose payment failed: how long it still gives its plan, and when the account is stopped.

Everything counts from the first failed attempt, in days that the catalog or the environment sets. The plan ends early
when the third attempt has failed too. Paying brings back what was taken; nothing here ever cancels at Stripe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from models.account import AccountStatus
from models.stripe import IN_FORCE, StripeInvoice, StripeSubscription
from services.catalog import Catalog

REASON = "A payment has failed."
"""Why such an account is not active, in its `status_reason`: what an operator decided has other words."""


def lapses_at(paid: StripeSubscription, terms: Catalog) -> datetime | None:
    """When the plan falls to free unless it is paid; None while nothing is unpaid."""
    if paid.past_due_since is None:
        return None
    if paid.failed_attempts >= terms.grace_attempts:
        return paid.past_due_since
    return paid.past_due_since + timedelta(days=terms.grace_days)


def suspends_at(paid: StripeSubscription, terms: Catalog) -> datetime | None:
    """When the account is suspended unless it is paid; None while nothing is unpaid."""
    return None if paid.past_due_since is None else paid.past_due_since + timedelta(days=terms.suspend_days)


@dataclass(frozen=True, slots=True)
class Steps:
    """What follows when, while nothing is paid."""

    lapses_at: datetime
    lapsed: bool
    suspends_at: datetime
    suspended: bool


def steps(paid: StripeSubscription, now: datetime, terms: Catalog) -> Steps | None:
    """What an unpaid subscription leads to; None while nothing is unpaid."""
    lapses, suspends = lapses_at(paid, terms), suspends_at(paid, terms)
    if lapses is None or suspends is None:
        return None
    return Steps(lapses, lapses <= now, suspends, suspends <= now)


def is_served(paid: StripeSubscription, now: datetime, terms: Catalog) -> bool:
    """Whether a mirrored subscription gives its plan: it is paid, tried out, or unpaid within the grace."""
    lapses = lapses_at(paid, terms)
    return paid.status in IN_FORCE and (lapses is None or now < lapses)


def standing(
    mirrored: Iterable[StripeSubscription], owed_since: Iterable[datetime], now: datetime, terms: Catalog
) -> AccountStatus:
    """What an account's subscriptions make of it, and since when invoices of its overage are owed.

    A subscription that is paid clears it of others that were not, but not of its overage.
    """
    all_, owed = list(mirrored), list(owed_since)
    if not any(one.status in IN_FORCE and one.past_due_since is None for one in all_):
        owed += [one.past_due_since for one in all_ if one.past_due_since is not None]
    if not owed:
        return AccountStatus.ACTIVE
    suspended = min(owed) + timedelta(days=terms.suspend_days) <= now
    return AccountStatus.SUSPENDED if suspended else AccountStatus.PAST_DUE


def pay_link(conn: Connection, account_id: str) -> str | None:
    """Stripe's page of the oldest invoice of a subscription that is not paid, where the mirror has one."""
    unpaid = select(StripeInvoice.hosted_url).where(
        StripeInvoice.account_id == account_id,
        StripeInvoice.subscription_id.is_not(None),
        StripeInvoice.status == "open",
    )
    return conn.execute(unpaid.order_by(StripeInvoice.created_at, StripeInvoice.id).limit(1)).scalar()
