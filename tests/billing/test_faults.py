"""What an event's handler and the renewal job do with each bad answer that Stripe's address can give."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import responses

from services.stripe import gateway
from tests import factories
from tests.stripe_world import StripeWorld

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])
FAULTS: dict[str, dict[str, Any]] = {
    "timeout": {"body": requests.exceptions.ReadTimeout()},
    "no connection": {"body": requests.exceptions.ConnectionError()},
    "429": {"status": 429, "json": {"error": {"type": "invalid_request_error", "code": "rate_limit"}}},
    "500": {"status": 500, "json": {"error": {"type": "api_error"}}},
    "401": {"status": 401, "json": {"error": {"type": "invalid_request_error", "message": "who@example.com"}}},
    "404": {"status": 404, "json": {"error": {"type": "invalid_request_error", "code": "resource_missing"}}},
    "not json": {"status": 200, "body": "<html>Bad gateway who@example.com"},
    "not an object": {"status": 200, "json": ["who@example.com"]},
    "half an object": {"status": 200, "json": {"id": "sub_1", "object": "subscription", "status": "active"}},
}


@pytest.fixture
def world(stripe: StripeWorld, monkeypatch: pytest.MonkeyPatch) -> StripeWorld:
    monkeypatch.setattr(gateway, "RETRIES", 0)
    stripe.seed()
    stripe.deliver()
    return stripe


def break_subscriptions(edge: responses.RequestsMock, world: StripeWorld, subscription: str, fault: str) -> None:
    edge.get(f"{world.sandbox.url}/v1/subscriptions/{subscription}", **FAULTS[fault])


@ON_SQLITE
@pytest.mark.parametrize("fault", FAULTS)
def test_an_event_outlives_every_bad_answer(world: StripeWorld, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    account = factories.account(world.app)
    subscription = world.subscribe(account)
    delivery = next(one for one in world.waiting() if one["type"] == "customer.subscription.created")
    with responses.RequestsMock() as edge:
        break_subscriptions(edge, world, subscription, fault)
        status, body = world.post(delivery)
    assert (status, json.loads(body)["code"]) == (500, "internal_error")
    assert world.balance(account)["plan"] == "free"
    listed = world.app.test_cli_runner().invoke(args=["inbox", "list", "--status", "failed"]).output
    assert listed.count("\n") == 1 and "customer.subscription.created" in listed
    assert "who@example.com" not in listed + body + "".join(record.getMessage() for record in caplog.records)
    assert world.run_job("retry-inbox") == "ok"
    world.deliver()
    assert world.end_state(account)["balance"]["plan"] == "team"


@ON_SQLITE
@pytest.mark.parametrize("fault", FAULTS)
def test_a_renewal_outlives_every_bad_answer(world: StripeWorld, fault: str) -> None:
    """Where Stripe can not be reached it is issued from the mirror; where Stripe answers nonsense it waits."""
    account = factories.account(world.app)
    subscription = world.subscribe(account)
    world.deliver()
    world.advance(days=31)
    with responses.RequestsMock() as edge:
        break_subscriptions(edge, world, subscription, fault)
        assert world.run_job("renew-allowances") == "ok"
    waits = fault in ("404", "half an object")
    assert world.balance(account)["allowance"]["remaining"] == (0 if waits else 5000)
    assert world.run_job("renew-allowances") == "ok"
    world.deliver()
    state = world.end_state(account)
    assert state["balance"]["allowance"] == {"included": 5000, "used": 0, "remaining": 5000}
    assert state["ledger"]["allowance", "allowance"] == 10_000_000_000


@ON_SQLITE
def test_no_question_is_asked_while_a_row_is_locked(world: StripeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    import database

    asked = gateway._ask
    inside: list[str] = []

    def guarded(*arguments: Any, **named: Any) -> Any:
        if database._one_at_a_time._writes:
            inside.append(str(arguments))
        return asked(*arguments, **named)

    monkeypatch.setattr(gateway, "_ask", guarded)
    account = factories.account(world.app)
    world.subscribe(account)
    world.deliver()
    world.advance(days=31)
    assert world.run_job("renew-allowances") == "ok"
    world.deliver()
    assert world.end_state(account)["balance"]["plan"] == "team"
    assert inside == []
