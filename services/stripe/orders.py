"""What somebody wants to buy, found in the catalog: nothing else is for sale, whatever a request names.

Credits are micro-credits.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import money
from amounts import to_credits
from errors import ValidationError
from services import catalog
from services.catalog import Catalog, CreditPrice, Plan


@dataclass(frozen=True)
class Order:
    """One line of a Checkout Session. `quantity` is None where Stripe meters it.

    `credits` are promised for the whole, `per_unit` for each of the quantity; a plan promises none of its own.
    """

    price: str
    mode: str
    quantity: int | None
    credits: int = 0
    per_unit: int = 0


def check(price: str | None, tier: str | None, interval: str | None, credits: int | None) -> None:
    """Whether a request says one thing. Raises ValidationError."""
    if price is None and tier is None and credits is None:
        raise ValidationError({"body": ["Name a price, a tier or an amount of credits."]})
    if tier is not None and price is not None:
        raise ValidationError({"tier": ["Send a tier or a price, not both."]})
    if tier is not None and credits is not None:
        raise ValidationError({"credits": ["A plan has no amount of credits."]})
    if interval is not None and tier is None:
        raise ValidationError({"interval": ["Goes with a tier."]})


def find(
    *, price: str | None = None, tier: str | None = None, interval: str | None = None, credits: int | None = None
) -> Order:
    """The order for a price of the catalog, a plan's tier, or an amount of credits. Raises ValidationError."""
    check(price, tier, interval, credits)
    terms = catalog.current()
    if tier is not None:
        return _plan(terms.plan(tier, interval), "tier")
    if price is None:
        assert credits is not None
        return _amount(terms, credits)
    for plan in terms.plans:
        if plan.price == price:
            if credits is not None:
                raise ValidationError({"credits": ["A plan has no amount of credits."]})
            return _plan(plan, "price")
    for offer in terms.credit_prices:
        if offer.price == price:
            return _offer(offer, credits)
    raise ValidationError({"price": ["Not for sale."]})


def _plan(plan: Plan | None, named: str) -> Order:
    if plan is None or plan.price is None:
        raise ValidationError({named: ["No such plan is for sale."]})
    return Order(plan.price, "subscription", None if plan.price_type == "metered" else 1)


def _amount(terms: Catalog, credits: int) -> Order:
    """At the first price that takes this amount; several may share the work by their limits."""
    problem: ValidationError | None = None
    for offer in sorted((one for one in terms.credit_prices if one.price), key=lambda one: one.credits is not None):
        try:
            return _offer(offer, credits)
        except ValidationError as error:
            problem = problem or error
    raise problem or ValidationError({"credits": ["No credits are for sale."]})


def _offer(offer: CreditPrice, credits: int | None) -> Order:
    assert offer.price is not None
    quantity = quantity_of(offer, credits)
    return Order(offer.price, "payment", quantity, quantity * offer.credits_per_unit, offer.credits_per_unit)


def quantity_of(offer: CreditPrice, credits: int | None) -> int:
    """How many units of the price are so many credits; 1 for a pack. Raises ValidationError."""
    if offer.credits is not None:
        if credits not in (None, offer.credits):
            raise ValidationError({"credits": [f"This pack has {to_credits(offer.credits)}."]})
        return 1
    if credits is None:
        raise ValidationError({"credits": ["How many?"]})
    quantity, rest = divmod(credits, offer.credits_per_unit)
    if rest or not quantity:
        raise ValidationError({"credits": [f"Must be a multiple of {to_credits(offer.credits_per_unit)}."]})
    if offer.min_credits is not None and credits < offer.min_credits:
        raise ValidationError({"credits": [f"Must be at least {to_credits(offer.min_credits)}."]})
    if offer.max_credits is not None and credits > offer.max_credits:
        raise ValidationError({"credits": [f"Must be at most {to_credits(offer.max_credits)}."]})
    return quantity


def total(offer: CreditPrice, quantity: int) -> int:
    """What Stripe will ask for so many units, taxes and discounts aside, in minor units."""
    unit = Decimal(offer.unit_amount_decimal or offer.unit_amount or 0)
    if offer.transform is None:
        return money.total(unit, quantity)
    return money.total(unit, quantity, offer.transform.divide_by, offer.transform.round)
