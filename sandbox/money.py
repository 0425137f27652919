"""What a price and a quantity come to, in the currency's minor unit. Decimals throughout, rounded once, half up."""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Any

from babel.numbers import format_currency

from sandbox.shapes import Obj

# How many digits the minor unit has, where that is not two.
ZERO_DECIMAL = frozenset(
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"]
)
THREE_DECIMAL = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])


def rounded(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


def text(number: Decimal | int | None) -> str | None:
    """Stripe's decimals are strings without trailing zeros."""
    if number is None:
        return None
    return format(Decimal(number).normalize(), "f")


def amount(price: Obj, quantity: int | Decimal) -> int:
    """A line of this price, with packages and tiers."""
    units = Decimal(quantity)
    if packages := price["transform_quantity"]:
        way = ROUND_CEILING if packages["round"] == "up" else ROUND_FLOOR
        units = (units / packages["divide_by"]).quantize(Decimal(1), way)
    if price["billing_scheme"] == "tiered":
        return rounded(_tiered(price, units))
    return rounded(Decimal(price["unit_amount_decimal"] or 0) * units)


def _tiered(price: Obj, units: Decimal) -> Decimal:
    total, below = Decimal(0), Decimal(0)
    for tier in price["tiers"]:
        top = None if tier["up_to"] is None else Decimal(tier["up_to"])
        last = top is None or units <= top
        if price["tiers_mode"] == "volume":
            if last:
                return _tier(tier, units)
            continue
        share = units - below if last else (top or units) - below
        total += _tier(tier, share)
        if last:
            break
        below = top or below
    return total


def _tier(tier: dict[str, Any], units: Decimal) -> Decimal:
    if units <= 0 and tier["flat_amount_decimal"] is None:
        return Decimal(0)
    return Decimal(tier["unit_amount_decimal"] or 0) * units + Decimal(tier["flat_amount_decimal"] or 0)


def shown(minor: int, currency: str) -> str:
    """For people: `$29.00`."""
    digits = 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2
    pattern = "¤#,##0" + ("." + "0" * digits if digits else "")
    return format_currency(Decimal(minor).scaleb(-digits), currency.upper(), pattern, "en_US", currency_digits=False)
