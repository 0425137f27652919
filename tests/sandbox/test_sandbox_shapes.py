"""Nothing is shown that the installed package does not know, and every field that it knows of an object is there."""

from __future__ import annotations

from typing import Any

import pytest
from stripe._object_classes import get_object_class

from sandbox.shapes import INCLUDABLE, declared
from tests.sandbox.shop import Shop

# Kinds whose optional fields are left out where they are not set.
SPARSE = {"customer", "payment_method", "event", "item"}


@pytest.fixture
def everything(shop: Shop) -> dict[str, list[dict[str, Any]]]:
    subscription = shop.subscribe(trial_period_days=5)
    for price in (shop.price(), shop.price(100, every=None)):
        session = shop.checkout(price, customer=subscription.customer)
        shop.control.pay_checkout(session.id)
    shop.api.setup_intents.create({"customer": subscription.customer})
    shop.api.refunds.create({"payment_intent": shop.api.payment_intents.list().data[0].id})
    shop.api.billing_portal.sessions.create({"customer": subscription.customer})
    shop.api.invoice_items.create({"customer": subscription.customer, "amount": 5, "currency": "usd"})
    shop.api.webhook_endpoints.create({"url": "http://127.0.0.1:9", "enabled_events": ["*"]})
    shop.api.subscription_schedules.create({"from_subscription": shop.subscribe().id})
    shop.api.billing.meters.create(
        {"display_name": "m", "event_name": "m", "default_aggregation": {"formula": "count"}}
    )
    shop.api.billing.meter_events.create(
        {"event_name": "m", "payload": {"stripe_customer_id": str(subscription.customer)}}
    )
    shop.control.dispute(shop.api.charges.list().data[0].id)
    shop.control.advance(days=40)
    dumped: dict[str, list[dict[str, Any]]] = shop.control.dump()
    return dumped


def test_objects_have_the_fields_of_the_package(everything: dict[str, list[dict[str, Any]]]) -> None:
    for kind, objects in everything.items():
        for obj in objects:
            unknown = set(obj) - declared(kind) - {"us_bank_account", "card"}
            assert not unknown, (kind, unknown)
            if kind not in SPARSE:
                missing = declared(kind) - set(obj) - INCLUDABLE.get(kind, frozenset())
                assert not missing, (kind, missing)


def test_lines_too(everything: dict[str, list[dict[str, Any]]]) -> None:
    for invoice in everything["invoice"]:
        for line in invoice["lines"]["data"]:
            assert set(line) == set(declared("line_item"))


def test_every_kind_was_looked_at(everything: dict[str, list[dict[str, Any]]]) -> None:
    assert [kind for kind, objects in everything.items() if not objects and kind != "line_item"] == []
    assert all(get_object_class("V1", kind).__name__ != "StripeObject" for kind in everything)
