"""Customers, their payment methods, setup intents, single payments and refunds."""

from __future__ import annotations

import pytest
import stripe

from tests.sandbox.shop import Shop


def test_customer_from_creation_to_deletion(shop: Shop) -> None:
    made = shop.api.customers.create({"email": "a@example.com", "metadata": {"account": "7"}})
    changed = shop.api.customers.update(made.id, {"name": "Alice", "metadata": {"account": "8"}})
    assert (changed.name, changed.metadata.to_dict()) == ("Alice", {"account": "8"})
    shop.api.customers.create({"email": "b@example.com"})
    assert [one.id for one in shop.api.customers.list({"email": "a@example.com"}).data] == [made.id]
    found = shop.api.customers.search({"query": "metadata['account']:'8'"}).data
    assert [one.id for one in found] == [made.id]
    assert shop.api.customers.delete(made.id).deleted
    assert shop.api.customers.retrieve(made.id).deleted
    assert len(shop.api.customers.list().data) == 1


def test_deleting_a_customer_ends_what_they_pay_for(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.api.customers.delete(subscription.customer)
    assert shop.status(subscription) == "canceled"
    assert shop.told()[-2:] == ["customer.subscription.deleted", "customer.deleted"]


def test_methods_are_attached_to_one_customer_and_detached_for_good(shop: Shop) -> None:
    alice, bob = shop.customer(card=None), shop.customer(card=None)
    method = shop.api.payment_methods.attach("pm_card_visa", {"customer": alice.id})
    assert (method.card.last4, method.card.brand, method.customer) == ("4242", "visa", alice.id)
    with pytest.raises(stripe.InvalidRequestError, match="already been attached"):
        shop.api.payment_methods.attach(method.id, {"customer": bob.id})
    with pytest.raises(stripe.InvalidRequestError, match="does not have a payment method"):
        shop.api.customers.update(bob.id, {"invoice_settings": {"default_payment_method": method.id}})
    shop.api.customers.update(alice.id, {"invoice_settings": {"default_payment_method": method.id}})
    assert [one.id for one in shop.api.customers.payment_methods.list(alice.id).data] == [method.id]
    assert shop.api.payment_methods.detach(method.id).customer is None
    assert shop.api.customers.retrieve(alice.id).invoice_settings.default_payment_method is None
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        shop.api.payment_methods.attach(method.id, {"customer": alice.id})


def test_a_declined_card_can_not_be_attached_but_the_one_that_fails_later_can(shop: Shop) -> None:
    customer = shop.customer(card=None)
    with pytest.raises(stripe.CardError) as declined:
        shop.api.payment_methods.attach("pm_card_chargeDeclined", {"customer": customer.id})
    assert (declined.value.code, declined.value.http_status) == ("card_declined", 402)
    assert shop.api.payment_methods.attach("pm_card_chargeCustomerFail", {"customer": customer.id}).card.last4 == "0341"


def test_numbers_that_are_no_test_cards(shop: Shop) -> None:
    with pytest.raises(stripe.CardError) as declined:
        shop.api.payment_methods.create(
            {"type": "card", "card": {"number": "4111111111111111", "exp_month": 1, "exp_year": 2030}}
        )
    assert declined.value.code == "incorrect_number"


# Setup intents
def test_card_is_saved(shop: Shop) -> None:
    customer = shop.customer(card=None)
    intent = shop.api.setup_intents.create({"customer": customer.id, "metadata": {"account": "7"}})
    assert (intent.status, intent.usage) == ("requires_payment_method", "off_session")
    done = shop.api.setup_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert done.status == "succeeded"
    assert shop.api.payment_methods.retrieve(done.payment_method).customer == customer.id
    assert "setup_intent.succeeded" in shop.told()


def test_card_is_refused_when_saved(shop: Shop) -> None:
    intent = shop.api.setup_intents.create({"customer": shop.customer(card=None).id})
    with pytest.raises(stripe.CardError):
        shop.api.setup_intents.confirm(intent.id, {"payment_method": "pm_card_chargeDeclined"})
    again = shop.api.setup_intents.retrieve(intent.id)
    assert (again.status, again.last_setup_error.code) == ("requires_payment_method", "card_declined")


@pytest.mark.parametrize(("agreed", "status"), [(True, "succeeded"), (False, "requires_payment_method")])
def test_bank_asks_when_a_card_is_saved(shop: Shop, agreed: bool, status: str) -> None:
    intent = shop.api.setup_intents.create({"customer": shop.customer(card=None).id})
    asked = shop.api.setup_intents.confirm(intent.id, {"payment_method": "pm_card_authenticationRequiredOnSetup"})
    assert asked.status == "requires_action"
    assert asked.next_action.redirect_to_url.url.endswith(f"/authenticate/{intent.id}")
    shop.control.authenticate(intent.id, agreed)
    assert shop.api.setup_intents.retrieve(intent.id).status == status


def test_a_card_saved_with_the_banks_consent_renews_without_asking_again(shop: Shop) -> None:
    customer = shop.customer(card=None)
    intent = shop.api.setup_intents.create({"customer": customer.id})
    shop.api.setup_intents.confirm(intent.id, {"payment_method": "pm_card_authenticationRequiredOnSetup"})
    shop.control.authenticate(intent.id)
    method = shop.api.setup_intents.retrieve(intent.id).payment_method
    subscription = shop.api.subscriptions.create(
        {"customer": customer.id, "items": [{"price": shop.price().id}], "default_payment_method": method}
    )
    assert subscription.status == "active"


def test_publishable_key_may_confirm_setup_intents_only(shop: Shop) -> None:
    intent = shop.api.setup_intents.create({})
    public = stripe.StripeClient("pk_test_1", base_addresses={"api": shop.url})
    assert public.v1.setup_intents.confirm(intent.id, {"payment_method": "pm_card_visa"}).status == "succeeded"
    with pytest.raises(stripe.AuthenticationError):
        public.v1.customers.list()


# Single payments
def test_payment_and_its_charge(shop: Shop) -> None:
    intent = shop.api.payment_intents.create(
        {"amount": 1000, "currency": "USD", "payment_method": "pm_card_visa", "confirm": True, "metadata": {"a": "b"}}
    )
    charge = shop.api.charges.retrieve(intent.latest_charge, {"expand": ["payment_intent"]})
    assert (intent.status, intent.amount_received, charge.paid) == ("succeeded", 1000, True)
    assert charge.payment_intent.id == intent.id
    assert charge.metadata.to_dict() == {"a": "b"}
    assert [one.id for one in shop.api.charges.list({"payment_intent": intent.id}).data] == [charge.id]


def test_off_session_payment_that_needs_the_customer(shop: Shop) -> None:
    customer = shop.customer("pm_card_authenticationRequired")
    method = shop.api.customers.payment_methods.list(customer.id).data[0]
    with pytest.raises(stripe.CardError) as declined:
        shop.api.payment_intents.create(
            {
                "amount": 1000,
                "currency": "usd",
                "customer": customer.id,
                "payment_method": method.id,
                "off_session": True,
                "confirm": True,
            }
        )
    assert declined.value.code == "authentication_required"


def test_intent_is_canceled_once(shop: Shop) -> None:
    intent = shop.api.payment_intents.create({"amount": 1000, "currency": "usd"})
    assert shop.api.payment_intents.cancel(intent.id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.api.payment_intents.cancel(intent.id)
    assert refused.value.code == "payment_intent_unexpected_state"


# Refunds
def paid(shop: Shop, amount: int = 1000) -> stripe.PaymentIntent:
    return shop.api.payment_intents.create(
        {"amount": amount, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    )


def test_several_partial_refunds_add_up(shop: Shop) -> None:
    intent = paid(shop)
    for amount in (100, 250):
        shop.api.refunds.create({"payment_intent": intent.id, "amount": amount})
    charge = shop.api.charges.retrieve(intent.latest_charge, {"expand": ["refunds"]})
    assert (charge.amount_refunded, charge.refunded) == (350, False)
    assert [refund.amount for refund in charge.refunds.data] == [250, 100]
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        shop.api.refunds.create({"payment_intent": intent.id, "amount": 651})
    rest = shop.api.refunds.create({"charge": charge.id})
    assert rest.amount == 650
    assert shop.api.charges.retrieve(charge.id).refunded
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.api.refunds.create({"charge": charge.id})
    assert refused.value.code == "charge_already_refunded"
    assert len(shop.api.refunds.list({"charge": charge.id}).data) == 3
    told = [event["data"]["object"]["amount_refunded"] for event in shop.control.events("charge.refunded")]
    assert told == [100, 350, 1000]
