"""Everything that can happen to a subscription or a payment, told in every bad way: the end is the same.

One account lives through each scenario, all of them side by side under one clock. What each must have at the end is
written down here; the books are verified, and no event is left over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.buying.helpers import tenant
from tests.stripe_world import StripeWorld

pytestmark = pytest.mark.slow(seconds=20)

LAST_DAY = 50
"""In the second month of those who began on day 0."""
WAYS = ("normal", "duplicated", "shuffled", "delayed", "failed_then_retried", "dropped_then_reconciled")
GOOD = "4242424242424242"


class Life:
    """One account and what happens to it. `kept` holds what later steps need."""

    def __init__(self, world: StripeWorld, name: str) -> None:
        self.world = world
        self.account_id, self.api = tenant(world, name)
        self.kept: dict[str, Any] = {}

    @property
    def v1(self) -> Any:
        return self.world.client.v1

    # What the customer does

    def subscribe(self, price: str = "team_month", trial_days: int = 0) -> None:
        self.kept["subscription"] = self.world.subscribe(self.account_id, price, trial_days=trial_days)

    def buy(self) -> None:
        session_id = self.world.buy(self.account_id, "pack", 1)
        intent = self.v1.checkout.sessions.retrieve(session_id).payment_intent
        self.kept["charge"] = str(self.v1.payment_intents.retrieve(str(intent)).latest_charge)

    def spend(self, amount: int) -> None:
        answer = self.api.post("/usage", {"credits": amount})
        assert answer.status == 201, answer

    def card(self, number: str) -> None:
        self.world.sandbox.control.use_card(self.world.customer(self.account_id), number)

    def pay(self) -> None:
        self.card(GOOD)
        for invoice in self.v1.invoices.list({"subscription": self.kept["subscription"], "status": "open"}).data:
            self.v1.invoices.pay(invoice.id)

    # What the team does at Stripe

    def switch(self, price: str) -> None:
        """At once, as in the dashboard or the portal."""
        item = self.v1.subscriptions.retrieve(self.kept["subscription"])["items"]["data"][0]["id"]
        self.update(items=[{"id": item, "price": self.world.prices[price]}], proration_behavior="always_invoice")

    def update(self, **params: Any) -> None:
        self.v1.subscriptions.update(self.kept["subscription"], params)

    def cancel_now(self) -> None:
        self.v1.subscriptions.cancel(self.kept["subscription"])

    def refund(self, cents: int) -> None:
        self.v1.refunds.create({"charge": self.kept["charge"], "amount": cents})

    def refund_invoice(self, cents: int) -> None:
        """Of the newest invoice of the subscription."""
        invoice = self.v1.subscriptions.retrieve(self.kept["subscription"]).latest_invoice
        [payment] = self.v1.invoice_payments.list({"invoice": str(invoice)}).data
        self.v1.refunds.create({"payment_intent": payment.payment.payment_intent, "amount": cents})

    # What banks do

    def dispute(self, cents: int = 1500) -> None:
        self.kept["dispute"] = self.world.sandbox.control.dispute(self.kept["charge"], amount=cents)["id"]

    def decide(self, status: str) -> None:
        self.world.sandbox.control.close_dispute(self.kept["dispute"], status)

    @property
    def end(self) -> tuple[Any, ...]:
        """Status, plan, allowance included and left, bought credits left, debt."""
        balance = self.world.balance(self.account_id)
        allowance, bought = balance["allowance"], balance["purchased"]
        numbers = allowance["included"], allowance["remaining"], bought["remaining"], balance["debt"]
        return balance["status"], balance["plan"], *(int(number) for number in numbers)


Step = Callable[[Life], Any]


@dataclass(frozen=True)
class Scenario:
    """What happens on which day, and how it must end."""

    steps: dict[int, Step]
    end: tuple[Any, ...]


def api(method: str, path: str, body: Any = None) -> Step:
    def step(life: Life) -> None:
        answer = life.api(method, path, body)
        assert answer.status == 200, answer

    return step


def both(*steps: Step) -> Step:
    return lambda life: [step(life) for step in steps]


TEAM, STARTER, TRIAL = (
    Life.subscribe,
    lambda life: life.subscribe("starter_month"),
    lambda life: life.subscribe(trial_days=14),
)
BAD = "4000000000000341"
BOUGHT = {0: Life.buy, 9: lambda life: life.spend(300)}
"""A pack of 1,000 for 15.00, of which 300 are spent."""

SCENARIOS: dict[str, Scenario] = {
    "start": Scenario({0: TEAM}, ("active", "team", 5000, 5000, 0, 0)),
    "used and renewed": Scenario(
        {0: TEAM, 9: lambda life: life.spend(4000), 42: lambda life: life.spend(10)},
        ("active", "team", 5000, 4990, 0, 0),
    ),
    "trial": Scenario(
        {0: TRIAL, 9: lambda life: life.spend(100), 26: lambda life: life.spend(30)},
        ("active", "team", 5000, 5000, 0, 0),
    ),
    "upgrade": Scenario(
        {0: STARTER, 36: lambda life: life.spend(200), 42: lambda life: life.switch("team_month")},
        ("active", "team", 5000, 4800, 0, 0),
    ),
    "upgrade by us": Scenario(
        {0: STARTER, 42: api("POST", "/stripe/subscription", {"tier": "team", "interval": "month"})},
        ("active", "team", 5000, 5000, 0, 0),
    ),
    "downgrade at the end": Scenario(
        {0: TEAM, 9: api("POST", "/stripe/subscription", {"tier": "starter", "interval": "month"})},
        ("active", "starter", 1000, 1000, 0, 0),
    ),
    "downgrade at once": Scenario(
        {0: TEAM, 36: lambda life: life.spend(3000), 42: lambda life: life.switch("starter_month")},
        ("active", "starter", 3000, 0, 0, 0),
    ),
    "cancel": Scenario({0: TEAM, 9: api("DELETE", "/stripe/subscription")}, ("active", "free", 0, 0, 0, 0)),
    "cancel and resume": Scenario(
        {0: TEAM, 9: api("DELETE", "/stripe/subscription"), 14: api("POST", "/stripe/subscription/resume", {})},
        ("active", "team", 5000, 5000, 0, 0),
    ),
    "cancel at once": Scenario(
        {0: both(TEAM, Life.buy), 36: lambda life: life.spend(100), 42: Life.cancel_now},
        ("active", "free", 0, 0, 1000, 0),
    ),
    "fail and lapse": Scenario(
        {0: both(TEAM, Life.buy), 9: lambda life: life.card(BAD)}, ("suspended", "free", 0, 0, 1000, 0)
    ),
    "fail and recover": Scenario(
        {0: TEAM, 9: lambda life: life.card(BAD), 36: lambda life: life.spend(50), 42: Life.pay},
        ("active", "team", 5000, 4950, 0, 0),
    ),
    "pause and resume": Scenario(
        {
            0: TEAM,
            9: lambda life: life.update(pause_collection={"behavior": "void"}),
            14: lambda life: life.update(pause_collection=""),
        },
        ("active", "team", 5000, 5000, 0, 0),
    ),
    "refund in part": Scenario({**BOUGHT, 20: lambda life: life.refund(300)}, ("active", "free", 0, 0, 500, 0)),
    "refund twice": Scenario(
        {**BOUGHT, 20: lambda life: life.refund(300), 26: lambda life: life.refund(600)},
        ("active", "free", 0, 0, 100, 0),
    ),
    "refund all": Scenario({**BOUGHT, 20: lambda life: life.refund(1500)}, ("active", "free", 0, 0, 0, 300)),
    "refund and buy": Scenario(
        {**BOUGHT, 20: lambda life: life.refund(1500), 26: Life.buy}, ("active", "free", 0, 0, 700, 0)
    ),
    "dispute": Scenario({**BOUGHT, 20: Life.dispute}, ("active", "free", 0, 0, 0, 300)),
    "dispute won": Scenario(
        {**BOUGHT, 20: Life.dispute, 26: lambda life: life.decide("won")}, ("active", "free", 0, 0, 700, 0)
    ),
    "dispute lost": Scenario(
        {**BOUGHT, 20: Life.dispute, 26: lambda life: life.decide("lost")}, ("active", "free", 0, 0, 0, 300)
    ),
    "refund, dispute won": Scenario(
        {
            **BOUGHT,
            20: lambda life: life.refund(300),
            23: lambda life: life.dispute(600),
            26: lambda life: life.decide("won"),
        },
        ("active", "free", 0, 0, 500, 0),
    ),
    "dispute, refund, won": Scenario(
        {
            **BOUGHT,
            20: lambda life: life.dispute(600),
            23: lambda life: life.refund(300),
            26: lambda life: life.decide("won"),
        },
        ("active", "free", 0, 0, 500, 0),
    ),
    "dispute lost, refund": Scenario(
        {
            **BOUGHT,
            20: lambda life: life.dispute(600),
            23: lambda life: life.decide("lost"),
            26: lambda life: life.refund(300),
        },
        ("active", "free", 0, 0, 100, 0),
    ),
    "invoice refunded by half": Scenario(
        {0: TEAM, 36: lambda life: life.spend(100), 42: lambda life: life.refund_invoice(2450)},
        ("active", "team", 2500, 2400, 0, 0),
    ),
}
DAYS = sorted({day for scenario in SCENARIOS.values() for day in scenario.steps} | {33, LAST_DAY})


def tell(world: StripeWorld, way: str) -> None:
    """Let the app hear of what happened, in this way, and the jobs do what they do every minute."""
    if way == "dropped_then_reconciled":
        world.lose()
        reconcile = ["stripe", "reconcile", "--days", "14", "--repair"]  # two steps of the story
        assert world.app.test_cli_runner().invoke(args=reconcile).exit_code == 0
    else:
        world.deliver(way)
    for job in ("renew-allowances", "dunning"):
        assert world.run_job(job) == "ok"


@pytest.mark.parametrize(("database", "way"), list(zip(["sqlite", "postgresql"] * 3, WAYS, strict=True)))
def test_every_life_ends_as_it_must(stripe: StripeWorld, way: str) -> None:
    stripe.seed()
    stripe.sandbox.control.settings(after_retries="past_due", retry_days=[10, 20, 30])
    lives = {name: Life(stripe, name.replace(" ", "-").replace(",", "")) for name in SCENARIOS}
    today = 0
    for day in DAYS:
        if day > today:
            stripe.advance(days=day - today)
            today = day
            tell(stripe, way)
        for name, scenario in SCENARIOS.items():
            if day in scenario.steps:
                scenario.steps[day](lives[name])
        if way != "dropped_then_reconciled":  # which learns of it on the next day
            tell(stripe, way)
    if way != "dropped_then_reconciled":
        stripe.settle(way)
    stripe.run_job("dunning")
    stripe.check_books()
    ends = {name: life.end for name, life in lives.items()}
    assert ends == {name: scenario.end for name, scenario in SCENARIOS.items()}
