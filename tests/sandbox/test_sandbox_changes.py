"""Running subscriptions that are changed: prorations, previews that come true, items, changes that wait for money."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.sandbox.shop import Shop


def item_of(subscription: Any) -> str:
    return str(subscription["items"].data[0].id)


def change(shop: Shop, subscription: Any, price: stripe.Price, **params: Any) -> stripe.Subscription:
    items = [{"id": item_of(subscription), "price": price.id}]
    return shop.api.subscriptions.update(subscription.id, {"items": items, **params})  # type: ignore[typeddict-item]


def preview(shop: Shop, subscription: Any, price: stripe.Price, **details: Any) -> stripe.Invoice:
    details["items"] = [{"id": item_of(subscription), "price": price.id}]
    return shop.api.invoices.create_preview({"subscription": subscription.id, "subscription_details": details})  # type: ignore[typeddict-item]


def amounts(invoice: Any) -> list[int]:
    return [line.amount for line in invoice["lines"].data]


def test_upgrade_at_once_is_what_the_preview_said(shop: Shop) -> None:
    subscription, dear = shop.subscribe(), shop.price(9900)
    shop.control.advance(days=14)
    promised = preview(shop, subscription, dear, proration_behavior="always_invoice")
    assert amounts(promised) == [-1450, 4950]
    assert (promised.amount_due, promised.status, promised.number) == (3500, "draft", None)
    assert promised.id.startswith("upcoming_in_")
    assert len(shop.invoices(subscription)) == 1
    changed = change(shop, subscription, dear, proration_behavior="always_invoice")
    bill = shop.invoices(subscription)[-1]
    assert amounts(bill) == amounts(promised)
    assert (bill.billing_reason, bill.status, bill.amount_paid) == ("subscription_update", "paid", 3500)
    assert changed.latest_invoice == bill.id
    assert changed["items"].data[0].price.id == dear.id
    details = bill["lines"].data[0].parent.subscription_item_details
    assert (details.proration, details.subscription_item) == (True, item_of(subscription))
    assert bill["lines"].data[1].period.end == changed["items"].data[0].current_period_end


def test_prorations_wait_for_the_renewal(shop: Shop) -> None:
    subscription, dear = shop.subscribe(), shop.price(9900)
    shop.control.advance(days=14)
    promised = preview(shop, subscription, dear)
    change(shop, subscription, dear)
    assert len(shop.invoices(subscription)) == 1
    waiting = shop.api.invoice_items.list({"customer": subscription.customer, "pending": True}).data
    assert sorted(item.amount for item in waiting) == [-1450, 4950]
    shop.control.advance(days=15)
    bill = shop.invoices(subscription)[-1]
    assert sorted(amounts(bill)) == sorted(amounts(promised)) == [-1450, 4950, 9900]
    assert bill.total == promised.total == 13400


def test_without_prorations(shop: Shop) -> None:
    subscription, dear = shop.subscribe(), shop.price(9900)
    shop.control.advance(days=14)
    change(shop, subscription, dear, proration_behavior="none")
    shop.control.advance(days=15)
    assert amounts(shop.invoices(subscription)[-1]) == [9900]


def test_downgrade_at_once_leaves_a_credit_that_pays_later(shop: Shop) -> None:
    subscription = shop.subscribe(shop.price(9900))
    shop.control.advance(days=14)
    change(shop, subscription, shop.price(2900), proration_behavior="always_invoice")
    assert shop.invoices(subscription)[-1].total == -3500
    assert shop.api.customers.retrieve(subscription.customer).balance == -3500
    shop.control.advance(days=15)
    bill = shop.invoices(subscription)[-1]
    assert (bill.total, bill.amount_due, bill.ending_balance) == (2900, 0, -600)


def test_from_month_to_year_begins_anew(shop: Shop) -> None:
    subscription, yearly = shop.subscribe(), shop.price(29000, every="year")
    shop.control.advance(days=14)
    promised = preview(shop, subscription, yearly)
    changed = change(shop, subscription, yearly)
    bill = shop.invoices(subscription)[-1]
    assert sorted(amounts(bill)) == sorted(amounts(promised)) == [-1450, 29000]
    assert changed.billing_cycle_anchor == bill.created
    assert changed["items"].data[0].current_period_end == bill.created + 365 * 86400


def test_quantity(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.advance(days=14)
    item = shop.api.subscription_items.update(
        item_of(subscription), {"quantity": 3, "proration_behavior": "always_invoice"}
    )
    assert item.quantity == 3
    assert amounts(shop.invoices(subscription)[-1]) == [-1450, 4350]


def test_second_item_comes_and_goes(shop: Shop) -> None:
    subscription, extra = shop.subscribe(), shop.price(1000)
    added = shop.api.subscription_items.create({"subscription": subscription.id, "price": extra.id, "quantity": 2})
    listed = shop.api.subscription_items.list({"subscription": subscription.id}).data
    assert [(item.price.unit_amount, item.quantity) for item in listed] == [(2900, 1), (1000, 2)]
    assert added.current_period_end == listed[0].current_period_end
    assert shop.api.subscription_items.delete(added.id).deleted
    with pytest.raises(stripe.InvalidRequestError, match="at least one item"):
        shop.api.subscription_items.delete(item_of(subscription))


def test_new_cycle_on_request(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.advance(days=14)
    changed = shop.api.subscriptions.update(subscription.id, {"billing_cycle_anchor": {"type": "now"}})
    assert changed["items"].data[0].current_period_start == changed.billing_cycle_anchor
    assert amounts(shop.invoices(subscription)[-1]) == [-1450, 2900]


def test_refused_change_leaves_everything(shop: Shop) -> None:
    subscription = shop.subscribe()
    with pytest.raises(stripe.InvalidRequestError):
        change(shop, subscription, shop.price(1, currency="eur"))
    same = shop.api.subscriptions.retrieve(subscription.id)
    assert same["items"].data[0].price.unit_amount == 2900


# The payment of a change fails
def test_change_that_is_allowed_to_fail_makes_it_past_due(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.fail_next_payments(subscription.customer)
    shop.control.advance(days=14)
    changed = change(shop, subscription, shop.price(9900), proration_behavior="always_invoice")
    assert (changed.status, changed["items"].data[0].price.unit_amount) == ("past_due", 9900)


def test_change_with_error_if_incomplete(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.fail_next_payments(subscription.customer)
    shop.control.advance(days=14)
    options = {"proration_behavior": "always_invoice", "payment_behavior": "error_if_incomplete"}
    with pytest.raises(stripe.CardError):
        change(shop, subscription, shop.price(9900), **options)
    same = shop.api.subscriptions.retrieve(subscription.id)
    assert (same.status, same["items"].data[0].price.unit_amount) == ("active", 2900)
    assert len(shop.invoices(subscription)) == 1


def held(shop: Shop) -> Any:
    subscription = shop.subscribe()
    shop.control.fail_next_payments(subscription.customer)
    shop.control.advance(days=14)
    options = {"proration_behavior": "always_invoice", "payment_behavior": "pending_if_incomplete"}
    return change(shop, subscription, shop.price(9900), **options)


def test_change_waits_for_its_payment(shop: Shop) -> None:
    subscription = held(shop)
    assert (subscription.status, subscription["items"].data[0].price.unit_amount) == ("active", 2900)
    assert subscription.pending_update.subscription_items is not None
    bill = shop.invoices(subscription)[-1]
    shop.api.invoices.pay(bill.id, {"payment_method": "pm_card_visa"})
    applied = shop.api.subscriptions.retrieve(subscription.id)
    assert (applied.pending_update, applied["items"].data[0].price.unit_amount) == (None, 9900)
    assert "customer.subscription.pending_update_applied" in shop.told()


def test_change_that_waits_is_tried_by_nobody_and_tells_nothing_else(shop: Shop) -> None:
    before = held(shop)
    bill = shop.invoices(before)[-1]
    assert (bill.status, bill.next_payment_attempt) == ("open", None)
    with pytest.raises(stripe.CardError):
        shop.api.invoices.pay(bill.id)
    assert shop.status(before) == "active"
    told = [event["data"] for event in shop.control.events("customer.subscription.updated")]
    assert {data["object"]["status"] for data in told[1:]} == {"active"}
    assert {data["object"]["items"]["data"][0]["price"]["unit_amount"] for data in told} == {2900}


def test_change_that_is_not_paid_in_time_is_forgotten(shop: Shop) -> None:
    subscription = held(shop)
    shop.control.advance(days=2)
    same = shop.api.subscriptions.retrieve(subscription.id)
    assert (same.status, same.pending_update, same["items"].data[0].price.unit_amount) == ("active", None, 2900)
    assert shop.invoices(subscription)[-1].status == "void"
    assert "customer.subscription.pending_update_expired" in shop.told()


def test_change_that_needs_the_customer(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.advance(days=14)
    options = {"proration_behavior": "always_invoice", "payment_behavior": "default_incomplete"}
    changed = change(shop, subscription, shop.price(9900), **options)
    assert changed.status == "past_due"
    shop.api.invoices.pay(changed.latest_invoice)
    assert shop.status(subscription) == "active"


# More previews
def test_preview_of_the_renewal_of_a_new_one_and_of_an_ended_one(shop: Shop) -> None:
    subscription, other = shop.subscribe(), shop.price(700)
    renewal = shop.api.invoices.create_preview({"subscription": subscription.id})
    assert (renewal.total, renewal.billing_reason) == (2900, "subscription_cycle")
    new = shop.api.invoices.create_preview(
        {"customer": subscription.customer, "subscription_details": {"items": [{"price": other.id, "quantity": 3}]}}
    )
    assert new.total == 2100
    shop.api.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.api.invoices.create_preview({"subscription": subscription.id})
    assert refused.value.code == "invoice_upcoming_none"
    assert len(shop.api.subscriptions.list().data) == 1


def test_preview_tells_nobody(shop: Shop) -> None:
    subscription, dear = shop.subscribe(), shop.price(9900)
    before = shop.told()
    preview(shop, subscription, dear, proration_behavior="always_invoice")
    assert shop.told() == before
    assert len(shop.api.charges.list().data) == 1


def test_preview_with_an_amount_beside_it(shop: Shop) -> None:
    subscription = shop.subscribe()
    items = [{"amount": 150, "currency": "usd", "description": "Overage"}]
    promised = shop.api.invoices.create_preview({"subscription": subscription.id, "invoice_items": items})  # type: ignore[typeddict-item]
    assert promised.total == 3050
    recurring = shop.api.invoices.create_preview(
        {"subscription": subscription.id, "invoice_items": items, "preview_mode": "recurring"}  # type: ignore[typeddict-item]
    )
    assert recurring.total == 2900
