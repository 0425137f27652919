"""The life of a subscription: started, renewed at month ends, failing, recovering, trial, ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from tests.sandbox.shop import Shop


def day(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def periods(shop: Shop, subscription: Any) -> tuple[str, str]:
    item = shop.api.subscriptions.retrieve(subscription.id)["items"].data[0]
    return day(item.current_period_start), day(item.current_period_end)


def test_shape_of_today(shop: Shop) -> None:
    subscription = shop.subscribe(expand=["latest_invoice.payments"])
    shown = subscription.to_dict(for_json=True)
    assert "current_period_end" not in shown
    assert shown["items"]["data"][0]["price"]["recurring"]["interval"] == "month"
    assert shown["billing_mode"]["type"] == "flexible"
    invoice = shown["latest_invoice"]
    assert not {"subscription", "charge", "payment_intent", "paid"} & invoice.keys()
    assert invoice["parent"]["subscription_details"]["subscription"] == shown["id"]
    line = invoice["lines"]["data"][0]
    assert line["pricing"]["price_details"]["price"] == shown["items"]["data"][0]["price"]["id"]
    assert line["parent"]["subscription_item_details"]["proration"] is False
    assert (line["period"]["start"], invoice["period_start"]) == (shown["created"], shown["created"])
    intent = invoice["payments"]["data"][0]["payment"]["payment_intent"]
    assert "invoice" not in shop.api.payment_intents.retrieve(intent).to_dict()
    found = shop.api.invoice_payments.list({"payment": {"type": "payment_intent", "payment_intent": intent}}).data
    assert [one.invoice for one in found] == [invoice["id"]]


def test_month_ends_do_not_wander(shop: Shop) -> None:
    subscription = shop.subscribe()
    assert periods(shop, subscription) == ("2026-01-31", "2026-02-28")
    shop.control.advance("2026-03-01T00:00:00Z")
    assert periods(shop, subscription) == ("2026-02-28", "2026-03-31")
    shop.control.advance("2026-05-01T00:00:00Z")
    assert periods(shop, subscription) == ("2026-04-30", "2026-05-31")
    assert len(shop.invoices(subscription)) == 4


def test_leap_day_and_year(shop: Shop) -> None:
    shop.control.advance("2028-02-29T12:00:00Z")
    subscription = shop.subscribe(shop.price(29000, every="year"))
    shop.control.advance("2029-03-02T00:00:00Z")
    assert periods(shop, subscription) == ("2029-02-28", "2030-02-28")
    shop.control.advance("2032-03-02T00:00:00Z")
    assert periods(shop, subscription) == ("2032-02-29", "2033-02-28")


def test_renewal_is_a_draft_for_an_hour_and_takes_what_is_added(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.advance("2026-02-28T10:30:00Z")
    draft = shop.invoices(subscription)[-1]
    assert (draft.status, draft.billing_reason, draft.auto_advance) == ("draft", "subscription_cycle", True)
    assert draft.automatically_finalizes_at == draft.created + 3600
    assert (day(draft.period_start), day(draft.period_end)) == ("2026-01-31", "2026-02-28")
    assert day(draft["lines"].data[0].period.end) == "2026-03-31"
    shop.api.invoice_items.create(
        {
            "customer": subscription.customer,
            "invoice": draft.id,
            "amount": 150,
            "currency": "usd",
            "description": "Overage",
        }
    )
    shop.control.advance(hours=1)
    paid = shop.api.invoices.retrieve(draft.id)
    assert (paid.status, paid.amount_paid, paid.attempt_count) == ("paid", 3050, 1)
    told = shop.told()
    renewal = told[len(told) - told[::-1].index("invoice.created") - 1 :]
    assert renewal[0] == "invoice.created"
    assert renewal[-2:] == ["invoice.paid", "invoice.payment_succeeded"]


def test_listing(shop: Shop) -> None:
    running = shop.subscribe()
    ended = shop.subscribe()
    shop.api.subscriptions.cancel(ended.id)
    price = running["items"].data[0].price.id

    def found(**params: Any) -> list[str]:
        return [one.id for one in shop.api.subscriptions.list(params).data]

    assert found() == [running.id]
    assert found(status="all") == [ended.id, running.id]
    assert found(status="ended") == found(status="canceled") == [ended.id]
    assert found(customer=running.customer) == found(price=price) == [running.id]
    assert found(status="past_due") == []


# Payment behaviors
def test_incomplete_until_paid(shop: Shop) -> None:
    subscription = shop.subscribe(
        card=None, payment_behavior="default_incomplete", expand=["latest_invoice.confirmation_secret"]
    )
    assert subscription.status == "incomplete"
    secret = subscription.latest_invoice.confirmation_secret.client_secret
    shop.api.payment_intents.confirm(secret.split("_secret_")[0], {"payment_method": "pm_card_visa"})
    assert shop.status(subscription) == "active"


def test_incomplete_expires_after_23_hours(shop: Shop) -> None:
    subscription = shop.subscribe(card="pm_card_chargeCustomerFail")
    assert subscription.status == "incomplete"
    shop.control.advance(hours=22)
    assert shop.status(subscription) == "incomplete"
    shop.control.advance(hours=1)
    assert shop.status(subscription) == "incomplete_expired"
    assert shop.invoices(subscription)[0].status == "void"


def test_error_if_incomplete_leaves_nothing(shop: Shop) -> None:
    with pytest.raises(stripe.CardError) as declined:
        shop.subscribe(card="pm_card_chargeCustomerFail", payment_behavior="error_if_incomplete")
    assert declined.value.code == "card_declined"
    assert shop.api.subscriptions.list({"status": "all"}).data == []


def test_without_any_card_it_is_refused(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
        shop.subscribe(card=None)


def test_free_plan_needs_no_card(shop: Shop) -> None:
    assert shop.subscribe(shop.price(0), card=None).status == "active"


def test_invoices_that_are_sent(shop: Shop) -> None:
    subscription = shop.subscribe(card=None, collection_method="send_invoice", days_until_due=14)
    assert subscription.status == "active"
    invoice = shop.invoices(subscription)[0]
    assert (invoice.status, invoice.due_date - invoice.created) == ("open", 14 * 86400)
    assert shop.api.invoices.pay(invoice.id, {"paid_out_of_band": True}).status == "paid"


def test_sent_and_not_paid_in_time(shop: Shop) -> None:
    subscription = shop.subscribe(card=None, collection_method="send_invoice", days_until_due=14)
    shop.control.advance(days=15)
    assert shop.status(subscription) == "past_due"
    assert shop.told().count("invoice.overdue") == 1
    shop.api.invoices.pay(shop.invoices(subscription)[0].id, {"paid_out_of_band": True})
    assert shop.status(subscription) == "active"


# Trials
def test_trial(shop: Shop) -> None:
    subscription = shop.subscribe(trial_period_days=7)
    assert (subscription.status, subscription.trial_end - subscription.trial_start) == ("trialing", 7 * 86400)
    steps = shop.control.advance(days=8)
    assert [step["what"] for step in steps] == ["announce_trial_end", "renew", "advance"]
    assert steps[0]["at"] == "2026-02-04T10:00:00Z"
    assert shop.status(subscription) == "active"
    assert periods(shop, subscription) == ("2026-02-07", "2026-03-07")
    assert shop.told().count("customer.subscription.trial_will_end") == 1


def test_trial_cut_short(shop: Shop) -> None:
    subscription = shop.subscribe(trial_period_days=7)
    shop.control.advance(days=2)
    now_paid = shop.api.subscriptions.update(subscription.id, {"trial_end": "now"})
    assert now_paid.status == "active"
    assert [invoice.total for invoice in shop.invoices(subscription)] == [0, 2900]
    assert periods(shop, subscription) == ("2026-02-02", "2026-03-02")


@pytest.mark.parametrize(
    ("behavior", "status"), [("cancel", "canceled"), ("pause", "paused"), ("create_invoice", "past_due")]
)
def test_trial_that_ends_without_a_card(shop: Shop, behavior: str, status: str) -> None:
    settings = {"end_behavior": {"missing_payment_method": behavior}}
    subscription = shop.subscribe(card=None, trial_period_days=7, trial_settings=settings)
    shop.control.advance(days=8)
    assert shop.status(subscription) == status


def test_paused_after_its_trial_and_resumed(shop: Shop) -> None:
    settings = {"end_behavior": {"missing_payment_method": "pause"}}
    subscription = shop.subscribe(card=None, trial_period_days=7, trial_settings=settings)
    shop.control.advance(days=40)
    assert shop.status(subscription) == "paused"
    shop.control.use_card(subscription.customer, "4242424242424242")
    assert shop.api.subscriptions.resume(subscription.id).status == "active"
    assert shop.invoices(subscription)[-1].status == "paid"
    assert "customer.subscription.resumed" in shop.told()


# Failed payments
def test_smart_retries_then_canceled(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.fail_next_payments(subscription.customer)
    shop.control.advance("2026-03-01T00:00:00Z")
    invoice = shop.invoices(subscription)[-1]
    assert (shop.status(subscription), invoice.status, invoice.attempt_count) == ("past_due", "open", 1)
    assert day(invoice.next_payment_attempt) == "2026-03-01"
    shop.control.advance(days=13)
    assert shop.invoices(subscription)[-1].attempt_count == 7
    shop.control.advance(days=2)
    last = shop.api.subscriptions.retrieve(subscription.id)
    assert (last.status, last.cancellation_details.reason) == ("canceled", "payment_failed")
    assert shop.invoices(subscription)[-1].attempt_count == 8
    assert shop.told().count("invoice.payment_failed") == 8
    shop.control.advance(days=60)
    assert len(shop.invoices(subscription)) == 2


@pytest.mark.parametrize("after", ["unpaid", "past_due"])
def test_what_the_settings_say_after_the_last_attempt(shop: Shop, after: str) -> None:
    shop.control.settings(after_retries=after, retry_days=[1, 2])
    subscription = shop.subscribe()
    shop.control.fail_next_payments(subscription.customer)
    shop.control.advance(days=32)
    assert shop.status(subscription) == after


def test_recovered_with_another_card(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.fail_next_payments(subscription.customer)
    shop.control.advance("2026-03-01T00:00:00Z")
    shop.control.use_card(subscription.customer, "4242424242424242")
    shop.control.advance(days=2)
    assert shop.status(subscription) == "active"
    assert shop.invoices(subscription)[-1].status == "paid"


def test_recovered_by_paying_the_invoice(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.fail_next_payments(subscription.customer)
    shop.control.advance("2026-03-01T00:00:00Z")
    invoice = shop.invoices(subscription)[-1]
    with pytest.raises(stripe.CardError):
        shop.api.invoices.pay(invoice.id)
    shop.api.invoices.pay(invoice.id, {"payment_method": "pm_card_visa"})
    assert shop.status(subscription) == "active"


def test_two_open_invoices_while_past_due(shop: Shop) -> None:
    shop.control.settings(after_retries="past_due", retry_days=[1])
    subscription = shop.subscribe()
    shop.control.fail_next_payments(subscription.customer)
    shop.control.advance("2026-04-02T00:00:00Z")
    first, second = [one for one in shop.invoices(subscription) if one.status == "open"]
    shop.control.use_card(subscription.customer, "4242424242424242")
    shop.api.invoices.pay(first.id)
    assert shop.status(subscription) == "past_due"
    shop.api.invoices.pay(second.id)
    assert shop.status(subscription) == "active"


# The end
def test_canceled_at_period_end_and_taken_back(shop: Shop) -> None:
    subscription = shop.subscribe()
    planned = shop.api.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    assert (planned.cancel_at_period_end, planned.status, day(planned.cancel_at)) == (True, "active", "2026-02-28")
    back = shop.api.subscriptions.update(subscription.id, {"cancel_at_period_end": False})
    assert (back.cancel_at, back.canceled_at) == (None, None)
    shop.api.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    shop.control.advance(days=40)
    assert shop.status(subscription) == "canceled"
    assert len(shop.invoices(subscription)) == 1
    assert shop.told()[-1] == "customer.subscription.deleted"


def test_canceled_at_a_moment(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.api.subscriptions.update(subscription.id, {"cancel_at": subscription.created + 10 * 86400})
    shop.control.advance(days=11)
    ended = shop.api.subscriptions.retrieve(subscription.id)
    assert (ended.status, ended.ended_at) == ("canceled", subscription.created + 10 * 86400)


def test_canceled_at_once(shop: Shop) -> None:
    subscription = shop.subscribe()
    ended = shop.api.subscriptions.cancel(subscription.id, {"cancellation_details": {"comment": "too dear"}})
    assert (ended.status, ended.cancellation_details.comment) == ("canceled", "too dear")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.api.subscriptions.cancel(subscription.id)
    assert refused.value.http_status == 404
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.subscriptions.update(subscription.id, {"cancel_at_period_end": True})


# Pauses of the collection
@pytest.mark.parametrize(
    ("behavior", "status"), [("void", "void"), ("mark_uncollectible", "uncollectible"), ("keep_as_draft", "draft")]
)
def test_collection_is_paused_while_the_status_stays(shop: Shop, behavior: str, status: str) -> None:
    subscription = shop.subscribe()
    paused = shop.api.subscriptions.update(
        subscription.id, {"pause_collection": {"behavior": behavior, "resumes_at": subscription.created + 40 * 86400}}
    )
    assert (paused.status, paused.pause_collection.behavior) == ("active", behavior)
    shop.control.advance(days=35)
    assert [one.status for one in shop.invoices(subscription)] == ["paid", status]
    shop.control.advance(days=35)
    again = shop.api.subscriptions.retrieve(subscription.id)
    assert (again.pause_collection, shop.invoices(subscription)[-1].status) == (None, "paid")
    assert shop.api.subscriptions.update(subscription.id, {"pause_collection": ""}).pause_collection is None
