"""What the catalog says, as values. Credits are micro-credits; money is in minor units of its currency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from services import rates
from services.rates import Rate

FREE = "free"
"""The tier every account has that pays for no other."""


@dataclass(frozen=True)
class Finding:
    """One mistake: the object that has it (a price's id, the product), what is wrong, and what to do."""

    object_id: str
    message: str
    cure: str

    def __str__(self) -> str:
        return f"{self.object_id}: {self.message} ({self.cure})"


@dataclass(frozen=True)
class Defaults:
    """What the environment says where the catalog is silent. Amounts are micro-credits."""

    credit_name: str = "credits"
    signup_credits: int = 0
    free_monthly_credits: int = 0
    alert_thresholds: tuple[int, ...] = (70, 90, 100)
    grace_days: int = 7
    suspend_days: int = 14
    grace_attempts: int = 3


@dataclass(frozen=True)
class Transform:
    """Stripe divides the quantity by `divide_by` and rounds `up` or `down` before it multiplies."""

    divide_by: int
    round: str


@dataclass(frozen=True)
class Plan:
    """A tier as it is sold for one interval. `included_credits` are per month, whatever the interval.

    `amount` is None where the price has fractions of a minor unit (then `unit_amount_decimal` has it) and for
    local plans, which have neither price id nor amount. `free_credits` is the free amount of a metered plan, whose
    units may be transformed.
    """

    tier: str
    name: str
    interval: str | None = None
    interval_count: int = 1
    amount: int | None = None
    unit_amount_decimal: str | None = None
    currency: str | None = None
    included_credits: int = 0
    features: tuple[str, ...] = ()
    rollover_max: int | None = None
    price: str | None = None
    requests_per_minute: int | None = None
    price_type: str = "base"
    free_credits: int = 0
    meter: str | None = None
    transform: Transform | None = None


@dataclass(frozen=True)
class CreditPrice:
    """Credits on sale: per unit (`credits_per_unit` each, within limits), or a fixed pack of `credits`."""

    price: str | None
    currency: str
    unit_amount: int | None
    unit_amount_decimal: str | None
    credits_per_unit: int
    min_credits: int | None = None
    max_credits: int | None = None
    credits: int | None = None
    transform: Transform | None = None


@dataclass(frozen=True)
class OverageTier:
    """Units up to and including `up_to` (None: no end) cost `unit_amount` each, plus `flat_amount` once."""

    up_to: int | None
    unit_amount: Decimal
    flat_amount: Decimal


@dataclass(frozen=True)
class OveragePrice:
    """What usage beyond all lots costs: an amount per unit of `credits_per_unit`, or graduated tiers."""

    price: str | None
    currency: str
    unit_amount: int | None
    unit_amount_decimal: str | None
    credits_per_unit: int
    tiers: tuple[OverageTier, ...] = ()
    meter: str | None = None
    transform: Transform | None = None


@dataclass(frozen=True)
class Catalog:
    """Everything that is configured, with the environment's defaults filled in. `version` 0: none is stored.

    `plans` are in the order they were written, without the tier `free`: that is `free` and always exists.
    `credit_value` is what one credit is worth, in the major currency unit.
    """

    credit_name: str
    signup_credits: int
    free_monthly_credits: int
    alert_thresholds: tuple[int, ...]
    grace_days: int
    suspend_days: int
    free: Plan
    credit_value: Decimal | None = None
    rates: Mapping[tuple[str, str | None], Rate] = field(default_factory=dict)
    plans: tuple[Plan, ...] = ()
    credit_prices: tuple[CreditPrice, ...] = ()
    overage_prices: tuple[OveragePrice, ...] = ()
    grace_attempts: int = 3
    version: int = 0
    by_tier: Mapping[str, tuple[Plan, ...]] = field(init=False, repr=False, compare=False)
    paced: Mapping[str, int] = field(init=False, repr=False, compare=False)
    """The requests a minute of each tier that has such a limit."""

    def __post_init__(self) -> None:
        found: dict[str, tuple[Plan, ...]] = {FREE: (self.free,)}
        for plan in self.plans:
            found[plan.tier] = (*found.get(plan.tier, ()), plan)
        object.__setattr__(self, "by_tier", found)
        limits = {tier: sold.requests_per_minute for tier in found if (sold := self.plan(tier)) is not None}
        object.__setattr__(self, "paced", {tier: limit for tier, limit in limits.items() if limit is not None})

    def plan(self, tier: str, interval: str | None = None) -> Plan | None:
        """The plan of a tier; without an interval the shortest one that is sold."""
        offers = self.by_tier.get(tier, ())
        if interval is not None:
            offers = tuple(plan for plan in offers if plan.interval == interval)
        return min(offers, key=_months, default=None)

    def rate(self, operation: str, model: str | None = None) -> Rate | None:
        """The catalog's rate for an operation, an exact model's own before the operation's."""
        return rates.find(self.rates, operation, model)

    @property
    def currency(self) -> str | None:
        """The currency of the first price that has one."""
        prices: tuple[Plan | CreditPrice | OveragePrice, ...] = self.plans
        prices += self.credit_prices + self.overage_prices
        return next((price.currency for price in prices if price.currency), None)


def _months(plan: Plan) -> int:
    return plan.interval_count * (12 if plan.interval == "year" else 1)
