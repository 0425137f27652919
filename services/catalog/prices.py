"""One price: Stripe's own fields (amount, currency, recurring …) and our keys in its metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

from amounts import MICRO
from services.catalog.reader import Reader, as_text, plain_decimal
from services.catalog.terms import FREE, CreditPrice, Finding, OveragePrice, OverageTier, Plan, Transform

Price = Plan | CreditPrice | OveragePrice

FILE_ID = "file_id"
"""The metadata key by which `catalog push` finds the price of an entry in the file again."""
BOOKKEEPING = ("product", FILE_ID)
"""Metadata keys of a price that are allowed and say nothing about its terms."""
PRICE_KEYS = frozenset(
    [
        "price_type",
        "tier",
        "name",
        "included_credits",
        "included_spus",
        "features",
        "rollover_max",
        "requests_per_minute",
        "free_credits",
        "credits",
        "credits_per_unit",
        "min_credits",
        "min_spu_purchase",
        "max_credits",
        "max_spu_purchase",
    ]
)
"""Metadata keys that say something about a price's terms."""

_CURRENCY = re.compile(r"[a-z]{3}")
_MAX_AMOUNT = 999_999_999_999
_DECIMAL_PLACES = 12
_MAX_TIER_NAME = 100


@dataclass(frozen=True)
class _Money:
    currency: str
    unit_amount: int | None
    unit_amount_decimal: str | None

    @property
    def is_free(self) -> bool:
        return self.unit_amount == 0


def read_price(raw: Mapping[str, Any], object_id: str, findings: list[Finding], free_monthly: int = 0) -> Price | None:
    """The price, or None where it is mistaken; `findings` then says why. Inactive prices are None in silence.

    `free_monthly` (micro-credits) is the allowance of a price of the tier `free` that names none itself.
    """
    if raw.get("active") is False:
        return None
    metadata = raw.get("metadata") or {}
    reader = Reader(object_id, metadata if isinstance(metadata, Mapping) else {}, findings)
    price_type = reader.text("price_type")
    if price_type is None:
        reader.complain("price_type is missing", f"set it to one of {', '.join(_KINDS)}")
        return None
    if price_type not in _KINDS:
        reader.complain(f"unknown price_type '{price_type[:40]}'", f"use one of {', '.join(_KINDS)}")
        return None
    if price_type != "overage" and (raw.get("billing_scheme") == "tiered" or raw.get("tiers")):
        reader.complain("billing_scheme=tiered", "only overage prices can be tiered; use a price per unit")
    price = _KINDS[price_type](raw, reader)
    if isinstance(price, Plan) and price.tier == FREE and not reader.text("included_credits", "included_spus"):
        price = replace(price, included_credits=free_monthly)
    for key in BOOKKEEPING:
        reader.text(key)
    reader.report_unknown()
    return price if reader.usable else None


def is_local(raw: Mapping[str, Any]) -> bool:
    """Whether the price stands for a plan that Stripe can not hold: the tier free, or one without an amount."""
    metadata = raw.get("metadata") or {}
    if not isinstance(metadata, Mapping) or metadata.get("price_type") != "base":
        return False
    return metadata.get("tier") == FREE or (raw.get("unit_amount") is None and raw.get("unit_amount_decimal") is None)


def _base(raw: Mapping[str, Any], reader: Reader) -> Plan:
    money = _money(raw, reader, required=False)
    interval, count = _interval(raw, reader, required=money is not None and not money.is_free)
    included = reader.credits("included_credits", "included_spus")
    tier = _tier(reader)
    if tier == FREE and money is not None and not money.is_free:
        reader.complain("the tier free can not have an amount", "name the tier differently")
    if _recurring(raw).get("usage_type") == "metered":
        reader.complain("the price is metered in Stripe", "use price_type=metered, or a price with usage_type=licensed")
    if included is None and money is not None and tier != FREE and reader.usable:
        reader.complain("included_credits is missing", "set it; 0 for a plan without credits of its own")
    return Plan(
        tier=tier,
        name=_plan_name(reader, tier),
        interval=interval,
        interval_count=count,
        amount=money.unit_amount if money else None,
        unit_amount_decimal=money.unit_amount_decimal if money else None,
        currency=money.currency if money else None,
        included_credits=included or 0,
        features=reader.listing("features", ";") or (),
        rollover_max=reader.credits("rollover_max"),
        price=as_text(raw.get("id")) or None,
        requests_per_minute=reader.integer("requests_per_minute", 1, 1_000_000),
    )


def _metered(raw: Mapping[str, Any], reader: Reader) -> Plan:
    money = _money(raw, reader)
    interval, count = _interval(raw, reader)
    tier = _tier(reader)
    if tier == FREE:
        reader.complain("the tier free can not be pay-as-you-go", "name the tier differently")
    if _recurring(raw).get("usage_type") == "licensed":
        reader.complain("the price is not metered in Stripe", "make a price with usage_type=metered and a meter")
    return Plan(
        tier=tier,
        name=_plan_name(reader, tier),
        interval=interval,
        interval_count=count,
        amount=money.unit_amount if money else None,
        unit_amount_decimal=money.unit_amount_decimal if money else None,
        currency=money.currency if money else None,
        features=reader.listing("features", ";") or (),
        price=as_text(raw.get("id")) or None,
        requests_per_minute=reader.integer("requests_per_minute", 1, 1_000_000),
        price_type="metered",
        free_credits=reader.credits("free_credits") or 0,
        meter=as_text(_recurring(raw).get("meter")),
        transform=_transform(raw, reader),
    )


def _credit(raw: Mapping[str, Any], reader: Reader) -> CreditPrice:
    money = _money(raw, reader)
    if _recurring(raw).get("interval") is not None:
        reader.complain("a credit price can not recur", "make it a one-time price")
    pack = reader.credits("credits", positive=True)
    per_unit = reader.credits("credits_per_unit", positive=True)
    low = reader.credits("min_credits", "min_spu_purchase")
    high = reader.credits("max_credits", "max_spu_purchase", positive=True)
    if pack is not None and (per_unit, low, high) != (None, None, None):
        reader.complain("a fixed pack has no credits_per_unit, min_credits or max_credits", "keep credits alone")
    if low is not None and high is not None and low > high:
        reader.complain("min_credits is above max_credits", "swap or correct them")
    return CreditPrice(
        price=as_text(raw.get("id")) or None,
        currency=money.currency if money else "",
        unit_amount=money.unit_amount if money else None,
        unit_amount_decimal=money.unit_amount_decimal if money else None,
        credits_per_unit=per_unit or pack or MICRO,
        min_credits=low,
        max_credits=high,
        credits=pack,
        transform=_transform(raw, reader),
    )


def _overage(raw: Mapping[str, Any], reader: Reader) -> OveragePrice:
    tiers = _tiers(raw, reader)
    money = _money(raw, reader, required=not tiers)
    currency = money.currency if money else _currency(raw, reader)
    return OveragePrice(
        price=as_text(raw.get("id")) or None,
        currency=currency or "",
        unit_amount=money.unit_amount if money and not tiers else None,
        unit_amount_decimal=money.unit_amount_decimal if money and not tiers else None,
        credits_per_unit=reader.credits("credits_per_unit", positive=True) or MICRO,
        tiers=tiers,
        meter=as_text(_recurring(raw).get("meter")),
        transform=_transform(raw, reader),
    )


_KINDS: dict[str, Callable[[Mapping[str, Any], Reader], Price]] = {
    "base": _base,
    "credit": _credit,
    "credits": _credit,
    "overage": _overage,
    "metered": _metered,
}


def _tier(reader: Reader) -> str:
    tier = reader.text("tier")
    if tier is None:
        reader.complain("tier is missing", "set tier to the plan's name, the same on its monthly and yearly price")
        return ""
    if len(tier) > _MAX_TIER_NAME or not tier.isprintable():
        reader.complain("tier is not a usable name", f"use up to {_MAX_TIER_NAME} printable characters")
    return tier


def _plan_name(reader: Reader, tier: str) -> str:
    return reader.text("name") or tier.replace("_", " ").replace("-", " ").title()


def _recurring(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    recurring = raw.get("recurring")
    return recurring if isinstance(recurring, Mapping) else {}


def _interval(raw: Mapping[str, Any], reader: Reader, required: bool = True) -> tuple[str | None, int]:
    recurring = _recurring(raw)
    interval, count = recurring.get("interval"), recurring.get("interval_count")
    if interval is None:
        if required:
            reader.complain("interval is missing", "a plan is paid by the month or by the year")
    elif interval not in ("month", "year"):
        reader.complain(f"bad interval {interval!r:.40}", "a plan is paid by the month or by the year")
    count = 1 if count is None else _whole(count, 1, 36)
    if count is None:
        reader.complain("bad number: interval_count", "must be a whole number from 1 to 36")
    return (interval if isinstance(interval, str) else None), count or 1


def _currency(raw: Mapping[str, Any], reader: Reader) -> str | None:
    currency = (as_text(raw.get("currency")) or "").lower()
    if not _CURRENCY.fullmatch(currency):
        reader.complain("currency is missing or wrong", "use a three-letter code such as usd")
        return None
    return currency


def _money(raw: Mapping[str, Any], reader: Reader, required: bool = True) -> _Money | None:
    """The amount per unit and its currency; None where there is none, which only local plans may have."""
    exact = _exact_amount(raw, reader, "unit_amount")
    if exact is None:
        if required and reader.usable:
            reader.complain("the price has no amount", "set unit_amount, in minor units such as cents")
        return None
    currency = _currency(raw, reader)
    if currency is None:
        return None
    if exact % 1:
        return _Money(currency, None, f"{exact.normalize():f}")
    return _Money(currency, int(exact), None)


def _exact_amount(raw: Mapping[str, Any], reader: Reader, key: str) -> Decimal | None:
    """`key` or `key_decimal` in minor units. Stripe sends both, where both exist they must agree."""
    found: list[Decimal] = []
    for name, places in ((key, 0), (f"{key}_decimal", _DECIMAL_PLACES)):
        if raw.get(name) is None:
            continue
        number = _minor_units(raw[name], places)
        if number is None:
            cure = f"minor units with at most {places} decimals" if places else "a whole number of minor units"
            reader.complain(f"bad number: {name} = {str(raw[name])[:40]!r}", f"{cure}: 4900 is 49 dollars")
        else:
            found.append(number)
    if len(set(found)) > 1:
        reader.complain(f"{key} and {key}_decimal differ", f"keep {key} alone for whole amounts")
    return found[0] if found else None


def _minor_units(value: object, places: int) -> Decimal | None:
    text = None if isinstance(value, bool) else as_text(value)
    if text is None or (not places and "." in text):  # 49.00 was meant as dollars
        return None
    number = plain_decimal(text)
    return number if number is not None and number <= _MAX_AMOUNT and number == round(number, places) else None


def _whole(value: object, low: int, high: int) -> int | None:
    text = as_text(value)
    number = plain_decimal(text) if text is not None else None
    if number is None or number % 1 or not low <= number <= high:
        return None
    return int(number)


def _transform(raw: Mapping[str, Any], reader: Reader) -> Transform | None:
    given = raw.get("transform_quantity")
    if given is None:
        return None
    if isinstance(given, Mapping):
        divide_by, rounding = _whole(given.get("divide_by"), 1, 10**9), given.get("round")
        if divide_by is not None and rounding in ("up", "down"):
            return Transform(divide_by, str(rounding))
    reader.complain("bad transform_quantity", 'write it as { divide_by = 100, round = "up" }')
    return None


def _tiers(raw: Mapping[str, Any], reader: Reader) -> tuple[OverageTier, ...]:
    given = raw.get("tiers")
    if not given:
        if raw.get("billing_scheme") == "tiered":
            reader.complain("billing_scheme=tiered without tiers", "list its tiers")
        return ()
    if raw.get("tiers_mode", "graduated") != "graduated":
        reader.complain("tiers_mode is not graduated", "only graduated tiers can be billed as overage")
    tiers = tuple(_one_tier(tier, reader) for tier in given) if isinstance(given, list) else ()
    bounds = [tier.up_to for tier in tiers]
    if not bounds or bounds[-1] is not None or any(bound is None for bound in bounds[:-1]):
        reader.complain("the tiers do not end", "the last tier, and no other, is without up_to")
    elif any(low >= high for low, high in pairwise(bounds[:-1])):  # type: ignore[operator]
        reader.complain("the tiers are out of order", "each up_to is above the one before")
    return tiers


def _one_tier(raw: object, reader: Reader) -> OverageTier:
    tier = raw if isinstance(raw, Mapping) else {}
    bound = tier.get("up_to")
    up_to = None if bound in (None, "inf") else _whole(bound, 1, 10**15)
    if up_to is None and bound not in (None, "inf"):
        reader.complain("bad number: up_to of a tier", "a whole number of units, or none in the last tier")
    unit = _exact_amount(tier, reader, "unit_amount")
    flat = _exact_amount(tier, reader, "flat_amount")
    if unit is None and flat is None:
        reader.complain("a tier has no amount", "set unit_amount or flat_amount")
    return OverageTier(up_to, unit or Decimal(0), flat or Decimal(0))
