"""The one parser of the catalog's vocabulary: product metadata and prices in, a Catalog and its mistakes out.

It serves the catalog file and Stripe alike: prices have the shape of Stripe's price objects. Pure, and
tolerant: whatever is mistaken is left out and reported, the rest stays in force.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from services.catalog.prices import Price, read_price
from services.catalog.reader import Reader, as_text
from services.catalog.terms import FREE, Catalog, CreditPrice, Defaults, Finding, OveragePrice, Plan
from services.rates import PREFIX, Rate, label, parse_rate

PRODUCT = "[product]"
"""The name findings give the product of the catalog file."""

PRODUCT_KEYS = frozenset(
    [
        "credit_name",
        "signup_credits",
        "free_monthly_credits",
        "alert_thresholds",
        "grace_days",
        "suspend_days",
        "credit_value",
    ]
)
"""Metadata keys of a product that are settings, beside those that begin with `rate:`."""

_NO_DEFAULTS = Defaults()
_MAX_DAYS = 3650
_PERCENT = re.compile(r"[1-9][0-9]?|100")


def parse(
    product: Mapping[str, Any],
    prices: Iterable[Mapping[str, Any]],
    defaults: Defaults = _NO_DEFAULTS,
    *,
    product_id: str = PRODUCT,
    origins: Mapping[str, str] | None = None,
    version: int = 0,
) -> tuple[Catalog, list[Finding]]:
    """The catalog that metadata and prices describe, and every mistake in them; never raises for one.

    `origins` names the product that each key of the metadata stands on, where there are several.
    """
    findings: list[Finding] = []
    reader = Reader(product_id, product, findings, origins)
    stated = _read_product(reader, defaults)
    free_monthly = reader.credits("free_monthly_credits")
    credit_value = reader.decimal("credit_value")
    rates = _read_rates(reader, credit_value)
    reader.text("product")
    reader.report_unknown()
    usable = _read_prices(prices, findings, defaults.free_monthly_credits)
    plans = _unclaimed(usable, findings)
    free = _free_plan(plans, free_monthly, defaults.free_monthly_credits)
    catalog = Catalog(
        credit_name=stated.credit_name,
        signup_credits=stated.signup_credits,
        free_monthly_credits=free.included_credits,
        alert_thresholds=stated.alert_thresholds,
        grace_days=stated.grace_days,
        suspend_days=stated.suspend_days,
        free=free,
        credit_value=credit_value,
        rates=rates,
        plans=tuple(plan for plan in plans if plan.tier != FREE),
        credit_prices=tuple(price for _, price in usable if isinstance(price, CreditPrice)),
        overage_prices=tuple(price for _, price in usable if isinstance(price, OveragePrice)),
        grace_attempts=stated.grace_attempts,
        version=version,
    )
    return catalog, findings


def lint(
    product: Mapping[str, Any], prices: Sequence[Mapping[str, Any]], *, product_id: str = PRODUCT
) -> list[Finding]:
    """Every mistake in a product's metadata and its prices; none when all is well."""
    return parse(product, prices, product_id=product_id)[1]


def _read_product(reader: Reader, defaults: Defaults) -> Defaults:
    """What the product says, with the environment's word where it says nothing or something wrong."""
    signup = reader.credits("signup_credits")
    grace = reader.integer("grace_days", 0, _MAX_DAYS)
    suspend = reader.integer("suspend_days", 0, _MAX_DAYS)
    if grace is not None and suspend is not None and suspend < grace:
        reader.remark("suspend_days is below grace_days", "both count from the first failed payment", "suspend_days")
    return replace(
        defaults,
        credit_name=reader.text("credit_name") or defaults.credit_name,
        signup_credits=defaults.signup_credits if signup is None else signup,
        alert_thresholds=_thresholds(reader) or defaults.alert_thresholds,
        grace_days=defaults.grace_days if grace is None else grace,
        suspend_days=defaults.suspend_days if suspend is None else suspend,
    )


def _thresholds(reader: Reader) -> tuple[int, ...] | None:
    parts = reader.listing("alert_thresholds", ",")
    if parts is None:
        return None
    if not parts or not all(_PERCENT.fullmatch(part) for part in parts):
        reader.complain(
            "bad number: alert_thresholds", "percentages from 1 to 100 such as 70,90,100", "alert_thresholds"
        )
        return None
    return tuple(sorted({int(part) for part in parts}))


def _read_rates(reader: Reader, credit_value: Decimal | None) -> dict[tuple[str, str | None], Rate]:
    rates: dict[tuple[str, str | None], Rate] = {}
    for key, value in reader.prefixed(PREFIX).items():
        try:
            rate = parse_rate(key, value)
        except ValueError as error:
            reader.remark(f"bad rate '{key}': {error}", "correct its value, such as per_unit=1", key)
            continue
        if rate.cost_multiplier is not None and credit_value is None:
            reader.remark(f"'{key}' is cost-based and credit_value is missing", "set what one credit is worth", key)
        elif (rate.op, rate.model) in rates:
            reader.remark(f"'{key}' is a second rate for {label(rate.op, rate.model)}", "remove one of them", key)
        else:
            rates[rate.op, rate.model] = rate
    return rates


def _read_prices(
    prices: Iterable[Mapping[str, Any]], findings: list[Finding], free_monthly: int
) -> list[tuple[str, Price]]:
    """The usable prices with the names that findings give them."""
    usable: list[tuple[str, Price]] = []
    seen: set[str] = set()
    for number, raw in enumerate(prices, start=1):
        object_id = as_text(raw.get("id")) or f"prices[{number}]"
        if object_id in seen:
            findings.append(Finding(object_id, "two prices have this id", "remove or rename one of them"))
            continue
        seen.add(object_id)
        price = read_price(raw, object_id, findings, free_monthly)
        if price is not None:
            usable.append((object_id, price))
    return usable


def _unclaimed(prices: list[tuple[str, Price]], findings: list[Finding]) -> list[Plan]:
    """The plans; of two that claim one tier and interval the first stays."""
    owners: dict[tuple[str, str, int], str] = {}
    plans: list[Plan] = []
    for object_id, plan in prices:
        if not isinstance(plan, Plan):
            continue
        interval = "any" if plan.tier == FREE else plan.interval or "month"
        claim = (plan.tier, interval, plan.interval_count)
        if claim in owners:
            message = f"claims tier {plan.tier} and interval {interval} like {owners[claim]}"
            findings.append(Finding(object_id, message, "archive or change one of the two prices"))
            continue
        owners[claim] = object_id
        plans.append(plan)
    return plans


def _free_plan(plans: list[Plan], stated: int | None, default: int) -> Plan:
    """The tier `free`, which always exists. The product's word on its allowance is above its price's."""
    nothing = Plan(tier=FREE, name="Free", included_credits=default)
    written = next((plan for plan in plans if plan.tier == FREE), nothing)
    monthly = written.included_credits if stated is None else stated
    return replace(written, included_credits=monthly, amount=0, interval="month", interval_count=1)
