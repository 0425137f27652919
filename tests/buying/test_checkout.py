"""What can be bought, and what Stripe is told about it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from services.stripe import gateway
from tests.api.test_openapi import Told
from tests.buying.helpers import inside, rows, tenant
from tests.factories import Answer, Api
from tests.stripe_world import StripeWorld

MICRO = 1_000_000


@pytest.fixture
def acme(stripe: StripeWorld) -> tuple[str, Api]:
    stripe.seed()
    return tenant(stripe)


def session_of(world: StripeWorld, answer: Answer) -> dict[str, Any]:
    assert answer.status == 201, answer
    return dict(inside(world, gateway.session, answer.json["session"]))


def refused(answer: Answer, status: int, code: str, field: str | None = None) -> None:
    assert (answer.status, answer.code) == (status, code), answer
    if field is not None:
        assert list(answer.json["errors"]) == [field]


class TestSessions:
    def test_credits_by_amount(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        account_id, api = acme
        answer = api.post("/stripe/checkout", {"credits": 29})
        session = session_of(stripe, answer)
        assert session["amount_total"] == 29, "29 credits at 0.01 are 29 cents"
        assert answer.json["url"] == session["url"]
        [line] = session["line_items"]["data"]
        assert (line["price"]["id"], line["quantity"]) == (stripe.prices["credit"], 29)
        [row] = rows(stripe, account_id)
        assert session["metadata"] == {
            "product": "spillway",
            "account": account_id,
            "purchase": row.id,
            "price": stripe.prices["credit"],
            "credits": "29",
            "credits_per_unit": "1",
        }
        assert session["mode"] == "payment" and session["client_reference_id"] == account_id
        assert session["invoice_creation"]["enabled"] is True, "a receipt follows"
        assert session["allow_promotion_codes"] is None and session["automatic_tax"]["enabled"] is False
        assert (row.status, row.credits, row.session_id, row.amount) == ("open", 29 * MICRO, session["id"], 29)

    def test_a_pack_needs_no_amount(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        account_id, api = acme
        for body in ({"price": stripe.prices["pack"]}, {"price": stripe.prices["pack"], "credits": 1000}):
            session = session_of(stripe, api.post("/stripe/checkout", body))
            assert session["amount_total"] == 1500
            assert session["line_items"]["data"][0]["quantity"] == 1
        assert {row.credits for row in rows(stripe, account_id)} == {1000 * MICRO}

    @pytest.mark.parametrize("body", [{"tier": "team", "interval": "year"}, {"price": "team_year"}])
    def test_a_plan(self, stripe: StripeWorld, acme: tuple[str, Api], body: dict[str, str]) -> None:
        account_id, api = acme
        if "price" in body:
            body = {"price": stripe.prices[body["price"]]}
        session = session_of(stripe, api.post("/stripe/checkout", body))
        assert session["mode"] == "subscription" and session["amount_total"] == 49000
        stripe.pay(session["id"])
        [subscription] = stripe.sandbox.control.dump("subscription")
        assert subscription["metadata"]["product"] == "spillway"
        assert subscription["metadata"]["account"] == account_id
        assert subscription["billing_mode"]["type"] == "flexible"

    def test_the_shortest_interval_when_none_is_named(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        session = session_of(stripe, acme[1].post("/stripe/checkout", {"tier": "team"}))
        assert session["amount_total"] == 4900

    def test_a_metered_plan_has_no_quantity(self, stripe: StripeWorld) -> None:
        stripe.seed(
            {
                "payg": {
                    "unit_amount": 2,
                    "recurring": {"interval": "month", "usage_type": "metered", "meter": "mtr_of_the_tests"},
                    "metadata": {"price_type": "metered", "tier": "payg", "free_credits": "10"},
                }
            }
        )
        _, api = tenant(stripe)
        session = session_of(stripe, api.post("/stripe/checkout", {"tier": "payg", "interval": "month"}))
        assert session["line_items"]["data"][0]["quantity"] is None

    def test_one_customer_is_behind_all_of_them(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        _, api = acme
        made = api.post("/stripe/customer")
        assert made.status == 200
        sessions = [session_of(stripe, api.post("/stripe/checkout", {"credits": 50})) for _ in range(2)]
        assert {one["customer"] for one in sessions} == {made.json["customer"]}
        assert api.post("/stripe/customer", {}).json == made.json

    @pytest.mark.settings(stripe_promotion_codes=True, stripe_automatic_tax=True)
    def test_switches(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        for body in ({"credits": 100}, {"tier": "team"}):
            session = session_of(stripe, acme[1].post("/stripe/checkout", body))
            assert session["allow_promotion_codes"] is True
            assert session["automatic_tax"]["enabled"] is True


class TestWayBack:
    @pytest.mark.settings(public_url="https://billing.example.com")
    def test_over_our_own_page_and_on(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        paths = {"success_path": "/usage?a=1&b=ü", "cancel_path": "/pricing?x={y}"}
        session = session_of(stripe, acme[1].post("/stripe/checkout", {"credits": 50, **paths}))
        raw = next(one for one in stripe.sandbox.control.dump("checkout.session") if one["id"] == session["id"])
        assert "session_id={CHECKOUT_SESSION_ID}" in raw["success_url"]
        back = urlsplit(raw["success_url"])
        assert (back.scheme, back.netloc, back.path) == ("https", "billing.example.com", "/checkout/return")
        assert parse_qs(back.query)["to"] == [paths["success_path"]]
        assert raw["cancel_url"] == "https://billing.example.com/pricing?x=%7By%7D"

    @pytest.mark.settings(allowed_return_hosts=frozenset({"app.example.com"}))
    @pytest.mark.parametrize(
        ("path", "good"),
        [
            ("/", True),
            ("/thanks?to=https://evil.example/", True),
            ("https://app.example.com", True),
            ("https://app.example.com/thanks?x=1", True),
            ("http://APP.example.com:8443/thanks", True),
            ("//evil.example", False),
            ("/\\evil.example", False),
            ("\\/evil.example", False),
            ("thanks", False),
            ("https://evil.example/", False),
            ("https://app.example.com@evil.example/", False),
            ("https://app.example.com:x@evil.example/", False),
            ("https://evil.example\\@app.example.com/", False),
            ("https://app.example.com.evil.example/", False),
            ("https:app.example.com", False),
            ("https:///app.example.com", False),
            ("javascript://app.example.com/%0aalert(1)", False),
            ("ftp://app.example.com/", False),
            ("/a\tb", False),
            ("/\n/evil.example", False),
            ("/a\x7fb", False),
            ("/a\u2028b", False),
            (" /a", False),
            ("https://[::1", False),
            ("", False),
            ("/" + "x" * 2000, False),
        ],
    )
    def test_only_where_it_is_allowed(self, stripe: StripeWorld, acme: tuple[str, Api], path: str, good: bool) -> None:
        for field in ("success_path", "cancel_path"):
            answer = acme[1].post("/stripe/checkout", {"credits": 50, field: path})
            if good:
                assert answer.status == 201, answer
            else:
                refused(answer, 422, "validation_error", field)
        answer = acme[1].post("/stripe/portal", {"return_path": path})
        assert answer.status == (200 if good else 422), answer


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "body"),
            ({"credits": 9}, "credits"),
            ({"credits": 100_001}, "credits"),
            ({"credits": 10.5}, "credits"),
            ({"credits": 0}, "credits"),
            ({"credits": -10}, "credits"),
            ({"credits": True}, "credits"),
            ({"price": "price_of_nobody"}, "price"),
            ({"tier": "nothing"}, "tier"),
            ({"tier": "free"}, "tier"),
            ({"tier": "starter", "interval": "year"}, "tier"),
            ({"tier": "team", "interval": "week"}, "interval"),
            ({"interval": "month"}, "body"),
            ({"credits": 50, "interval": "month"}, "interval"),
            ({"tier": "team", "price": "price_x"}, "tier"),
            ({"tier": "team", "credits": 50}, "credits"),
            ({"credits": 50, "quantity": 2}, "quantity"),
        ],
    )
    def test_what_is_not_for_sale(
        self, stripe: StripeWorld, acme: tuple[str, Api], body: dict[str, Any], field: str
    ) -> None:
        refused(acme[1].post("/stripe/checkout", body), 422, "validation_error", field)
        assert stripe.sandbox.control.dump("checkout.session") == []

    def test_a_price_by_unit_needs_an_amount_and_others_take_none(
        self, stripe: StripeWorld, acme: tuple[str, Api]
    ) -> None:
        for name, amount in (("credit", None), ("pack", 999), ("team_month", 50)):
            body = {"price": stripe.prices[name]} | ({"credits": amount} if amount else {})
            refused(acme[1].post("/stripe/checkout", body), 422, "validation_error", "credits")

    def test_foreign_and_archived_prices(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        product = stripe.client.v1.products.create(params={"name": "Foreign"}).id
        foreign = stripe.client.v1.prices.create(params={"product": product, "currency": "usd", "unit_amount": 1}).id
        stripe.client.v1.prices.update(stripe.prices["pack"], params={"active": False})
        stripe.sync_catalog()
        for price in (foreign, stripe.prices["pack"]):
            refused(acme[1].post("/stripe/checkout", {"price": price}), 422, "validation_error", "price")

    def test_units_of_several_credits(self, stripe: StripeWorld) -> None:
        stripe.seed({"hundreds": {"unit_amount": 99, "metadata": {"price_type": "credit", "credits_per_unit": "100"}}})
        account_id, api = tenant(stripe)
        refused(api.post("/stripe/checkout", {"credits": 250}), 422, "validation_error", "credits")
        session = session_of(stripe, api.post("/stripe/checkout", {"credits": 300}))
        assert (session["amount_total"], session["line_items"]["data"][0]["quantity"]) == (297, 3)
        assert rows(stripe, account_id)[0].credits == 300 * MICRO

    def test_a_second_subscription(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        """Also where no event has told of the first one."""
        _, api = acme
        session = session_of(stripe, api.post("/stripe/checkout", {"tier": "team"}))
        stripe.pay(session["id"])
        refused(api.post("/stripe/checkout", {"tier": "starter"}), 409, "already_subscribed")
        assert api.post("/stripe/checkout", {"credits": 50}).status == 201
        [subscription] = stripe.sandbox.control.dump("subscription")
        stripe.client.v1.subscriptions.cancel(subscription["id"])
        assert api.post("/stripe/checkout", {"tier": "starter"}).status == 201

    def test_a_closed_account_buys_nothing_and_a_suspended_one_may(
        self, stripe: StripeWorld, acme: tuple[str, Api], operator: Api
    ) -> None:
        account_id, api = acme
        assert operator.post("/accounts/acme/suspend", {"reason": "late"}).status == 200
        assert api.post("/stripe/checkout", {"credits": 50}).status == 201
        assert operator.post("/accounts/acme/close", {"reason": "gone"}).status == 200
        for path, body in (("checkout", {"credits": 50}), ("customer", {}), ("setup-intent", {}), ("portal", {})):
            answer = operator.post(f"/stripe/{path}", {"account": account_id, **body})
            refused(answer, 403, "account_closed")

    @pytest.mark.settings(stripe_secret_key=None)
    def test_without_stripe(self, stripe: StripeWorld) -> None:
        _, api = tenant(stripe)
        for path, body in (("checkout", {"credits": 50}), ("customer", {}), ("setup-intent", {}), ("portal", {})):
            refused(api.post(f"/stripe/{path}", body), 409, "stripe_not_configured")
        assert api.get("/purchases").json == {"data": [], "next_cursor": None}


class TestOutage:
    @pytest.mark.parametrize("kind", ["error", "unavailable", "rate_limit", "malformed", "authentication"])
    def test_it_is_503_and_nothing_changes(self, stripe: StripeWorld, acme: tuple[str, Api], kind: str) -> None:
        account_id, api = acme
        stripe.sandbox.control.fault(kind, times=0)
        for path, body in (("checkout", {"credits": 50}), ("customer", {}), ("setup-intent", {}), ("portal", {})):
            answer = api.post(f"/stripe/{path}", body)
            refused(answer, 503, "stripe_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        assert rows(stripe, account_id) == []
        assert api.get("/balance").json["available"] == 0
        stripe.sandbox.control.clear_faults()
        assert api.post("/stripe/checkout", {"credits": 50}).status == 201

    def test_an_answer_that_got_lost_is_asked_for_again(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        """Our key makes the second try the same session."""
        account_id, api = acme
        stripe.sandbox.control.fault("error", path="/v1/checkout/sessions", after=True)
        assert api.post("/stripe/checkout", {"credits": 50}).status == 201
        assert len(stripe.sandbox.control.dump("checkout.session")) == 1
        assert len(rows(stripe, account_id)) == 1


def test_the_portal_and_the_way_back(stripe: StripeWorld, acme: tuple[str, Api]) -> None:
    answer = acme[1].post("/stripe/portal", {"return_path": "/usage"})
    assert answer.status == 200
    [session] = stripe.sandbox.control.dump("billing_portal.session")
    assert (session["url"], session["return_url"]) == (answer.json["url"], "http://127.0.0.1:8000/usage")


def test_purchases_are_listed_newest_first(stripe: StripeWorld, acme: tuple[str, Api], at: Any) -> None:
    _, api = acme
    for amount in (50, 60, 70):
        assert api.post("/stripe/checkout", {"credits": amount}).status == 201
        at.forward(seconds=1)
    first = api.get("/purchases?limit=2").json
    assert [row["credits"] for row in first["data"]] == [70, 60]
    rest = api.get(f"/purchases?limit=2&cursor={first['next_cursor']}").json
    assert ([row["credits"] for row in rest["data"]], rest["next_cursor"]) == ([50], None)
    assert set(first["data"][0]) == {
        "id", "session", "mode", "status", "price", "credits", "amount", "currency", "invoice", "subscription", "lot",
        "created_at", "paid_at",
    }  # fmt: skip


def test_requests_and_answers_are_as_the_document_says(stripe: StripeWorld, acme: tuple[str, Api]) -> None:
    _, api = acme
    document = stripe.app.test_client().get("/api/v1/openapi.json").json
    told = Told(document, api)
    told(200, "POST", "/stripe/customer", {})
    told(201, "POST", "/stripe/checkout", {"credits": "50", "success_path": "/usage", "cancel_path": "/"})
    told(201, "POST", "/stripe/checkout", {"tier": "team", "interval": "month"})
    told(200, "POST", "/stripe/setup-intent", {})
    told(200, "POST", "/stripe/portal", {"return_path": "/billing"})
    told(200, "GET", "/purchases")
    told(422, "POST", "/stripe/checkout", {"credits": 1})
    stripe.sandbox.control.fault("error", times=0)
    told(503, "POST", "/stripe/checkout", {"credits": 50})
