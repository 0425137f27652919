"""Failed payments: grace, the plan taken back, suspension, and payment that brings everything back."""

from __future__ import annotations

from typing import Any

import pytest

import clock
from services import letters
from tests import factories
from tests.buying.helpers import tenant
from tests.factories import Api
from tests.pages.helpers import letters as outbox
from tests.stripe_world import StripeWorld

BAD = "4000000000000341"


class Subscriber:
    """An account on a monthly plan of 5,000 credits whose card begins to fail, with 40 granted credits."""

    def __init__(self, world: StripeWorld) -> None:
        self.world = world
        world.seed()
        self.account_id, self.api = tenant(world)
        service = Api(world.app, factories.service_token(world.app))
        self.service = service
        assert service.post(f"/accounts/{self.account_id}/grants", {"credits": 40, "reason": "hello"}).status == 201
        self.subscription = world.subscribe(self.account_id)
        world.settle()
        self.world.sandbox.control.settings(after_retries="past_due")

    def fail_renewal(self) -> None:
        """To the day of renewal, whose payment is declined."""
        self.world.sandbox.control.fail_next_payments(self.world.customer(self.account_id))
        self.pass_days(32)

    def pass_days(self, days: float) -> None:
        self.world.advance(days=days)
        self.world.settle()
        self.world.run_job("dunning")

    def pay(self) -> None:
        """A good card, and the open invoice paid with it."""
        self.world.sandbox.control.use_card(self.world.customer(self.account_id), "4242424242424242")
        v1 = self.world.client.v1
        for invoice in v1.invoices.list(params={"subscription": self.subscription, "status": "open"}).data:
            v1.invoices.pay(str(invoice.id))
        self.world.settle()

    @property
    def state(self) -> tuple[str, str, int, int]:
        """Status, plan, allowance and grants left; the books are verified on the way."""
        balance: Any = self.world.end_state(self.account_id)["balance"]
        left = int(balance["allowance"]["remaining"]), int(balance["granted"]["remaining"])
        return balance["status"], balance["plan"], *left


@pytest.fixture
def subscriber(stripe: StripeWorld) -> Subscriber:
    return Subscriber(stripe)


def test_from_the_first_failure_to_suspension_and_back(subscriber: Subscriber) -> None:
    assert subscriber.state == ("active", "team", 5000, 40)
    subscriber.world.sandbox.control.settings(retry_days=[10, 20, 30])
    subscriber.fail_renewal()
    assert subscriber.state == ("past_due", "team", 5000, 40), "full access within the grace, in the new period too"
    assert subscriber.api.post("/usage", {"credits": 1000}).status == 201
    subscriber.pass_days(7)
    assert subscriber.state == ("past_due", "free", 0, 40), "what was bought or granted stays"
    assert subscriber.api.post("/usage", {"credits": 15}).status == 201
    subscriber.pass_days(7)
    assert subscriber.state == ("suspended", "free", 0, 25)
    refused = subscriber.api.post("/usage", {"credits": 1})
    assert (refused.status, refused.code) == (403, "account_suspended")
    assert subscriber.api.get("/balance").status == 200
    subscriber.pay()
    assert subscriber.state == ("active", "team", 4000, 25), "exactly what was taken"


def test_each_failed_attempt_is_told_once_and_paying_ends_it(subscriber: Subscriber) -> None:
    def standing() -> list[str]:
        return [alert["kind"] for alert in subscriber.api.get("/alerts").json["data"] if alert["standing"]]

    subscriber.world.sandbox.control.settings(retry_days=[2, 4, 30])
    subscriber.fail_renewal()
    assert standing() == ["payment_failed"]
    subscriber.world.settle("duplicated")
    assert standing() == ["payment_failed"]
    subscriber.pass_days(2.5)
    assert sorted(standing()) == ["payment_failed", "payment_failed", "plan_lapsed"]
    subscriber.pay()
    assert standing() == ["restored"]


def test_each_step_is_mailed_once(subscriber: Subscriber) -> None:
    world = subscriber.world
    path = f"/accounts/{subscriber.account_id}"
    assert subscriber.service.patch(path, {"email": "owner@example.com"}).status == 200

    def mailed() -> list[str]:
        world.run_job("send-outbox")
        kinds = [letter.kind for letter in outbox(world.app) if letter.kind in letters.KINDS]
        assert {letter.to for letter in outbox(world.app)} <= {"owner@example.com"}
        return kinds

    world.sandbox.control.settings(retry_days=[4, 40])
    subscriber.fail_renewal()
    told = ["payment_failed"]
    assert mailed() == told
    for days, kind in ((4, "payment_failed"), (4, "plan_lapsed"), (8, "suspended")):
        subscriber.pass_days(days)
        world.run_job("dunning")
        told.append(kind)
        assert mailed() == told
    [invoice] = [one for one in subscriber.api.get("/invoices").json["data"] if one["status"] == "open"]
    for letter in outbox(world.app):
        assert (f"Pay now: {invoice['hosted_url']}" in letter.text) == (letter.kind in letters.KINDS), letter
    subscriber.pay()
    assert mailed() == [*told, "restored"]
    subscriber.pass_days(3)
    assert mailed() == [*told, "restored"]


def test_the_third_failed_attempt_ends_the_grace(subscriber: Subscriber) -> None:
    subscriber.world.sandbox.control.settings(retry_days=[1, 2, 30])
    subscriber.fail_renewal()
    assert subscriber.state[:2] == ("past_due", "team")
    subscriber.pass_days(2.5)
    assert subscriber.state == ("past_due", "free", 0, 40)


def test_paid_within_the_grace_changes_nothing(subscriber: Subscriber) -> None:
    subscriber.fail_renewal()
    subscriber.pay()
    assert subscriber.state == ("active", "team", 5000, 40)
    subscriber.pass_days(15)
    assert subscriber.state == ("active", "team", 5000, 40)


def test_an_operators_suspension_is_not_lifted_by_a_payment(subscriber: Subscriber) -> None:
    subscriber.fail_renewal()
    path = f"/accounts/{subscriber.account_id}/suspend"
    assert subscriber.service.post(path, {"reason": "abuse"}).status == 200
    subscriber.pay()
    assert subscriber.state[0] == "suspended"


def test_a_first_invoice_that_is_never_paid_is_no_arrears(stripe: StripeWorld) -> None:
    stripe.seed()
    account_id, _ = tenant(stripe)
    v1 = stripe.client.v1
    customer = stripe.customer(account_id)
    stripe.sandbox.control.use_card(customer, BAD)
    v1.subscriptions.create(
        params={
            "customer": customer,
            "items": [{"price": stripe.prices["team_month"]}],
            "metadata": {"product": "spillway", "account": account_id},
            "payment_behavior": "default_incomplete",
        }
    )
    stripe.advance(days=20)
    stripe.settle()
    assert stripe.run_job("dunning") == "ok"
    assert stripe.end_state(account_id)["account"][:2] == ("active", "free")


def test_another_paid_subscription_clears_the_account(subscriber: Subscriber) -> None:
    subscriber.world.sandbox.control.settings(after_retries="cancel", retry_days=[1, 2, 3])
    subscriber.fail_renewal()
    subscriber.pass_days(15)
    assert subscriber.state[:2] == ("suspended", "free"), "cancelled by Stripe, and its invoice still unpaid"
    subscriber.world.sandbox.control.use_card(subscriber.world.customer(subscriber.account_id), "4242424242424242")
    subscriber.world.subscribe(subscriber.account_id, "starter_month")
    subscriber.world.settle()
    assert subscriber.state == ("active", "starter", 1000, 40)


def test_a_card_that_expires_soon_is_told_once(subscriber: Subscriber) -> None:
    def told() -> list[dict[str, Any]]:
        return [one for one in subscriber.api.get("/alerts").json["data"] if one["kind"] == "card_expiring"]

    world = subscriber.world
    world.run_job("dunning")
    assert told() == []
    [method] = [one for one in world.sandbox.control.dump("payment_method") if one["customer"]][:1]
    soon = {"exp_month": clock.now().month, "exp_year": clock.now().year}
    customer = world.customer(subscriber.account_id)
    world.client.v1.payment_methods.update(method["id"], params={"card": soon})
    world.client.v1.customers.update(customer, params={"invoice_settings": {"default_payment_method": method["id"]}})
    world.settle()
    for _ in range(2):
        world.run_job("dunning")
        [alert] = told()
        assert alert["details"]["last4"] == "4242"
