"""Usage beyond the plan: agreed, capped in money, and billed once, to the cent, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import responses
from sqlalchemy import select

import database
from models.overage import OverageBill
from models.user import Mail
from services import verify
from services.stripe import reconcile
from tests import factories
from tests.api.helpers import NO_SIGNUP, at_once
from tests.api.test_spending_caps import Trips
from tests.factories import Answer, Api
from tests.moments import At
from tests.stripe_world import CATALOG, WAYS, StripeWorld

pytestmark = NO_SIGNUP
OVERAGE: dict[str, dict[str, Any]] = {"overage": {"unit_amount": 2, "metadata": {"price_type": "overage"}}}
GRADUATED: dict[str, dict[str, Any]] = {
    "overage": {
        "billing_scheme": "tiered",
        "tiers_mode": "graduated",
        "tiers": [{"up_to": 100, "unit_amount": 5}, {"up_to": "inf", "unit_amount_decimal": "2.5"}],
        "recurring": {"interval": "month"},
        "metadata": {"price_type": "overage"},
    }
}


class Customer:
    """An account on the team plan (5,000 a month) since 31 January that may run over."""

    def __init__(self, world: StripeWorld, operator: Api, price: str = "team_month", cap: int | None = 10_000) -> None:
        self.world, self.operator = world, operator
        self.account = factories.account(world.app, "acme")
        self.id = world.subscribe(self.account, price)
        world.deliver()
        if cap is not None:
            assert self.agree(cap).status == 200

    def agree(self, cap: int | None, *, enabled: bool = True) -> Answer:
        body = {"account": "acme", "overage": {"enabled": enabled, "cap_amount": cap}}
        return self.operator.put("/controls", body)

    def use(self, credits: Any, **more: Any) -> Answer:
        return self.operator.post("/usage", {"account": "acme", "credits": credits, **more})

    @property
    def overage(self) -> Any:
        return self.operator.get("/balance?account=acme").json["overage"]

    def bills(self) -> list[OverageBill]:
        with self.world.app.app_context(), database.transaction() as session:
            found = list(session.scalars(select(OverageBill).order_by(OverageBill.first_seq)))
            session.expunge_all()
            return found

    def invoices(self) -> list[Any]:
        """All that this customer has at Stripe, oldest first, with their lines."""
        customer = self.world.customer(self.account)
        listed = self.world.client.v1.invoices.list(params={"customer": customer, "limit": 100})
        return [invoice.to_dict(for_json=True) for invoice in reversed(listed.data)]

    def lines(self, price: str | None = None) -> list[tuple[str, int, str]]:
        """Why the invoice was made, the line's amount, the invoice's status: of all for overage, or for a price."""
        return [
            (invoice["billing_reason"], line["amount"], invoice["status"])
            for invoice in self.invoices()
            for line in invoice["lines"]["data"]
            if (
                "beyond the plan" in (line["description"] or "")
                if price is None
                else line["pricing"] and line["pricing"]["price_details"]["price"] == self.world.prices[price]
            )
        ]

    def run(self) -> None:
        assert self.world.run_job("bill-overage") == "ok"


@pytest.fixture
def world(at: At, stripe: StripeWorld) -> Iterator[StripeWorld]:
    """Its books must be in order at the end."""
    at("2026-01-31T10:00:00Z")
    stripe.seed({**CATALOG, **OVERAGE})
    yield stripe
    stripe.settle()
    with stripe.app.app_context():
        assert [str(one) for one in verify.verify().differences] == []


# Agreeing to it


def test_it_needs_a_subscription_a_price_and_a_cap(world: StripeWorld, operator: Api, at: At) -> None:
    factories.account(world.app, "other")
    body = {"account": "other", "overage": {"enabled": True, "cap_amount": 500}}
    assert operator.put("/controls", body).code == "overage_unavailable"
    customer = Customer(world, operator, cap=None)
    assert customer.use(5000).status == 201
    assert customer.use(1).code == "insufficient_credits"
    refused = customer.agree(None)
    assert (refused.status, list(refused.json["errors"])) == (422, ["overage.cap_amount"])
    assert customer.agree(500).status == 200
    shown = operator.get("/controls?account=acme").json
    assert shown["overage"] == {"enabled": True, "cap_amount": 500}
    assert operator.put("/controls", {"account": "acme", **shown}).json == shown
    assert customer.overage == {"enabled": True, "used": 0, "cap": 500}
    at.forward(days=1)
    used = customer.use("1.5").json
    assert used["consumed"] == {"allowance": 0, "purchased": 0, "granted": 0, "overage": 1.5, "unfunded": 0}
    assert used["balance"]["available"] == 0
    assert customer.overage["used"] == 1.5


def test_the_cap_in_money_holds_to_the_last_credit(world: StripeWorld, operator: Api) -> None:
    customer = Customer(world, operator, cap=25)  # 12.5 credits at 2 cents
    assert customer.use(4990).status == 201
    body = {"account": "acme", "credits": 22.5}
    assert operator.post("/check", body).json["allowed"]
    assert not operator.post("/check", {**body, "credits": 22.500001}).json["allowed"]
    hold = operator.post("/holds", {"account": "acme", "credits": 15})
    assert hold.status == 201, "10 of the plan and 5 of overage"
    assert customer.use("7.500001").code == "insufficient_credits"
    assert customer.use("7.5").json["consumed"]["overage"] == 7.5
    captured = operator.post(f"/holds/{hold.json['id']}/capture", {"account": "acme", "credits": 16})
    assert captured.json["consumed"] == {"allowance": 10, "purchased": 0, "granted": 0, "overage": 5, "unfunded": 1}
    done = customer.use(3, enforce=False).json["consumed"]
    assert (done["overage"], done["unfunded"]) == (0, 3)
    assert customer.agree(26).status == 200
    assert customer.use("0.5").json["consumed"]["overage"] == 0.5
    assert customer.agree(26, enabled=False).status == 200
    assert customer.agree(1000, enabled=False).status == 200
    assert customer.use(1).code == "insufficient_credits"


def test_the_price_that_was_agreed_stays_and_other_currencies_offer_none(world: StripeWorld, operator: Api) -> None:
    customer = Customer(world, operator, cap=100)
    world.client.v1.prices.update(world.prices["overage"], params={"active": False})
    dearer = {"unit_amount": 50, "currency": "eur", "metadata": {"price_type": "overage"}}
    world.seed({"dearer": dearer})
    customer.use(5000)
    assert customer.use(50).json["consumed"]["overage"] == 50, "50 credits at 2 cents"
    assert customer.agree(100, enabled=False).status == 200
    assert customer.agree(100).code == "overage_unavailable"


def test_while_a_payment_is_past_due_only_credits_work(world: StripeWorld, operator: Api) -> None:
    customer = Customer(world, operator)
    world.sandbox.control.fail_next_payments(world.customer(customer.account))
    world.advance("2026-02-28T12:00:00Z")
    world.settle()
    assert operator.get("/balance?account=acme").json["status"] == "past_due"
    assert customer.use(5000).status == 201
    refused = customer.use(1)
    assert (refused.status, refused.code) == (402, "payment_past_due")
    answer = operator.post("/check", {"account": "acme", "credits": 1}).json
    assert (answer["code"], answer["cure"][0]) == ("payment_past_due", "pay_invoice")
    assert customer.use(1_000_000).code == "insufficient_credits", "overage would not have covered that either"
    assert customer.use(1, enforce=False).json["consumed"]["unfunded"] == 1


def test_it_costs_the_hot_path_no_round_trip(
    world: StripeWorld, operator: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = Customer(world, operator)
    customer.use(4998)
    trips = []
    for _ in range(4):  # two of the plan, two beyond it
        with Trips().counted(monkeypatch) as seen:
            assert customer.use(1).status == 201
        trips.append(seen.calls)
    assert [len(calls) for calls in trips] == [2, 2, 2, 2], "one call reads, one writes"
    assert ["overage_bills" in str(calls) for calls in trips] == [False, False, True, True]


# Billing it


@pytest.mark.parametrize("way", WAYS)
def test_a_renewal_carries_it_once(world: StripeWorld, operator: Api, way: str) -> None:
    customer = Customer(world, operator)
    customer.use(5000)
    for _ in range(3):
        assert customer.use("3.4").json["consumed"]["overage"] == Decimal("3.4")  # 10.2 in all: 20.4 cents
    world.advance("2026-02-28T10:00:10Z")
    world.settle(way)
    customer.run()
    assert customer.lines() == [("subscription_cycle", 20, "draft")]
    world.advance("2026-02-28T12:00:00Z")
    world.settle(way)
    customer.run()
    assert customer.lines() == [("subscription_cycle", 20, "paid")]
    assert customer.invoices()[-1]["total"] == 4920
    (bill,) = customer.bills()
    assert (bill.state, bill.amount, bill.credits) == ("billed", 20, 10_200_000)
    assert bill.invoice_id == customer.invoices()[-1]["id"]
    assert customer.overage["used"] == 0
    assert customer.use(5000).status == 201
    assert customer.use(10).json["consumed"]["overage"] == 10


def test_graduated_prices_work(world: StripeWorld, operator: Api) -> None:
    world.client.v1.prices.update(world.prices["overage"], params={"active": False})
    prices = {**GRADUATED["overage"], "recurring": None}
    prices.pop("recurring")
    world.seed({"graduated": prices})
    customer = Customer(world, operator)
    customer.use(5000)
    customer.use("300.1")  # 100 at 5 cents, 200.1 at 2.5: 1000.25
    world.advance("2026-02-28T10:00:10Z")
    world.settle()
    assert customer.lines() == [("subscription_cycle", 1000, "draft")]


def test_a_missed_draft_and_a_lost_event_end_in_an_invoice_of_its_own(world: StripeWorld, operator: Api) -> None:
    customer = Customer(world, operator)
    customer.use(5007)
    world.advance("2026-03-01T10:00:00Z")
    world.lose()
    assert world.run_job("renew-allowances") == "ok"
    customer.run()
    customer.run()
    world.settle()
    assert customer.lines() == [("manual", 14, "paid")]
    assert [one["total"] for one in customer.invoices()] == [4900, 4900, 14]
    shown = operator.get("/invoices?account=acme").json["data"]
    assert [one["total"] for one in shown] == [14, 4900], "of the renewal nobody has told"


def test_a_lost_event_is_made_good_by_the_job_while_the_draft_is_open(world: StripeWorld, operator: Api) -> None:
    customer = Customer(world, operator)
    customer.use(5007)
    world.advance("2026-02-28T10:20:00Z")
    world.lose()
    customer.run()
    assert world.run_job("renew-allowances") == "ok"
    customer.run()
    assert customer.lines() == [("subscription_cycle", 14, "draft")]


def test_the_months_of_a_paid_year_are_billed_as_they_end(world: StripeWorld, operator: Api, at: At) -> None:
    customer = Customer(world, operator, "team_year")
    customer.use(5007)
    at("2026-02-28T10:00:01Z")
    customer.use(5001)
    customer.run()
    world.settle()
    at("2026-04-01T10:00:00Z")
    customer.run()
    world.run_job("renew-allowances")
    customer.run()
    world.settle()
    assert customer.lines() == [("manual", 14, "paid"), ("manual", 2, "paid")]
    assert [bill.period_end.isoformat()[:10] for bill in customer.bills()] == ["2026-02-28", "2026-03-31"]


@pytest.mark.parametrize("end", ["cancelled", "closed"])
def test_who_leaves_pays_what_was_used(world: StripeWorld, operator: Api, end: str) -> None:
    customer = Customer(world, operator)
    customer.use(5100)
    if end == "cancelled":
        world.client.v1.subscriptions.cancel(customer.id)
    else:
        assert operator.post("/accounts/acme/close", {"reason": "bye"}).status == 200
    world.settle()
    customer.run()
    customer.run()
    world.settle()
    assert customer.lines() == [("manual", 200, "paid")]


def test_what_can_not_be_collected_stops_more_of_it(world: StripeWorld, operator: Api, at: At) -> None:
    customer = Customer(world, operator, "team_year")
    customer.use(5100)
    at("2026-02-28T10:00:01Z")
    assert world.run_job("renew-allowances") == "ok"
    world.sandbox.control.fail_next_payments(world.customer(customer.account))
    customer.run()
    world.settle()
    assert customer.lines() == [("manual", 200, "open")]
    assert operator.get("/balance?account=acme").json["status"] == "past_due"
    assert customer.use(5000).status == 201, "the year is paid"
    assert customer.use(1).code == "payment_past_due"
    alerts = operator.get("/alerts?account=acme").json["data"]
    assert "payment_failed" in [one["kind"] for one in alerts]
    world.sandbox.control.use_card(world.customer(customer.account), "4242424242424242")
    world.client.v1.invoices.pay(customer.invoices()[-1]["id"])
    world.settle()
    assert operator.get("/balance?account=acme").json["status"] == "active"
    assert customer.use(1).json["consumed"]["overage"] == 1


def test_a_void_takes_it_off_the_bill_and_after_it_was_billed_comes_back_as_a_lot(
    world: StripeWorld, operator: Api
) -> None:
    customer = Customer(world, operator)
    customer.use(5000)
    records = [customer.use(10).json["id"] for _ in range(3)]

    def void(number: int) -> None:
        body = {"account": "acme", "reason": "mistake"}
        assert operator.post(f"/usage/records/{records[number]}/void", body).status == 200

    void(0)
    assert customer.overage["used"] == 20
    world.advance("2026-02-28T10:00:10Z")
    world.settle()
    assert customer.lines() == [("subscription_cycle", 40, "draft")]
    void(1)
    balance = operator.get("/balance?account=acme").json
    assert (balance["overage"]["used"], balance["granted"]["remaining"]) == (0, 10)
    newest = operator.get("/ledger?account=acme").json["data"][0]
    assert (newest["reason"], newest["kind"], newest["change"]) == ("void", "granted", 10)
    assert newest["cause"] == {"type": "usage", "id": records[1]}


@pytest.mark.parametrize("path", ["/v1/invoiceitems", "/v1/invoices", "/v1/invoices/in_"])
def test_an_answer_that_is_lost_bills_nothing_twice(world: StripeWorld, operator: Api, at: At, path: str) -> None:
    """Stripe has done it and the answer does not come; the key is forgotten by the time it is tried again."""
    customer = Customer(world, operator, "team_year")
    customer.use(5050)
    at("2026-02-28T10:00:01Z")
    assert world.run_job("renew-allowances") == "ok"
    world.sandbox.control.fault("malformed", method="POST", path=path, after=True)
    customer.run()
    world.sandbox.control.clear_faults()
    world.advance("2026-03-03T10:00:00Z")
    customer.run()
    world.settle()
    assert customer.lines() == [("manual", 100, "paid")]
    assert len(customer.invoices()) == 2


def test_an_outage_leaves_it_due(world: StripeWorld, operator: Api, at: At) -> None:
    customer = Customer(world, operator, "team_year")
    customer.use(5050)
    at("2026-02-28T10:00:01Z")
    assert world.run_job("renew-allowances") == "ok"
    with responses.RequestsMock(assert_all_requests_are_fired=False) as edge:
        edge.add(responses.POST, world.sandbox.url + "/v1/invoices", status=500, json={})
        edge.add_passthru(world.sandbox.url)
        customer.run()
    assert [bill.state for bill in customer.bills()] == ["due"]
    customer.run()
    assert customer.lines() == [("manual", 100, "paid")]


def test_its_invoice_refunded_takes_no_credits_back(world: StripeWorld, operator: Api, at: At) -> None:
    customer = Customer(world, operator, "team_year")
    customer.use(5050)
    at("2026-02-28T10:00:01Z")
    assert world.run_job("renew-allowances") == "ok"
    customer.run()
    world.settle()
    before = world.end_state(customer.account)
    (charge,) = [one for one in world.sandbox.control.dump("charge") if one["amount"] == 100]
    world.client.v1.refunds.create(params={"charge": charge["id"]})
    world.settle()
    after = world.end_state(customer.account)
    assert (after["balance"], after["lots"]) == (before["balance"], before["lots"])


def test_two_who_bill_at_once_bill_once(world: StripeWorld, operator: Api, at: At) -> None:
    customer = Customer(world, operator, "team_year")
    customer.use(5050)
    at("2026-02-28T10:00:01Z")
    assert world.run_job("renew-allowances") == "ok"
    assert at_once([lambda: world.run_job("bill-overage")] * 4) == ["ok"] * 4  # type: ignore[list-item]
    customer.run()
    world.settle()
    assert customer.lines() == [("manual", 100, "paid")]
    assert len(customer.invoices()) == 2


def test_reconcile_finds_what_is_on_no_invoice_and_bills_it(world: StripeWorld, operator: Api, at: At) -> None:
    customer = Customer(world, operator, "team_year")
    customer.use(5050)
    at("2026-03-02T10:00:00Z")
    assert world.run_job("renew-allowances") == "ok"
    at("2026-03-04T10:00:00Z")
    with world.app.app_context():
        (bill,) = customer.bills()
        found = reconcile.reconcile(30)
        assert [(drift.object_id, drift.message) for drift in found.left] == [(bill.id, "its overage is on no invoice")]
        assert reconcile.reconcile(30, repair=True).left == []
        assert reconcile.reconcile(30).drifts == []
    world.settle()
    assert customer.lines() == [("manual", 100, "paid")]


# Telling of it


def told(operator: Api) -> list[tuple[int | None, str]]:
    """Alerts about overage, oldest first."""
    alerts = operator.get("/alerts?account=acme&state=all").json["data"]
    return [(one["threshold"], one["message"]) for one in reversed(alerts) if one["kind"] == "overage"]


def test_its_beginning_and_each_threshold_of_the_cap_are_told_once(world: StripeWorld, operator: Api) -> None:
    customer = Customer(world, operator, cap=200)
    assert operator.patch("/accounts/acme", {"email": "bills@acme.example"}).status == 200
    customer.use(5000)
    assert told(operator) == []
    customer.use(1)
    began = "What the plan includes and every other credit is used; usage beyond it is billed from now on."
    assert told(operator) == [(None, began)]
    customer.use(69)
    customer.use(1)
    assert told(operator)[1:] == [(70, "70 % of the $2.00 agreed for usage beyond the plan is used.")]
    customer.use(29)
    assert [threshold for threshold, _ in told(operator)] == [None, 70, 90, 100]
    assert world.run_job("send-outbox") == "ok"
    with world.app.app_context(), database.transaction() as session:
        mails = session.scalars(select(Mail).where(Mail.kind == "overage")).all()
    assert [(mail.to, mail.subject) for mail in mails] == [
        ("bills@acme.example", "100 % of the limit on extra usage of Acme is used")
    ]
    assert "never costs more than $2.00 in this period" in mails[0].text
    assert customer.agree(1000).status == 200
    standing = [one["kind"] for one in operator.get("/usage/stats?account=acme").json["alerts"]]
    assert "overage" not in standing
    customer.use(300)
    assert [threshold for threshold, _ in told(operator)] == [None, 70, 90, 100, 70]


def test_what_the_period_costs_is_told_beforehand(world: StripeWorld, operator: Api, at: At) -> None:
    customer = Customer(world, operator, cap=300)
    for day in range(1, 11):
        at(f"2026-02-{day:02}T12:00:00Z")
        customer.use(502)
    cost = operator.get("/usage/stats?account=acme").json["cost"]
    assert (cost["currency"], cost["plan"], cost["overage"]) == ("usd", 4900, 40)
    assert cost["period_end"] == 4900 + 300, "18 more days would cost far more than the cap lets them"


# Meters


@pytest.fixture
def meter(world: StripeWorld) -> str:
    made = world.client.v1.billing.meters.create(
        params={
            "display_name": "Credits",
            "event_name": "credits",
            "default_aggregation": {"formula": "sum"},
        }
    )
    return made.id


def test_pay_as_you_go(world: StripeWorld, operator: Api, meter: str) -> None:
    """A free amount first; what is used beyond it the meter hears of, in whole units; the rest of a unit is added."""
    metered = {
        "unit_amount": 3,
        "recurring": {"interval": "month", "usage_type": "metered", "meter": meter},
        "metadata": {"price_type": "metered", "tier": "payg", "free_credits": "100"},
    }
    world.seed({"payg": metered})
    customer = Customer(world, operator, "payg", cap=None)
    balance = operator.get("/balance?account=acme").json
    assert (balance["plan"], balance["available"]) == ("payg", 100)
    assert balance["overage"] == {"enabled": True, "used": 0, "cap": None}
    assert customer.use("110.2").json["consumed"]["overage"] == Decimal("10.2")
    customer.run()
    record = customer.use(5).json["id"]
    customer.run()
    voided = operator.post(f"/usage/records/{record}/void", {"account": "acme", "reason": "x"})
    assert voided.status == 200
    assert customer.use("0.3").status == 201  # 10.5 by now: 31.5 cents
    customer.run()
    customer.run()
    world.advance("2026-02-28T10:00:10Z")
    world.settle("duplicated")
    customer.run()
    world.advance("2026-02-28T12:00:00Z")
    world.settle()
    assert customer.lines("payg")[-1] == ("subscription_cycle", 30, "paid")
    assert customer.lines() == [("subscription_cycle", 2, "paid")]
    assert customer.invoices()[-1]["total"] == 32
    told = world.sandbox.control.dump("billing.meter_event")
    events = [(one["identifier"][-2:], one["payload"]["value"]) for one in told]
    assert sorted(events) == [("-1", "10"), ("-2", "5"), ("-3", "-5")]


def test_a_cap_on_pay_as_you_go(world: StripeWorld, operator: Api, meter: str) -> None:
    recurring = {"interval": "month", "usage_type": "metered", "meter": meter}
    metadata = {"price_type": "metered", "tier": "payg", "free_credits": "0"}
    world.seed({"payg": {"unit_amount": 3, "recurring": recurring, "metadata": metadata}})
    customer = Customer(world, operator, "payg", cap=None)
    assert customer.agree(30).status == 200
    assert customer.use("10.000001").code == "insufficient_credits"
    assert customer.use(10).status == 201


def test_a_metered_overage_price_is_put_on_the_subscription(world: StripeWorld, operator: Api, meter: str) -> None:
    world.client.v1.prices.update(world.prices["overage"], params={"active": False})
    recurring = {"interval": "month", "usage_type": "metered", "meter": meter}
    world.seed({"by_meter": {"unit_amount": 2, "recurring": recurring, "metadata": {"price_type": "overage"}}})
    customer = Customer(world, operator)
    customer.use(5000)
    customer.use(8)
    customer.run()
    world.settle()
    assert operator.get("/balance?account=acme").json["plan"] == "team"
    world.advance("2026-02-28T10:00:10Z")
    world.settle()
    world.advance("2026-02-28T12:00:00Z")
    world.settle()
    assert customer.lines("by_meter")[-1] == ("subscription_cycle", 16, "paid")
    assert (customer.lines(), customer.invoices()[-1]["total"]) == ([], 4916)
    assert [bill.state for bill in customer.bills()] == ["billed"]
