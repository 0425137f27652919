"""Metered prices: events are counted by their meter and billed with the renewal that follows."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.sandbox.shop import Shop


@pytest.fixture
def meter(shop: Shop) -> Any:
    return shop.api.billing.meters.create(
        {"display_name": "Credits", "event_name": "credits", "default_aggregation": {"formula": "sum"}}
    )


def metered(shop: Shop, meter: Any, **params: Any) -> stripe.Price:
    recurring = {"interval": "month", "usage_type": "metered", "meter": meter.id}
    return shop.price(3, every=None, recurring=recurring, **params)


def use(shop: Shop, customer: str, value: str, **params: Any) -> Any:
    payload = {"stripe_customer_id": customer, "value": value}
    return shop.api.billing.meter_events.create({"event_name": "credits", "payload": payload, **params})


def test_usage_is_billed_with_the_renewal(shop: Shop, meter: Any) -> None:
    subscription = shop.subscribe(metered(shop, meter))
    assert (subscription.status, subscription["items"].data[0].to_dict().get("quantity")) == ("active", None)
    use(shop, subscription.customer, "100")
    use(shop, subscription.customer, "20")
    use(shop, "cus_other", "7000")
    shop.control.advance("2026-02-28T10:30:00Z")
    draft = shop.invoices(subscription)[-1]
    line = draft["lines"].data[0]
    assert (line.quantity, line.amount, line.period.start) == (120, 360, subscription.created)
    late = subscription["items"].data[0].current_period_end - 60
    use(shop, subscription.customer, "5", timestamp=late)
    use(shop, subscription.customer, "1000")
    shop.control.advance(hours=1)
    assert shop.api.invoices.retrieve(draft.id).total == 375
    shop.control.advance(days=31)
    assert shop.invoices(subscription)[-1].total == 3000


def test_beside_a_base_price_and_in_checkout(shop: Shop, meter: Any) -> None:
    base, usage = shop.price(2900), metered(shop, meter)
    session = shop.api.checkout.sessions.create(
        {
            "mode": "subscription",
            "line_items": [{"price": base.id, "quantity": 1}, {"price": usage.id}],
            "success_url": "http://shop.example/return",
            "customer_email": "bob@example.com",
        }
    )
    assert session.amount_total == 2900
    shop.control.pay_checkout(session.id)
    subscription = shop.api.subscriptions.list().data[0]
    use(shop, str(subscription.customer), "10")
    shop.control.advance(days=29)
    assert shop.invoices(subscription)[-1].total == 2930
    preview = shop.api.invoices.create_preview({"subscription": subscription.id})
    assert preview.total == 2900


def test_last_bill_of_a_canceled_subscription(shop: Shop, meter: Any) -> None:
    subscription = shop.subscribe(metered(shop, meter))
    use(shop, subscription.customer, "10")
    shop.control.advance(days=3)
    shop.api.subscriptions.cancel(subscription.id, {"invoice_now": True})
    assert shop.invoices(subscription)[-1].total == 30


def test_usage_of_a_price_that_is_given_up_is_billed(shop: Shop, meter: Any) -> None:
    subscription, plan = shop.subscribe(metered(shop, meter)), shop.price(2900)
    use(shop, subscription.customer, "10")
    shop.control.advance(days=14)
    items: Any = [{"id": subscription["items"].data[0].id, "price": plan.id}]
    changed = shop.api.subscriptions.update(subscription.id, {"items": items, "proration_behavior": "always_invoice"})
    assert changed["items"].data[0].quantity == 1
    assert [line.amount for line in shop.invoices(subscription)[-1]["lines"].data] == [30, 1450]
    back: Any = [{"id": subscription["items"].data[0].id, "price": subscription["items"].data[0].price.id}]
    shop.api.subscriptions.update(subscription.id, {"items": back, "proration_behavior": "none"})
    use(shop, subscription.customer, "7")
    shop.control.advance(days=15)
    assert shop.invoices(subscription)[-1].total == 21


def test_from_usage_to_a_plan_at_period_end(shop: Shop, meter: Any) -> None:
    subscription, plan = shop.subscribe(metered(shop, meter)), shop.price(2900)
    use(shop, subscription.customer, "10")
    schedule = shop.api.subscription_schedules.create({"from_subscription": subscription.id})
    (now,) = schedule.phases
    first = {"items": [{"price": now["items"][0].price}], "start_date": now.start_date, "end_date": now.end_date}
    phases: Any = [first, {"items": [{"price": plan.id}]}]
    shop.api.subscription_schedules.update(schedule.id, {"phases": phases})
    shop.control.advance(days=29)
    assert sorted(line.amount for line in shop.invoices(subscription)[-1]["lines"].data) == [30, 2900]


def test_canceled_at_period_end_with_a_last_bill(shop: Shop, meter: Any) -> None:
    subscription = shop.subscribe(metered(shop, meter))
    use(shop, subscription.customer, "10")
    shop.api.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    shop.control.advance(days=29)
    assert shop.status(subscription) == "canceled"
    assert shop.invoices(subscription)[-1].amount_paid == 30


def test_events_are_taken_once(shop: Shop, meter: Any) -> None:
    customer = shop.customer().id
    event = use(shop, customer, "1", identifier="batch-1")
    assert (event.identifier, event.event_name, event.timestamp) == ("batch-1", "credits", event.created)
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        use(shop, customer, "1", identifier="batch-1")
    now = int(shop.control.now().timestamp())
    summary = shop.api.billing.meters.event_summaries.list(
        meter.id, {"customer": customer, "start_time": now - 3600, "end_time": now + 3600}
    )
    assert [one.aggregated_value for one in summary.data] == [1.0]


@pytest.mark.parametrize("offset", [-36 * 86400, 600])
def test_too_old_and_too_early(shop: Shop, meter: Any, offset: int) -> None:
    moment = int(shop.control.now().timestamp()) + offset
    with pytest.raises(stripe.InvalidRequestError, match="35 days"):
        use(shop, shop.customer().id, "1", timestamp=moment)


def test_meters_and_what_they_refuse(shop: Shop, meter: Any) -> None:
    customer = shop.customer().id
    for value in ("", "many", "NaN"):
        with pytest.raises(stripe.InvalidRequestError):
            use(shop, customer, value)
    with pytest.raises(stripe.InvalidRequestError, match="exists already"):
        shop.api.billing.meters.create(
            {"display_name": "Again", "event_name": "credits", "default_aggregation": {"formula": "sum"}}
        )
    assert shop.api.billing.meters.deactivate(meter.id).status == "inactive"
    with pytest.raises(stripe.InvalidRequestError, match="No active meter"):
        use(shop, customer, "1")
    assert shop.api.billing.meters.reactivate(meter.id).status == "active"
    assert [one.id for one in shop.api.billing.meters.list({"status": "active"}).data] == [meter.id]
