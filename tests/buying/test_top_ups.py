"""Auto top-up: credits bought by themselves, once, with a receipt, and never more than was agreed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest
import requests
import responses
from responses.registries import FirstMatchRegistry
from sqlalchemy import select

import database as databases
from models.outgoing import OutgoingEvent
from models.top_up import TopUp, TopUpWatch
from services import agreed, auto_top_up, outgoing
from tests.buying.helpers import inside, lots, rows, tenant
from tests.factories import Api, service_token
from tests.pages.helpers import letters as outbox
from tests.stripe_world import WAYS, StripeWorld
from tests.together import at_once

MICRO = 1_000_000
GOOD, BAD, ASKS = "4242424242424242", "4000000000000341", "4000002760003184"
BANK, BROKEN_BANK = "000123456789", "000111111116"
AGREED = {"enabled": True, "below": 50, "credits": 100, "monthly_ceiling": 1000}


class Buyer:
    """An account with 60 credits, a card on file, and auto top-up: below 50 buy 100 for $1.00, at most $10 a month."""

    def __init__(self, world: StripeWorld, card: str | None = GOOD) -> None:
        self.world = world
        world.seed()
        self.account_id, self.api = tenant(world)
        self.operator = Api(world.app, service_token(world.app))
        self.customer = self.api.post("/stripe/customer", {}).json["customer"]
        if card is not None:
            self.use(card)
        given = self.operator.post(f"/accounts/{self.account_id}/grants", {"credits": 60, "reason": "hello"})
        assert given.status == 201
        assert self.put().status == 200

    def put(self, **changes: Any) -> Any:
        return self.api.put("/controls", {"auto_top_up": AGREED | changes})

    def use(self, card: str) -> None:
        self.world.sandbox.control.use_card(self.customer, card)
        self.world.settle()

    def spend(self, credits: float = 20) -> None:
        assert self.api.post("/usage", {"credits": credits}).status == 201

    def run(self, by_hand: bool = True) -> None:
        assert self.world.run_job("auto-top-up", by_hand) == "ok"

    def come_short(self) -> None:
        """Spend, have the job run, and all events delivered."""
        self.spend()
        self.run()
        self.world.settle()

    @property
    def available(self) -> Any:
        return self.api.get("/balance").json["available"]

    @property
    def attempts(self) -> list[tuple[str, str | None]]:
        """Status and reason, oldest first."""
        return [(row.status, row.reason) for row in inside(self.world, auto_top_up.latest, self.account_id, 100)][::-1]

    @property
    def watch(self) -> TopUpWatch:
        found: TopUpWatch = inside(self.world, auto_top_up.watch_of, self.account_id)
        return found

    def alerts(self, state: str = "standing") -> list[str]:
        return [one["kind"] for one in self.api.get(f"/alerts?state={state}").json["data"]][::-1]

    def invoices(self) -> list[tuple[str, int]]:
        """Status and total of each at Stripe, the oldest first."""
        found = self.world.sandbox.control.dump("invoice")
        return [(one["status"], one["total"]) for one in found]

    @property
    def is_on(self) -> bool:
        return bool(self.api.get("/controls").json["auto_top_up"]["enabled"])


@pytest.fixture
def buyer(stripe: StripeWorld) -> Buyer:
    return Buyer(stripe)


BOUGHT = [("purchased", 100 * MICRO, 100 * MICRO)]


def test_below_the_threshold_credits_are_bought_with_a_receipt(stripe: StripeWorld, buyer: Buyer) -> None:
    buyer.run()
    assert buyer.attempts == [], "60 are not below 50"
    buyer.spend(10)
    buyer.run()
    assert buyer.attempts == [], "nor are 50"
    buyer.spend(1)
    buyer.run(by_hand=False)
    assert buyer.available == 149, "before any event"
    assert buyer.invoices() == [("paid", 100)]
    stripe.settle()
    assert buyer.available == 149
    [purchase] = buyer.api.get("/purchases").json["data"]
    [invoice] = buyer.api.get("/invoices").json["data"]
    assert (purchase["status"], purchase["credits"], purchase["amount"], purchase["currency"]) == (
        "paid",
        100,
        100,
        "usd",
    )
    assert (purchase["session"], purchase["invoice"], purchase["price"]) == (
        None,
        invoice["id"],
        stripe.prices["credit"],
    )
    assert (invoice["status"], invoice["total"], invoice["reason"]) == ("paid", 100, "manual")
    assert invoice["pdf_url"]
    [entry] = [one for one in buyer.api.get("/ledger").json["data"] if one["reason"] == "purchase"]
    assert (entry["lot"], entry["change"], entry["cause"]["id"]) == (purchase["lot"], 100, purchase["id"])
    assert buyer.attempts == [("paid", None)]
    assert buyer.alerts() == ["topped_up"]
    stripe.end_state(buyer.account_id)


def test_what_is_held_is_not_available(buyer: Buyer) -> None:
    assert buyer.api.post("/holds", {"credits": 11}).status == 201
    buyer.run()
    assert buyer.attempts == [("paid", None)]


@pytest.mark.parametrize("how", WAYS)
def test_however_it_is_told_it_comes_once(stripe: StripeWorld, buyer: Buyer, how: str) -> None:
    buyer.spend()
    buyer.run()
    stripe.settle(how)
    stripe.settle("duplicated")
    buyer.run()
    stripe.settle()
    assert lots(stripe, buyer.account_id) == BOUGHT
    assert [one.status for one in rows(stripe, buyer.account_id)] == ["paid"]
    assert buyer.invoices() == [("paid", 100)]
    stripe.end_state(buyer.account_id)


def test_lost_events_are_found_by_reconciling(stripe: StripeWorld, buyer: Buyer) -> None:
    """Paid by an invoice whose process died before it could write what it bought."""
    buyer.use(ASKS)
    buyer.come_short()
    [invoice] = stripe.sandbox.control.dump("invoice")
    pay_by_link(stripe)
    stripe.lose()
    runner = stripe.app.test_cli_runner()
    found = runner.invoke(args=["stripe", "reconcile"])
    assert found.exit_code == 1
    assert f"{buyer.account_id} {invoice['id']}: paid in Stripe, no lot here" in found.output
    assert lots(stripe, buyer.account_id) == []
    assert runner.invoke(args=["stripe", "reconcile", "--repair"]).exit_code == 0
    assert lots(stripe, buyer.account_id) == BOUGHT
    assert runner.invoke(args=["stripe", "reconcile"]).exit_code == 0
    assert buyer.attempts == [("paid", None)]


def pay_by_link(stripe: StripeWorld, agreed: bool = True) -> None:
    for intent in stripe.sandbox.control.dump("payment_intent"):
        if intent["status"] == "requires_action":
            stripe.sandbox.control.authenticate(intent["id"], agreed)


class TestCrash:
    """Between any two calls a process may die, and an answer may be lost: the next run goes on with the same."""

    @pytest.mark.parametrize("after", [False, True], ids=["before it is carried out", "after it"])
    @pytest.mark.parametrize("step", range(8))
    def test_the_same_invoice_is_finished(self, stripe: StripeWorld, buyer: Buyer, step: int, after: bool) -> None:
        buyer.spend()
        with breaking(step, after) as broken:
            buyer.run()
        buyer.run()
        buyer.run()
        stripe.settle()
        assert buyer.attempts == [("paid", None)]
        assert buyer.invoices() == [("paid", 100)]
        assert lots(stripe, buyer.account_id) == BOUGHT
        stripe.end_state(buyer.account_id)
        assert broken.calls > step, "an attempt has fewer calls"

    def test_days_later_when_stripe_has_forgotten_our_keys(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.spend()
        with breaking(1, after=False):
            buyer.run()
        stripe.advance(days=3)
        forget_invoice(stripe)
        buyer.run()
        assert buyer.invoices() == [("paid", 100)]
        assert buyer.attempts == [("paid", None)]


def forget_invoice(stripe: StripeWorld) -> None:
    """As if the process had died before it kept the invoice's id."""
    with stripe.app.app_context(), databases.transaction() as session:
        session.scalars(select(TopUp)).one().invoice_id = None


class _Breaks(FirstMatchRegistry):
    """Lets `good` calls through; then the process is gone, after that call was carried out or before."""

    good, after, calls = 0, False, 0

    def find(self, request: Any) -> Any:
        type(self).calls += 1
        if self.calls <= self.good:
            return responses.PassthroughResponse(request.method, request.url), []
        if self.calls == self.good + 1 and self.after:
            body = request.body.encode() if isinstance(request.body, str) else request.body
            urlopen(Request(request.url, body, dict(request.headers), method=request.method)).close()
        return responses.Response(request.method, request.url, body=requests.ConnectionError("gone")), []


@contextmanager
def breaking(good: int, after: bool) -> Iterator[type[_Breaks]]:
    """Calls to Stripe fail from this one on."""
    kind = type("Breaks", (_Breaks,), {"good": good, "after": after})
    with responses.RequestsMock(registry=kind, assert_all_requests_are_fired=False):
        yield kind


@pytest.mark.parametrize(
    ("code", "ends"),
    [("card_declined", ("failed", "card_declined")), ("authentication_required", ("open", None))],
)
def test_an_answer_that_the_payment_does_not_show(
    stripe: StripeWorld, buyer: Buyer, code: str, ends: tuple[str, str | None]
) -> None:
    """Stripe refuses the card, and nothing of it is seen on the payment intent."""
    buyer.spend()
    body = {"error": {"type": "card_error", "code": code, "message": "No."}}
    with responses.RequestsMock() as edge:
        edge.add_passthru(re.compile(r".*(?<!/pay)$"))
        edge.post(re.compile(r".*/v1/invoices/[^/]+/pay$"), status=402, json=body)
        buyer.run()
    assert buyer.attempts == [ends]
    assert buyer.invoices() == [("void" if ends[0] == "failed" else "open", 100)]


def test_a_card_that_ends_is_told_to_who_needs_it(stripe: StripeWorld, buyer: Buyer) -> None:
    [method] = stripe.client.v1.customers.payment_methods.list(buyer.customer).data
    soon = {"exp_month": 12, "exp_year": 2026}
    stripe.client.v1.payment_methods.update(method.id, params={"card": soon})
    stripe.client.v1.customers.update(buyer.customer, params={"description": "x"})
    stripe.settle()
    buyer.put(enabled=False)
    stripe.run_job("dunning")
    assert buyer.alerts() == []
    buyer.put()
    stripe.run_job("dunning")
    assert buyer.alerts() == ["card_expiring"]


def test_two_jobs_buy_once(stripe: StripeWorld, buyer: Buyer) -> None:
    buyer.spend()
    at_once(*[buyer.run] * 4)
    stripe.settle()
    assert buyer.invoices() == [("paid", 100)]
    assert lots(stripe, buyer.account_id) == BOUGHT
    assert buyer.attempts == [("paid", None)]


class TestLimits:
    def test_no_more_than_the_ceiling_in_a_month(self, stripe: StripeWorld, buyer: Buyer) -> None:
        assert buyer.put(monthly_ceiling=250).status == 200
        for _ in range(4):
            buyer.spend(buyer.available - 10)
            buyer.run()
            stripe.advance(hours=1)
        assert buyer.invoices() == [("paid", 100)] * 2
        assert buyer.alerts().count("top_up_ceiling") == 1
        stripe.advance("2026-12-01T00:00:01Z")
        buyer.run()
        assert buyer.invoices() == [("paid", 100)] * 3
        assert "top_up_ceiling" not in buyer.alerts()

    def test_a_higher_ceiling_counts_at_once(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.put(monthly_ceiling=99)
        buyer.come_short()
        assert (buyer.attempts, buyer.alerts()) == ([], ["top_up_ceiling"])
        buyer.put(monthly_ceiling=100)
        assert buyer.alerts() == []
        buyer.run()
        assert buyer.attempts == [("paid", None)]

    def test_after_a_success_it_rests(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.come_short()
        buyer.spend(130)
        buyer.run()
        assert len(buyer.attempts) == 1, "also by hand"
        stripe.advance(minutes=10)
        buyer.run(by_hand=False)
        assert len(buyer.attempts) == 2

    def test_a_renewal_that_is_under_way_comes_first(self, stripe: StripeWorld, buyer: Buyer) -> None:
        stripe.subscribe(buyer.account_id)
        stripe.settle()
        buyer.spend(5055)
        stripe.advance(days=30)
        stripe.lose()
        assert buyer.available == 5
        buyer.run()
        assert buyer.attempts == []
        assert stripe.run_job("renew-allowances") == "ok"
        buyer.run()
        assert (buyer.attempts, buyer.available) == ([], 5005)


class TestDecline:
    def test_each_pause_is_longer_and_the_last_turns_it_off(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(BAD)
        buyer.spend()
        for number, pause in enumerate((1, 6, 24), 1):
            buyer.run(by_hand=False)
            stripe.settle()
            buyer.run(by_hand=False)
            assert buyer.attempts == [("failed", "generic_decline")] * number
            assert buyer.alerts() == ["top_up_failed"]
            stripe.advance(hours=pause, minutes=-1)
            buyer.run(by_hand=False)
            assert len(buyer.attempts) == number, "too early"
            stripe.advance(minutes=1)
        buyer.run(by_hand=False)
        stripe.settle()
        assert buyer.attempts == [("failed", "generic_decline")] * 4
        assert buyer.invoices() == [("void", 100)] * 4
        assert not buyer.is_on
        assert buyer.alerts() == ["top_up_off"]
        assert buyer.watch.off_reason == "generic_decline"
        buyer.use(GOOD)
        stripe.advance(days=40)
        buyer.run()
        assert len(buyer.attempts) == 4, "it never turns itself on"
        assert buyer.put().status == 200
        assert buyer.alerts() == []
        buyer.run()
        assert buyer.attempts[-1] == ("paid", None)
        stripe.settle()
        stripe.end_state(buyer.account_id)

    def test_it_is_no_unpaid_bill(self, stripe: StripeWorld, buyer: Buyer) -> None:
        subscription = stripe.subscribe(buyer.account_id)
        stripe.settle()
        buyer.use(BAD)
        buyer.spend(5040)
        buyer.run()
        stripe.settle("duplicated")
        stripe.run_job("dunning")
        assert buyer.attempts == [("failed", "generic_decline")]
        balance = buyer.api.get("/balance").json
        assert (balance["status"], balance["plan"]) == ("active", "team")
        assert buyer.api.get("/subscription").json["past_due"] is None
        assert stripe.client.v1.subscriptions.retrieve(subscription).status == "active"
        assert next(one["status"] for one in buyer.api.get("/purchases").json["data"]) == "failed"
        buyer.use(GOOD)
        buyer.run()
        assert buyer.attempts[-1] == ("paid", None)

    def test_by_hand_the_pause_is_ignored(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(BAD)
        buyer.come_short()
        buyer.run(by_hand=False)
        assert len(buyer.attempts) == 1
        buyer.run()
        assert len(buyer.attempts) == 2

    def test_another_card_is_tried_at_once(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(BAD)
        buyer.come_short()
        buyer.use(GOOD)
        buyer.run(by_hand=False)
        assert buyer.attempts == [("failed", "generic_decline"), ("paid", None)]
        assert buyer.alerts() == ["topped_up"]
        assert buyer.watch.failures == 0

    @pytest.mark.parametrize("after", [False, True])
    def test_a_crash_before_it_is_voided(self, stripe: StripeWorld, buyer: Buyer, after: bool) -> None:
        buyer.use(BAD)
        buyer.spend()
        stripe.sandbox.control.fault("error", path="/v1/invoices/", method="POST", times=0)
        buyer.run()
        stripe.sandbox.control.clear_faults()
        buyer.run()
        stripe.settle()
        assert buyer.attempts[0] == ("failed", "generic_decline")
        assert {status for status, _ in buyer.invoices()} == {"void"}

    def test_no_card_at_all(self, stripe: StripeWorld) -> None:
        buyer = Buyer(stripe, card=None)
        buyer.come_short()
        assert buyer.attempts == [("failed", "no_card")]
        assert buyer.invoices() == []
        assert buyer.alerts() == ["top_up_failed"]
        buyer.use(GOOD)
        buyer.run(by_hand=False)
        assert buyer.attempts[-1] == ("paid", None)

    def test_an_amount_that_is_not_for_sale(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.put(credits=7)
        buyer.come_short()
        assert buyer.attempts == [("failed", "not_for_sale")]

    def test_a_price_that_is_gone(self, stripe: StripeWorld, buyer: Buyer) -> None:
        stripe.client.v1.prices.update(stripe.prices["credit"], params={"active": False})
        stripe.settle()
        buyer.come_short()
        assert buyer.attempts == [("failed", "not_for_sale")]

    def test_a_customer_that_is_gone(self, stripe: StripeWorld, buyer: Buyer) -> None:
        stripe.client.v1.customers.delete(buyer.customer)
        stripe.lose()
        buyer.come_short()
        assert buyer.attempts == [("failed", "no_card")]
        assert buyer.invoices() == []

    def test_a_card_that_is_gone(self, stripe: StripeWorld, buyer: Buyer) -> None:
        for method in stripe.client.v1.customers.payment_methods.list(buyer.customer).data:
            stripe.client.v1.payment_methods.detach(method.id)
        stripe.lose()
        buyer.come_short()
        assert buyer.attempts == [("failed", "no_card")]
        assert "open" not in {status for status, _ in buyer.invoices()}


class TestTheBankAsks:
    def test_it_waits_and_is_paid_by_the_link(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(ASKS)
        buyer.come_short()
        for _ in range(2):
            stripe.advance(days=2)
            buyer.run(by_hand=False)
            buyer.run()
        assert buyer.attempts == [("open", None)]
        assert buyer.invoices() == [("open", 100)]
        assert buyer.alerts() == ["top_up_action"]
        [alert] = buyer.api.get("/alerts?state=standing").json["data"]
        assert alert["details"]["url"] == buyer.api.get("/invoices").json["data"][0]["hosted_url"]
        pay_by_link(stripe)
        stripe.settle("shuffled")
        assert buyer.attempts == [("paid", None)]
        assert buyer.alerts() == ["topped_up"]
        assert lots(stripe, buyer.account_id) == BOUGHT
        stripe.end_state(buyer.account_id)

    def test_without_any_event_the_job_finds_it_paid(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(ASKS)
        buyer.come_short()
        pay_by_link(stripe)
        stripe.lose()
        buyer.run()
        assert buyer.attempts == [("paid", None)]
        assert lots(stripe, buyer.account_id) == BOUGHT

    def test_who_does_not_agree_may_try_again(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(ASKS)
        buyer.come_short()
        pay_by_link(stripe, agreed=False)
        stripe.settle()
        buyer.run()
        assert buyer.attempts == [("open", None)]
        assert buyer.invoices() == [("open", 100)]

    def test_turning_it_off_withdraws_the_invoice(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(ASKS)
        buyer.come_short()
        buyer.put(enabled=False)
        buyer.run(by_hand=False)
        stripe.settle()
        assert buyer.attempts == [("withdrawn", "unwanted")]
        assert buyer.invoices() == [("void", 100)]
        assert buyer.alerts() == []

    def test_one_that_the_team_voids(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(ASKS)
        buyer.come_short()
        [invoice] = stripe.sandbox.control.dump("invoice")
        stripe.client.v1.invoices.void_invoice(invoice["id"])
        stripe.settle()
        assert buyer.attempts == [("withdrawn", "voided")]
        assert buyer.alerts() == []


class TestDebits:
    def test_paid_days_later(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(BANK)
        buyer.come_short()
        assert buyer.attempts == [("open", None)]
        buyer.run()
        stripe.advance(days=4)
        buyer.run()
        stripe.settle()
        assert buyer.attempts == [("paid", None)]
        assert lots(stripe, buyer.account_id) == BOUGHT

    def test_failed_days_later(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(BROKEN_BANK)
        buyer.come_short()
        stripe.advance(days=4)
        stripe.settle()
        buyer.run()
        stripe.settle()
        assert buyer.attempts[0] == ("failed", "account_closed")
        assert buyer.invoices()[0] == ("void", 100)


class TestMoneyBack:
    def test_a_refund_takes_the_credits_back(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.come_short()
        [purchase] = rows(stripe, buyer.account_id)
        stripe.client.v1.refunds.create(params={"payment_intent": str(purchase.payment_intent), "amount": 50})
        stripe.settle("duplicated")
        assert buyer.available == 90
        assert lots(stripe, buyer.account_id) == [("purchased", 100 * MICRO, 50 * MICRO)]
        stripe.end_state(buyer.account_id)

    def test_a_refund_that_is_told_before_the_purchase(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(ASKS)
        buyer.come_short()
        pay_by_link(stripe)
        stripe.lose()
        [intent] = [one for one in stripe.sandbox.control.dump("payment_intent") if one["status"] == "succeeded"]
        stripe.client.v1.refunds.create(params={"payment_intent": intent["id"]})
        stripe.settle()
        assert buyer.available == 40
        assert lots(stripe, buyer.account_id) == [("purchased", 100 * MICRO, 0)]
        assert buyer.attempts == [("paid", None)]
        stripe.end_state(buyer.account_id)

    def test_debt_is_paid_first(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.put(enabled=False)
        session = stripe.buy(buyer.account_id, quantity=100)
        stripe.settle()
        intent = stripe.client.v1.checkout.sessions.retrieve(session).payment_intent
        buyer.spend(140)
        stripe.client.v1.refunds.create(params={"payment_intent": str(intent)})
        stripe.settle()
        assert buyer.api.get("/balance").json["debt"] == 100
        buyer.put()
        buyer.run()
        balance = buyer.api.get("/balance").json
        assert (balance["debt"], balance["available"]) == (0, 20)
        stripe.settle()
        stripe.end_state(buyer.account_id)


class TestStanding:
    def test_suspended_and_closed_accounts_buy_nothing(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.spend()
        buyer.operator.post(f"/accounts/{buyer.account_id}/suspend", {"reason": "x"})
        buyer.run()
        assert buyer.attempts == []
        buyer.operator.post(f"/accounts/{buyer.account_id}/restore", {"reason": "x"})
        buyer.operator.post(f"/accounts/{buyer.account_id}/close", {"reason": "x"})
        buyer.run()
        assert buyer.attempts == []

    def test_closing_withdraws_what_waits(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(ASKS)
        buyer.come_short()
        buyer.operator.post(f"/accounts/{buyer.account_id}/close", {"reason": "x"})
        buyer.run()
        assert buyer.invoices() == [("void", 100)]
        assert buyer.attempts == [("withdrawn", "unwanted")]

    def test_without_stripe_nothing_is_lost(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.spend()
        stripe.sandbox.control.fault("unavailable", times=0)
        buyer.run()
        assert buyer.attempts == [("open", None)]
        stripe.sandbox.control.clear_faults()
        stripe.advance(minutes=5)
        buyer.run()
        assert buyer.attempts == [("paid", None)]

    def test_what_is_not_needed_any_more_is_not_paid(self, stripe: StripeWorld, buyer: Buyer) -> None:
        """Stripe was away; meanwhile the customer has bought by hand."""
        buyer.spend()
        stripe.sandbox.control.fault("unavailable", times=0, path="/v1/invoices/")
        buyer.run()
        stripe.sandbox.control.clear_faults()
        stripe.buy(buyer.account_id, quantity=100)
        stripe.settle()
        buyer.run()
        assert buyer.attempts == [("withdrawn", "unwanted")]
        assert buyer.available == 140
        assert ("open", 100) not in buyer.invoices()

    def test_controls_that_are_put_back_as_they_were_change_nothing(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.use(BAD)
        buyer.come_short()
        before = buyer.watch.not_before
        assert before is not None
        buyer.put()
        assert buyer.watch.not_before == before
        assert agreed.AutoTopUp(True, 50 * MICRO, 100 * MICRO, 1000).below == buyer.watch.below


class TestTold:
    @pytest.fixture
    def buyer(self, stripe: StripeWorld) -> Buyer:
        buyer = Buyer(stripe)
        assert buyer.operator.patch(f"/accounts/{buyer.account_id}", {"email": "owner@example.com"}).status == 200
        return buyer

    def told(self, buyer: Buyer, kind: str) -> str:
        """The only mail of this kind; sending twice mails nothing twice."""
        buyer.world.run_job("send-outbox")
        buyer.world.run_job("send-outbox")
        [letter] = outbox(buyer.world.app, kind)
        assert letter.to == "owner@example.com"
        return " ".join(letter.text.split())

    def test_of_a_purchase(self, buyer: Buyer) -> None:
        buyer.come_short()
        text = self.told(buyer, "topped_up")
        assert "100 credits were bought for $1.00 with the card on file." in text
        assert "/unsubscribe/" in text

    def test_of_a_decline_and_what_comes_next(self, buyer: Buyer) -> None:
        buyer.use(BAD)
        buyer.come_short()
        text = self.told(buyer, "top_up_failed")
        assert "100 credits could not be bought: the card was declined." in text
        assert "It will be tried again on 21 November 2026, 11:00 UTC" in text
        assert "http://127.0.0.1:8000/billing" in text
        assert "/unsubscribe/" not in text

    def test_of_being_turned_off(self, buyer: Buyer) -> None:
        buyer.use(BAD)
        buyer.spend()
        for _ in range(4):
            buyer.run()
        text = self.told(buyer, "top_up_off")
        assert "could not be bought 4 times in a row; the last time the card was declined." in text
        assert outbox(buyer.world.app, "top_up_failed") == [], "what is over by then is not mailed"

    def test_of_a_bank_that_asks(self, buyer: Buyer) -> None:
        buyer.use(ASKS)
        buyer.come_short()
        [invoice] = buyer.world.sandbox.control.dump("invoice")
        assert f"Confirm the payment: {invoice['hosted_invoice_url']}" in self.told(buyer, "top_up_action")

    def test_of_the_ceiling(self, buyer: Buyer) -> None:
        buyer.put(monthly_ceiling=150)
        buyer.come_short()
        buyer.spend(130)
        buyer.world.advance(hours=1)
        for _ in range(2):
            buyer.run()
        text = self.told(buyer, "top_up_ceiling")
        assert "has paid $1.00 this month. Another $1.00 would pass the ceiling of $1.50" in text
        assert "until 1 December 2026" in text

    def test_the_operators_product_is_told(self, stripe: StripeWorld, buyer: Buyer) -> None:
        stripe.run_job("send-outbox")
        inside(stripe, outgoing.add, "https://example.com/hook")
        buyer.come_short()
        stripe.run_job("send-outbox")
        with stripe.app.app_context(), databases.transaction() as session:
            assert sorted(session.scalars(select(OutgoingEvent.type))) == ["alert.created", "credits.purchased"]
