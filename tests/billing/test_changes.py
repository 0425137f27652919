"""Starting, changing, cancelling and resuming a subscription through the API, and the same done at Stripe."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from tests import factories
from tests.buying.helpers import tenant
from tests.factories import Answer, Api
from tests.stripe_world import StripeWorld

ASKS = "4000002760003184"
"""A card whose bank asks the customer about each payment."""


class Customer:
    """An account with a card on file."""

    def __init__(self, world: StripeWorld, card: str | None = "4242424242424242") -> None:
        self.world = world
        world.seed()
        self.account_id, self.api = tenant(world)
        if card:
            self.api.post("/stripe/customer", {})
            world.sandbox.control.use_card(world.customer(self.account_id), card)
            world.settle()

    def wants(self, tier: str, interval: str = "month") -> Answer:
        return self.api.post("/stripe/subscription", {"tier": tier, "interval": interval})

    def spend(self, amount: int) -> None:
        assert self.api.post("/usage", {"credits": amount}).status == 201

    def pass_days(self, days: float) -> None:
        self.world.advance(days=days)
        self.world.settle()
        self.world.run_job("renew-allowances")

    @property
    def plan(self) -> tuple[str, int, int]:
        """Plan, included and remaining allowance; the books are verified on the way."""
        balance: Any = self.world.end_state(self.account_id)["balance"]
        return balance["plan"], int(balance["allowance"]["included"]), int(balance["allowance"]["remaining"])

    @property
    def subscription(self) -> Any:
        return self.api.get("/subscription").json


@pytest.fixture
def customer(stripe: StripeWorld) -> Customer:
    return Customer(stripe)


def changed(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    return dict(answer.json)


class TestStarting:
    def test_with_the_card_on_file(self, customer: Customer) -> None:
        told = changed(customer.wants("team"))
        assert told == {
            "status": "active",
            "tier": "team",
            "interval": "month",
            "effective": "now",
            "action_url": None,
        }
        assert customer.plan == ("team", 5000, 5000), "at once, before any event"
        customer.world.settle()
        assert customer.plan == ("team", 5000, 5000)

    def test_without_a_card(self, stripe: StripeWorld) -> None:
        answer = Customer(stripe, card=None).wants("team")
        assert (answer.status, list(answer.json["errors"])) == (422, ["payment_method"])

    def test_a_bank_that_asks(self, stripe: StripeWorld) -> None:
        customer = Customer(stripe, ASKS)
        told = changed(customer.wants("team"))
        assert told["status"] == "incomplete" and told["action_url"].startswith("http")
        assert customer.plan == ("free", 0, 0)
        assert changed(customer.wants("team")) == told, "asked again it is the same one"
        [intent] = [one for one in stripe.sandbox.control.dump("payment_intent") if one["status"] == "requires_action"]
        stripe.sandbox.control.authenticate(intent["id"])
        stripe.settle()
        assert customer.plan == ("team", 5000, 5000)

    def test_asked_twice_it_is_one(self, customer: Customer) -> None:
        assert changed(customer.wants("team")) == changed(customer.wants("team"))
        assert len(customer.world.client.v1.subscriptions.list().data) == 1

    def test_an_unknown_plan(self, customer: Customer) -> None:
        for tier, interval in (("nothing", "month"), ("starter", "year")):
            answer = customer.wants(tier, interval)
            assert (answer.status, list(answer.json["errors"])) == (422, ["tier"])

    def test_none_to_cancel_or_resume(self, customer: Customer) -> None:
        assert customer.api.delete("/stripe/subscription").status == 404
        assert customer.api.post("/stripe/subscription/resume", {}).status == 404


class TestChanging:
    def test_more_comes_at_once(self, customer: Customer) -> None:
        changed(customer.wants("starter"))
        customer.spend(300)
        customer.pass_days(10)
        told = changed(customer.wants("team"))
        assert (told["status"], told["effective"]) == ("active", "now")
        assert customer.plan == ("team", 5000, 4700), "the difference in full"
        customer.world.settle()
        assert customer.plan == ("team", 5000, 4700)
        paid = [invoice["total"] for invoice in customer.api.get("/invoices").json["data"]]
        assert len(paid) == 2 and 0 < paid[0] < 4900, "charged in proportion"

    def test_less_waits_for_the_end_of_the_period(self, customer: Customer) -> None:
        changed(customer.wants("team"))
        customer.spend(4500)
        told = changed(customer.wants("starter"))
        assert (told["tier"], told["effective"]) == ("starter", "period_end")
        customer.world.settle()
        assert customer.plan == ("team", 5000, 500)
        customer.pass_days(32)
        assert customer.plan == ("starter", 1000, 1000)

    def test_a_planned_change_is_dropped_by_staying(self, customer: Customer) -> None:
        changed(customer.wants("team"))
        changed(customer.wants("starter"))
        told = changed(customer.wants("team"))
        assert (told["tier"], told["effective"]) == ("team", "now")
        customer.pass_days(32)
        assert customer.plan == ("team", 5000, 5000)

    def test_up_after_a_planned_down(self, customer: Customer) -> None:
        changed(customer.wants("saver"))
        changed(customer.wants("starter"))
        assert changed(customer.wants("team"))["effective"] == "now"
        customer.pass_days(32)
        assert customer.plan == ("team", 5000, 5000)

    def test_an_upgrade_that_is_not_paid_changes_nothing(self, customer: Customer) -> None:
        changed(customer.wants("starter"))
        customer.world.sandbox.control.fail_next_payments(customer.world.customer(customer.account_id))
        told = changed(customer.wants("team"))
        assert told["action_url"], "where it can be paid"
        customer.world.settle()
        assert customer.plan == ("starter", 1000, 1000)

    def test_up_and_down_farms_nothing(self, customer: Customer) -> None:
        changed(customer.wants("starter"))
        customer.spend(1000)
        v1 = customer.world.client.v1
        found = v1.subscriptions.list().data[0]
        for name in ("team_month", "starter_month", "team_month"):  # at once each time, as a dashboard may do
            item = v1.subscriptions.retrieve(found.id)["items"]["data"][0]["id"]
            v1.subscriptions.update(found.id, params={"items": [{"id": item, "price": customer.world.prices[name]}]})
            customer.world.settle()
        assert customer.plan == ("team", 5000, 4000)

    def test_month_to_year(self, customer: Customer) -> None:
        changed(customer.wants("team"))
        customer.spend(100)
        told = changed(customer.wants("team", "year"))
        assert (told["interval"], told["effective"]) == ("year", "now")
        customer.world.settle()
        assert customer.subscription["interval"] == "year"

    def test_preview(self, customer: Customer) -> None:
        first = customer.api.get("/stripe/subscription/preview?tier=starter&interval=month")
        assert (first.status, first.json["amount_due"], first.json["effective"]) == (200, 1900, "now")
        changed(customer.wants("starter"))
        up = customer.api.get("/stripe/subscription/preview?tier=team&interval=month").json
        assert up["effective"] == "now" and up["amount_due"] == 4900 - 1900
        assert sum(line["amount"] for line in up["lines"]) == up["amount_due"]
        changed(customer.wants("team"))
        down = customer.api.get("/stripe/subscription/preview?tier=starter&interval=month").json
        assert down["effective"] == "period_end" and down["amount_due"] == 1900
        assert customer.plan[0] == "team", "asking changes nothing"


class TestEnding:
    def test_cancelled_at_the_end_and_resumed(self, customer: Customer) -> None:
        changed(customer.wants("team"))
        told = changed(customer.api.delete("/stripe/subscription"))
        assert (told["status"], told["effective"]) == ("active", "period_end")
        assert customer.subscription["cancel_at"] is not None
        assert changed(customer.api.post("/stripe/subscription/resume", {}))["effective"] == "now"
        assert customer.subscription["cancel_at"] is None
        changed(customer.api.delete("/stripe/subscription"))
        customer.pass_days(20)
        assert customer.plan[0] == "team"
        customer.pass_days(12)
        assert customer.plan == ("free", 0, 0)
        assert changed(customer.wants("starter"))["status"] == "active", "and can begin anew"
        assert customer.plan == ("starter", 1000, 1000)

    def test_a_planned_change_does_not_outlive_cancelling(self, customer: Customer) -> None:
        changed(customer.wants("team"))
        changed(customer.wants("starter"))
        changed(customer.api.delete("/stripe/subscription"))
        customer.pass_days(32)
        assert customer.plan == ("free", 0, 0)

    def test_paused_and_resumed(self, customer: Customer) -> None:
        """Paused in the dashboard, resumed by the customer: what was left of the allowance comes back."""
        changed(customer.wants("team"))
        customer.spend(100)
        v1 = customer.world.client.v1
        v1.subscriptions.pause(v1.subscriptions.list().data[0].id, params={"type": "subscription"})
        customer.world.settle()
        assert customer.plan == ("free", 0, 0)
        assert changed(customer.api.post("/stripe/subscription/resume", {}))["status"] == "active"
        assert customer.plan == ("team", 5000, 4900)


def test_without_stripe_nothing_can_be_started(app: Flask) -> None:
    api = Api(app, factories.token(app, factories.account(app), "billing"))
    assert api.post("/stripe/subscription", {"tier": "team"}).code == "stripe_not_configured"
