"""The pages of buying and billing: who may, what they show, and where they lead."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

import pytest
import responses
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import database
from errors import BY_CODE
from extensions import db
from models.catalog import CatalogVersion
from models.stripe import StripeCustomer
from services.stripe import gateway
from tests import factories, html
from tests.factories import Cast
from tests.stripe_world import StripeWorld

MICRO = 1_000_000


@pytest.fixture
def shop(stripe: StripeWorld, cast: Cast) -> StripeWorld:
    stripe.seed()
    return stripe


def order(client: FlaskClient, form: str = "/buy", **fields: object) -> TestResponse:
    return html.post(client, "/billing/checkout", dict(fields), form=form)


def sessions(world: StripeWorld) -> list[dict[str, Any]]:
    return list(world.sandbox.control.dump("checkout.session"))


def buy(world: StripeWorld, client: FlaskClient, card: str = "4242424242424242", **fields: object) -> str:
    """Through the form to the sandbox, paid there; the path that the browser comes back to."""
    answer = order(client, **(fields or {"credits": "250"}))
    assert answer.status_code == 303, answer.text
    session = sessions(world)[-1]
    assert answer.headers["Location"] == session["url"]
    paid = world.pay(session["id"], card)
    return str(paid["url"]).removeprefix("http://127.0.0.1:8000")


class TestBuying:
    def test_the_price_follows_the_amount(self, shop: StripeWorld, cast: Cast) -> None:
        page = html.read(cast.alice.client.get("/buy?credits=2500"))
        assert "$25.00 for 2,500 credits" in page.text
        [form] = [one for one in page.forms if "credits" in one.fields and one.method == "post"]
        assert (form.fields["price"], form.fields["credits"]) == (shop.prices["credit"], "2500")
        assert "1,000 credits $15.00" in page.text
        for typed, problem in (
            ("9", "at least 10"),
            ("1e9", "at most 100000"),
            ("x", "Not a number"),
            ("2.5", "multiple"),
        ):
            page = html.read(cast.alice.client.get(f"/buy?credits={typed}"))
            assert problem in page.text
            assert not [one for one in page.forms if one.fields.get("price") == shop.prices["credit"]]
        assert sessions(shop) == []

    def test_from_the_form_to_the_credits(self, shop: StripeWorld, cast: Cast) -> None:
        back = buy(shop, cast.alice.client)
        page = html.read(cast.alice.client.get(back))
        assert "Bought for Alice, $2.50" in page.text
        assert "Bought 250" in page.text and "Available now 350" in page.text
        assert "350" in cast.alice.client.get("/usage").text
        shop.settle()
        billing = html.read(cast.alice.client.get("/billing"))
        assert "250 credits" in billing.text and "$2.50" in billing.text
        [receipt] = [
            one for one in html.read(cast.alice.client.get(back)).addresses if "/invoice" in one or "/i/" in one
        ]
        assert receipt.startswith(shop.sandbox.url)

    def test_a_form_that_is_wrong_says_so_in_place(self, shop: StripeWorld, cast: Cast) -> None:
        answer = order(cast.alice.client, credits="5")
        assert answer.status_code == 422
        assert "Must be at least 10." in answer.text and 'value="5"' in answer.text
        assert order(cast.alice.client, price="price_of_nobody").status_code == 422
        assert order(cast.alice.client).status_code == 422
        assert sessions(shop) == []

    def test_a_member_reads_the_prices_and_buys_nothing(self, shop: StripeWorld, cast: Cast) -> None:
        client = cast.bob.client
        page = html.read(client.get("/buy"))
        assert "Owners and admins of Alice can buy." in page.text and "$15.00" in page.text
        assert [one.action for one in page.forms if one.action.startswith("/billing")] == []
        assert "Owners and admins of Alice" in html.read(client.get("/billing")).text
        for path in ("/billing/checkout", "/billing/portal", "/billing/card"):
            assert html.post(client, path, {"credits": "50"}, form="/settings").status_code == 403
        assert client.get("/billing/card").status_code == 403
        assert sessions(shop) == []

    def test_a_plan_and_no_second_one(self, shop: StripeWorld, cast: Cast) -> None:
        back = buy(shop, cast.alice.client, tier="team", interval="month")
        page = html.read(cast.alice.client.get(back))
        assert "Alice is on the plan Team now, with 5,000 credits" in page.text
        again = order(cast.alice.client, tier="starter", interval="month")
        assert (again.status_code, again.headers["Location"]) == (303, "/billing")
        billing = html.read(cast.alice.client.get("/billing"))
        assert "This account has a subscription." in billing.text
        assert "Team active" in billing.text and "$49.00 a month" in billing.text
        assert "2026-12-21 , $49.00 before taxes and discounts" in billing.text
        assert len(sessions(shop)) == 1

    def test_whoever_changes_their_mind_finds_their_choice(self, shop: StripeWorld, cast: Cast) -> None:
        order(cast.alice.client, credits="250")
        path = sessions(shop)[-1]["cancel_url"].removeprefix("http://127.0.0.1:8000")
        page = html.read(cast.alice.client.get(path))
        assert "Nothing was bought." in page.text and "$2.50 for 250 credits" in page.text
        order(cast.alice.client, tier="team")
        path = sessions(shop)[-1]["cancel_url"].removeprefix("http://127.0.0.1:8000")
        assert "Nothing was bought" in cast.alice.client.get(path).text

    def test_stripe_is_down(self, shop: StripeWorld, cast: Cast) -> None:
        shop.sandbox.control.fault("error", times=0)
        for path in ("/billing/checkout", "/billing/portal", "/billing/card"):
            answer = html.post(cast.alice.client, path, {"credits": "50"}, form="/buy")
            assert answer.status_code == 503
            assert "Nothing was bought and nothing was charged." in answer.text
            assert answer.headers["Retry-After"]
        for path in ("/buy", "/billing", "/billing/card", "/usage"):
            assert cast.alice.client.get(path).status_code == 200, "pages ask nobody"

    def test_a_closed_account(self, shop: StripeWorld, cast: Cast, operator: factories.Api) -> None:
        assert operator.post(f"/accounts/{cast.alice.account_id}/close", {"reason": "x"}).status == 200
        for path in ("/buy", "/billing", "/billing/card"):
            page = html.read(cast.alice.client.get(path))
            assert "This account is closed" in page.text
            assert [one for one in page.forms if one.action.startswith("/billing")] == []
        assert order(cast.alice.client, form="/settings", credits="50").status_code == 403


class TestReturn:
    def test_nobody_is_told_anything_private(self, shop: StripeWorld, cast: Cast) -> None:
        back = buy(shop, cast.alice.client)
        for client in (shop.app.test_client(), cast.charlie.client):
            answer = client.get(back)
            assert answer.status_code == 200
            text = html.read(answer).text
            assert "Thank you" in text
            for private in ("Alice", "alice", cast.alice.account_id, "250", "350", "$"):
                assert private not in text, private
        assert "Bought 250" in html.read(cast.bob.client.get(back)).text, "a member of the account"
        assert html.read(cast.alice.client.get("/usage")).text.count("350") >= 1

    def test_unknown_sessions_are_all_the_same(self, shop: StripeWorld, cast: Cast) -> None:
        foreign = shop.client.v1.checkout.sessions.create(
            params={
                "mode": "payment",
                "line_items": [{"price": shop.prices["credit"], "quantity": 50}],
                "success_url": "http://127.0.0.1:8000/",
            }
        ).id
        texts = set()
        for session_id in (
            foreign,
            "cs_test_" + "a" * 40,
            "cs_x",
            "",
            "pi_123456789",
            "cs_test_aaaaaaaa/../x",
            "ü" * 12,
        ):
            answer = shop.app.test_client().get(f"/checkout/return?session_id={quote(session_id)}")
            assert answer.status_code == 404
            texts.add(html.read(answer).text.partition("Request ")[0])
        assert len(texts) == 1

    @pytest.mark.usefixtures("whole_window")
    def test_guessing_is_bounded(self, shop: StripeWorld) -> None:
        client = shop.app.test_client()
        answers = [client.get(f"/checkout/return?session_id=cs_test_{number:020}").status_code for number in range(62)]
        assert answers == [404] * 60 + [429] * 2

    @pytest.mark.settings(allowed_return_hosts=frozenset({"app.example.com"}))
    def test_on_to_where_the_shop_wanted_and_nowhere_else(self, shop: StripeWorld, cast: Cast) -> None:
        back = buy(shop, cast.alice.client)
        nobody = shop.app.test_client()
        for onward in ("/ledger", "https://app.example.com/done?x=1"):
            answer = nobody.get(f"{back}&to={quote(onward, safe='')}")
            assert onward in html.read(answer).addresses
            target = onward if onward.startswith("https") else f"http://127.0.0.1:8000{onward}"
            assert answer.headers["Refresh"] == f"4; url={target}"
        for evil in ("//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "x"):
            answer = nobody.get(f"{back}&to={quote(evil, safe='')}")
            assert answer.status_code == 200
            assert "Refresh" not in answer.headers
            assert "evil" not in answer.text and "alert(1)" not in answer.text

    def test_without_stripe_there_is_nothing(self, sqlite_app: Flask) -> None:
        assert sqlite_app.test_client().get("/checkout/return?session_id=cs_test_12345678").status_code == 404


class TestCards:
    def test_a_card_given_in_the_sandbox(self, shop: StripeWorld, cast: Cast) -> None:
        client = cast.alice.client
        assert "none on file" in html.read(client.get("/billing")).text
        answer = html.post(client, "/billing/card")
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith(f"{shop.sandbox.url}/setup/seti_")
        [intent] = shop.sandbox.control.dump("setup_intent")
        shop.client.v1.setup_intents.confirm(intent["id"], params={"payment_method": "pm_card_mastercard"})
        back = client.get(f"/billing/card?setup_intent={intent['id']}&redirect_status=succeeded")
        assert (back.status_code, back.headers["Location"]) == (303, "/billing")
        text = html.read(client.get("/billing")).text
        assert "The card is saved." in text and "Mastercard ending in 4444, good until 12/2099" in text
        shop.settle()
        [customer] = shop.sandbox.control.dump("customer")
        assert customer["invoice_settings"]["default_payment_method"] is not None

    def test_somebody_elses_intent_shows_nothing(self, shop: StripeWorld, cast: Cast) -> None:
        html.post(cast.alice.client, "/billing/card")
        [intent] = shop.sandbox.control.dump("setup_intent")
        shop.client.v1.setup_intents.confirm(intent["id"], params={"payment_method": "pm_card_visa"})
        html.post(cast.charlie.client, "/billing/card")
        for intent_id in (intent["id"], "seti_nobodysatall"):
            cast.charlie.client.get(f"/billing/card?setup_intent={intent_id}")
            assert "No card was saved." in cast.charlie.client.get("/billing").text

    def test_the_portal(self, shop: StripeWorld, cast: Cast) -> None:
        answer = html.post(cast.alice.client, "/billing/portal", form="/billing")
        [session] = shop.sandbox.control.dump("billing_portal.session")
        assert (answer.status_code, answer.headers["Location"]) == (303, session["url"])
        assert session["return_url"] == "http://127.0.0.1:8000/billing"


def policy_of(answer: TestResponse) -> dict[str, str]:
    return dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))


@pytest.fixture
def live(sqlite_app: Flask, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """An app that sells through Stripe itself, one price."""
    monkeypatch.setattr(gateway, "RETRIES", 0)
    content = (
        '{"product": {}, "prices": [{"id": "price_1", "currency": "usd", "unit_amount": 1, '
        '"metadata": {"price_type": "credit"}}]}'
    )
    with sqlite_app.app_context(), database.transaction() as session:
        session.add(CatalogVersion(source="stripe", digest="x", content=content, created_at=factories.clock.now()))
    return sqlite_app


def known_customer(app: Flask, account_id: str) -> None:
    now = factories.clock.now()
    with app.app_context(), database.transaction() as session:
        session.add(StripeCustomer(id="cus_1", account_id=account_id, created_at=now, synced_at=now))
    with app.app_context():
        db.session.remove()


@pytest.mark.settings(stripe_secret_key="sk_test_of_no_value", stripe_publishable_key="pk_test_of_no_value")
class TestAtStripeItself:
    SESSION: ClassVar = {
        "id": "cs_1", "object": "checkout.session", "mode": "payment", "created": 1795255200, "currency": "usd",
        "amount_total": 50,
    }  # fmt: skip

    def test_forms_lead_to_stripe_and_no_page_loads_anything_from_it(self, live: Flask) -> None:
        ann = factories.person(live, "ann@example.com")
        for path in ("/buy", "/billing", "/billing/card", "/usage"):
            policy = policy_of(ann.client.get(path))
            assert policy["form-action"] == "'self' https://checkout.stripe.com https://billing.stripe.com"
            assert policy["default-src"] == "'self'"
            assert set(policy) & {"script-src", "frame-src", "connect-src"} == set()

    @responses.activate
    def test_the_card_page_alone_loads_stripes_fields(self, live: Flask) -> None:
        ann = factories.person(live, "ann@example.com")
        known_customer(live, ann.account_id)
        intent = {"id": "seti_1", "object": "setup_intent", "client_secret": "seti_1_secret_2"}
        made = responses.post("https://api.stripe.com/v1/setup_intents", json=intent)
        answer = html.post(ann.client, "/billing/card")
        assert answer.status_code == 200
        policy = policy_of(answer)
        assert policy["script-src"] == "'self' https://js.stripe.com"
        assert policy["frame-src"] == "'self' https://js.stripe.com https://hooks.stripe.com"
        assert policy["connect-src"] == "'self' https://api.stripe.com"
        assert "unsafe" not in str(policy)
        page = html.read(answer)
        assert page.inline == []
        assert [one for one in page.addresses if "//" in one] == ["https://js.stripe.com/v3/"]
        assert 'data-secret="seti_1_secret_2"' in answer.text and 'data-key="pk_test_of_no_value"' in answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        assert "usage=off_session" in str(made.calls[0].request.body)

    @pytest.mark.settings(stripe_publishable_key=None)
    def test_without_a_publishable_key_the_portal_takes_the_card(self, live: Flask) -> None:
        ann = factories.person(live, "ann@example.com")
        assert [one.action for one in html.read(ann.client.get("/billing/card")).forms][-1] == "/billing/portal"

    @responses.activate
    def test_a_checkout_on_a_domain_of_the_teams_own(self, live: Flask) -> None:
        ann = factories.person(live, "ann@example.com")
        known_customer(live, ann.account_id)
        for address, status in (
            ("https://pay.example.com/c/pay/cs_1", 200),
            ("https://checkout.stripe.com/c/pay/1", 303),
        ):
            responses.upsert(
                responses.POST, "https://api.stripe.com/v1/checkout/sessions", json={**self.SESSION, "url": address}
            )
            answer = order(ann.client, credits="50")
            assert answer.status_code == status
            if status == 200:
                assert answer.headers["Refresh"] == f"0; url={address}"
                assert address in html.read(answer).addresses
            else:
                assert answer.headers["Location"] == address


def test_without_stripe_pages_say_so(sqlite_app: Flask) -> None:
    ann = factories.person(sqlite_app, "ann@example.com")
    for path in ("/buy", "/billing", "/billing/card"):
        page = html.read(ann.client.get(path))
        assert "Payments are not set up here" in page.text
        assert [one for one in page.forms if one.action.startswith("/billing")] == []
    refused = html.post(ann.client, "/billing/checkout", {"credits": "50"}, form="/settings")
    assert refused.status_code == BY_CODE["stripe_not_configured"].status
    assert "Payments are not set up" in refused.text
