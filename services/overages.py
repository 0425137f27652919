"""What usage beyond all lots costs, and how much of it an agreed sum of money allows. Pure, without I/O.

Terms are kept as JSON: with the account's agreement, with a pay-as-you-go subscription, and with each bill. Credits are
micro-credits, money is in minor units. A price counts units of `credits_per_unit`; fractions of a unit cost their part,
and only the total is rounded, half up, once.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import money
from amounts import MAX_BALANCE, MICRO
from services.agreed import Overage
from services.catalog import OveragePrice, OverageTier, Plan, Transform

_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Terms:
    """`price` is Stripe's id. A `metered` price is billed by Stripe from what its meter counts.

    `by_plan`: the plan itself is pay-as-you-go. Whoever subscribed to it has agreed, and may or may not set a cap.
    """

    price: str | None
    currency: str
    unit_amount: Decimal
    credits_per_unit: int
    tiers: tuple[OverageTier, ...] = ()
    transform: Transform | None = None
    metered: bool = False
    by_plan: bool = False

    def to_json(self) -> str:
        tiers = [[tier.up_to, str(tier.unit_amount), str(tier.flat_amount)] for tier in self.tiers]
        transform = [self.transform.divide_by, self.transform.round] if self.transform else None
        kept = {
            "price": self.price,
            "currency": self.currency,
            "unit_amount": str(self.unit_amount),
            "credits_per_unit": self.credits_per_unit,
            "tiers": tiers,
            "transform": transform,
            "metered": self.metered,
            "by_plan": self.by_plan,
        }
        return json.dumps({name: value for name, value in kept.items() if value})

    def cost(self, credits: int) -> Fraction:
        """The exact cost of so many micro-credits."""
        units = Fraction(credits, self.credits_per_unit)
        if self.transform is not None:
            packs = units / self.transform.divide_by
            units = Fraction(math.ceil(packs) if self.transform.round == "up" else math.floor(packs))
        if not self.tiers:
            return units * Fraction(self.unit_amount)
        return _graduated(self.tiers, units)

    def amount(self, credits: int) -> int:
        """The same as it is billed: rounded half up to what can be charged."""
        step = money.smallest(self.currency)
        return math.floor(self.cost(credits) / step + _HALF) * step

    def whole_units(self, credits: int) -> int:
        """The units that a meter can be told of: it takes no fractions."""
        return credits // self.credits_per_unit


def _graduated(tiers: Iterable[OverageTier], units: Fraction) -> Fraction:
    """Each tier prices the units in it; its flat amount is due once something is."""
    total, below = Fraction(0), Fraction(0)
    for tier in tiers:
        within = (units if tier.up_to is None else min(units, Fraction(tier.up_to))) - below
        if within <= 0:
            break
        total += within * Fraction(tier.unit_amount) + Fraction(tier.flat_amount)
        below += within
    return total


@functools.lru_cache(maxsize=1_000)
def parse(text: str) -> Terms:
    """The inverse of `Terms.to_json`."""
    kept = json.loads(text)
    transform = kept.get("transform")
    return Terms(
        price=kept.get("price"),
        currency=kept["currency"],
        unit_amount=Decimal(kept["unit_amount"]),
        credits_per_unit=kept["credits_per_unit"],
        tiers=tuple(OverageTier(up_to, Decimal(unit), Decimal(flat)) for up_to, unit, flat in kept.get("tiers", ())),
        transform=Transform(*transform) if transform else None,
        metered=kept.get("metered", False),
        by_plan=kept.get("by_plan", False),
    )


def of_price(price: OveragePrice) -> Terms:
    """The terms on which an overage price is sold now."""
    return Terms(
        price=price.price,
        currency=price.currency,
        unit_amount=_exact(price.unit_amount, price.unit_amount_decimal),
        credits_per_unit=price.credits_per_unit,
        tiers=price.tiers,
        transform=price.transform,
        metered=price.meter is not None,
    )


def of_plan(plan: Plan) -> Terms | None:
    """Those of a pay-as-you-go plan, whose unit is a credit; None for other plans."""
    if plan.price_type != "metered" or plan.currency is None:
        return None
    return Terms(
        price=plan.price,
        currency=plan.currency,
        unit_amount=_exact(plan.amount, plan.unit_amount_decimal),
        credits_per_unit=MICRO,
        transform=plan.transform,
        metered=True,
        by_plan=True,
    )


def _exact(whole: int | None, exact: str | None) -> Decimal:
    return Decimal(whole if whole is not None else exact or 0)


def in_force(own: str | None, currency: str, agreed: Overage) -> str | None:
    """The terms (JSON) that hold in a subscription paid in `currency`: its own price's, else what was agreed.

    None where nothing is agreed, or in another currency than the subscription's invoices have.
    """
    if own is not None or not agreed.enabled or agreed.terms is None:
        return own
    return agreed.terms if parse(agreed.terms).currency == currency else None


def limit(terms: str | None, agreed: Overage) -> int:
    """How many micro-credits of overage a period may have under these terms."""
    by_plan = terms is not None and parse(terms).by_plan
    if terms is None or not (agreed.enabled or by_plan):
        return 0
    if agreed.cap_amount is None:
        return MAX_BALANCE if by_plan else 0
    return _within(terms, agreed.cap_amount)


@functools.lru_cache(maxsize=1_000)
def _within(text: str, cap: int) -> int:
    """The most micro-credits whose bill is no more than the cap."""
    terms, low, high = parse(text), 0, MAX_BALANCE
    cap -= cap % money.smallest(terms.currency)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if terms.cost(middle) <= cap else (low, middle - 1)
    return low
