"""Amounts at the edge: what is taken exactly, what is refused with which words, and what JSON shows."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import amounts
from amounts import MAX_CREDITS, MICRO

MICROS = st.integers(0, MAX_CREDITS * MICRO)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1.5", 1_500_000),
        ("0.000001", 1),
        ("0", 0),
        ("-0", 0),
        ("0E+400", 0),
        ("0E-400", 0),
        ("1E9", 10**15),
        ("1000000000.000000", 10**15),
        ("1.1000000000000", 1_100_000),
        ("25e-1", 2_500_000),
    ],
)
def test_an_amount_is_taken_exactly(text: str, micros: int) -> None:
    assert amounts.to_micros(Decimal(text)) == micros


def test_whole_numbers_may_be_integers() -> None:
    assert amounts.to_micros(7) == 7_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.0000001", "At most 6 decimal places."),
        ("0.0000005", "At most 6 decimal places."),
        ("1E-7", "At most 6 decimal places."),
        ("1E-999999", "At most 6 decimal places."),
        ("-0.000001", "Must not be negative."),
        ("-1E+999999", "Must not be negative."),
        ("1000000000.000001", "Must not be more than 1000000000."),
        ("1E+999999", "Must not be more than 1000000000."),
        ("NaN", "Not a finite number."),
        ("sNaN", "Not a finite number."),
        ("Infinity", "Not a finite number."),
        ("-Infinity", "Not a finite number."),
        ("0." + "1" * 41, "Too many digits."),
    ],
)
def test_an_amount_that_would_need_rounding_or_is_out_of_range_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.") + "$"):
        amounts.to_micros(Decimal(text))


@pytest.mark.parametrize(
    ("micros", "shown"),
    [
        (0, "0"),
        (1, "0.000001"),
        (1_500_000, "1.5"),
        (120_000_000, "120"),
        (10**15, "1000000000"),
        (-2_500_000, "-2.5"),
        (-3_000_000, "-3"),
    ],
)
def test_json_shows_the_shortest_plain_number(micros: int, shown: str) -> None:
    assert f"{amounts.to_credits(micros):f}" == shown if micros % MICRO else str(amounts.to_credits(micros)) == shown


@pytest.mark.parametrize("micros", [0, MICRO, 10 * MICRO, 25_000 * MICRO])
def test_whole_credits_are_integers_in_json(micros: int) -> None:
    """Otherwise ten credits would be written `1E+1`."""
    assert type(amounts.to_credits(micros)) is int


@given(MICROS)
@example(MAX_CREDITS * MICRO)
def test_nothing_is_lost_on_the_way_out_and_in(micros: int) -> None:
    assert amounts.to_micros(Decimal(amounts.to_credits(micros))) == micros


@given(st.integers(-(10**21), 10**21))
def test_what_is_shown_is_the_amount(micros: int) -> None:
    assert Decimal(amounts.to_credits(micros)) * MICRO == micros


@given(st.decimals(min_value=0, max_value=MAX_CREDITS, allow_nan=False, allow_infinity=False))
def test_any_decimal_is_exact_or_refused(value: Decimal) -> None:
    try:
        micros = amounts.to_micros(value)
    except ValueError:
        assert value != value.quantize(Decimal("1E-6")) or len(value.as_tuple().digits) > 40
    else:
        assert Decimal(micros).scaleb(-6) == value


@pytest.mark.parametrize("text", ["1.5", " 1.5 ", "1.50", "15e-1"])
def test_a_person_may_type_a_number_with_blanks_around_it(text: str) -> None:
    assert amounts.parse(text) == Decimal("1.5")


@pytest.mark.parametrize("text", ["", " ", "one", "1,5", "1 5", "0x10"])
def test_what_is_not_a_number_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^Not a number\.$"):
        amounts.parse(text)
