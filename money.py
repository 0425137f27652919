"""What a price and a quantity come to, and how it looks. Amounts are integers in minor units of their currency.

Nothing here is ever charged: Stripe computes that from its own price objects. Pages show it beforehand.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal, InvalidOperation

from babel.numbers import get_currency_symbol

_NO_DECIMALS = frozenset(
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"]
)
_THREE_DECIMALS = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])


def decimals(currency: str) -> int:
    """How many decimals of the major unit a minor unit has: Stripe's rule, which is not ISO's for some."""
    code = currency.lower()
    return 0 if code in _NO_DECIMALS else 3 if code in _THREE_DECIMALS else 2


def smallest(currency: str) -> int:
    """The smallest sum, in minor units, that can be charged: with three decimals Stripe wants the last one to be 0."""
    return 10 if decimals(currency) == 3 else 1


def total(unit_amount: Decimal | int, quantity: int, divide_by: int = 1, rounding: str = "up") -> int:
    """Minor units of `quantity` at `unit_amount` each, rounded once, half up.

    Where Stripe's `transform_quantity` says so the quantity is divided first, and that rounded up or down.
    """
    packages = (Decimal(quantity) / divide_by).quantize(Decimal(1), ROUND_CEILING if rounding == "up" else ROUND_FLOOR)
    return int((Decimal(unit_amount) * packages).quantize(Decimal(1), ROUND_HALF_UP))


def show(amount: Decimal | int, currency: str) -> str:
    """`$1,234.50`, `¥1,500`, `KWD 1.250`; a fraction of a minor unit keeps its digits: `$0.0005`."""
    places = decimals(currency)
    major = Decimal(amount).scaleb(-places)
    exponent = major.normalize().as_tuple().exponent
    places = max(places, -exponent if isinstance(exponent, int) else 0)
    symbol = get_currency_symbol(currency.upper(), locale="en_US")
    gap = "\N{NO-BREAK SPACE}" if symbol[-1:].isalpha() else ""
    return f"{'−' if major < 0 else ''}{symbol}{gap}{abs(major):,.{places}f}"


def typed(text: str, currency: str) -> int:
    """Minor units of the major ones that a person typed, such as `19.90`. Raises ValueError with a message for them."""
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError("Not a number.") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError("Must be an amount of money.")
    places = decimals(currency)
    if amount >= 10**12:
        raise ValueError("Too much.")
    minor = amount.scaleb(places)
    if minor != minor.to_integral_value():
        raise ValueError(f"At most {places} decimal places." if places else "No decimal places.")
    return int(minor)


def plain(amount: int, currency: str) -> str:
    """The inverse of `typed`, for the field of a form: `19.90`."""
    return f"{Decimal(amount).scaleb(-decimals(currency)):f}"
