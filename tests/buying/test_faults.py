"""Faults at the edge, as the package meets them: nobody answers, an error, nonsense, a card that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import responses
import simplejson
from flask import Flask

import database
from extensions import db
from models.catalog import CatalogVersion
from models.stripe import Purchase, StripeCustomer
from services import catalog
from services.stripe import gateway
from tests import factories
from tests.factories import Api

API = "https://api.stripe.com/v1"
CUSTOMER = {"id": "cus_1", "object": "customer", "metadata": {}}
ERRORS: dict[str, dict[str, Any]] = {
    "nobody listens": {"body": requests.ConnectionError("refused")},
    "timeout": {"body": requests.Timeout("too long")},
    "too many requests": {"status": 429, "json": {"error": {"type": "invalid_request_error", "code": "rate_limit"}}},
    "their fault": {"status": 500, "json": {"error": {"type": "api_error"}}},
    "a proxy's page": {"status": 200, "body": "<html>Bad gateway"},
    "no object": {"status": 200, "json": ["what"]},
    "an empty answer": {"status": 200, "body": ""},
    "the wrong key": {"status": 401, "json": {"error": {"type": "invalid_request_error", "message": "sk_live_x"}}},
    "no permission": {"status": 403, "json": {"error": {"type": "invalid_request_error"}}},
}

pytestmark = pytest.mark.settings(stripe_secret_key="sk_test_of_no_value")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "RETRIES", 0)


@pytest.fixture
def edge() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def api(sqlite_app: Flask) -> Api:
    """An account that could buy: a catalog with one credit price is in force."""
    price = {"id": "price_1", "currency": "usd", "unit_amount": 1, "metadata": {"price_type": "credit"}}
    content = simplejson.dumps({"product": {}, "prices": [price]})
    with sqlite_app.app_context():
        with database.transaction() as session:
            version = CatalogVersion(source="stripe", digest="x", content=content, created_at=factories.clock.now())
            session.add(version)
        assert [offer.price for offer in catalog.current().credit_prices] == ["price_1"]
        db.session.remove()
    account_id = factories.account(sqlite_app, credits=0)
    return Api(sqlite_app, factories.token(sqlite_app, account_id, "read", "billing"))


def kept(app: Flask) -> int:
    with app.app_context(), database.transaction() as session:
        return session.query(Purchase).count() + session.query(StripeCustomer).count()


@pytest.mark.parametrize("fault", ERRORS)
def test_buying_answers_503_and_changes_nothing(edge: responses.RequestsMock, api: Api, fault: str) -> None:
    edge.post(f"{API}/customers", **ERRORS[fault])
    for path, body in (("customer", {}), ("checkout", {"credits": 50}), ("setup-intent", {}), ("portal", {})):
        answer = api.post(f"/stripe/{path}", body)
        assert (answer.status, answer.code) == (503, "stripe_unavailable"), answer
        assert answer.headers["Retry-After"] == "30"
        assert "sk_" not in answer.text
    assert kept(api.app) == 0
    assert api.get("/balance").status == 200


@pytest.mark.parametrize("fault", ERRORS)
def test_a_session_that_is_not_made_leaves_only_the_customer(
    edge: responses.RequestsMock, api: Api, fault: str
) -> None:
    edge.post(f"{API}/customers", json=CUSTOMER)
    edge.post(f"{API}/customers/cus_1", json=CUSTOMER)
    edge.post(f"{API}/checkout/sessions", **ERRORS[fault])
    assert api.post("/stripe/checkout", {"credits": 50}).status == 503
    assert kept(api.app) == 1
    assert api.get("/purchases").json["data"] == []


def test_a_card_that_is_refused_is_the_customers_to_mend(edge: responses.RequestsMock, api: Api) -> None:
    edge.post(f"{API}/customers", json=CUSTOMER)
    edge.post(f"{API}/customers/cus_1", json=CUSTOMER)
    declined = {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}
    edge.post(f"{API}/setup_intents", status=402, json={"error": declined})
    answer = api.post("/stripe/setup-intent")
    assert (answer.status, answer.json["errors"]) == (422, {"payment_method": ["Your card was declined."]})


@pytest.mark.parametrize("code", ["amount_too_small", "amount_too_large"])
def test_an_amount_that_nobody_can_pay(edge: responses.RequestsMock, api: Api, code: str) -> None:
    edge.post(f"{API}/customers", json=CUSTOMER)
    edge.post(f"{API}/customers/cus_1", json=CUSTOMER)
    refusal = {"type": "invalid_request_error", "code": code, "message": "50 cents at least"}
    edge.post(f"{API}/checkout/sessions", status=400, json={"error": refusal})
    answer = api.post("/stripe/checkout", {"credits": 1})
    assert (answer.status, list(answer.json["errors"])) == (422, ["credits"])


def test_an_address_that_stripe_does_not_like_keeps_nobody_from_buying(edge: responses.RequestsMock, api: Api) -> None:
    edge.post(f"{API}/customers", json=CUSTOMER)
    refusal = {"type": "invalid_request_error", "code": "email_invalid", "param": "email"}
    edge.post(f"{API}/customers/cus_1", status=400, json={"error": refusal})
    edge.post(
        f"{API}/checkout/sessions",
        json={
            "id": "cs_1",
            "object": "checkout.session",
            "url": "https://checkout.stripe.com/c/1",
            "mode": "payment",
            "created": 1795255200,
            "currency": "usd",
            "amount_total": 50,
        },
    )
    answer = api.post("/stripe/checkout", {"credits": 50})
    assert answer.json == {"url": "https://checkout.stripe.com/c/1", "session": "cs_1"}


def test_nothing_that_may_be_missing_is_ever_sent(edge: responses.RequestsMock, api: Api) -> None:
    """And every call that makes something has a key of ours, the same however often it is tried."""
    edge.post(f"{API}/customers", json=CUSTOMER)
    edge.post(f"{API}/customers/cus_1", json=CUSTOMER)
    edge.post(f"{API}/checkout/sessions", status=500, json={"error": {"type": "api_error"}})
    for _ in range(2):
        assert api.post("/stripe/checkout", {"credits": 50}).status == 503
    sent = [call.request for call in edge.calls]
    assert [one.url.removeprefix(API) for one in sent] == [
        "/customers", "/customers/cus_1", "/checkout/sessions", "/checkout/sessions",
    ]  # fmt: skip
    assert all("None" not in str(one.body) and "=&" not in f"{one.body}&" for one in sent)
    assert all(one.headers["Idempotency-Key"] for one in sent)
    assert sent[0].headers["Idempotency-Key"].startswith("spillway-customer-acc_")


def test_a_key_in_use_means_that_somebody_is_making_it(edge: responses.RequestsMock, api: Api) -> None:
    """Stripe answers 409 while it still works on the same key for another request of ours."""
    account_id = api.get("/balance").json["account"]

    def taken(_request: object) -> tuple[int, dict[str, str], str]:
        with api.app.app_context(), database.transaction() as session:
            now = factories.clock.now()
            session.add(StripeCustomer(id="cus_2", account_id=account_id, created_at=now, synced_at=now))
        return 409, {}, '{"error": {"type": "invalid_request_error", "code": "idempotency_key_in_use"}}'

    edge.add_callback(responses.POST, f"{API}/customers", taken)
    assert api.post("/stripe/customer").json == {"customer": "cus_2"}
