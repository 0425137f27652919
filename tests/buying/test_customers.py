"""One customer at Stripe for each account, whoever asks and however often; the card that pays is mirrored."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from errors import StripeNotConfigured, StripeUnavailable
from extensions import db
from models.stripe import StripeCustomer
from services import accounts
from services.stripe import cards, customers, sync
from tests import factories
from tests.buying.helpers import inside
from tests.stripe_world import StripeWorld
from tests.together import at_once


def row(world: StripeWorld, customer_id: str) -> StripeCustomer:
    with world.app.app_context():
        found = db.session.get(StripeCustomer, customer_id)
        assert found is not None
        db.session.expunge(found)
        return found


def at_stripe(world: StripeWorld) -> list[dict[str, Any]]:
    return list(world.sandbox.control.dump("customer"))


class TestMaking:
    def test_the_customer_is_ours_and_known_by_name(self, stripe: StripeWorld) -> None:
        person = factories.person(stripe.app, "ann@example.com")
        customer_id = inside(stripe, customers.ensure, person.account_id)
        [made] = at_stripe(stripe)
        assert made["id"] == customer_id
        assert made["metadata"] == {"product": "spillway", "account": person.account_id}
        assert (made["name"], made["email"]) == ("Ann", "ann@example.com")
        assert inside(stripe, customers.ensure, person.account_id) == customer_id
        assert len(at_stripe(stripe)) == 1

    def test_an_account_without_an_address_has_a_customer_too(self, stripe: StripeWorld) -> None:
        account_id = factories.account(stripe.app)
        inside(stripe, customers.ensure, account_id)
        [made] = at_stripe(stripe)
        assert (made["name"], made["email"]) == ("Acme", None)

    def test_many_at_once_make_one(self, stripe: StripeWorld) -> None:
        account_id = factories.account(stripe.app)
        found = at_once(*[lambda: inside(stripe, customers.ensure, account_id)] * 8)
        assert len(set(found)) == len(at_stripe(stripe)) == 1

    def test_who_looked_before_another_made_it_makes_the_same(
        self, stripe: StripeWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account_id = factories.account(stripe.app)
        first = inside(stripe, customers.ensure, account_id)
        monkeypatch.setattr(customers, "of_account", lambda _account_id: None)
        assert inside(stripe, customers.ensure, account_id) == first
        assert len(at_stripe(stripe)) == 1

    def test_a_crash_after_stripe_made_it_is_made_good(self, stripe: StripeWorld) -> None:
        account_id = factories.account(stripe.app)
        stripe.sandbox.control.fault("error", path="/v1/customers/", times=3)
        with pytest.raises(StripeUnavailable):
            inside(stripe, customers.ensure, account_id)
        with stripe.app.app_context():
            accounts.change(account_id, {"name": "Renamed meanwhile", "email": "new@example.com"})
        customer_id = inside(stripe, customers.ensure, account_id)
        [made] = at_stripe(stripe)
        assert (made["id"], made["name"]) == (customer_id, "Renamed meanwhile")

    def test_after_a_deletion_there_is_another_one(self, stripe: StripeWorld) -> None:
        account_id = factories.account(stripe.app)
        first = inside(stripe, customers.ensure, account_id)
        stripe.client.v1.customers.delete(first)
        inside(stripe, lambda: sync.run(customers.prepare(first)))
        assert row(stripe, first).deleted_at is not None
        second = inside(stripe, customers.ensure, account_id)
        assert second != first
        assert [one["id"] for one in at_stripe(stripe) if not one.get("deleted")] == [second]
        inside(stripe, lambda: sync.run(customers.prepare(first)))
        assert row(stripe, second).deleted_at is None

    def test_a_deletion_that_nobody_told_of_is_found_when_it_matters(self, stripe: StripeWorld) -> None:
        account_id = factories.account(stripe.app)
        first = inside(stripe, customers.ensure, account_id)
        stripe.client.v1.customers.delete(first)
        answer = inside(stripe, cards.collect, account_id)
        assert answer.client_secret.startswith("seti_")
        assert row(stripe, first).deleted_at is not None
        assert inside(stripe, customers.ensure, account_id) != first

    @pytest.mark.settings(stripe_secret_key=None)
    def test_without_a_key_there_are_none(self, stripe: StripeWorld) -> None:
        account_id = factories.account(stripe.app)
        with pytest.raises(StripeNotConfigured):
            inside(stripe, customers.ensure, account_id)
        assert inside(stripe, customers.create_missing) == 0


class TestTheJob:
    def test_everybody_gets_one_but_the_closed(self, stripe: StripeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(customers, "_PAGE", 2)
        made = [factories.account(stripe.app, f"account-{number}") for number in range(5)]
        with stripe.app.app_context():
            accounts.close(made[0], "gone")
        assert stripe.run_job("create-customers") == "ok"
        assert {one["metadata"]["account"] for one in at_stripe(stripe)} == set(made[1:])
        assert inside(stripe, customers.create_missing) == 0
        assert all(one["invoice_settings"]["default_payment_method"] is None for one in at_stripe(stripe))

    def test_one_that_stripe_refuses_keeps_nobody_waiting(self, stripe: StripeWorld) -> None:
        made = [factories.account(stripe.app, f"account-{number}") for number in range(3)]
        first = sorted(made)[0]  # a key that was used for another request is refused
        stripe.client.v1.customers.create(
            params={"name": "another request"}, options={"idempotency_key": f"spillway-customer-{first}-0"}
        )
        assert inside(stripe, customers.create_missing) == 2
        named = {one["metadata"].get("account") for one in at_stripe(stripe)}
        assert named == {None, *sorted(made)[1:]}

    def test_an_outage_is_one_line_and_not_one_for_each_account(
        self, stripe: StripeWorld, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(5):
            factories.account(stripe.app, f"account-{number}")
        stripe.sandbox.control.fault("rate_limit", times=0)
        with caplog.at_level(logging.INFO, "spillway"):
            assert stripe.run_job("create-customers") == "ok"
        assert len([one for one in caplog.records if one.levelno >= logging.WARNING]) <= 2
        stripe.sandbox.control.clear_faults()
        assert inside(stripe, customers.create_missing) == 5


class TestTheMirror:
    def test_the_card_that_pays_is_shown(self, stripe: StripeWorld) -> None:
        account_id = factories.account(stripe.app)
        customer_id = inside(stripe, customers.ensure, account_id)
        stripe.sandbox.control.use_card(customer_id, "5555555555554444")
        inside(stripe, lambda: sync.run(customers.prepare(customer_id)))
        kept = row(stripe, customer_id)
        assert (kept.card_brand, kept.card_last4, kept.card_exp_month, kept.card_exp_year) == (
            "mastercard", "4444", 12, 2099,
        )  # fmt: skip
        stripe.client.v1.payment_methods.detach(str(kept.payment_method))
        inside(stripe, lambda: sync.run(cards.prepare_method(str(kept.payment_method))))
        assert row(stripe, customer_id).card_last4 is None

    def test_an_older_answer_never_replaces_a_newer_one(self, stripe: StripeWorld, at: Any) -> None:
        account_id = factories.account(stripe.app)
        customer_id = inside(stripe, customers.ensure, account_id)
        with stripe.app.app_context():
            older = customers.prepare(customer_id)
            db.session.remove()
        at.forward(seconds=5)
        stripe.sandbox.control.use_card(customer_id, "4242424242424242")
        inside(stripe, lambda: sync.run(customers.prepare(customer_id)))
        inside(stripe, lambda: sync.run(older))
        assert row(stripe, customer_id).card_last4 == "4242"

    def test_foreign_customers_are_none_of_ours(self, stripe: StripeWorld) -> None:
        for metadata in ({}, {"product": "other", "account": "acc_x"}, {"product": "spillway", "account": "acc_x"}):
            foreign = stripe.client.v1.customers.create(params={"metadata": metadata}).id
            assert inside(stripe, customers.prepare, foreign) is None
            method = stripe.client.v1.payment_methods.attach("pm_card_visa", params={"customer": foreign})
            assert inside(stripe, cards.prepare_method, method.id) is None
        assert inside(stripe, customers.prepare, "cus_nobody") is None


class TestCollectedCards:
    def collect(self, world: StripeWorld, account_id: str, card: str) -> str:
        intent_id = str(inside(world, cards.collect, account_id).intent)
        world.client.v1.setup_intents.confirm(intent_id, params={"payment_method": card})
        return intent_id

    def test_it_becomes_what_invoices_are_paid_with(self, stripe: StripeWorld) -> None:
        account_id = factories.account(stripe.app)
        intent_id = self.collect(stripe, account_id, "pm_card_visa")
        for _ in range(2):
            inside(stripe, lambda: sync.run(cards.prepare_setup(intent_id)))
        [customer] = at_stripe(stripe)
        kept = row(stripe, customer["id"])
        assert kept.card_last4 == "4242"
        assert customer["invoice_settings"]["default_payment_method"] == kept.payment_method

    def test_a_late_event_does_not_push_out_a_newer_card(self, stripe: StripeWorld, at: Any) -> None:
        account_id = factories.account(stripe.app)
        first = self.collect(stripe, account_id, "pm_card_visa")
        at.forward(days=2)
        second = self.collect(stripe, account_id, "pm_card_mastercard")
        for intent_id in (second, first):
            inside(stripe, lambda intent_id=intent_id: sync.run(cards.prepare_setup(intent_id)))
        [customer] = at_stripe(stripe)
        assert row(stripe, customer["id"]).card_last4 == "4444"

    def test_a_setup_of_somebody_elses_is_left_alone(self, stripe: StripeWorld) -> None:
        foreign = stripe.client.v1.customers.create(params={"name": "Foreign"}).id
        intent = stripe.client.v1.setup_intents.create(
            params={"customer": foreign, "confirm": True, "payment_method": "pm_card_visa"}
        )
        assert inside(stripe, cards.prepare_setup, intent.id) is None
        [customer] = at_stripe(stripe)
        assert customer["invoice_settings"]["default_payment_method"] is None
