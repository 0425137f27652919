"""How one operation becomes credits. Pure: no I/O and no settings; decimals in, integer micro-credits out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_05UP, ROUND_CEILING, ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from typing import Literal

from amounts import MAX_CREDITS, MICRO, to_micros

PREFIX = "rate:"

# Wide enough that no product or sum of accepted inputs is ever rounded. Only the division by credit_value may
# not end; ROUND_05UP never makes an inexact quotient look like a tie or a whole number, so rounding it again
# is exact.
_WIDE = Context(prec=250, rounding=ROUND_05UP)
_ZERO = Decimal(0)
_LIMIT = MAX_CREDITS * MICRO
_OVER_ANY_LIMIT = Decimal(MAX_CREDITS + 1)

_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,18})?|\.[0-9]{1,18}", re.ASCII)
_AMOUNTS = ("per_unit", "prompt_per_1k", "completion_per_1k", "cost_multiplier")
_CLAMPS = ("minimum", "maximum")
_FLAGS = ("bill_failed", "bill_retry")
_KEYS = (*_AMOUNTS, *_CLAMPS, "round", *_FLAGS, "op", "model")
_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Rate:
    """The price of an operation, for one exact model or (model None) for all that have no rate of their own.

    Amounts are credits. `text` is the rate in its written form: `parse_rate` reads it back to an equal rate.
    """

    op: str
    model: str | None = None
    per_unit: Decimal | None = None
    prompt_per_1k: Decimal | None = None
    completion_per_1k: Decimal | None = None
    cost_multiplier: Decimal | None = None
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    round: Literal["up", "none"] = "none"
    bill_failed: bool = False
    bill_retry: bool = False
    text: str = field(init=False, repr=False, compare=False)
    needs: tuple[str, ...] = field(init=False, repr=False, compare=False)
    floor_micros: int = field(init=False, repr=False, compare=False)
    ceiling_micros: int | None = field(init=False, repr=False, compare=False)
    prompt_each: Decimal = field(init=False, repr=False, compare=False)
    completion_each: Decimal = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # What every call would work out again is worked out here, once per catalog.
        put = object.__setattr__
        put(self, "text", _written(self))
        put(self, "needs", _needed_inputs(self))
        put(self, "floor_micros", to_micros(self.minimum) if self.minimum is not None else 0)
        put(self, "ceiling_micros", to_micros(self.maximum) if self.maximum is not None else None)
        put(self, "prompt_each", (self.prompt_per_1k or _ZERO).scaleb(-3, _WIDE))
        put(self, "completion_each", (self.completion_per_1k or _ZERO).scaleb(-3, _WIDE))


Rates = Mapping[tuple[str, str | None], Rate]
"""Rates by operation and exact model; model None is the operation's own rate."""


def find(rates: Rates, operation: str, model: str | None) -> Rate | None:
    """The rate in force: one for operation and exact model replaces the operation's own wholly."""
    if model is not None:
        exact = rates.get((operation, model))
        if exact is not None:
            return exact
    return rates.get((operation, None))


def missing_inputs(
    rate: Rate, *, prompt_tokens: int | None, completion_tokens: int | None, actual_cost: Decimal | None
) -> list[str]:
    """The fields this rate needs and did not get; `quantity` has a default and is never among them."""
    if not rate.needs:
        return []
    given = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "actual_cost": actual_cost,
    }
    return [name for name in rate.needs if given[name] is None]


def price(
    rate: Rate,
    *,
    quantity: Decimal | int,
    prompt_tokens: int | None,
    completion_tokens: int | None,
    actual_cost: Decimal | None,
    credit_value: Decimal | None,
) -> int:
    """The price in micro-credits: the exact sum, rounded, then clamped to the rate's minimum and maximum.

    Inputs are non-negative, and present where `missing_inputs` asks for them; `actual_cost` and
    `credit_value` (what one credit is worth) are in the major currency unit. Exact for inputs of up to
    60 digits.
    Raises ValueError when the price exceeds the largest amount of credits a request may name.
    """
    raw = _ZERO
    if rate.per_unit is not None:
        raw = _WIDE.multiply(rate.per_unit, quantity)
    if rate.prompt_per_1k is not None:
        raw = _WIDE.fma(rate.prompt_each, prompt_tokens, raw)  # type: ignore[arg-type]
    if rate.completion_per_1k is not None:
        raw = _WIDE.fma(rate.completion_each, completion_tokens, raw)  # type: ignore[arg-type]
    if rate.cost_multiplier is not None:
        if actual_cost is None or credit_value is None:
            raise ValueError("A rate based on cost needs actual_cost and credit_value.")
        # One division, last: the other parts join the numerator, so that nothing is rounded before the end.
        numerator = _WIDE.fma(raw, credit_value, _WIDE.multiply(actual_cost, rate.cost_multiplier))
        raw = _WIDE.divide(numerator, credit_value)
    return _clamped(rate, raw)


def _clamped(rate: Rate, raw: Decimal) -> int:
    if raw > _OVER_ANY_LIMIT:  # never an int: an exponent in the thousands must not cost memory
        micros = _LIMIT + 1
    elif rate.round == "up":
        micros = int(raw.to_integral_value(ROUND_CEILING)) * MICRO
    else:
        micros = int(raw.scaleb(6, _WIDE).to_integral_value(ROUND_HALF_UP))
    micros = max(micros, rate.floor_micros)
    if rate.ceiling_micros is not None and micros > rate.ceiling_micros:
        micros = rate.ceiling_micros
    if micros > _LIMIT:
        raise ValueError(f"The price would be more than {MAX_CREDITS} credits.")
    return micros


def is_billed(rate: Rate | None, *, success: bool, retry: bool) -> bool:
    """Whether work with these markers is charged: each marker present must be allowed by the rate."""
    if success and not retry:
        return True
    if rate is None:
        return False
    return (success or rate.bill_failed) and (not retry or rate.bill_retry)


def parse_rate(name: str, value: str) -> Rate:
    """The rate named `<operation>`, `<operation>@<model>`, or anything where the value has `op=`.

    A leading `rate:` in the name is allowed. Raises ValueError that says what is wrong.
    """
    items = _items(value)
    op, model = _subject(name, items)
    amounts = {key: _number(key, items[key]) for key in (*_AMOUNTS, *_CLAMPS) if key in items}
    if not any(key in amounts for key in (*_AMOUNTS, "minimum")):
        raise ValueError(f"no price: give one of {', '.join(_AMOUNTS)} or a minimum")
    for key in _CLAMPS:
        if key in amounts:
            _check_credits(key, amounts[key])
    if "minimum" in amounts and "maximum" in amounts and amounts["minimum"] > amounts["maximum"]:
        raise ValueError(f"minimum {items['minimum']} is above maximum {items['maximum']}")
    flags = {key: _flag(key, items[key]) for key in _FLAGS if key in items}
    return Rate(op=op, model=model, round=_rounding(items.get("round", "none")), **amounts, **flags)  # type: ignore[arg-type]


def parse_many(written: Mapping[str, str]) -> dict[tuple[str, str | None], Rate]:
    """Rates by operation and model from `{"<operation>[@model]": "per_unit=…"}`.

    Raises ValueError that names the entry at fault.
    """
    found: dict[tuple[str, str | None], Rate] = {}
    for name, value in written.items():
        try:
            rate = parse_rate(name, value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if (rate.op, rate.model) in found:
            raise ValueError(f"{name}: a second rate for {label(rate.op, rate.model)}")
        found[rate.op, rate.model] = rate
    return found


@lru_cache(maxsize=4096)
def from_json(written: str) -> Rates:
    """`parse_many` of an account's negotiated rates as they are stored; remembered, for the hot path."""
    return parse_many(json.loads(written))


def label(op: str, model: str | None) -> str:
    """`chat` or `chat@gpt-x`."""
    return op if model is None else f"{op}@{model}"


def _items(value: str) -> dict[str, str]:
    if not isinstance(value, str):
        raise ValueError("must be text such as per_unit=1")
    items: dict[str, str] = {}
    for part in filter(None, map(str.strip, value.split(","))):
        key, equals, content = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"'{part}' is not of the form key=value")
        if key not in _KEYS:
            raise ValueError(f"unknown key '{key}'; known are {', '.join(_KEYS)}")
        if key in items:
            raise ValueError(f"{key} is given twice")
        items[key] = content
    return items


def _subject(name: str, items: Mapping[str, str]) -> tuple[str, str | None]:
    """Operation and model; a model's name may itself contain `@`, an operation's in a key may not."""
    written, at, of_name = name.removeprefix(PREFIX).strip().partition("@")
    op, model = items.get("op"), items.get("model")
    if op is None:
        if at and model is not None:
            raise ValueError("the model is given both in the name and as model=")
        op = written.strip()
        model = of_name.strip() if at else model
    if not op:
        raise ValueError("the operation's name is empty")
    if model == "":
        raise ValueError("the model's name is empty")
    if "," in label(op, model):
        raise ValueError("names can not contain a comma")
    return op, model


def _number(key: str, text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{key}={text} is not a plain non-negative number such as 0.5")
    return Decimal(text)


def _check_credits(key: str, value: Decimal) -> None:
    try:
        to_micros(value)
    except ValueError as error:
        raise ValueError(f"{key}={value}: {str(error)[:1].lower()}{str(error)[1:].rstrip('.')}") from None


def _rounding(text: str) -> Literal["up", "none"]:
    if text not in ("up", "none"):
        raise ValueError(f"round={text}: must be up or none")
    return "up" if text == "up" else "none"


def _flag(key: str, text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise ValueError(f"{key}={text}: must be 1 or 0")
    return _TRUTH[text.lower()]


def _needed_inputs(rate: Rate) -> tuple[str, ...]:
    asks = {
        "prompt_tokens": rate.prompt_per_1k,
        "completion_tokens": rate.completion_per_1k,
        "actual_cost": rate.cost_multiplier,
    }
    return tuple(name for name, amount in asks.items() if amount is not None)


def _written(rate: Rate) -> str:
    parts = [f"op={rate.op}"]
    if rate.model is not None:
        parts.append(f"model={rate.model}")
    for key in (*_AMOUNTS, *_CLAMPS):
        amount = getattr(rate, key)
        if amount is not None:
            parts.append(f"{key}={amount:f}")
    if rate.round == "up":
        parts.append("round=up")
    parts.extend(f"{key}=1" for key in _FLAGS if getattr(rate, key))
    return ",".join(parts)
