"""Subscriptions that are paused and resumed: credits, what they owe, and whether the payment decides."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.sandbox.shop import Shop


def paused(shop: Shop, **params: Any) -> Any:
    """In the middle of its period of 28 days."""
    subscription = shop.subscribe()
    shop.control.advance(days=14)
    return shop.api.subscriptions.pause(subscription.id, params)  # type: ignore[arg-type]


def waiting(shop: Shop, subscription: Any) -> list[int]:
    found = shop.api.invoice_items.list({"customer": subscription.customer, "pending": True}).data
    return [item.amount for item in found]


def test_paused_by_hand(shop: Shop) -> None:
    subscription = paused(shop)
    assert subscription.status == "paused"
    assert subscription.status_details.paused.subscription.type == "pause_requested"
    assert waiting(shop, subscription) == [-1450]
    shop.control.advance(days=90)
    assert len(shop.invoices(subscription)) == 1
    assert shop.told()[-1] == "customer.subscription.paused"


def test_credited_at_once_from_the_start_or_not_at_all(shop: Shop) -> None:
    assert waiting(shop, paused(shop, bill_for={"unused_time_from": {"type": "none"}})) == []
    assert waiting(shop, paused(shop, bill_for={"unused_time_from": {"type": "item_current_period_start"}})) == [-2900]
    subscription = paused(shop, invoicing_behavior="invoice")
    assert [invoice.total for invoice in shop.invoices(subscription)] == [2900, -1450]
    assert shop.api.customers.retrieve(subscription.customer).balance == -1450


def test_resumed_with_a_new_cycle(shop: Shop) -> None:
    subscription = paused(shop)
    shop.control.advance(days=40)
    again = shop.api.subscriptions.resume(subscription.id)
    assert (again.status, again.status_details) == ("active", None)
    assert again.billing_cycle_anchor == int(shop.control.now().timestamp())
    assert shop.invoices(subscription)[-1].total == 1450
    assert shop.told()[-2:] == ["customer.subscription.updated", "customer.subscription.resumed"]


def test_resumed_in_the_old_cycle(shop: Shop) -> None:
    subscription = paused(shop, bill_for={"unused_time_from": {"type": "none"}})
    shop.control.advance("2026-03-16T10:00:00Z")
    again = shop.api.subscriptions.resume(
        subscription.id, {"billing_cycle_anchor": {"type": "unchanged"}, "proration_behavior": "always_invoice"}
    )
    assert again.billing_cycle_anchor == subscription.billing_cycle_anchor
    end = again["items"].data[0].current_period_end
    assert (again.status, end) == ("active", int(shop.control.now().timestamp()) + 15 * 86400)
    assert shop.invoices(subscription)[-1].total == round(2900 * 15 / 31)


@pytest.mark.parametrize(
    ("behavior", "status"), [("resume_on_payment_attempt", "past_due"), ("resume_on_payment_success", "paused")]
)
def test_resumed_with_a_card_that_fails(shop: Shop, behavior: Any, status: str) -> None:
    subscription = paused(shop)
    shop.control.fail_next_payments(subscription.customer)
    assert shop.api.subscriptions.resume(subscription.id, {"payment_behavior": behavior}).status == status
    shop.api.invoices.pay(shop.invoices(subscription)[-1].id, {"payment_method": "pm_card_visa"})
    assert shop.status(subscription) == "active"


def test_resumption_that_nobody_pays_for(shop: Shop) -> None:
    subscription = paused(shop)
    shop.control.fail_next_payments(subscription.customer)
    shop.api.subscriptions.resume(subscription.id, {"payment_behavior": "resume_on_payment_success"})
    shop.control.advance(hours=23)
    assert shop.status(subscription) == "paused"
    assert shop.invoices(subscription)[-1].status == "void"


def test_what_can_not_be_paused_or_resumed(shop: Shop) -> None:
    subscription = shop.subscribe()
    with pytest.raises(stripe.InvalidRequestError, match="Only paused"):
        shop.api.subscriptions.resume(subscription.id)
    shop.api.subscription_schedules.create({"from_subscription": subscription.id})
    with pytest.raises(stripe.InvalidRequestError, match="schedules"):
        shop.api.subscriptions.pause(subscription.id)
