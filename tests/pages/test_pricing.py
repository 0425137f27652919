"""The pricing page: what it says to whom, and that nothing on it is dearer or cheaper than Stripe."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from models.account import Role
from tests import factories, html
from tests.stripe_world import StripeWorld

SIX = {
    name: {
        "unit_amount": amount,
        "currency": currency,
        "recurring": {"interval": interval},
        "metadata": {"price_type": "base", "tier": tier, "included_credits": "1000"},
    }
    for name, tier, interval, amount, currency in (
        ("team_month", "team", "month", 4900, "usd"),
        ("team_year", "team", "year", 49000, "usd"),
        ("yen", "asia", "month", 5000, "jpy"),
        ("dinar", "gulf", "month", 1250, "kwd"),
    )
}


@pytest.fixture(params=["sqlite"])
def database(request: pytest.FixtureRequest) -> str:
    """Pages look the same on both."""
    return str(request.param)


def page(app: Flask, path: str = "/pricing", person: factories.Person | None = None) -> html.Page:
    answer = (person.client if person else app.test_client()).get(path)
    assert answer.status_code == 200
    return html.read(answer)


def orders(shown: html.Page) -> list[dict[str, str]]:
    """What the page's buying forms would send."""
    forms = [form for form in shown.forms if form.action == "/billing/checkout"]
    return [{name: value for name, value in form.fields.items() if name != "csrf_token"} for form in forms]


def test_a_visitor_without_stripe_reads_that_nothing_can_be_bought(sqlite_app: Flask) -> None:
    shown = page(sqlite_app)
    assert "Payments are not set up yet" in shown.text
    for words in ("Free", "$0.00", "Team", "$49.00 a month", "25,000 credits a month", "Pro", "Enterprise", "10,000"):
        assert words in shown.text
    assert orders(shown) == []
    assert [form.action for form in shown.forms] == ["/pricing"], "the calculator alone"
    assert shown.inline == []


def test_months_and_years_are_links(sqlite_app: Flask) -> None:
    shown = page(sqlite_app, "/pricing?interval=year")
    assert "$490.00 a year" in shown.text
    assert "$98.00 less than twelve months paid monthly" in shown.text
    assert {"/pricing?interval=month", "/pricing?interval=year"} <= set(shown.addresses)
    assert "$49.00 a month" in page(sqlite_app, "/pricing?interval=decade").text


def test_every_page_leads_to_it(sqlite_app: Flask) -> None:
    assert "/pricing" in page(sqlite_app, "/").addresses
    alice = factories.person(sqlite_app, "alice@example.com")
    assert "/pricing" in page(sqlite_app, "/usage", alice).addresses


def test_a_visitor_signs_up_on_the_way(stripe: StripeWorld) -> None:
    stripe.seed()
    shown = page(stripe.app, "/pricing?interval=year")
    assert "not set up" not in shown.text
    assert orders(shown) == []
    assert "/signup?next=/pricing%3Finterval%3Dyear%23plan-team" in shown.addresses
    assert "/signup?next=/buy%3Fcredits%3D10" in shown.addresses
    client = stripe.app.test_client()
    answer = html.post(
        client,
        "/signup?next=/pricing%3Finterval%3Dyear%23plan-team",
        {"email": "new@example.com", "password": factories.PASSWORD},
    )
    assert answer.headers["Location"] == "/pricing?interval=year#plan-team"
    assert "/login?next=/pricing" in page(stripe.app, "/signup?next=/pricing").addresses


def test_an_owner_buys_and_a_member_reads_who_can(stripe: StripeWorld) -> None:
    ids = stripe.seed(SIX | {"pack": {"unit_amount": 1500, "metadata": {"price_type": "credit", "credits": "1000"}}})
    cast = factories.cast(stripe.app)
    shown = page(stripe.app, person=cast.alice)
    prices = [ids["team_month"], ids["yen"], ids["dinar"], ids["pack"]]
    assert sorted(order["price"] for order in orders(shown)) == sorted(prices)
    assert "Your plan" in shown.text, "free"
    assert {order["price"] for order in orders(page(stripe.app, "/pricing?interval=year", cast.alice))} >= {
        ids["team_year"],
        ids["yen"],
    }
    for_bob = page(stripe.app, person=cast.bob)
    assert orders(for_bob) == []
    assert "Owners and admins of" in for_bob.text


def test_currencies_have_their_own_decimals_and_the_cheapest_comes_first(stripe: StripeWorld) -> None:
    stripe.seed(SIX)
    text = page(stripe.app).text
    assert "¥5,000 a month" in text
    assert "KWD\N{NO-BREAK SPACE}1.250 a month" in text or "KWD 1.250 a month" in text


@pytest.mark.parametrize(
    ("price", "credits", "total"),
    [
        ({"unit_amount": 1}, "29", "$0.29"),
        ({"unit_amount_decimal": "0.05"}, "29", "$0.01"),
        ({"unit_amount_decimal": "0.05"}, "30", "$0.02"),
        ({"unit_amount": 100, "metadata": {"credits_per_unit": "100"}}, "1500", "$15.00"),
        ({"unit_amount": 100, "metadata": {"credits_per_unit": "0.5"}}, "1.5", "$3.00"),
        ({"unit_amount": 700, "transform_quantity": {"divide_by": 100, "round": "up"}}, "101", "$14.00"),
        ({"unit_amount": 700, "transform_quantity": {"divide_by": 100, "round": "down"}}, "199", "$7.00"),
        ({"unit_amount": 7, "currency": "jpy"}, "1000", "¥7,000"),
    ],
)
def test_the_calculator_says_what_stripe_will_ask_for(
    stripe: StripeWorld, price: dict[str, object], credits: str, total: str
) -> None:
    metadata = {"price_type": "credit", **price.pop("metadata", {})}  # type: ignore[dict-item]
    ids = stripe.seed({"credit": {**price, "metadata": metadata}})
    alice = factories.person(stripe.app, "alice@example.com")
    shown = page(stripe.app, f"/pricing?credits={credits}", alice)
    assert f"{total} for {float(credits):,g} credits" in shown.text
    assert {"price": ids["credit"], "credits": credits} in orders(shown)


@pytest.mark.parametrize(
    ("credits", "told"),
    [("5", "at least 10"), ("100001", "at most 100000"), ("many", "Not a number"), ("-1", "negative"), ("", "")],
)
def test_the_calculator_says_what_can_not_be_bought(stripe: StripeWorld, credits: str, told: str) -> None:
    stripe.seed()
    alice = factories.person(stripe.app, "alice@example.com")
    shown = page(stripe.app, f"/pricing?credits={credits}", alice)
    assert re.search(told, shown.text, re.IGNORECASE)
    assert not any("credits" in order for order in orders(shown))


def test_whoever_is_on_a_plan_sees_it_and_is_not_sold_a_second(stripe: StripeWorld) -> None:
    stripe.seed()
    alice = factories.person(stripe.app, "alice@example.com")
    operator = factories.Api(stripe.app, factories.service_token(stripe.app))
    assert operator.post(f"/accounts/{alice.account_id}/plan", {"tier": "team"}).status == 200
    text = page(stripe.app, person=alice).text
    assert text.count("Your plan") == 1
    assert operator.post(f"/accounts/{alice.account_id}/plan", {"tier": "enterprise"}).status == 200
    assert page(stripe.app, person=alice).text.count("Your plan") == 1


def test_a_subscriber_keeps_their_price_and_reads_so(stripe: StripeWorld) -> None:
    ids = stripe.seed(SIX)
    alice = factories.person(stripe.app, "alice@example.com")
    stripe.subscribe(alice.account_id)
    stripe.settle()
    shown = page(stripe.app, person=alice)
    assert "Your plan" in shown.text
    assert orders(shown) == [], "a change goes over the billing page"
    assert "You pay by the month." in page(stripe.app, "/pricing?interval=year", alice).text
    stripe.client.v1.prices.update(ids["team_month"], params={"active": False})
    dearer = {**SIX["team_month"], "unit_amount": 5900}
    stripe.seed({"team_month_2": dearer})
    shown = page(stripe.app, person=alice)
    assert "$59.00 a month" in shown.text
    assert "You keep the price you subscribed to." in shown.text


def test_an_operator_is_told_where_to_look_when_nothing_is_on_sale(stripe: StripeWorld) -> None:
    alice = factories.person(stripe.app, "alice@example.com")
    assert "Nothing is on sale at the moment" in page(stripe.app, person=alice).text
    assert "/admin/catalog" not in page(stripe.app, person=alice).addresses
    with stripe.app.app_context():
        from services import people

        people.add_operator("alice@example.com")
    assert "/admin/catalog" in page(stripe.app, person=alice).addresses


def test_a_person_without_an_account_reads_it_too(stripe: StripeWorld) -> None:
    stripe.seed()
    cast = factories.cast(stripe.app)
    factories.join(stripe.app, cast.bob.user_id, cast.charlie.account_id, Role.MEMBER)
    assert "Team" in page(stripe.app, person=cast.bob).text
