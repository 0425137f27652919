"""Checkout sessions: what is sold, what becomes of it for every kind of card, and which events tell of it."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.sandbox.shop import SUCCESS, Shop

DECLINED, ASKS, BANK, BAD_BANK = "4000000000000002", "4000002760003184", "000123456789", "000111111116"


def again(shop: Shop, session: stripe.checkout.Session, *expand: str) -> Any:
    return shop.api.checkout.sessions.retrieve(session.id, {"expand": list(expand)})


def test_credits_are_bought(shop: Shop) -> None:
    price = shop.price(1, every=None)
    customer = shop.customer(card=None)
    session = shop.checkout(
        price,
        500,
        customer=customer.id,
        metadata={"account": "7"},
        payment_intent_data={"metadata": {"product": "ours"}, "description": "500 credits"},
    )
    assert (session.status, session.payment_status, session.amount_total) == ("open", "unpaid", 500)
    assert (session.payment_intent, session.ui_mode) == (None, "hosted_page")
    assert session.url == f"{shop.url}/c/pay/{session.id}"
    answer = shop.control.pay_checkout(session.id)
    assert answer["url"] == f"http://shop.example/return?session={session.id}"
    done = again(shop, session, "line_items", "payment_intent.latest_charge")
    assert (done.status, done.payment_status, done.url) == ("complete", "paid", None)
    assert done.metadata.to_dict() == {"account": "7"}
    assert done.payment_intent.metadata.to_dict() == {"product": "ours"}
    assert done.payment_intent.latest_charge.amount == 500
    assert done.customer_details.email == "alice@example.com"
    assert [(line.price.id, line.quantity, line.amount_total) for line in done.line_items.data] == [
        (price.id, 500, 500)
    ]
    found = shop.api.checkout.sessions.list({"payment_intent": done.payment_intent.id}).data
    assert [one.id for one in found] == [session.id]
    assert shop.told()[-5:] == [
        "customer.created",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]


def test_a_guest_becomes_a_customer_only_when_wanted(shop: Shop) -> None:
    price = shop.price(100, every=None)
    guest = shop.checkout(price)
    shop.control.pay_checkout(guest.id, email="bob@example.com")
    assert again(shop, guest).customer is None
    kept = shop.checkout(price, customer_creation="always")
    shop.control.pay_checkout(kept.id, email="bob@example.com", name="Bob")
    done = again(shop, kept, "customer")
    assert (done.customer.email, done.customer.name) == ("bob@example.com", "Bob")
    assert [one.id for one in shop.api.checkout.sessions.list({"customer": done.customer.id}).data] == [kept.id]


def test_declined_and_then_paid(shop: Shop) -> None:
    session = shop.checkout(shop.price(100, every=None))
    answer = shop.control.pay_checkout(session.id, DECLINED)
    assert (answer["status"], answer["message"], answer["url"]) == ("open", "Your card was declined.", None)
    assert shop.control.pay_checkout(session.id)["payment_status"] == "paid"
    assert len(shop.api.payment_intents.list().data) == 1
    assert [charge.status for charge in shop.api.charges.list().data] == ["succeeded", "failed"]


def test_paying_twice_charges_once(shop: Shop) -> None:
    session = shop.checkout(shop.price(100, every=None))
    first = shop.control.pay_checkout(session.id)
    assert shop.control.pay_checkout(session.id)["url"] == first["url"]
    assert len(shop.api.charges.list().data) == 1


@pytest.mark.parametrize(("agreed", "status"), [(True, "paid"), (False, "unpaid")])
def test_bank_asks(shop: Shop, agreed: bool, status: str) -> None:
    session = shop.checkout(shop.price(100, every=None))
    asked = shop.control.pay_checkout(session.id, ASKS)
    assert "/authenticate/pi_" in asked["url"]
    shop.control.authenticate(asked["url"].rsplit("/", 1)[1], agreed)
    assert again(shop, session).payment_status == status


@pytest.mark.parametrize(("account", "news", "status"), [(BANK, "succeeded", "paid"), (BAD_BANK, "failed", "unpaid")])
def test_bank_debit(shop: Shop, account: str, news: str, status: str) -> None:
    session = shop.checkout(shop.price(100, every=None))
    answer = shop.control.pay_checkout(session.id, account)
    assert (answer["status"], answer["payment_status"]) == ("complete", "unpaid")
    assert again(shop, session, "payment_intent").payment_intent.status == "processing"
    assert shop.told()[-1] == "checkout.session.completed"
    shop.control.advance(days=4)
    assert again(shop, session).payment_status == status
    assert shop.told()[-1] == f"checkout.session.async_payment_{news}"


@pytest.mark.parametrize(("outcome", "status"), [("succeed", "paid"), ("fail", "unpaid")])
def test_debits_are_settled_on_request(shop: Shop, outcome: str, status: str) -> None:
    session = shop.checkout(shop.price(100, every=None))
    shop.control.pay_checkout(session.id, BANK)
    assert shop.control.settle_debits(outcome) == 1
    assert again(shop, session).payment_status == status
    assert shop.control.settle_debits() == 0


def test_invoice_of_a_purchase(shop: Shop) -> None:
    session = shop.checkout(
        shop.price(250, every=None), 4, invoice_creation={"enabled": True, "invoice_data": {"metadata": {"a": "b"}}}
    )
    shop.control.pay_checkout(session.id, email="bob@example.com")
    done = again(shop, session, "invoice.payments")
    assert (done.invoice.status, done.invoice.total, done.invoice.amount_paid) == ("paid", 1000, 1000)
    assert done.invoice.metadata.to_dict() == {"a": "b"}
    assert done.invoice.payments.data[0].payment.payment_intent == done.payment_intent
    assert done.customer is not None


def test_subscription(shop: Shop) -> None:
    session = shop.checkout(
        shop.price(), subscription_data={"metadata": {"account": "7"}, "billing_mode": {"type": "flexible"}}
    )
    shop.control.pay_checkout(session.id, email="bob@example.com")
    done = again(shop, session, "subscription.default_payment_method", "invoice")
    assert (done.payment_status, done.payment_intent) == ("paid", None)
    assert done.subscription.status == "active"
    assert done.subscription.metadata.to_dict() == {"account": "7"}
    assert done.subscription.default_payment_method.card.last4 == "4242"
    assert (done.invoice.status, done.invoice.billing_reason) == ("paid", "subscription_create")
    assert [one.id for one in shop.api.checkout.sessions.list({"subscription": done.subscription.id}).data] == [
        session.id
    ]
    told = shop.told()
    created = next(event for event in shop.control.events("customer.subscription.created"))
    assert created["data"]["object"]["status"] == "incomplete"
    assert told.index("customer.subscription.created") < told.index("invoice.paid")
    assert told[-1] == "checkout.session.completed"


def test_declined_subscription_is_tried_again_as_the_same_one(shop: Shop) -> None:
    session = shop.checkout(shop.price())
    shop.control.pay_checkout(session.id, DECLINED, email="bob@example.com")
    assert again(shop, session).subscription is None
    shop.control.pay_checkout(session.id)
    assert [one.status for one in shop.api.subscriptions.list({"status": "all"}).data] == ["active"]


def test_subscription_by_bank_debit_fails_later(shop: Shop) -> None:
    session = shop.checkout(shop.price())
    answer = shop.control.pay_checkout(session.id, BAD_BANK, email="bob@example.com")
    assert answer["payment_status"] == "unpaid"
    done = again(shop, session, "subscription")
    assert done.subscription.status == "active"
    shop.control.settle_debits()
    assert shop.status(done.subscription) == "past_due"


def test_trial_costs_nothing_today_and_saves_the_card(shop: Shop) -> None:
    session = shop.checkout(shop.price(), subscription_data={"trial_period_days": 14})
    assert session.amount_total == 0
    answer = shop.control.pay_checkout(session.id, email="bob@example.com")
    assert answer["payment_status"] == "no_payment_required"
    subscription = again(shop, session, "subscription").subscription
    assert (subscription.status, subscription.default_payment_method is None) == ("trialing", False)
    shop.control.advance(days=15)
    assert shop.status(subscription) == "active"
    assert [invoice.total for invoice in shop.invoices(subscription)] == [0, 2900]


def test_trial_with_a_bank_that_asks_begins_only_after_the_answer(shop: Shop) -> None:
    session = shop.checkout(shop.price(), subscription_data={"trial_period_days": 14})
    shop.control.pay_checkout(session.id, ASKS, email="bob@example.com", authenticate=False)
    assert shop.api.subscriptions.list().data == []
    assert shop.control.pay_checkout(session.id, ASKS, authenticate=True)["status"] == "complete"
    assert [one.status for one in shop.api.subscriptions.list().data] == ["trialing"]


def test_trial_without_a_card(shop: Shop) -> None:
    session = shop.checkout(
        shop.price(),
        payment_method_collection="if_required",
        subscription_data={
            "trial_period_days": 14,
            "trial_settings": {"end_behavior": {"missing_payment_method": "cancel"}},
        },
    )
    shop.control.pay_checkout(session.id, None, email="bob@example.com")
    subscription = again(shop, session, "subscription").subscription
    shop.control.advance(days=15)
    assert shop.status(subscription) == "canceled"


def test_plan_and_set_up_fee_together(shop: Shop) -> None:
    plan, fee = shop.price(2900), shop.price(500, every=None)
    lines = [{"price": plan.id, "quantity": 1}, {"price": fee.id, "quantity": 1}]
    session = shop.api.checkout.sessions.create(
        {"mode": "subscription", "line_items": lines, "success_url": SUCCESS, "customer_email": "bob@example.com"}
    )
    assert session.amount_total == 3400
    shop.control.pay_checkout(session.id)
    assert again(shop, session, "invoice").invoice.amount_paid == 3400


def test_card_is_saved(shop: Shop) -> None:
    customer = shop.customer(card=None)
    session = shop.api.checkout.sessions.create(
        {"mode": "setup", "customer": customer.id, "success_url": SUCCESS, "currency": "usd"}
    )
    assert session.payment_status == "no_payment_required"
    shop.control.pay_checkout(session.id)
    done = again(shop, session, "setup_intent.payment_method")
    assert done.setup_intent.payment_method.customer == customer.id


def test_price_made_on_the_spot(shop: Shop) -> None:
    data = {"currency": "eur", "unit_amount": 700, "product_data": {"name": "Once"}}
    session = shop.api.checkout.sessions.create(
        {"mode": "payment", "line_items": [{"price_data": data, "quantity": 2}], "success_url": SUCCESS}
    )
    assert (session.amount_total, session.currency) == (1400, "eur")
    lines = shop.api.checkout.sessions.line_items.list(session.id).data
    assert (lines[0].description, lines[0].price.active) == ("Once", False)


def test_sessions_expire(shop: Shop) -> None:
    price = shop.price(100, every=None)
    first, second = shop.checkout(price), shop.checkout(price)
    assert shop.api.checkout.sessions.expire(first.id).status == "expired"
    shop.control.advance(hours=25)
    assert again(shop, second).status == "expired"
    assert shop.control.pay_checkout(second.id)["message"] == "This page has expired."
    assert shop.told()[-2:] == ["checkout.session.expired"] * 2
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.checkout.sessions.expire(first.id)


def test_a_subscription_begun_and_not_paid_ends_with_its_session(shop: Shop) -> None:
    session = shop.checkout(shop.price())
    shop.control.pay_checkout(session.id, DECLINED, email="bob@example.com")
    shop.api.checkout.sessions.expire(session.id)
    assert [one.status for one in shop.api.subscriptions.list({"status": "all"}).data] == ["incomplete_expired"]


@pytest.mark.parametrize(
    "changes",
    [
        {"success_url": ""},
        {"success_url": "shop.example/return"},
        {"line_items": []},
        {"mode": "subscription"},
        {"customer_email": "a@example.com", "customer": "cus_1"},
        {"subscription_data": {"trial_period_days": 1}},
        {"discounts": [{"coupon": "x"}]},
        {"ui_mode": "elements"},
        {"expires_at": 1},
        {"payment_method_collection": "always"},
        {"mode": "setup", "line_items": []},
    ],
)
def test_what_checkout_refuses(shop: Shop, changes: dict[str, Any]) -> None:
    params = {"mode": "payment", "line_items": [{"price": shop.price(1, every=None).id, "quantity": 1}]}
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.checkout.sessions.create(params | {"success_url": SUCCESS} | changes)  # type: ignore[arg-type]


def test_prices_have_to_fit_the_mode(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="recurring"):
        shop.checkout(shop.price(), mode="payment")
    archived = shop.price(1, every=None, active=False)
    with pytest.raises(stripe.InvalidRequestError, match="inactive"):
        shop.checkout(archived)
