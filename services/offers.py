"""What is on sale, as the API tells it and as the pricing page lays it out. Amounts are in minor units."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import settings
from amounts import to_credits
from services import catalog
from services.catalog import FREE, Catalog, CreditPrice, Plan, Transform

INTERVALS = ("month", "year")


def payments_enabled() -> bool:
    return settings.current().stripe_secret_key is not None


def listing() -> dict[str, Any]:
    """GET /plans: everything on sale. What a price does not have (fractions, packages) has no field either."""
    terms = catalog.current()
    return {
        "credit_name": terms.credit_name,
        "currency": terms.currency,
        "free": {
            "tier": FREE,
            "name": terms.free.name,
            "included_credits": to_credits(terms.free.included_credits),
            "signup_credits": to_credits(terms.signup_credits),
            "features": list(terms.free.features),
        },
        "plans": [_plan(plan) for plan in terms.plans],
        "credit_packs": [_credits(price) for price in terms.credit_prices],
        "payments_enabled": payments_enabled(),
    }


def _plan(plan: Plan) -> dict[str, Any]:
    told: dict[str, Any] = {
        "tier": plan.tier,
        "name": plan.name,
        "interval": plan.interval,
        "amount": plan.amount,
        "currency": plan.currency,
        "included_credits": to_credits(plan.included_credits),
        "features": list(plan.features),
        "price": plan.price,
    }
    if plan.unit_amount_decimal is not None:
        told["unit_amount_decimal"] = plan.unit_amount_decimal
    if plan.interval_count != 1:
        told["interval_count"] = plan.interval_count
    if plan.price_type == "metered":
        told |= {"price_type": plan.price_type, "free_credits": to_credits(plan.free_credits)}
    return told


def _credits(price: CreditPrice) -> dict[str, Any]:
    low, high = (price.credits, price.credits) if price.credits else (price.min_credits, price.max_credits)
    told: dict[str, Any] = {
        "price": price.price,
        "unit_amount": price.unit_amount,
        "currency": price.currency,
        "credits_per_unit": to_credits(price.credits_per_unit),
        "min_credits": None if low is None else to_credits(low),
        "max_credits": None if high is None else to_credits(high),
    }
    if price.unit_amount_decimal is not None:
        told["unit_amount_decimal"] = price.unit_amount_decimal
    if price.transform is not None:
        told["transform_quantity"] = _transform(price.transform)
    return told


def _transform(transform: Transform) -> dict[str, Any]:
    return {"divide_by": transform.divide_by, "round": transform.round}


# The pricing page


@dataclass(frozen=True)
class Card:
    """One tier for the chosen interval, or for the one it is sold for. `saved`: against twelve months of paying
    monthly, in minor units; 0 where that says nothing.
    """

    plan: Plan
    amount: Decimal | None
    saved: int = 0

    @property
    def is_sold(self) -> bool:
        return self.amount is not None and self.plan.price is not None


def cards(interval: str) -> list[Card]:
    """The tiers with an amount, the cheapest first, then those that are agreed with people."""
    terms = catalog.current()
    shown = [_card(terms, tier, interval) for tier in terms.by_tier if tier != FREE]
    return sorted(shown, key=lambda card: (card.amount is None, _monthly(card.plan), card.plan.tier))


def has_choice(plans: Iterable[Plan]) -> bool:
    """Whether there is anything to switch between months and years."""
    return {plan.interval for plan in plans if plan.price is not None} >= set(INTERVALS)


def _card(terms: Catalog, tier: str, interval: str) -> Card:
    plan = terms.plan(tier, interval) or terms.plan(tier)
    assert plan is not None
    return Card(plan, amount_of(plan), _saved(plan, terms.plan(tier, "month")))


def amount_of(plan: Plan) -> Decimal | None:
    """Minor units, exact; None for a plan without an amount."""
    if plan.unit_amount_decimal is not None:
        return Decimal(plan.unit_amount_decimal)
    return None if plan.amount is None else Decimal(plan.amount)


def _saved(yearly: Plan, monthly: Plan | None) -> int:
    if monthly is None or yearly.interval != "year" or monthly.interval != "month":
        return 0
    if yearly.amount is None or monthly.amount is None or yearly.currency != monthly.currency:
        return 0
    paid_monthly = Decimal(12 * yearly.interval_count * monthly.amount) / monthly.interval_count
    return max(0, int(paid_monthly - yearly.amount))


def _monthly(plan: Plan) -> Decimal:
    months = plan.interval_count * (12 if plan.interval == "year" else 1)
    return (amount_of(plan) or Decimal(0)) / months
