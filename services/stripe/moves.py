"""Moving chosen subscribers to another price, or to what their price says today. Nobody else's terms ever change."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import select

import ids
from errors import StripeRefused, ValidationError
from extensions import db
from models.account import Account
from models.stripe import IN_FORCE, StripeSubscription
from services.catalog import Plan
from services.stripe import gateway, subscriptions, sync
from services.stripe.catalog import terms_of

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Move:
    """One subscriber and the plan before; `done` when it was moved."""

    account: str
    subscription: str
    tier: str
    price: str
    included: int
    done: bool = False


def chosen(from_price: str | None, account_ids: Collection[str]) -> list[StripeSubscription]:
    """The live subscriptions of these accounts, or of everybody on a price; oldest first."""
    db.session.rollback()
    query = select(StripeSubscription).where(StripeSubscription.status.in_([one.value for one in IN_FORCE]))
    if from_price is not None:
        query = query.where(StripeSubscription.price_id == from_price)
    if account_ids:
        query = query.where(StripeSubscription.account_id.in_(account_ids))
    return list(db.session.scalars(query.order_by(StripeSubscription.created_at, StripeSubscription.id)))


def target(price_id: str) -> Plan:
    """The terms of the price that subscribers are to have. Raises ValidationError, StripeUnavailable."""
    try:
        plan = terms_of(gateway.price(price_id))
    except StripeRefused as refusal:
        if refusal.stripe_code != "resource_missing":
            raise
        plan = None
    if plan is None:
        raise ValidationError({"price": ["No plan of ours has this price."]})
    return plan


def move(
    rows: Collection[StripeSubscription], price_id: str, *, dry_run: bool = False, progress: Progress | None = None
) -> list[Move]:
    """Put them on the price, without charging in between: the next invoice has it. More comes at once, and what was
    used stays used. Those who are on the price get the terms it has today.

    Raises ValidationError, StripeNotConfigured, StripeUnavailable; who was moved by then stays moved.
    """
    plan = target(price_id)
    moves = []
    for number, row in enumerate(list(rows), 1):
        before = Move(row.account_id, row.id, row.tier, row.price_id, row.included, done=not dry_run)
        if not dry_run:
            _move(before, price_id, metered=plan.price_type == "metered")
        moves.append(before)
        if progress is not None:
            progress(number, len(rows))
    return moves


def _move(before: Move, price_id: str, *, metered: bool) -> None:
    asked_at = sync.asking()
    found = gateway.subscription(before.subscription)
    if before.price != price_id:
        items = found["items"]["data"]
        item = next((one for one in items if one["price"]["id"] == before.price), items[0])
        line = {"id": item["id"], "price": price_id} | ({} if metered else {"quantity": item.get("quantity") or 1})
        params = {"items": [line], "proration_behavior": "none", "expand": ["items.data.price.product"]}
        gateway.update_subscription(before.subscription, params, ids.new("move"))
        asked_at = sync.asking()
        found = gateway.subscription(before.subscription)
    owned = subscriptions.found_at(asked_at, found, anew=True)
    sync.run(owned.apply if owned is not None else None)


def account_ids(refs: Collection[str]) -> list[str]:
    """The accounts' ids, by id or external id. Raises ValidationError for one that is not there."""
    known = {
        ref: db.session.scalar(select(Account.id).where((Account.id == ref) | (Account.external_id == ref)))
        for ref in refs
    }
    missing = [ref for ref, account_id in known.items() if account_id is None]
    if missing:
        raise ValidationError({"account": [f"There is no account {ref}." for ref in missing]})
    return [account_id for account_id in known.values() if account_id is not None]
