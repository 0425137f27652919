"""What so many credits cost, told beforehand on pages. Stripe's own price objects decide what is paid."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import amounts
from amounts import to_credits
from errors import ValidationError
from services import catalog
from services.catalog import CreditPrice
from services.stripe import orders

_USUAL_UNITS = 100


@dataclass(frozen=True)
class Quote:
    """So many credits, as `typed`, and what they cost in minor units; or what is wrong with that many."""

    typed: str
    offer: CreditPrice | None = None
    credits: int | Decimal = 0
    total: int = 0
    problem: str | None = None


def quote(typed: str | None, problem: str | None = None) -> Quote | None:
    """The quote for what was typed, or for a usual amount; None where credits are not sold by number.

    `problem` is what a form that was sent is told; then nothing is quoted.
    """
    by_unit = [offer for offer in _for_sale() if offer.credits is None]
    if not by_unit:
        return None
    wanted = typed if typed is not None else str(to_credits(_usual(by_unit[0])))
    if problem is not None:
        return Quote(wanted, problem=problem)
    try:
        order = orders.find(credits=micros(wanted))
    except ValidationError as error:
        return Quote(wanted, problem=told(error))
    offer = next(offer for offer in _for_sale() if offer.price == order.price)
    return Quote(wanted, offer, to_credits(order.credits), orders.total(offer, order.quantity or 1))


def packs() -> list[tuple[CreditPrice, int | Decimal, int]]:
    """Each pack with its credits and what it costs, in minor units."""
    return [
        (offer, to_credits(offer.credits), orders.total(offer, 1)) for offer in _for_sale() if offer.credits is not None
    ]


def bounds() -> dict[str, int | Decimal | str]:
    """The limits of the field that takes the number: `step`, `min`, `max`. Several prices share no limits."""
    by_unit = [offer for offer in _for_sale() if offer.credits is None]
    if len(by_unit) != 1:
        return {"step": "any"}
    [offer] = by_unit
    step = offer.credits_per_unit
    found = {"step": step, "min": _least(offer)}
    if offer.max_credits is not None:
        found["max"] = offer.max_credits // step * step
    return {name: to_credits(value) for name, value in found.items()}


def micros(typed: str) -> int:
    """What somebody typed as micro-credits. Raises ValidationError on `credits`."""
    try:
        return amounts.to_micros(amounts.parse(typed))
    except ValueError as error:
        raise ValidationError({"credits": [str(error)]}) from None


def told(error: ValidationError) -> str:
    """What a form says under its field."""
    messages: dict[str, list[str]] = error.extra["errors"]
    return next(iter(messages.values()))[0]


def _for_sale() -> list[CreditPrice]:
    return [offer for offer in catalog.current().credit_prices if offer.price]


def _least(offer: CreditPrice) -> int:
    units = -(-offer.min_credits // offer.credits_per_unit) if offer.min_credits is not None else 1
    return max(1, units) * offer.credits_per_unit


def _usual(offer: CreditPrice) -> int:
    """A first proposal: the least there is, or a hundred units where there is no such limit."""
    if offer.min_credits is not None:
        return _least(offer)
    step = offer.credits_per_unit
    most = offer.max_credits // step if offer.max_credits is not None else _USUAL_UNITS
    return max(1, min(_USUAL_UNITS, most)) * step
