"""The spending order and how a charge is covered, over any lots, holds and amounts. Amounts are micro-credits."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.credit import Lot
from services import waterfall

DAY = datetime(2026, 11, 21, tzinfo=UTC)
RANK = {"allowance": 0, "purchased": 1, "granted": 2}


def lot(name: str, kind: str, remaining: int = 10, *, expires: int | None = None, made: int = 0) -> Lot:
    """`expires` and `made` in days from one fixed day."""
    return Lot(
        id=name,
        account_id="acc_1",
        kind=kind,
        issued=remaining,
        remaining=remaining,
        removed=0,
        expires_at=None if expires is None else DAY + timedelta(days=expires),
        created_at=DAY + timedelta(days=made),
    )


def names(lots: list[Lot]) -> list[str]:
    return [each.id for each in lots]


# The order


def test_allowance_goes_first_then_what_was_bought_then_what_was_given() -> None:
    lots = [lot("given", "granted", expires=1), lot("bought", "purchased"), lot("plan", "allowance", expires=30)]
    assert names(waterfall.in_order(lots)) == ["plan", "bought", "given"]


def test_within_a_kind_the_soonest_expiry_goes_first_and_no_expiry_last() -> None:
    lots = [
        lot("never", "granted", made=-9),
        lot("late", "granted", expires=20, made=-8),
        lot("soon", "granted", expires=2, made=-1),
    ]
    assert names(waterfall.in_order(lots)) == ["soon", "late", "never"]


def test_of_equal_expiries_the_oldest_goes_first() -> None:
    lots = [lot("b", "purchased", made=2), lot("c", "purchased", made=1), lot("a", "purchased", made=3)]
    assert names(waterfall.in_order(lots)) == ["c", "b", "a"]
    same = [lot("y", "granted", expires=5, made=2), lot("x", "granted", expires=5, made=1)]
    assert names(waterfall.in_order(same)) == ["x", "y"]


def test_of_equal_ages_the_first_id_goes_first() -> None:
    assert names(waterfall.in_order([lot("b", "granted"), lot("a", "granted")])) == ["a", "b"]


LOTS = st.lists(
    st.builds(
        lot,
        st.just(""),
        st.sampled_from(sorted(RANK)),
        st.integers(0, 50),
        expires=st.none() | st.integers(1, 4),
        made=st.integers(-3, 0),
    ),
    max_size=8,
).map(lambda lots: [_numbered(each, number) for number, each in enumerate(lots)])


def _numbered(each: Lot, number: int) -> Lot:
    each.id = f"lot_{number}"
    return each


@given(LOTS)
def test_no_lot_stands_before_one_that_should_be_spent_sooner(lots: list[Lot]) -> None:
    ordered = waterfall.in_order(lots)
    assert sorted(names(ordered)) == sorted(names(lots))
    for first, second in itertools.pairwise(ordered):
        assert RANK[first.kind] <= RANK[second.kind]
        if first.kind != second.kind:
            continue
        assert first.expires_at is not None or second.expires_at is None
        if first.expires_at == second.expires_at:
            assert first.created_at <= second.created_at
        elif second.expires_at is not None:
            assert first.expires_at is not None
            assert first.expires_at < second.expires_at


# Drawing


@given(LOTS, st.data())
def test_draws_take_exactly_the_amount_and_empty_each_lot_before_the_next(lots: list[Lot], data: st.DataObject) -> None:
    ordered = waterfall.in_order(lots)
    amount = data.draw(st.integers(0, sum(each.remaining for each in lots)))
    before = [each.remaining for each in ordered]
    taken = waterfall.draws(ordered, amount)
    parts = {each.id: part for each, part in taken}
    assert len(parts) == len(taken)
    assert sum(parts.values()) == amount
    assert all(0 < part <= each.remaining for each, part in taken)
    touched = [parts.get(each.id, 0) for each in ordered]
    last = max((place for place, part in enumerate(touched) if part), default=0)
    assert touched[:last] == before[:last], "a lot was spared although a later one was drawn from"
    assert [each.remaining for each in ordered] == before, "drawing decides, it changes nothing"


@given(LOTS, st.integers(1, 1000))
def test_more_than_the_lots_hold_is_never_drawn(lots: list[Lot], excess: int) -> None:
    with pytest.raises(ValueError, match="do not cover"):
        waterfall.draws(lots, sum(each.remaining for each in lots) + excess)


# Covering a charge

AMOUNTS = st.integers(0, 100)


@given(amount=AMOUNTS, remaining=AMOUNTS, held=AMOUNTS, headroom=AMOUNTS, enforce=st.booleans())
def test_the_parts_of_a_charge_sum_to_it(amount: int, remaining: int, held: int, headroom: int, enforce: bool) -> None:
    funding = waterfall.fund(amount, remaining=remaining, held=held, headroom=headroom, enforce=enforce)
    if funding is None:
        assert enforce
        return
    assert funding.from_lots + funding.overage + funding.unfunded == amount
    assert min(funding.from_lots, funding.overage, funding.unfunded) >= 0
    assert funding.from_lots <= max(0, remaining - held)
    assert funding.overage <= headroom
    if enforce:
        assert funding.unfunded == 0
    if funding.overage:
        assert funding.from_lots == max(0, remaining - held), "overage before the lots are used up"
    if funding.unfunded:
        assert funding.overage == max(0, headroom - max(0, held - remaining)), "unfunded before overage is used up"


@given(amount=AMOUNTS, remaining=AMOUNTS, held=AMOUNTS, headroom=AMOUNTS)
def test_a_charge_is_refused_exactly_when_lots_and_overage_beside_the_holds_do_not_reach(
    amount: int, remaining: int, held: int, headroom: int
) -> None:
    funding = waterfall.fund(amount, remaining=remaining, held=held, headroom=headroom, enforce=True)
    assert (funding is None) == (amount > 0 and amount > remaining + headroom - held)


@given(hold=st.integers(1, 100), amount=AMOUNTS, remaining=AMOUNTS, others=AMOUNTS, headroom=AMOUNTS)
def test_a_capture_is_never_refused_and_leaves_the_other_holds_theirs(
    hold: int, amount: int, remaining: int, others: int, headroom: int
) -> None:
    funding = waterfall.fund_capture(amount, hold=hold, remaining=remaining, other_holds=others, headroom=headroom)
    assert funding.from_lots + funding.overage + funding.unfunded == amount
    assert min(funding.from_lots, funding.overage, funding.unfunded) >= 0
    assert funding.from_lots <= remaining
    assert funding.overage <= headroom
    own = min(amount, hold, remaining)
    assert funding.from_lots >= own, "what was held is the capture's to spend"
    if funding.from_lots > own:
        assert remaining - funding.from_lots >= others, "beyond its hold it took what another hold needs"
    if funding.unfunded and amount <= hold:
        assert remaining < amount


@pytest.mark.parametrize(
    ("amount", "from_lots", "unfunded"),
    [(4, 4, 0), (10, 10, 0), (15, 15, 0), (30, 20, 10)],
)
def test_a_capture_of_less_equal_more_and_too_much(amount: int, from_lots: int, unfunded: int) -> None:
    """Ten held of fifty, another hold of thirty: twenty are this capture's at most."""
    funding = waterfall.fund_capture(amount, hold=10, remaining=50, other_holds=30, headroom=0)
    assert funding == waterfall.Funding(from_lots, 0, unfunded)


def test_overage_pays_what_no_lot_does() -> None:
    assert waterfall.fund(30, remaining=20, held=0, headroom=15, enforce=True) == waterfall.Funding(20, 10, 0)
    assert waterfall.fund(40, remaining=20, held=0, headroom=15, enforce=True) is None
    assert waterfall.fund(40, remaining=20, held=0, headroom=15, enforce=False) == waterfall.Funding(20, 15, 5)


def test_a_charge_of_nothing_is_never_refused() -> None:
    assert waterfall.fund(0, remaining=0, held=0, headroom=0, enforce=True) == waterfall.Funding(0, 0, 0)
