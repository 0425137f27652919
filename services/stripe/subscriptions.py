"""Subscriptions: what Stripe shows of them is mirrored with the terms of the price that is paid, and the account's
plan and allowance follow. Renewals are asked for when they are due, whether or not an event told of them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

import clock
import database
from errors import StripeRefused, StripeUnavailable
from extensions import db
from models.account import Account, AccountStatus, Subscription
from models.overage import OverageBill
from models.stripe import OVER, StripeStatus, StripeSubscription
from services import catalog, credits, overages, periods, plans
from services.catalog import Plan
from services.stripe import arrears, customers, gateway, sync
from services.stripe.catalog import terms_of
from services.stripe.gateway import Object
from services.stripe.sync import Apply, moment

_log = logging.getLogger("spillway.stripe")
_ENOUGH_FAILURES = 3
"""In a row: then Stripe is taken to be out of reach, and the rest of a run does not wait for it."""


# The sync


@dataclass(frozen=True, slots=True)
class Owned:
    """What to write of a subscription of ours, and whose it is."""

    account_id: str
    apply: Apply


def prepare(subscription_id: str) -> Apply | None:
    """What a subscription is now; None for one that is not ours, or sells nothing of ours. Raises StripeUnavailable."""
    owned = ask(subscription_id)
    return owned.apply if owned is not None else None


def ask(subscription_id: str) -> Owned | None:
    """The same, with the account."""
    asked_at = sync.asking()
    return found_at(asked_at, gateway.subscription(subscription_id))


def found_at(asked_at: datetime, found: Object, *, anew: bool = False) -> Owned | None:
    """The same for one that Stripe was asked for at that time, with its items' prices and their products.

    `anew` takes the terms that its price has today instead of those it was subscribed to.
    """
    db.session.rollback()  # what this session has read may be older than the newest row
    kept = db.session.get(StripeSubscription, found["id"])
    account_id = kept.account_id if kept is not None else owner(found)
    sold = _sold(found, None if anew else kept)
    if account_id is None or sold is None:
        return None
    item, plan = sold
    unpaid = arrears.of(found)
    terms = catalog.current()

    def apply(session: Session) -> None:
        with credits.within(session.connection(), [account_id], terms) as books:
            _mirror(session, account_id, found, item, plan, unpaid, asked_at)
            plans.settle(books.conn, books[account_id])
            arrears.tell(books.conn, books[account_id], found["id"], unpaid)

    return Owned(account_id, apply)


def owner(found: Object) -> str | None:
    """The account that an object with `customer` and `metadata` belongs to: its customer's, else the one it names."""
    customer = found.get("customer")
    expanded = customer if isinstance(customer, dict) else {}
    known = customers.known(str(expanded.get("id") or customer))
    if known is not None:
        return known.account_id
    for metadata in (found.get("metadata"), expanded.get("metadata")):
        if isinstance(metadata, dict) and customers.is_tagged(metadata):
            account = db.session.get(Account, str(metadata.get("account")))
            if account is not None:
                return account.id
    return None


def _sold(found: Object, kept: StripeSubscription | None) -> tuple[Object, Plan | None] | None:
    """The item that is the plan, and its terms. Of a known price they are not needed: they may have been edited."""
    items = [item for item in found["items"]["data"] if isinstance(item.get("price"), dict)]
    for item in items:
        if kept is not None and item["price"]["id"] == kept.price_id:
            return item, None
    for item in items:
        plan = terms_of(item["price"])
        if plan is not None:
            return item, plan
    if kept is None or not items:
        return None
    _log.error("subscription %s was changed to a price that is no plan of the catalog", found["id"])
    return next((item for item in items if item["id"] == kept.item_id), items[0]), None


def _mirror(
    session: Session,
    account_id: str,
    found: Object,
    item: Object,
    plan: Plan | None,
    unpaid: arrears.Unpaid,
    asked_at: datetime,
) -> None:
    """Write the row, under the account's lock, unless somebody who asked Stripe later has written it."""
    row = session.get(StripeSubscription, found["id"], populate_existing=True)
    if row is not None and sync.is_older(asked_at, row.synced_at):
        return
    if row is None:
        row = StripeSubscription(id=found["id"], account_id=account_id)
        session.add(row)
    if plan is not None:
        _take_terms(row, item["price"], plan)
    _take_state(row, found, item)
    row.past_due_since, row.failed_attempts = unpaid.since, unpaid.attempts
    row.synced_at = asked_at
    session.flush()


def _take_terms(row: StripeSubscription, price: Object, plan: Plan) -> None:
    """The price is new to this subscription: its terms are kept as they are now, whatever becomes of the price."""
    recurring = price.get("recurring") or {}
    row.price_id, row.price_type, row.tier, row.name = price["id"], plan.price_type, plan.tier, plan.name
    row.included = plan.free_credits if plan.price_type == "metered" else plan.included_credits
    row.rollover_max, row.requests_per_minute = plan.rollover_max, plan.requests_per_minute
    overage = overages.of_plan(plan)
    row.overage_terms = overage.to_json() if overage else None
    row.interval = str(recurring.get("interval"))
    row.interval_count = int(recurring.get("interval_count") or 1)
    row.currency = price["currency"]
    exact = price.get("unit_amount") if price.get("unit_amount") is not None else price.get("unit_amount_decimal")
    row.unit_amount = None if exact is None else str(exact)


def _take_state(row: StripeSubscription, found: Object, item: Object) -> None:
    customer, invoice = found["customer"], found.get("latest_invoice")
    row.customer_id = customer["id"] if isinstance(customer, dict) else customer
    row.item_id, row.quantity = item["id"], item.get("quantity")
    if found["status"] == StripeStatus.PAUSED and row.status != StripeStatus.PAUSED:
        row.paused_at = clock.now()
    elif found["status"] != StripeStatus.PAUSED:
        row.paused_at = None
    row.status = found["status"]
    row.period_start, row.period_end = _time(item["current_period_start"]), _time(item["current_period_end"])
    row.anchor = _anchor(_time(found["billing_cycle_anchor"]), row)
    row.trial_end, row.ended_at = moment(found.get("trial_end")), moment(found.get("ended_at"))
    row.cancel_at = moment(found.get("cancel_at")) or (row.period_end if found.get("cancel_at_period_end") else None)
    row.latest_invoice = invoice["id"] if isinstance(invoice, dict) else invoice
    row.created_at = _time(found["created"])


def _time(seconds: Any) -> datetime:
    found = moment(seconds)
    assert found is not None
    return found


def _anchor(billing_anchor: datetime, row: StripeSubscription) -> datetime:
    """Counting months from Stripe's anchor keeps its day over short months, as Stripe's own periods do.

    Where the period does not end on it, as while a trial is prolonged, the period's start is the next best.
    """
    aligned = periods.month_period(billing_anchor, row.period_end)[0] == row.period_end
    return billing_anchor if aligned else row.period_start


# What falls due


def renew_due() -> int:
    """Ask Stripe for the subscriptions whose period is over, and cancel those of closed accounts; how many were done.

    Where Stripe can not be reached, the allowance of the next period is issued from what it last showed.
    """
    if not gateway.is_configured():
        return 0
    done, failures = 0, 0
    for subscription_id, account_id in _due():
        if failures < _ENOUGH_FAILURES:
            try:
                done += sync.run(prepare(subscription_id))
                failures = 0
                continue
            except StripeRefused:
                continue  # Stripe answers, and knows of no such renewal; what was wrong is logged
            except StripeUnavailable:
                failures += 1
            except Exception:
                _log.exception("subscription %s could not be renewed", subscription_id)
                continue
        done += _assume_renewed(account_id)
    return done + (_cancel_of_closed() if failures < _ENOUGH_FAILURES else 0)


def _due() -> list[tuple[str, str]]:
    """Ids of subscriptions and accounts, longest overdue first."""
    db.session.rollback()
    query = (
        select(Subscription.stripe_id, Subscription.account_id)
        .join(Account, Account.id == Subscription.account_id)
        .where(text("subscriptions.status = 'active'"), Subscription.covered_until <= clock.now())  # as the index says
        .where(Account.status != AccountStatus.CLOSED)
        .order_by(Subscription.covered_until, Subscription.id)
    )
    return [(str(row[0]), row[1]) for row in db.session.execute(query)]


@database.retrying
def _assume_renewed(account_id: str) -> bool:
    with credits.locked([account_id]) as books:
        return plans.assume_renewed(books.conn, books[account_id])


def dun_due() -> int:
    """Take the steps that are due where a payment failed, without asking Stripe; on how many accounts that was."""
    db.session.rollback()
    unpaid = select(StripeSubscription.account_id).where(StripeSubscription.past_due_since.is_not(None))
    owed = select(OverageBill.account_id).where(OverageBill.unpaid_since.is_not(None))
    account_ids = db.session.scalars(unpaid.union(owed)).all()
    for account_id in account_ids:
        _settle(account_id)
    return len(account_ids)


@database.retrying
def _settle(account_id: str) -> None:
    with credits.locked([account_id]) as books:
        plans.settle(books.conn, books[account_id])


# Closed accounts


def cancel_all(account_id: str) -> None:
    """Cancel what a closed account still pays for, at once. Without an answer of Stripe's the job does it later."""
    if not gateway.is_configured():
        return
    try:
        for subscription_id in _live_ids(StripeSubscription.account_id == account_id):
            _cancel(subscription_id)
    except StripeUnavailable:
        _log.warning("the subscription of closed account %s is cancelled later", account_id)


def _cancel_of_closed() -> int:
    done = 0
    for subscription_id in _live_ids(Account.status == AccountStatus.CLOSED):
        try:
            _cancel(subscription_id)
            done += 1
        except StripeRefused:
            continue
        except StripeUnavailable:
            break
    return done


def _live_ids(which: Any) -> list[str]:
    db.session.rollback()
    query = select(StripeSubscription.id).join(Account, Account.id == StripeSubscription.account_id)
    return list(db.session.scalars(query.where(which, StripeSubscription.status.not_in([one.value for one in OVER]))))


def _cancel(subscription_id: str) -> None:
    try:
        gateway.cancel_subscription(subscription_id, {}, f"close-{subscription_id}")
    except StripeRefused as refusal:  # it is cancelled already
        if refusal.stripe_code != "resource_missing":
            raise
    sync.run(prepare(subscription_id))


# Reading


def of(account_id: str) -> StripeSubscription | None:
    """The subscription that the account's plan comes from; else the newest that may still come in force."""
    local = select(Subscription.stripe_id).join(Account, Account.subscription_id == Subscription.id)
    stripe_id = db.session.scalar(local.where(Account.id == account_id))
    if stripe_id is not None:
        return db.session.get(StripeSubscription, stripe_id)
    mine = select(StripeSubscription).where(StripeSubscription.account_id == account_id)
    waiting = mine.where(StripeSubscription.status.not_in([one.value for one in OVER]))
    newest = waiting.order_by(StripeSubscription.created_at.desc(), StripeSubscription.id.desc())
    return db.session.scalars(newest.limit(1)).first()
