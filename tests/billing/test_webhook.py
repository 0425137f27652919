"""POST /webhooks/stripe: who is let in, what is kept, and that an event's effects come once."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stripe as stripe_package
from flask import Flask
from sqlalchemy import select

import database as databases
from models.stripe import StripeSubscription, WebhookEvent
from services.stripe import handlers, inbox
from tests import factories
from tests.moments import At
from tests.stripe_world import WEBHOOK_SECRET, StripeWorld

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])
"""For what comes before the database."""
URL = "/webhooks/stripe"


def event(**values: Any) -> dict[str, Any]:
    return {
        "id": "evt_1",
        "object": "event",
        "type": "customer.subscription.updated",
        "created": 1_770_000_000,
        "livemode": False,
        "data": {"object": {"id": "sub_1", "object": "subscription"}},
        **values,
    }


def sign(body: bytes, secret: str = WEBHOOK_SECRET, at: float | None = None) -> str:
    text = body.decode(errors="surrogateescape")
    stamp = int(time.time() if at is None else at)
    if "\udc80" <= max(text, default="") <= "\udcff":  # the package signs text only
        import hashlib
        import hmac

        digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        return f"t={stamp},v1={digest}"
    return str(stripe_package.WebhookSignature.generate_signature_header(text, secret, stamp))


def send(app: Flask, body: bytes | dict[str, Any], signature: str | None = None, **headers: str) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Stripe-Signature": sign(raw) if signature is None else signature, **headers}
    answer = app.test_client(use_cookies=False).post(URL, data=raw, headers=sent)
    return answer.status_code, answer.get_json(force=True)


def kept(app: Flask) -> list[WebhookEvent]:
    with app.app_context(), databases.transaction() as session:
        return list(session.scalars(select(WebhookEvent).order_by(WebhookEvent.received_at)))


def row_of(app: Flask, delivery: dict[str, Any]) -> WebhookEvent:
    """What is kept of a delivery's event."""
    return next(one for one in kept(app) if one.id == json.loads(delivery["payload"])["id"])


# Who is let in


@ON_SQLITE
def test_without_a_secret_there_is_no_such_page(app: Flask) -> None:
    status, problem = send(app, event())
    assert (status, problem["code"]) == (404, "not_found")


@ON_SQLITE
@pytest.mark.parametrize(
    "signature",
    [
        "",
        "nonsense",
        "t=,v1=",
        "t=1,v1=00",
        "t=x,v1=00",
        "v1=00",
        pytest.param(sign(json.dumps(event()).encode(), "whsec_of_somebody_else"), id="another secret"),
    ],
)
def test_a_signature_that_is_not_stripes_is_refused(stripe: StripeWorld, signature: str) -> None:
    status, problem = send(stripe.app, event(), signature)
    assert (status, problem["code"]) == (400, "bad_request")
    assert kept(stripe.app) == []


@ON_SQLITE
@pytest.mark.parametrize(("off", "status"), [(-400, 400), (-290, 200), (290, 200), (400, 400)])
def test_a_timestamp_may_be_five_minutes_off_either_way(stripe: StripeWorld, off: int, status: int) -> None:
    """Of the machine's time: the business clock of this test stands elsewhere."""
    body = json.dumps(event(type="charge.succeeded")).encode()
    assert send(stripe.app, body, sign(body, at=time.time() + off))[0] == status


@ON_SQLITE
def test_the_signature_is_over_the_very_bytes(stripe: StripeWorld) -> None:
    body = json.dumps(event(type="charge.succeeded")).encode()
    assert send(stripe.app, body + b" ", sign(body))[0] == 400
    assert send(stripe.app, body + b" ", sign(body + b" "))[0] == 200


@ON_SQLITE
@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b"{",
        b"",
        b"[]",
        b"null",
        b'"evt"',
        pytest.param(b"[" * 100_000, id="deep"),
        json.dumps(event(id=None)).encode(),
        json.dumps(event(id="e" * 300)).encode(),
        json.dumps(event(id="evt_\u0000")).encode(),
        json.dumps(event(type="")).encode(),
        json.dumps(event(created="now")).encode(),
        json.dumps(event(created=10**30)).encode(),
    ],
)
def test_what_is_signed_but_no_event_is_refused(stripe: StripeWorld, body: bytes) -> None:
    status, problem = send(stripe.app, body, sign(body))
    assert (status, problem["code"]) == (400, "bad_request")
    assert kept(stripe.app) == []


@ON_SQLITE
def test_a_body_that_is_too_long_is_not_read(stripe: StripeWorld) -> None:
    body = b" " * (1024 * 1024 + 1)
    assert send(stripe.app, body, sign(body))[0] == 413
    assert stripe.app.test_client().get(URL).status_code == 405


# What is none of ours


@ON_SQLITE
@pytest.mark.parametrize("values", [{"livemode": True}, {"type": "charge.succeeded"}, {"type": "never.heard.of"}])
def test_other_modes_and_other_types_are_ignored_and_not_kept(stripe: StripeWorld, values: dict[str, Any]) -> None:
    assert send(stripe.app, event(**values)) == (200, {"status": "ignored"})
    assert kept(stripe.app) == []


@ON_SQLITE
@pytest.mark.settings(stripe_product_tag="spillway")
def test_with_a_live_key_events_of_the_test_mode_are_ignored(app: Flask) -> None:
    settings = app.config["SETTINGS"]
    changed = {"stripe_webhook_secret": WEBHOOK_SECRET, "stripe_secret_key": "sk_live_none"}
    for name, value in changed.items():
        object.__setattr__(settings, name, value)
    assert send(app, event()) == (200, {"status": "ignored"})


def test_objects_of_others_are_acknowledged_and_nothing_is_kept_of_them(stripe: StripeWorld) -> None:
    """A customer, a subscription and a session of another product that shares the Stripe account."""
    v1 = stripe.client.v1
    stripe.seed()
    account_id = factories.account(stripe.app)
    other = {"product": "something-else", "account": account_id}
    product = v1.products.create(params={"name": "Other", "metadata": {"product": "something-else"}})
    price = v1.prices.create(
        params={
            "product": product.id,
            "currency": "usd",
            "unit_amount": 100,
            "recurring": {"interval": "month"},
            "metadata": {"price_type": "base", "tier": "team", "included_credits": "7"},
        }
    )
    for metadata in ({}, other):
        customer = v1.customers.create(params={"metadata": metadata})
        card = v1.payment_methods.attach("pm_card_visa", params={"customer": customer.id})
        v1.subscriptions.create(
            params={
                "customer": customer.id,
                "items": [{"price": price.id}],
                "default_payment_method": card.id,
                "metadata": metadata,
            }
        )
    stripe.deliver()
    state = stripe.end_state(account_id)
    assert (state["balance"]["plan"], state["stripe_subscriptions"], state["invoices"]) == ("free", [], [])
    foreign = [one for one in kept(stripe.app) if not one.type.startswith(("product.", "price."))]
    assert {(one.status, one.payload) for one in foreign} == {("ignored", "{}")}


def test_another_products_subscription_of_our_customer_is_not_ours(stripe: StripeWorld) -> None:
    """One customer may buy of both products; each deployment sees its own."""
    v1 = stripe.client.v1
    stripe.seed()
    account_id = factories.account(stripe.app)
    stripe.subscribe(account_id)
    product = v1.products.create(params={"name": "Other", "metadata": {"product": "something-else"}})
    metadata = {"price_type": "base", "tier": "huge", "included_credits": "999999"}
    price = v1.prices.create(
        params={
            "product": product.id,
            "currency": "usd",
            "unit_amount": 100,
            "recurring": {"interval": "month"},
            "metadata": metadata,
        }
    )
    customer = stripe.customer(account_id)
    card = v1.payment_methods.attach("pm_card_visa", params={"customer": customer})
    items = [{"price": price.id}]
    v1.subscriptions.create(params={"customer": customer, "items": items, "default_payment_method": card.id})
    stripe.deliver()
    state = stripe.end_state(account_id)
    assert (state["balance"]["plan"], state["balance"]["allowance"]["included"]) == ("team", 5000)
    assert (len(state["stripe_subscriptions"]), len(state["invoices"])) == (1, 1)


# Once


def subscribed(stripe: StripeWorld) -> tuple[str, dict[str, Any]]:
    """An account, and the delivery of its new subscription, the only one that is not made yet."""
    stripe.seed()
    stripe.deliver()
    account_id = factories.account(stripe.app)
    stripe.subscribe(account_id)
    return account_id, next(one for one in stripe.waiting() if one["type"] == "customer.subscription.created")


def test_the_same_event_again_does_nothing(stripe: StripeWorld) -> None:
    account_id, delivery = subscribed(stripe)
    assert stripe.post(delivery) == (200, '{"status":"processed"}')
    before = stripe.balance(account_id)
    assert stripe.post(delivery) == (200, '{"status":"already_processed"}')
    assert stripe.balance(account_id) == before
    row = row_of(stripe.app, delivery)
    assert (row.status, row.attempts, row.error) == ("processed", 1, None)
    assert json.loads(row.payload) == json.loads(delivery["payload"])


def test_one_event_delivered_by_many_at_once_has_its_effects_once(stripe: StripeWorld) -> None:
    account_id, delivery = subscribed(stripe)
    start, answers = threading.Barrier(4), []

    def post() -> None:
        start.wait(120)
        answers.append(stripe.post(delivery))

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(answers) == [(200, '{"status":"already_processed"}')] * 3 + [(200, '{"status":"processed"}')]
    assert stripe.end_state(account_id)["ledger"]["allowance", "allowance"] == 5000 * 1_000_000


# Trying again


def test_an_event_that_fails_is_kept_refused_and_handled_when_it_comes_again(stripe: StripeWorld) -> None:
    account_id, delivery = subscribed(stripe)
    stripe.sandbox.control.fault("rate_limit", path="/v1/subscriptions")
    status, body = stripe.post(delivery)
    assert (status, json.loads(body)["code"]) == (500, "internal_error")
    row = row_of(stripe.app, delivery)
    assert (row.status, row.attempts, row.processed_at) == ("failed", 1, None)
    assert row.error == "StripeUnavailable: The payment provider can not be reached right now"
    assert stripe.balance(account_id)["plan"] == "free"
    assert stripe.post(delivery) == (200, '{"status":"processed"}')
    assert stripe.balance(account_id)["plan"] == "team"


def test_the_job_waits_longer_after_each_failure_and_by_hand_not_at_all(stripe: StripeWorld) -> None:
    account_id, delivery = subscribed(stripe)
    stripe.sandbox.control.fault("rate_limit", times=3, path="/v1/subscriptions")
    assert stripe.post(delivery)[0] == 500
    assert stripe.run_job("retry-inbox", by_hand=False) == "ok"
    pauses = []
    for attempts in (1, 2, 3):
        row = row_of(stripe.app, delivery)
        assert (row.status, row.attempts) == ("failed", attempts)
        pauses.append(round((row.next_attempt_at - datetime.now(UTC)) / timedelta(minutes=1)))
        assert stripe.run_job("retry-inbox") == "ok"
    assert pauses == [1, 2, 4]
    assert row_of(stripe.app, delivery).status == "processed"
    assert stripe.balance(account_id)["plan"] == "team"


def test_an_event_whose_process_died_is_taken_up_when_its_time_is_over(stripe: StripeWorld) -> None:
    account_id, delivery = subscribed(stripe)
    payload = json.loads(delivery["payload"])
    with stripe.app.app_context():
        found = handlers.Event(payload["id"], payload["type"], payload["data"]["object"])
        assert inbox._take(found, delivery["payload"], payload["created"])  # and then the power failed
        assert inbox.retry_due() == 0, "whoever began may still be at it"
        with databases.transaction() as session:
            session.get_one(WebhookEvent, payload["id"]).next_attempt_at = datetime.now(UTC) - timedelta(seconds=1)
        assert inbox.retry_due() == 1
    assert stripe.balance(account_id)["plan"] == "team"


def test_after_the_last_attempt_an_event_is_dead_until_somebody_replays_it(
    stripe: StripeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_ATTEMPTS", 2)
    account_id, delivery = subscribed(stripe)
    event_id = json.loads(delivery["payload"])["id"]
    stripe.sandbox.control.fault("rate_limit", times=4, path="/v1/subscriptions")
    assert stripe.post(delivery)[0] == 500
    assert stripe.run_job("retry-inbox") == "ok"
    assert row_of(stripe.app, delivery).status == "dead"
    assert stripe.run_job("retry-inbox") == "ok"
    assert row_of(stripe.app, delivery).attempts == 2, "the job leaves it alone"
    runner = stripe.app.test_cli_runner()
    listed = runner.invoke(args=["inbox", "list", "--status", "dead"])
    assert listed.exit_code == 0 and event_id in listed.output and "StripeUnavailable" in listed.output
    failed = runner.invoke(args=["inbox", "replay", event_id])
    assert (failed.exit_code, row_of(stripe.app, delivery).status) == (1, "dead")
    assert stripe.post(delivery)[0] == 500
    replayed = runner.invoke(args=["inbox", "replay", event_id])
    assert (replayed.exit_code, replayed.output) == (0, f"{event_id}: processed\n")
    again = runner.invoke(args=["inbox", "replay", event_id])
    assert (again.exit_code, again.output) == (0, f"{event_id}: already_processed\n")
    assert runner.invoke(args=["inbox", "replay", "evt_nobody"]).exit_code == 2
    assert stripe.balance(account_id)["plan"] == "team"


def test_a_dead_event_that_stripe_delivers_again_is_handled(
    stripe: StripeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_ATTEMPTS", 1)
    _, delivery = subscribed(stripe)
    stripe.sandbox.control.fault("rate_limit", path="/v1/subscriptions")
    assert stripe.post(delivery)[0] == 500
    assert row_of(stripe.app, delivery).status == "dead"
    assert stripe.post(delivery) == (200, '{"status":"processed"}')


def test_a_new_invoice_is_always_taken(stripe: StripeWorld) -> None:
    """Or Stripe would not go on with it; the job mirrors it when it can."""
    account_id, _ = subscribed(stripe)
    delivery = next(one for one in stripe.waiting() if one["type"] == "invoice.created")
    stripe.sandbox.control.fault("rate_limit", times=0)
    assert stripe.post(delivery) == (200, '{"status":"ignored"}')
    stripe.sandbox.control.clear_faults()
    assert row_of(stripe.app, delivery).status == "failed"
    assert stripe.run_job("retry-inbox") == "ok"
    assert row_of(stripe.app, delivery).status == "processed"
    assert len(stripe.end_state(account_id)["invoices"]) == 1


def test_while_stripe_is_down_the_job_does_not_ask_for_every_event(stripe: StripeWorld) -> None:
    account_id, _ = subscribed(stripe)
    stripe.sandbox.control.fault("rate_limit", times=0)
    for delivery in stripe.waiting():
        stripe.post(delivery)
    before = {one.id: one.attempts for one in kept(stripe.app) if one.status == "failed"}
    assert len(before) > 5
    assert stripe.run_job("retry-inbox") == "ok"
    tried = [one.id for one in kept(stripe.app) if one.status == "failed" and one.attempts > before[one.id]]
    assert len(tried) == 3
    stripe.sandbox.control.clear_faults()
    assert stripe.run_job("retry-inbox") == "ok"
    assert stripe.end_state(account_id)["balance"]["plan"] == "team"


def test_who_asked_stripe_earlier_does_not_undo_what_somebody_knew_later(stripe: StripeWorld, at: At) -> None:
    """Two handlers of one subscription: the one with the older answer writes last."""
    from services.stripe import subscriptions, sync

    account_id, _ = subscribed(stripe)
    with stripe.app.app_context():
        subscription_id = stripe.client.v1.subscriptions.list().data[0].id
        slow = subscriptions.prepare(subscription_id)
        stripe.client.v1.subscriptions.update(subscription_id, params={"cancel_at_period_end": True})
        at.forward(seconds=1)
        assert sync.run(subscriptions.prepare(subscription_id))
        assert sync.run(slow)
        with databases.transaction() as session:
            assert session.get_one(StripeSubscription, subscription_id).cancel_at is not None
    assert stripe.balance(account_id)["plan"] == "team"


def test_the_log_names_no_person(stripe: StripeWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stripe.seed()
    account_id = factories.account(stripe.app)
    stripe.subscribe(account_id)
    stripe.sandbox.control.fault("error", times=3)
    stripe.post(stripe.waiting()[-1])
    stripe.deliver()
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "customer.subscription.created" in told
    for secret in ("who@example.com", WEBHOOK_SECRET, "sk_test", "4242"):
        assert secret not in told


@ON_SQLITE
def test_what_old_events_told_is_thrown_away_and_what_failed_is_kept(stripe: StripeWorld, at: At) -> None:
    stripe.seed()
    foreign = stripe.client.v1.products.create(params={"name": "Other"})
    stripe.client.v1.products.update(stripe.product, {"name": "Ours"})
    stripe.deliver()
    account_id = factories.account(stripe.app)
    stripe.subscribe(account_id)
    failed = next(one for one in stripe.waiting() if one["type"] == "customer.subscription.created")
    stripe.sandbox.control.fault("rate_limit")
    assert stripe.post(failed)[0] == 500
    before = kept(stripe.app)
    assert foreign.id in [one.object_id for one in before if one.status == "ignored"]
    at.forward(days=89)
    stripe.run_job("prune")
    assert [(one.id, one.payload) for one in kept(stripe.app)] == [(one.id, one.payload) for one in before]
    at.forward(days=2)
    stripe.run_job("prune")
    after = {one.id: one for one in kept(stripe.app)}
    assert set(after) == {one.id for one in before if one.status != "ignored"}
    assert {one.payload for one in after.values() if one.status == "processed"} == {"{}"}
    assert row_of(stripe.app, failed).payload == failed["payload"]
    assert stripe.post(failed) == (200, '{"status":"processed"}')
