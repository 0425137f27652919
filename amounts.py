"""Credits at the edge are decimals with at most 6 places; inside they are integers of micro-credits."""

from __future__ import annotations

import functools
from decimal import Context, Decimal, InvalidOperation

MICRO = 1_000_000
"""Micro-credits in one credit."""

MAX_CREDITS = 1_000_000_000
"""The largest amount of credits a single request may name."""

MAX_BALANCE = 1_000 * MAX_CREDITS * MICRO
"""Micro-credits that one account's counters may reach: well inside 64 bits, and refused beyond."""

_MAX_DIGITS = 40

EXACT = Context(prec=100)
"""Adds up costs, which have up to 40 digits, without rounding."""


def to_micros(value: Decimal | int) -> int:
    """Exact micro-credits of a non-negative amount of credits.

    Raises ValueError, with a message for the customer, for anything that would have to be rounded or is out of range.
    """
    value = Decimal(value)
    if not value.is_finite():
        raise ValueError("Not a finite number.")
    if value < 0:
        raise ValueError("Must not be negative.")
    if value > MAX_CREDITS:
        raise ValueError(f"Must not be more than {MAX_CREDITS}.")
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    if len(digits) > _MAX_DIGITS:
        raise ValueError("Too many digits.")
    number = int("".join(map(str, digits)))
    shift = exponent + 6
    if shift >= 0 or number == 0:
        return number * 10**shift if number else 0
    micros, rest = divmod(number, 10**-shift) if -shift <= _MAX_DIGITS else (0, number)
    if rest:
        raise ValueError("At most 6 decimal places.")
    return micros


@functools.lru_cache(maxsize=10_000, typed=True)
def to_credits(micros: int) -> int | Decimal:
    """Credits of an amount of micro-credits, as the JSON number to answer: an int when whole.

    Each answer has a dozen, most of them zero or a price that has just been told; an equal Decimal is another amount.
    """
    whole, rest = divmod(micros, MICRO)
    if not rest:
        return whole
    return Decimal(micros).scaleb(-6).normalize()


def parse(text: str) -> Decimal:
    """The number a person typed. Raises ValueError."""
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        raise ValueError("Not a number.") from None
