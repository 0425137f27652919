"""Deliveries: signed, retried, and as bad as they are ordered to be."""

from __future__ import annotations

import time
from collections import Counter

import pytest
import stripe

from sandbox.control import SandboxError
from tests.sandbox.conftest import SECRET, Receiver
from tests.sandbox.shop import Shop


def test_every_event_arrives_signed_and_in_order(shop: Shop, receiver: Receiver) -> None:
    shop.subscribe()
    assert shop.control.drain()
    assert receiver.types == shop.told()
    event = receiver.events[-1]
    assert (event["object"], event["api_version"], event["livemode"]) == ("event", stripe.api_version, False)
    assert {one["state"] for one in shop.control.deliveries()} == {"delivered"}
    assert shop.api.events.retrieve(event["id"]).pending_webhooks == 0


def test_events_know_the_call_that_made_them(shop: Shop, receiver: Receiver) -> None:
    shop.api.customers.create({"name": "A"}, {"idempotency_key": "k-1"})
    shop.control.drain()
    assert receiver.events[0]["request"]["idempotency_key"] == "k-1"
    subscription = shop.subscribe()
    shop.control.advance(days=40)
    assert receiver.events[-1]["request"] == {"id": None, "idempotency_key": None}
    assert receiver.events[-1]["data"]["object"]["parent"]["subscription_details"]["subscription"] == subscription.id


def test_endpoints_by_api(shop: Shop, receiver: Receiver) -> None:
    endpoint = shop.api.webhook_endpoints.create(
        {"url": receiver.url, "enabled_events": ["customer.created"], "api_version": "2026-10-28.endive"}
    )
    assert endpoint.secret.startswith("whsec_")
    assert "secret" not in shop.api.webhook_endpoints.retrieve(endpoint.id).to_dict()
    shop.api.webhook_endpoints.update(endpoint.id, {"disabled": True})
    shop.customer(card=None)
    shop.control.drain()
    assert receiver.types == ["customer.created"]  # from the fixture's own endpoint
    assert shop.api.webhook_endpoints.delete(endpoint.id).deleted
    assert len(shop.api.webhook_endpoints.list().data) == 1


def test_only_what_was_subscribed_to(shop: Shop, receiver: Receiver) -> None:
    for endpoint in shop.api.webhook_endpoints.list().data:
        shop.api.webhook_endpoints.update(endpoint.id, {"enabled_events": ["invoice.paid"]})
    shop.subscribe()
    shop.control.drain()
    assert receiver.types == ["invoice.paid"]


def test_again_until_somebody_takes_it(shop: Shop, receiver: Receiver) -> None:
    receiver.answers = [500, 503, 404]
    shop.customer(card=None)
    assert shop.control.drain(retries=True)
    assert receiver.requests == 4
    (parcel,) = shop.control.deliveries()
    assert (parcel["state"], parcel["attempts"]) == ("delivered", 4)


def test_a_redirect_is_no_yes(shop: Shop, receiver: Receiver) -> None:
    receiver.answers = [302]
    shop.customer(card=None)
    shop.control.drain(retries=True)
    assert shop.control.deliveries()[0]["attempts"] == 2


def test_given_up_and_sent_by_hand(shop: Shop, receiver: Receiver) -> None:
    shop.control.modes(retry=False)
    receiver.answers = [500]
    shop.customer(card=None)
    shop.control.drain()
    assert [one["state"] for one in shop.control.deliveries()] == ["lost"]
    assert shop.control.release("lost") == 1
    shop.control.drain()
    assert receiver.types == ["customer.created"]


def test_held_and_released(shop: Shop, receiver: Receiver) -> None:
    shop.control.modes(hold=True)
    shop.customer(card=None)
    shop.control.drain()
    assert receiver.requests == 0
    (parcel,) = shop.control.deliveries("held")
    event = stripe.Webhook.construct_event(parcel["payload"], parcel["signature"], SECRET)
    assert event.type == "customer.created"
    shop.control.release(duplicate=True)
    shop.control.drain()
    assert receiver.types == ["customer.created"] * 2
    assert receiver.events[0] == receiver.events[1]


def test_only_some_are_released(shop: Shop, receiver: Receiver) -> None:
    shop.control.modes(hold=True)
    shop.subscribe()
    chosen = [one["id"] for one in shop.control.deliveries() if one["type"] == "invoice.paid"]
    assert shop.control.release(ids=chosen) == 1
    shop.control.drain()
    assert receiver.types == ["invoice.paid"]


def test_duplicated(shop: Shop, receiver: Receiver) -> None:
    shop.control.modes(duplicate=1)
    shop.subscribe()
    shop.control.drain()
    assert set(Counter(event["id"] for event in receiver.events).values()) == {2}


def test_shuffled(shop: Shop, receiver: Receiver) -> None:
    shop.control.modes(hold=True, shuffle=True)
    shop.subscribe()
    shop.control.release()
    shop.control.drain()
    assert receiver.types != shop.told()
    assert sorted(receiver.types) == sorted(shop.told())


def test_dropped_but_still_listed(shop: Shop, receiver: Receiver) -> None:
    shop.control.modes(drop=1, types=["invoice.paid"])
    shop.subscribe()
    shop.control.drain()
    assert "invoice.paid" not in receiver.types
    assert shop.api.events.list({"types": ["invoice.paid"]}).data[0].type == "invoice.paid"
    assert shop.api.events.list({"delivery_success": False}).data[0].type == "invoice.paid"


def test_delayed(shop: Shop, receiver: Receiver) -> None:
    shop.control.modes(delay_seconds=3600)
    shop.customer(card=None)  # which does not wait for that
    assert not shop.control.drain(0.1)
    assert receiver.types == []
    assert shop.control.release("pending") == 1
    shop.control.modes(delay_seconds=1)
    began = time.monotonic()
    shop.customer(card=None)
    shop.control.drain()
    assert time.monotonic() - began >= 1
    assert receiver.types == ["customer.created"] * 2


def test_draft_waits_for_an_endpoint_that_refuses_it(shop: Shop, receiver: Receiver) -> None:
    subscription = shop.subscribe()
    receiver.refuse = {"invoice.created"}
    shop.control.modes(waits=[60.0] * 3)
    shop.control.advance("2026-03-01T10:00:00Z")
    assert shop.invoices(subscription)[-1].status == "draft"
    receiver.refuse = set()
    shop.control.release()
    shop.control.drain()
    shop.control.advance(hours=1)
    assert shop.invoices(subscription)[-1].status == "paid"


def test_draft_waits_no_longer_than_three_days(shop: Shop, receiver: Receiver) -> None:
    subscription = shop.subscribe()
    receiver.refuse = {"invoice.created"}
    shop.control.modes(waits=[60.0] * 3)
    shop.control.advance("2026-03-03T12:00:00Z")
    invoice = shop.invoices(subscription)[-1]
    assert invoice.status == "paid"
    assert invoice.status_transitions.paid_at - invoice.created == 72 * 3600


def test_each_moment_is_told_before_the_next_one(shop: Shop, receiver: Receiver) -> None:
    shop.subscribe()
    shop.control.advance(days=100)
    assert receiver.types == shop.told()
    created = [event["created"] for event in receiver.events]
    assert created == sorted(created)
    assert len(set(created)) > 6


def test_unknown_modes_and_settings_are_refused(shop: Shop) -> None:
    with pytest.raises(SandboxError, match="No such mode"):
        shop.control.modes(lose=True)
    with pytest.raises(SandboxError, match="No such setting"):
        shop.control.settings(patience=1)
