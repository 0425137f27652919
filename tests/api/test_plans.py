"""GET /plans: what is on sale, in the contract's shape, with Stripe and without."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.factories import Api
from tests.stripe_world import StripeWorld

PLAN = {"tier", "name", "interval", "amount", "currency", "included_credits", "features", "price"}
PACK = {"price", "unit_amount", "currency", "credits_per_unit", "min_credits", "max_credits"}


def test_without_stripe_the_files_plans_and_nothing_to_buy(sqlite_app: Flask) -> None:
    answer = Api(sqlite_app, None).get("/plans")
    assert answer.status == 200
    told = answer.json
    assert set(told) == {"credit_name", "currency", "free", "plans", "credit_packs", "payments_enabled"}
    assert (told["credit_name"], told["currency"], told["payments_enabled"]) == ("credits", "usd", False)
    assert told["free"]["tier"] == "free"
    assert [plan["tier"] for plan in told["plans"]] == ["team", "team", "pro", "pro", "enterprise"]
    team, enterprise = told["plans"][0], told["plans"][-1]
    assert set(team) == PLAN
    assert (team["interval"], team["amount"], team["included_credits"]) == ("month", 4900, 25000)
    assert team["features"][0] == "Unlimited members"
    assert (enterprise["amount"], enterprise["price"], enterprise["interval"]) == (None, None, None)
    units, pack = told["credit_packs"]
    assert set(units) == PACK
    assert (units["unit_amount"], units["credits_per_unit"], units["min_credits"], units["max_credits"]) == (
        100,
        100,
        500,
        100_000,
    )
    assert (pack["unit_amount"], pack["credits_per_unit"]) == (8000, 10_000)
    assert pack["min_credits"] == pack["max_credits"] == 10_000


def test_a_bad_token_changes_nothing(sqlite_app: Flask) -> None:
    assert Api(sqlite_app, "spw_nonsense").get("/plans").status == 200


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_with_stripe_its_prices_with_fractions_and_packages(stripe: StripeWorld) -> None:
    ids = stripe.seed(
        {
            "team": {
                "unit_amount": 4900,
                "recurring": {"interval": "month", "interval_count": 3},
                "metadata": {"price_type": "base", "tier": "team", "included_credits": "0.5"},
            },
            "fine": {
                "unit_amount_decimal": "0.05",
                "transform_quantity": {"divide_by": 10, "round": "up"},
                "metadata": {"price_type": "credit"},
            },
        }
    )
    told = Api(stripe.app, None).get("/plans").json
    assert told["payments_enabled"] is True
    [team], [fine] = told["plans"], told["credit_packs"]
    assert (team["price"], team["interval_count"], str(team["included_credits"])) == (ids["team"], 3, "0.5")
    assert fine == {
        "price": ids["fine"],
        "unit_amount": None,
        "unit_amount_decimal": "0.05",
        "currency": "usd",
        "credits_per_unit": 1,
        "min_credits": None,
        "max_credits": None,
        "transform_quantity": {"divide_by": 10, "round": "up"},
    }
