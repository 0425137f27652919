"""The vocabulary: what a well-written catalog means, and that each mistake is found, named and left out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amounts import MICRO
from services.catalog import (
    Catalog,
    CreditPrice,
    Defaults,
    Finding,
    OveragePrice,
    OverageTier,
    Plan,
    Transform,
    lint,
    parse,
)

MONTHLY = {"interval": "month", "interval_count": 1, "usage_type": "licensed", "meter": None}


def base(**changes: Any) -> dict[str, Any]:
    """A monthly plan as Stripe tells it; keys of ours go into the metadata, None removes one."""
    price = {
        "id": "price_team",
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "currency": "usd",
        "unit_amount": 4900,
        "unit_amount_decimal": "4900",
        "recurring": MONTHLY,
        "tiers_mode": None,
        "transform_quantity": None,
        "metadata": {"price_type": "base", "tier": "team", "included_credits": "25000"},
    }
    return changed(price, changes)


def credit(**changes: Any) -> dict[str, Any]:
    price = {
        "id": "price_credit",
        "currency": "usd",
        "unit_amount": 100,
        "recurring": None,
        "metadata": {"price_type": "credit"},
    }
    return changed(price, changes)


def overage(**changes: Any) -> dict[str, Any]:
    price = {"id": "price_over", "currency": "usd", "unit_amount": 2, "metadata": {"price_type": "overage"}}
    return changed(price, changes)


OWN_FIELDS = frozenset(
    [
        "id",
        "active",
        "currency",
        "unit_amount",
        "unit_amount_decimal",
        "recurring",
        "billing_scheme",
        "tiers",
        "tiers_mode",
        "transform_quantity",
    ]
)


def changed(price: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    metadata = dict(price["metadata"])
    for key, value in changes.items():
        target = price if key in OWN_FIELDS else metadata
        if value is None and target is metadata:
            target.pop(key)
        else:
            target[key] = value
    return {**price, "metadata": metadata}


def read(*prices: dict[str, Any], product: dict[str, Any] | None = None) -> Catalog:
    """The catalog of prices that have no mistake."""
    catalog, findings = parse(product or {}, prices)
    assert findings == []
    return catalog


def only_finding(*prices: dict[str, Any], product: dict[str, Any] | None = None) -> Finding:
    findings = lint(product or {}, prices)
    assert len(findings) == 1, findings
    assert findings[0].message
    assert findings[0].cure
    return findings[0]


class TestProduct:
    def test_everything(self) -> None:
        catalog = read(
            product={
                "product": "spillway",
                "credit_name": "SPU",
                "signup_credits": "250.5",
                "free_monthly_credits": "10",
                "alert_thresholds": "90, 50,100",
                "grace_days": "3",
                "suspend_days": "5",
                "credit_value": "0.015",
                "rate:page": "per_unit=2",
                "rate:chat@m": "cost_multiplier=1.5",
            }
        )
        assert (catalog.credit_name, catalog.signup_credits) == ("SPU", 250_500_000)
        assert (catalog.free_monthly_credits, catalog.free.included_credits) == (10 * MICRO, 10 * MICRO)
        assert catalog.alert_thresholds == (50, 90, 100)
        assert (catalog.grace_days, catalog.suspend_days, catalog.credit_value) == (3, 5, Decimal("0.015"))
        assert catalog.rate("page", "any") is not None
        assert catalog.rate("chat", "m") is not None
        assert catalog.rate("chat") is None

    def test_the_environment_speaks_where_the_product_is_silent(self) -> None:
        defaults = Defaults("tokens", 7, 8, (50,), 1, 2)
        catalog, findings = parse({}, [], defaults)
        assert findings == []
        assert (catalog.credit_name, catalog.signup_credits, catalog.free_monthly_credits) == ("tokens", 7, 8)
        assert (catalog.alert_thresholds, catalog.grace_days, catalog.suspend_days) == ((50,), 1, 2)
        stated = {"signup_credits": "0", "free_monthly_credits": "0", "grace_days": "0"}
        catalog, _ = parse(stated, [], defaults)
        assert (catalog.signup_credits, catalog.free_monthly_credits, catalog.grace_days) == (0, 0, 0)

    @pytest.mark.parametrize(
        ("product", "says"),
        [
            ({"signup_credits": "many"}, "bad number: signup_credits"),
            ({"signup_credits": "-1"}, "bad number: signup_credits"),
            ({"signup_credits": "1.0000001"}, "bad number: signup_credits"),
            ({"signup_credits": "2000000000"}, "bad number: signup_credits"),
            ({"free_monthly_credits": "1,000"}, "bad number: free_monthly_credits"),
            ({"free_monthly_credits": ["1"]}, "neither text nor a number"),
            ({"alert_thresholds": "70,ninety"}, "bad number: alert_thresholds"),
            ({"alert_thresholds": "0,50"}, "bad number: alert_thresholds"),
            ({"alert_thresholds": "101"}, "bad number: alert_thresholds"),
            ({"alert_thresholds": ","}, "bad number: alert_thresholds"),
            ({"grace_days": "1.5"}, "bad number: grace_days"),
            ({"suspend_days": "9999"}, "bad number: suspend_days"),
            ({"grace_days": "9", "suspend_days": "8"}, "suspend_days is below grace_days"),
            ({"credit_value": "0"}, "bad number: credit_value"),
            ({"credit_value": "nan"}, "bad number: credit_value"),
            ({"signup_credit": "5"}, "unknown key 'signup_credit'"),
            ({"rate:chat": "per_unit=x"}, "bad rate 'rate:chat'"),
            ({"rate:chat": "cost_multiplier=2"}, "credit_value is missing"),
            ({"rate:a": "per_unit=1", "rate:b": "op=a,per_unit=2"}, "second rate for a"),
            ({"credit_name": "x" * 501}, "has 501 characters"),
            ({f"rate:{'x' * 36}": "per_unit=1"}, "has 41 characters"),
            ({f"rate:{n}": "per_unit=1" for n in range(51)}, "51 metadata keys"),
        ],
    )
    def test_mistakes(self, product: dict[str, Any], says: str) -> None:
        finding = only_finding(product=product)
        assert says in finding.message
        assert finding.object_id == "[product]"
        parse(product, [])

    def test_a_mistake_costs_only_itself(self) -> None:
        product = {"signup_credits": "x", "grace_days": "3", "rate:a": "per_unit=1", "rate:b": "nonsense"}
        catalog, findings = parse(product, [], Defaults(signup_credits=5))
        assert len(findings) == 2
        assert (catalog.signup_credits, catalog.grace_days, set(catalog.rates)) == (5, 3, {("a", None)})

    def test_a_near_miss_is_suggested(self) -> None:
        assert only_finding(product={"signup_credit": "5"}).cure == "did you mean signup_credits?"

    def test_within_stripes_limits(self) -> None:
        product = {f"rate:{n}": "per_unit=1" for n in range(48)} | {f"rate:{'x' * 35}": "per_unit=1"}
        assert lint({**product, "credit_name": "x" * 500}, []) == []


class TestPlans:
    def test_base_as_stripe_tells_it(self) -> None:
        catalog = read(
            base(
                name="Team",
                features="All of it; And more ;",
                rollover_max="5000",
                requests_per_minute="60",
            )
        )
        assert catalog.plans == (
            Plan(
                tier="team",
                name="Team",
                interval="month",
                amount=4900,
                currency="usd",
                included_credits=25_000 * MICRO,
                features=("All of it", "And more"),
                rollover_max=5000 * MICRO,
                price="price_team",
                requests_per_minute=60,
            ),
        )
        assert catalog.currency == "usd"

    def test_alias_and_fractions_of_a_cent(self) -> None:
        spus = base(included_credits=None, included_spus="7", unit_amount=None, unit_amount_decimal="0.5")
        plan = read(spus).plans[0]
        assert (plan.included_credits, plan.amount, plan.unit_amount_decimal) == (7 * MICRO, None, "0.5")

    def test_name_is_made_from_the_tier(self) -> None:
        assert read(base(tier="small_team")).plans[0].name == "Small Team"

    def test_look_up(self) -> None:
        yearly = {**MONTHLY, "interval": "year"}
        catalog = read(base(id="y", recurring=yearly, unit_amount=None, unit_amount_decimal="1"), base())
        assert [plan.price for plan in catalog.plans] == ["y", "price_team"]
        month, year = catalog.plan("team", "month"), catalog.plan("team", "year")
        assert month is not None
        assert month.price == "price_team"
        assert year is not None
        assert year.price == "y"
        assert catalog.plan("team") == month
        assert catalog.plan("nothing") is None
        assert catalog.plan("free") == catalog.free

    def test_local_plan_has_neither_price_nor_amount(self) -> None:
        raw = {"metadata": {"price_type": "base", "tier": "enterprise"}}
        plan = read(raw).plan("enterprise")
        assert plan is not None
        assert (plan.price, plan.amount, plan.currency, plan.interval, plan.included_credits) == (
            None,
            None,
            None,
            None,
            0,
        )

    def test_free_can_be_named_by_a_price(self) -> None:
        raw = {"metadata": {"price_type": "base", "tier": "free", "name": "Hobby", "features": "No card"}}
        catalog, _ = parse({}, [raw], Defaults(free_monthly_credits=9))
        assert (catalog.free.name, catalog.free.features, catalog.free.included_credits) == (
            "Hobby",
            ("No card",),
            9,
        )
        assert catalog.plans == ()

    @pytest.mark.parametrize(
        ("product", "of_price", "expected"),
        [
            ({}, "5", 5),
            ({}, "0", 0),
            ({"free_monthly_credits": "3"}, "5", 3),
            ({"free_monthly_credits": "0"}, "5", 0),
        ],
    )
    def test_free_allowance(self, product: dict[str, str], of_price: str, expected: int) -> None:
        raw = {"metadata": {"price_type": "base", "tier": "free", "included_credits": of_price}}
        catalog, findings = parse(product, [raw], Defaults(free_monthly_credits=99 * MICRO))
        assert findings == []
        assert catalog.free_monthly_credits == catalog.free.included_credits == expected * MICRO

    def test_metered(self) -> None:
        metered = base(
            price_type="metered",
            included_credits=None,
            tier="payg",
            free_credits="100",
            recurring={**MONTHLY, "usage_type": "metered", "meter": "mtr_1"},
        )
        plan = read(metered).plans[0]
        assert (plan.price_type, plan.free_credits, plan.meter, plan.included_credits) == (
            "metered",
            100 * MICRO,
            "mtr_1",
            0,
        )

    def test_inactive_prices_are_no_plans_and_no_mistakes(self) -> None:
        assert read(base(), base(id="old", active=False)).plans[0].price == "price_team"

    @pytest.mark.parametrize(
        ("price", "says"),
        [
            (base(tier=None), "tier is missing"),
            (base(tier="x" * 101), "tier is not a usable name"),
            (base(tier="a\tb"), "tier is not a usable name"),
            (base(price_type=None), "price_type is missing"),
            (base(price_type="plan"), "unknown price_type 'plan'"),
            (base(included_credits=None), "included_credits is missing"),
            (base(included_credits="25k"), "bad number: included_credits"),
            (base(included_spus="3"), "mean the same and differ"),
            (base(rollover_max="-5"), "bad number: rollover_max"),
            (base(requests_per_minute="0"), "bad number: requests_per_minute"),
            (base(recurring=None), "interval is missing"),
            (base(recurring={**MONTHLY, "interval": "week"}), "bad interval 'week'"),
            (base(recurring={**MONTHLY, "interval_count": 0}), "bad number: interval_count"),
            (base(unit_amount="49.00", unit_amount_decimal=None), "bad number: unit_amount"),
            (base(unit_amount=True, unit_amount_decimal=None), "bad number: unit_amount"),
            (base(unit_amount=-1, unit_amount_decimal=None), "bad number: unit_amount"),
            (base(unit_amount=1), "unit_amount and unit_amount_decimal differ"),
            (base(currency="dollars"), "currency is missing or wrong"),
            (base(billing_scheme="tiered"), "billing_scheme=tiered"),
            (base(tier="free"), "the tier free can not have an amount"),
            (base(price_type="metered", included_credits=None), "not metered in Stripe"),
            (credit(recurring=MONTHLY), "a credit price can not recur"),
            (credit(unit_amount=None), "the price has no amount"),
            (credit(credits_per_unit="0"), "bad number: credits_per_unit"),
            (credit(min_credits="10", max_credits="5"), "min_credits is above max_credits"),
            (credit(credits="100", min_credits="5"), "a fixed pack has no"),
            (credit(transform_quantity={"divide_by": 0, "round": "up"}), "bad transform_quantity"),
            (overage(billing_scheme="tiered"), "tiered without tiers"),
            (
                overage(tiers=[{"up_to": None, "unit_amount": 1}], tiers_mode="volume"),
                "tiers_mode is not graduated",
            ),
            (overage(tiers=[{"up_to": 5, "unit_amount": 1}]), "the tiers do not end"),
            (overage(tiers=[{"up_to": 5, "unit_amount": 1}] * 2 + [{"unit_amount": 1}]), "out of order"),
            (overage(tiers=[{"up_to": None}]), "a tier has no amount"),
            (overage(tiers=[{"up_to": "x", "unit_amount": 1}, {"unit_amount": 1}]), "up_to of a tier"),
        ],
    )
    def test_mistaken_prices_are_named_and_left_out(self, price: dict[str, Any], says: str) -> None:
        catalog, findings = parse({}, [price, base(id="good", tier="good")])
        assert says in findings[0].message
        assert {finding.object_id for finding in findings} == {price["id"]}
        assert [plan.tier for plan in catalog.plans] == ["good"]
        assert (catalog.credit_prices, catalog.overage_prices) == ((), ())

    def test_unknown_keys_are_reported_and_ignored(self) -> None:
        catalog, findings = parse({}, [base(feature="x")])
        assert [(finding.object_id, finding.cure) for finding in findings] == [("price_team", "did you mean features?")]
        assert len(catalog.plans) == 1

    def test_two_prices_for_one_tier_and_interval(self) -> None:
        catalog, findings = parse({}, [base(), base(id="price_new", unit_amount=5900, unit_amount_decimal="5900")])
        assert [finding.object_id for finding in findings] == ["price_new"]
        assert "price_team" in findings[0].message
        assert [plan.price for plan in catalog.plans] == ["price_team"]

    def test_two_prices_of_one_id(self) -> None:
        assert "two prices have this id" in only_finding(base(), base(tier="other")).message

    def test_prices_without_an_id_are_named_by_their_place(self) -> None:
        raw = {"metadata": {"price_type": "base"}}
        assert only_finding(base(), raw).object_id == "prices[2]"

    def test_over_long_metadata_is_a_finding_only(self) -> None:
        catalog, findings = parse({}, [base(features="x" * 501)])
        assert "has 501 characters" in findings[0].message
        assert len(catalog.plans) == 1


class TestCreditsAndOverage:
    def test_per_unit(self) -> None:
        prices = read(
            credit(
                price_type="credits",
                credits_per_unit="100",
                min_spu_purchase="500",
                max_spu_purchase="1000",
                unit_amount=None,
                unit_amount_decimal="12.5",
                currency="JPY",
            )
        ).credit_prices
        expected = CreditPrice("price_credit", "jpy", None, "12.5", 100 * MICRO, 500 * MICRO, 1000 * MICRO)
        assert prices == (expected,)

    def test_one_credit_per_unit_unless_it_says_otherwise(self) -> None:
        assert read(credit()).credit_prices[0].credits_per_unit == MICRO

    def test_fixed_pack(self) -> None:
        pack = read(credit(credits="1000")).credit_prices[0]
        assert (pack.credits, pack.credits_per_unit) == (1000 * MICRO, 1000 * MICRO)

    def test_transform_quantity(self) -> None:
        price = credit(transform_quantity={"divide_by": 100, "round": "up"})
        assert read(price).credit_prices[0].transform == Transform(100, "up")

    def test_overage(self) -> None:
        assert read(overage(credits_per_unit="10")).overage_prices == (
            OveragePrice("price_over", "usd", 2, None, 10 * MICRO),
        )

    def test_graduated_overage(self) -> None:
        tiers = [
            {"up_to": 1000, "unit_amount": 2, "unit_amount_decimal": "2", "flat_amount": None},
            {"up_to": None, "unit_amount": None, "unit_amount_decimal": "0.5", "flat_amount": 100},
        ]
        price = overage(unit_amount=None, billing_scheme="tiered", tiers_mode="graduated", tiers=tiers)
        assert read(price).overage_prices[0].tiers == (
            OverageTier(1000, Decimal(2), Decimal(0)),
            OverageTier(None, Decimal("0.5"), Decimal(100)),
        )


KEYS = st.sampled_from(
    [
        "price_type",
        "tier",
        "included_credits",
        "included_spus",
        "name",
        "features",
        "rollover_max",
        "credits",
        "credits_per_unit",
        "min_credits",
        "max_credits",
        "free_credits",
        "requests_per_minute",
        "signup_credits",
        "credit_value",
        "alert_thresholds",
        "grace_days",
        "rate:chat",
        "rate:a@b",
        "rate:",
    ]
)
VALUES = (
    st.sampled_from(["base", "credit", "overage", "metered", "free", "team", "1", "0", "-1", "per_unit=1", ""])
    | st.text(max_size=30)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.decimals()
    | st.lists(st.integers(), max_size=2)
)
METADATA = st.dictionaries(KEYS | st.text(max_size=10), VALUES, max_size=8)
RAW_PRICES = st.fixed_dictionaries(
    {"metadata": METADATA | VALUES},
    optional={
        "id": VALUES,
        "active": VALUES,
        "currency": st.sampled_from(["usd", "jpy"]) | VALUES,
        "unit_amount": VALUES,
        "unit_amount_decimal": VALUES,
        "billing_scheme": st.sampled_from(["per_unit", "tiered"]) | VALUES,
        "tiers_mode": st.sampled_from(["graduated", "volume"]) | VALUES,
        "tiers": st.lists(st.dictionaries(st.sampled_from(["up_to", "unit_amount", "flat_amount"]), VALUES)) | VALUES,
        "transform_quantity": st.dictionaries(st.sampled_from(["divide_by", "round"]), VALUES) | VALUES,
        "recurring": st.dictionaries(
            st.sampled_from(["interval", "interval_count", "usage_type", "meter"]),
            st.sampled_from(["month", "year", "metered"]) | VALUES,
        )
        | VALUES,
    },
)


@given(product=METADATA, prices=st.lists(RAW_PRICES, max_size=5))
def test_nothing_written_anywhere_can_crash_the_parser(product: dict[str, Any], prices: list[dict[str, Any]]) -> None:
    catalog, findings = parse(product, prices)
    assert all(finding.object_id and finding.message and finding.cure for finding in findings)
    assert len({(plan.tier, plan.interval, plan.interval_count) for plan in catalog.plans}) == len(catalog.plans)
    assert len(catalog.plans) + len(catalog.credit_prices) + len(catalog.overage_prices) <= len(prices)
    for rate in catalog.rates.values():
        assert rate.cost_multiplier is None or catalog.credit_value
    for plan in (catalog.free, *catalog.plans):
        assert catalog.plan(plan.tier) is not None
        assert plan.included_credits >= 0


@given(prices=st.lists(RAW_PRICES, max_size=4))
def test_a_good_price_stands_whatever_is_around_it(prices: list[dict[str, Any]]) -> None:
    good = base(id="price_that_is_good", tier="a-tier-of-its-own")
    catalog, _ = parse({}, [*prices, good])
    found = catalog.plan("a-tier-of-its-own")
    assert found is not None
    assert found.price == "price_that_is_good"
