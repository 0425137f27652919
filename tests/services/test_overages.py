"""What overage costs, and how much of it a sum of money allows: fractions, packs, graduated tiers, rounding once."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amounts import MAX_BALANCE, MICRO
from services import overages
from services.agreed import Overage
from services.catalog import OverageTier, Transform
from services.overages import Terms


def terms(amount: str = "2", per_unit: int = MICRO, **more: object) -> Terms:
    return Terms("price_1", "usd", Decimal(amount), per_unit, **more)  # type: ignore[arg-type]


TIERS = (
    OverageTier(100, Decimal(5), Decimal(0)),
    OverageTier(1000, Decimal("2.5"), Decimal(300)),
    OverageTier(None, Decimal(1), Decimal(0)),
)


@pytest.mark.parametrize(
    ("agreed", "credits", "exact", "billed"),
    [
        (terms(), "10", "20", 20),
        (terms(), "10.4", "20.8", 21),
        (terms(), "0.25", "0.5", 1),
        (terms(), "0.249999", "0.499998", 0),
        (terms("0.015"), "100", "1.5", 2),
        (terms("100", 1000 * MICRO), "1", "0.1", 0),
        (terms("100", 1000 * MICRO), "1234.5", "123.45", 123),
        (terms("7", transform=Transform(100, "up")), "100.000001", "14", 14),
        (terms("7", transform=Transform(100, "down")), "199.999999", "7", 7),
        (terms("0", tiers=TIERS), "0", "0", 0),
        (terms("0", tiers=TIERS), "100", "500", 500),
        (terms("0", tiers=TIERS), "100.5", "801.25", 801),
        (terms("0", tiers=TIERS), "1000", "3050", 3050),
        (terms("0", tiers=TIERS), "1001", "3051", 3051),
    ],
)
def test_cost(agreed: Terms, credits: str, exact: str, billed: int) -> None:
    micros = int(Decimal(credits) * MICRO)
    assert agreed.cost(micros) == Fraction(exact)
    assert agreed.amount(micros) == billed
    assert overages.parse(agreed.to_json()) == agreed


def test_with_three_decimals_the_last_one_is_never_charged() -> None:
    """Stripe refuses such sums."""
    agreed = Terms("price_1", "kwd", Decimal("2.5"), MICRO)
    assert [agreed.amount(number * MICRO) for number in (1, 2, 5, 6, 494)] == [0, 10, 10, 20, 1240]
    assert overages.limit(agreed.to_json(), Overage(True, 1236)) == 492 * MICRO
    assert agreed.amount(492 * MICRO) == 1230


PRICES = st.one_of(
    st.builds(
        terms,
        st.decimals(Decimal("0.000000000001"), 1000, allow_nan=False, places=12).map(str),
        st.sampled_from([MICRO, 1000 * MICRO, 7 * MICRO // 2]),
    ),
    st.builds(
        terms, st.just("3"), transform=st.builds(Transform, st.integers(1, 500), st.sampled_from(["up", "down"]))
    ),
    st.just(terms("0", tiers=TIERS)),
)


@given(PRICES, st.integers(0, 10**7))
def test_the_most_that_a_cap_allows_costs_no_more_than_it_and_a_little_more_does(agreed: Terms, cap: int) -> None:
    most = overages.limit(agreed.to_json(), Overage(True, cap))
    assert agreed.cost(most) <= cap
    assert agreed.amount(most) <= cap
    assert most == MAX_BALANCE or agreed.cost(most + 1) > cap


def test_without_agreement_there_is_none_and_without_a_cap_only_where_the_plan_is_pay_as_you_go() -> None:
    text, plan = terms().to_json(), terms(metered=True, by_plan=True).to_json()
    assert overages.limit(None, Overage(True, 100)) == 0
    assert overages.limit(text, Overage(False, 100)) == 0
    assert overages.limit(text, Overage(True, None)) == 0
    assert overages.limit(text, Overage(True, 100)) == 50 * MICRO
    assert overages.limit(plan, Overage()) == MAX_BALANCE
    assert overages.limit(plan, Overage(False, 100)) == 50 * MICRO


def test_terms_hold_only_in_the_currency_they_were_agreed_in() -> None:
    agreed = Overage(True, 100, terms().to_json())
    assert overages.in_force(None, "usd", agreed) == agreed.terms
    assert overages.in_force(None, "eur", agreed) is None
    assert overages.in_force(None, "usd", Overage(False, 100, agreed.terms)) is None
    assert overages.in_force("own", "eur", agreed) == "own"
