"""Rates: what is accepted, and prices against plain fractions."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amounts import MAX_CREDITS, MICRO
from services import rates
from services.rates import Rate, parse_rate

NOTHING: dict[str, Any] = {
    "prompt_tokens": None,
    "completion_tokens": None,
    "actual_cost": None,
    "credit_value": None,
}


def price(rate: Rate, quantity: Decimal | int = 1, **inputs: Any) -> int:
    return rates.price(rate, quantity=quantity, **{**NOTHING, **inputs})


class TestParse:
    def test_operation(self) -> None:
        rate = parse_rate("rate:chat", "prompt_per_1k=0.5, completion_per_1k=1.5,minimum=0.1")
        assert rate == Rate(
            op="chat",
            prompt_per_1k=Decimal("0.5"),
            completion_per_1k=Decimal("1.5"),
            minimum=Decimal("0.1"),
        )

    def test_operation_and_model(self) -> None:
        rate = parse_rate("rate:chat@claude@20261001", "per_unit=2,round=up,bill_failed=1,bill_retry=true")
        assert (rate.op, rate.model) == ("chat", "claude@20261001")
        assert (rate.round, rate.bill_failed, rate.bill_retry) == ("up", True, True)

    def test_names_in_the_value(self) -> None:
        rate = parse_rate("rate:r1", "op=a_long_operation,model=vendor/model=v1@x,per_unit=1")
        assert (rate.op, rate.model) == ("a_long_operation", "vendor/model=v1@x")

    def test_space_and_a_last_comma_mean_nothing(self) -> None:
        assert parse_rate(" chat @ m ", " per_unit = 1 , \n") == parse_rate("chat@m", "per_unit=1")

    def test_model_alone_in_the_value(self) -> None:
        rate = parse_rate("chat", "model=m,per_unit=1")
        assert (rate.op, rate.model) == ("chat", "m")

    @pytest.mark.parametrize(
        ("name", "value", "says"),
        [
            ("rate:chat", "", "no price"),
            ("rate:chat", "round=up", "no price"),
            ("rate:chat", "maximum=3", "no price"),
            ("rate:chat", "per_unit", "key=value"),
            ("rate:chat", "per_units=1", "unknown key 'per_units'"),
            ("rate:chat", "per_unit=1,per_unit=2", "given twice"),
            ("rate:chat", "per_unit=", "plain non-negative number"),
            ("rate:chat", "per_unit=-1", "plain non-negative number"),
            ("rate:chat", "per_unit=NaN", "plain non-negative number"),
            ("rate:chat", "per_unit=1e9", "plain non-negative number"),
            ("rate:chat", "per_unit=1_000", "plain non-negative number"),
            ("rate:chat", "per_unit=٣", "plain non-negative number"),
            ("rate:chat", "minimum=0.0000001", "at most 6 decimal places"),
            ("rate:chat", "minimum=2,maximum=1", "above maximum"),
            ("rate:chat", "per_unit=1,round=down", "must be up or none"),
            ("rate:chat", "per_unit=1,bill_failed=maybe", "must be 1 or 0"),
            ("rate:", "per_unit=1", "operation's name is empty"),
            ("rate:@m", "per_unit=1", "operation's name is empty"),
            ("rate:chat@", "per_unit=1", "model's name is empty"),
            ("rate:chat@m", "per_unit=1,model=n", "both in the name"),
            ("rate:a,b", "per_unit=1", "comma"),
        ],
    )
    def test_mistakes(self, name: str, value: str, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            parse_rate(name, value)

    def test_many_names_the_entry_at_fault(self) -> None:
        assert set(rates.parse_many({"a": "per_unit=1", "a@m": "per_unit=2"})) == {("a", None), ("a", "m")}
        with pytest.raises(ValueError, match=r"^b: unknown key 'x'"):
            rates.parse_many({"a": "per_unit=1", "b": "x=1"})
        with pytest.raises(ValueError, match=r"^b: a second rate for a$"):
            rates.parse_many({"a": "per_unit=1", "b": "op=a,per_unit=1"})

    def test_from_json(self) -> None:
        found = rates.from_json(json.dumps({"chat@m": "per_unit=3"}))
        assert rates.find(found, "chat", "m") == Rate(op="chat", model="m", per_unit=Decimal(3))


class TestFind:
    RATES = rates.parse_many({"chat": "per_unit=1,minimum=5", "chat@m": "per_unit=2"})

    @pytest.mark.parametrize(
        ("operation", "model", "expected"),
        [
            ("chat", None, "op=chat,per_unit=1,minimum=5"),
            ("chat", "other", "op=chat,per_unit=1,minimum=5"),
            ("chat", "M", "op=chat,per_unit=1,minimum=5"),
            ("chat", "m", "op=chat,model=m,per_unit=2"),  # wholly: the minimum does not carry over
            ("page", "m", None),
        ],
    )
    def test_find(self, operation: str, model: str | None, expected: str | None) -> None:
        rate = rates.find(self.RATES, operation, model)
        assert (rate.text if rate else None) == expected


class TestPrice:
    @pytest.mark.parametrize(
        ("value", "inputs", "micros"),
        [
            ("per_unit=0.5", {}, 500_000),
            ("per_unit=0.5", {"quantity": 3}, 1_500_000),
            ("per_unit=2", {"quantity": Decimal("0.25")}, 500_000),
            ("per_unit=0", {}, 0),
            ("minimum=5", {}, 5 * MICRO),
            (
                "prompt_per_1k=0.5,completion_per_1k=1.5",
                {"prompt_tokens": 1234, "completion_tokens": 567},
                1_467_500,
            ),
            ("prompt_per_1k=0.0005", {"prompt_tokens": 1}, 1),  # 0.0000005 is a tie: half goes up
            ("prompt_per_1k=0.00049999", {"prompt_tokens": 1}, 0),
            ("prompt_per_1k=0.5,round=up", {"prompt_tokens": 1}, MICRO),
            ("prompt_per_1k=0.5,round=up", {"prompt_tokens": 0}, 0),
            ("per_unit=1,round=up,maximum=2.5", {"quantity": Decimal("2.1")}, 2_500_000),  # clamped last
            ("per_unit=0.1,minimum=0.25", {}, 250_000),
            ("per_unit=9,maximum=4", {"quantity": 10**9}, 4 * MICRO),
            (
                "cost_multiplier=1.5",
                {"actual_cost": Decimal("0.023"), "credit_value": Decimal("0.01")},
                3_450_000,
            ),
            ("cost_multiplier=1", {"actual_cost": Decimal(1), "credit_value": Decimal(3)}, 333_333),
            ("cost_multiplier=2", {"actual_cost": Decimal(1), "credit_value": Decimal(3)}, 666_667),
        ],
    )
    def test_by_hand(self, value: str, inputs: dict[str, Any], micros: int) -> None:
        assert price(parse_rate("x", value), **inputs) == micros

    def test_more_than_any_request_may_name(self) -> None:
        rate = parse_rate("x", "per_unit=1")
        assert price(rate, MAX_CREDITS) == MAX_CREDITS * MICRO
        with pytest.raises(ValueError, match="more than 1000000000 credits"):
            price(rate, Decimal("1000000000.000001"))
        with pytest.raises(ValueError, match="more than"):
            price(
                parse_rate("x", "cost_multiplier=1"),
                actual_cost=Decimal("1E+999999"),
                credit_value=Decimal(1),
            )

    def test_a_cost_without_the_worth_of_a_credit(self) -> None:
        with pytest.raises(ValueError, match="needs actual_cost and credit_value"):
            price(parse_rate("x", "cost_multiplier=1"), actual_cost=Decimal(1))

    def test_the_callers_decimal_context_does_not_matter(self) -> None:
        with localcontext() as context:
            context.prec = 3
            assert price(parse_rate("x", "per_unit=0.123456"), 1000) == 123_456_000


class TestMissing:
    @pytest.mark.parametrize(
        ("value", "missing"),
        [
            ("per_unit=1", []),
            ("minimum=1", []),
            ("prompt_per_1k=1", ["prompt_tokens"]),
            ("completion_per_1k=1,per_unit=1", ["completion_tokens"]),
            (
                "prompt_per_1k=1,completion_per_1k=1,cost_multiplier=2",
                ["prompt_tokens", "completion_tokens", "actual_cost"],
            ),
        ],
    )
    def test_missing(self, value: str, missing: list[str]) -> None:
        rate = parse_rate("x", value)
        none = {"prompt_tokens": None, "completion_tokens": None, "actual_cost": None}
        assert rates.missing_inputs(rate, **none) == missing
        assert rates.missing_inputs(rate, prompt_tokens=0, completion_tokens=0, actual_cost=Decimal(0)) == []


@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize("bill_failed", [True, False])
@pytest.mark.parametrize("bill_retry", [True, False])
def test_is_billed_only_when_every_marker_is(success: bool, retry: bool, bill_failed: bool, bill_retry: bool) -> None:
    rate = Rate(op="x", per_unit=Decimal(1), bill_failed=bill_failed, bill_retry=bill_retry)
    markers = ([] if success else [bill_failed]) + ([bill_retry] if retry else [])
    assert rates.is_billed(rate, success=success, retry=retry) == all(markers)
    assert rates.is_billed(None, success=success, retry=retry) == (not markers)


amount = st.decimals(min_value=0, max_value=50_000, places=9).map(abs) | st.decimals(0, 2, places=18).map(abs)
clamp = st.decimals(min_value=0, max_value=2000, places=6).map(abs)
name = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=",@"), min_size=1, max_size=20)


@st.composite
def written_rates(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    keys = ["per_unit", "prompt_per_1k", "completion_per_1k", "cost_multiplier"]
    chosen = draw(st.sets(st.sampled_from(keys), min_size=1))
    items = {key: f"{draw(amount):f}" for key in keys if key in chosen}
    low, high = sorted([draw(clamp), draw(clamp)])
    if draw(st.booleans()):
        items["minimum"] = f"{low:f}"
    if draw(st.booleans()):
        items["maximum"] = f"{high:f}"
    items["round"] = draw(st.sampled_from(["up", "none"]))
    return draw(name), items


def by_fractions(
    items: dict[str, str], quantity: Decimal, tokens: tuple[int, int], cost: Decimal, value: Decimal
) -> int:
    """The price rules written down once more, with nothing but fractions."""
    part = {key: Fraction(items.get(key, "0")) for key in ("per_unit", "prompt_per_1k", "completion_per_1k")}
    raw = part["per_unit"] * Fraction(quantity)
    raw += part["prompt_per_1k"] * tokens[0] / 1000 + part["completion_per_1k"] * tokens[1] / 1000
    raw += Fraction(cost) * Fraction(items.get("cost_multiplier", "0")) / Fraction(value)
    if items["round"] == "up":
        rounded = Fraction(math.ceil(raw))
    else:
        rounded = Fraction(math.floor(raw * MICRO + Fraction(1, 2)), MICRO)
    if "minimum" in items:
        rounded = max(rounded, Fraction(items["minimum"]))
    if "maximum" in items:
        rounded = min(rounded, Fraction(items["maximum"]))
    assert (rounded * MICRO).denominator == 1
    return int(rounded * MICRO)


@given(
    written=written_rates(),
    quantity=st.decimals(0, 10**9, places=6).map(abs) | st.integers(0, 50).map(Decimal),
    tokens=st.tuples(st.integers(0, 2**53), st.integers(0, 10_000)),
    cost=st.decimals(0, 10_000, places=12).map(abs) | st.integers(0, 20).map(lambda n: Decimal(n) / 8),
    value=st.decimals(Decimal("0.000001"), 10, places=6) | st.sampled_from([Decimal("0.01"), Decimal(3), Decimal(8)]),
)
def test_price_equals_plain_fractions(
    written: tuple[str, dict[str, str]],
    quantity: Decimal,
    tokens: tuple[int, int],
    cost: Decimal,
    value: Decimal,
) -> None:
    op, items = written
    rate = parse_rate(f"rate:{op}", ",".join(f"{key}={text}" for key, text in items.items()))
    expected = by_fractions(items, quantity, tokens, cost, value)
    inputs: dict[str, Any] = {
        "quantity": quantity,
        "prompt_tokens": tokens[0],
        "completion_tokens": tokens[1],
    }
    if expected > MAX_CREDITS * MICRO:
        with pytest.raises(ValueError, match="more than"):
            price(rate, **inputs, actual_cost=cost, credit_value=value)
    else:
        assert price(rate, **inputs, actual_cost=cost, credit_value=value) == expected


@given(numerator=st.integers(0, 10**12), denominator=st.integers(1, 10**9), up=st.booleans())
def test_quotients_near_a_tie_or_a_whole_number_round_exactly(numerator: int, denominator: int, up: bool) -> None:
    """cost ÷ credit_value is the only part that may not end; the rounding must still see the true value."""
    rate = parse_rate("x", f"cost_multiplier=1,round={'up' if up else 'none'}")
    raw = Fraction(numerator, denominator)
    expected = math.ceil(raw) * MICRO if up else math.floor(raw * MICRO + Fraction(1, 2))
    if expected <= MAX_CREDITS * MICRO:
        assert price(rate, actual_cost=Decimal(numerator), credit_value=Decimal(denominator)) == expected


@given(written=written_rates(), model=st.none() | name, failed=st.booleans())
def test_the_written_form_reads_back_to_the_same_rate(
    written: tuple[str, dict[str, str]], model: str | None, failed: bool
) -> None:
    op, items = written
    listed = ",".join(f"{key}={text}" for key, text in {**items, "bill_failed": str(int(failed))}.items())
    rate = parse_rate(rates.label(op, model), listed)
    again = parse_rate("any name", rate.text)
    assert again == rate
    assert again.text == rate.text


@given(st.text(max_size=40), st.text(max_size=120))
def test_any_text_is_a_rate_or_a_value_error(key: str, value: str) -> None:
    with suppress(ValueError):
        assert parse_rate(key, value).op
