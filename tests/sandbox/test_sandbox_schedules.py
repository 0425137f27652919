"""Subscription schedules: a downgrade at the period's end, other phases, and the ways a schedule ends."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.sandbox.shop import Shop

DAY = 86400


def planned(shop: Shop, subscription: Any, price: stripe.Price, **later: Any) -> stripe.SubscriptionSchedule:
    """The subscription as it is until its period ends, then this price."""
    schedule = shop.api.subscription_schedules.create({"from_subscription": subscription.id})
    (now,) = schedule.phases
    first = {
        "items": [{"price": item.price, "quantity": item.quantity} for item in now["items"]],
        "start_date": now.start_date,
        "end_date": now.end_date,
    }
    phases = [first, {"items": [{"price": price.id}], **later}]
    return shop.api.subscription_schedules.update(schedule.id, {"phases": phases, "end_behavior": "release"})  # type: ignore[typeddict-item]


def amount(shop: Shop, subscription: Any) -> int:
    return int(shop.api.subscriptions.retrieve(subscription.id)["items"].data[0].price.unit_amount)


def test_made_from_a_subscription(shop: Shop) -> None:
    subscription = shop.subscribe()
    schedule = shop.api.subscription_schedules.create(
        {"from_subscription": subscription.id, "expand": ["subscription"]}
    )
    assert (schedule.status, schedule.end_behavior) == ("active", "release")
    assert schedule.subscription.schedule == schedule.id
    end = subscription["items"].data[0].current_period_end
    assert (schedule.current_phase.start_date, schedule.current_phase.end_date) == (subscription.created, end)
    with pytest.raises(stripe.InvalidRequestError, match="already attached"):
        shop.api.subscription_schedules.create({"from_subscription": subscription.id})
    assert [one.id for one in shop.api.subscription_schedules.list({"customer": subscription.customer}).data] == [
        schedule.id
    ]


def test_downgrade_at_period_end(shop: Shop) -> None:
    subscription, cheap = shop.subscribe(shop.price(9900)), shop.price(2900)
    schedule = planned(shop, subscription, cheap)
    shop.control.advance(days=20)
    assert amount(shop, subscription) == 9900
    shop.control.advance(days=10)
    assert amount(shop, subscription) == 2900
    renewal = shop.invoices(subscription)[-1]
    assert (renewal.billing_reason, renewal.total, renewal.status) == ("subscription_cycle", 2900, "paid")
    assert len(shop.invoices(subscription)) == 2
    item = shop.api.subscriptions.retrieve(subscription.id)["items"].data[0]
    assert item.id == subscription["items"].data[0].id
    assert item.current_period_start == subscription["items"].data[0].current_period_end
    shop.control.advance(days=31)
    done = shop.api.subscription_schedules.retrieve(schedule.id)
    assert (done.status, done.released_subscription, done.subscription) == ("released", subscription.id, None)
    assert shop.api.subscriptions.retrieve(subscription.id).schedule is None
    assert shop.invoices(subscription)[-1].total == 2900


def test_from_year_to_month_at_period_end(shop: Shop) -> None:
    subscription, monthly = shop.subscribe(shop.price(99000, every="year")), shop.price(9900)
    planned(shop, subscription, monthly)
    shop.control.advance("2027-01-31T11:30:00Z")
    item = shop.api.subscriptions.retrieve(subscription.id)["items"].data[0]
    assert (item.price.id, item.current_period_end - item.current_period_start) == (monthly.id, 28 * DAY)
    assert [invoice.total for invoice in shop.invoices(subscription)] == [99000, 9900]


def test_plan_is_taken_back_by_releasing(shop: Shop) -> None:
    subscription = shop.subscribe(shop.price(9900))
    schedule = planned(shop, subscription, shop.price(2900))
    released = shop.api.subscription_schedules.release(schedule.id)
    assert (released.status, released.subscription) == ("released", None)
    shop.control.advance(days=40)
    assert amount(shop, subscription) == 9900
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.subscription_schedules.release(schedule.id)


def test_cancellation_is_the_schedules_business_while_there_is_one(shop: Shop) -> None:
    subscription = shop.subscribe()
    schedule = shop.api.subscription_schedules.create({"from_subscription": subscription.id})
    with pytest.raises(stripe.InvalidRequestError, match="managed by the subscription schedule"):
        shop.api.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    shop.api.subscription_schedules.update(schedule.id, {"end_behavior": "cancel"})
    shop.control.advance(days=29)
    assert shop.status(subscription) == "canceled"
    assert shop.api.subscription_schedules.retrieve(schedule.id).status == "completed"


def test_canceled_with_its_subscription_and_the_other_way_round(shop: Shop) -> None:
    first, second = shop.subscribe(), shop.subscribe()
    one = shop.api.subscription_schedules.create({"from_subscription": first.id})
    two = shop.api.subscription_schedules.create({"from_subscription": second.id})
    shop.api.subscription_schedules.cancel(one.id)
    assert shop.status(first) == "canceled"
    shop.api.subscriptions.cancel(second.id)
    assert shop.api.subscription_schedules.retrieve(two.id).status == "canceled"


def test_phase_that_runs_is_changed_at_once(shop: Shop) -> None:
    subscription, dear = shop.subscribe(), shop.price(9900)
    schedule = shop.api.subscription_schedules.create({"from_subscription": subscription.id})
    shop.control.advance(days=14)
    (now,) = schedule.phases
    phase: Any = {"items": [{"price": dear.id}], "start_date": now.start_date, "end_date": now.end_date}
    shop.api.subscription_schedules.update(schedule.id, {"phases": [phase], "proration_behavior": "always_invoice"})
    assert amount(shop, subscription) == 9900
    assert shop.invoices(subscription)[-1].total == 3500
    with pytest.raises(stripe.InvalidRequestError, match="must be among the phases"):
        shop.api.subscription_schedules.update(schedule.id, {"phases": [phase | {"start_date": now.start_date + 60}]})


def test_begins_in_the_future_with_several_phases(shop: Shop) -> None:
    customer = shop.customer()
    prices = [shop.price(1000), shop.price(2000)]
    now = int(shop.control.now().timestamp())
    schedule = shop.api.subscription_schedules.create(
        {
            "customer": customer.id,
            "start_date": now + 5 * DAY,
            "end_behavior": "cancel",
            "phases": [
                {"items": [{"price": prices[0].id}], "duration": {"interval": "month", "interval_count": 2}},
                {"items": [{"price": prices[1].id}], "duration": {"interval": "month"}},
            ],
        }
    )
    assert (schedule.status, schedule.subscription) == ("not_started", None)
    shop.control.advance(days=6)
    subscription = shop.api.subscriptions.list({"customer": customer.id}).data[0]
    assert shop.api.subscription_schedules.retrieve(schedule.id).subscription == subscription.id
    shop.control.advance(days=120)
    assert [invoice.total for invoice in shop.invoices(subscription)] == [1000, 1000, 2000]
    assert shop.status(subscription) == "canceled"


def test_phase_that_ends_within_a_period_is_prorated(shop: Shop) -> None:
    subscription, dear = shop.subscribe(), shop.price(9900)
    schedule = shop.api.subscription_schedules.create({"from_subscription": subscription.id})
    (now,) = schedule.phases
    first: Any = {
        "items": [{"price": now["items"][0].price}],
        "start_date": now.start_date,
        "end_date": now.start_date + 14 * DAY,
    }
    second: Any = {"items": [{"price": dear.id}], "proration_behavior": "always_invoice"}
    shop.api.subscription_schedules.update(schedule.id, {"phases": [first, second]})
    shop.control.advance(days=15)
    assert [invoice.total for invoice in shop.invoices(subscription)] == [2900, 3500]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"phases": []},
        {"phases": [{"items": []}]},
        {"phases": [{"items": [{"price": "price_none"}]}]},
        {"phases": [{"items": [{"price": "PRICE"}], "end_date": 1}]},
        {"phases": [{"items": [{"price": "PRICE"}]}], "end_behavior": "renew"},
    ],
)
def test_what_schedules_refuse(shop: Shop, params: dict[str, Any]) -> None:
    price = shop.price()
    for phase in params.get("phases", []):
        phase["items"] = [{"price": item["price"].replace("PRICE", price.id)} for item in phase["items"]]
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.subscription_schedules.create({"customer": shop.customer().id} | params)  # type: ignore[arg-type]
