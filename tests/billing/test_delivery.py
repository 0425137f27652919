"""However events are delivered, what comes of them is the same. The job that runs each minute runs beside."""

from __future__ import annotations

from typing import Any

import pytest

from tests import factories
from tests.factories import Api
from tests.moments import At
from tests.stripe_world import WAYS, StripeWorld

START = "2026-01-31T10:00:00Z"
MICRO = 1_000_000


class Story:
    """One account's life: time passes, the scheduler runs, events come in some way, credits are used."""

    def __init__(self, world: StripeWorld, operator: Api, how: str) -> None:
        self.world, self.operator, self.how = world, operator, how
        self.account = factories.account(world.app)

    def on(self, moment: str) -> None:
        """It is that moment; all that came due until then has happened, and was told or was asked for."""
        self.world.advance(moment)
        self.tell()

    def tell(self) -> None:
        assert self.world.run_job("renew-allowances") == "ok"
        self.world.deliver(self.how)

    def use(self, credits: int) -> None:
        answer = self.operator.post("/usage", {"account": self.account, "credits": credits})
        assert answer.status == 201, answer

    def subscribe(self, price: str = "team_month", **how: Any) -> None:
        """And go on when it is told, however late that is."""
        self.world.subscribe(self.account, price, **how)
        self.tell()
        self.tell()

    def subscription(self) -> Any:
        return self.world.client.v1.subscriptions.list(params={"status": "all"}).data[0]

    def change(self, **params: Any) -> None:
        self.world.client.v1.subscriptions.update(self.subscription().id, params=params)  # type: ignore[arg-type]

    def change_price(self, price: str, **params: Any) -> None:
        item = self.subscription()["items"].data[0].id
        items = [{"id": item, "price": self.world.prices[price]}]
        self.change(items=items, proration_behavior="always_invoice", **params)

    def end(self) -> dict[str, Any]:
        self.world.settle(self.how)
        return picture(self.world.end_state(self.account))


def picture(state: dict[str, Any]) -> dict[str, Any]:
    """What of an end state can be told by heart: credits whole, days without their time."""
    balance = state["balance"]
    return {
        "plan": balance["plan"],
        "status": balance["status"],
        "included, used": (balance["allowance"]["included"], balance["allowance"]["used"]),
        "granted": balance["granted"]["remaining"],
        "period": [balance["period"][end].date().isoformat() for end in ("start", "end")],
        "allowances": sorted(
            (period_start.date().isoformat(), expires_at.date().isoformat(), issued // MICRO, removed // MICRO)
            for kind, issued, _, removed, _, _, expires_at, period_start in state["lots"]
            if kind == "allowance"
        ),
        "ledger": {
            reason: change // MICRO for (reason, kind), change in sorted(state["ledger"].items()) if kind == "allowance"
        },
        "at Stripe": [status for _, status, *_ in state["stripe_subscriptions"]],
        "invoices": sorted(status for _, _, _, status, *_ in state["invoices"]),
    }


@pytest.fixture(params=WAYS)
def story(request: pytest.FixtureRequest, at: At, stripe: StripeWorld, operator: Api) -> Story:
    at(START)
    stripe.seed()
    return Story(stripe, operator, request.param)


def test_subscribing(story: Story) -> None:
    story.subscribe()
    assert story.end() == {
        "plan": "team",
        "status": "active",
        "included, used": (5000, 0),
        "granted": 100,
        "period": ["2026-01-31", "2026-02-28"],
        "allowances": [("2026-01-31", "2026-02-28", 5000, 0)],
        "ledger": {"allowance": 5000},
        "at Stripe": ["active"],
        "invoices": ["paid"],
    }


def test_a_trial_and_the_paid_month_after_it(story: Story) -> None:
    story.subscribe(trial_days=14)
    story.use(300)
    story.on("2026-02-14T12:00:00Z")
    assert story.end() == {
        "plan": "team",
        "status": "active",
        "included, used": (5000, 0),
        "granted": 100,
        "period": ["2026-02-14", "2026-03-14"],
        "allowances": [("2026-01-31", "2026-02-14", 5000, 4700), ("2026-02-14", "2026-03-14", 5000, 0)],
        "ledger": {"allowance": 10000, "expiry": -4700, "usage": -300},
        "at Stripe": ["active"],
        "invoices": ["paid", "paid"],
    }


def test_months_that_end_early(story: Story) -> None:
    """The month is over, and nothing of the one before is left; all of the next is there when the hour is."""
    story.subscribe()
    story.use(300)
    story.on("2026-02-28T10:00:30Z")
    story.use(5000)
    story.on("2026-02-28T12:00:00Z")
    story.on("2026-03-31T12:00:00Z")
    story.use(40)
    assert story.end() == {
        "plan": "team",
        "status": "active",
        "included, used": (5000, 40),
        "granted": 100,
        "period": ["2026-03-31", "2026-04-30"],
        "allowances": [
            ("2026-01-31", "2026-02-28", 5000, 4700),
            ("2026-02-28", "2026-03-31", 5000, 0),
            ("2026-03-31", "2026-04-30", 5000, 0),
        ],
        "ledger": {"allowance": 15000, "expiry": -4700, "usage": -5340},
        "at Stripe": ["active"],
        "invoices": ["paid", "paid", "paid"],
    }


def test_a_year_with_an_allowance_for_each_month_and_its_renewal(story: Story) -> None:
    story.subscribe("team_year")
    for moment in ("2026-02-28T11:00:00Z", "2026-12-31T11:00:00Z", "2027-01-31T10:30:00Z", "2027-02-28T11:00:00Z"):
        story.on(moment)
        story.use(1)
    assert story.end() == {
        "plan": "team",
        "status": "active",
        "included, used": (5000, 1),
        "granted": 100,
        "period": ["2027-02-28", "2027-03-31"],
        "allowances": [
            ("2026-01-31", "2026-02-28", 5000, 5000),
            ("2026-02-28", "2026-03-31", 5000, 4999),
            ("2026-12-31", "2027-01-31", 5000, 4999),
            ("2027-01-31", "2027-02-28", 5000, 4999),
            ("2027-02-28", "2027-03-31", 5000, 0),
        ],
        "ledger": {"allowance": 25000, "expiry": -19997, "usage": -4},
        "at Stripe": ["active"],
        "invoices": ["paid", "paid"],
    }


def test_cancelling_at_the_end_of_the_month(story: Story) -> None:
    story.subscribe()
    story.use(300)
    story.change(cancel_at_period_end=True)
    story.on("2026-02-28T09:59:00Z")
    assert story.world.balance(story.account)["plan"] == "team"
    story.on("2026-02-28T10:01:00Z")
    assert story.end() == {
        "plan": "free",
        "status": "active",
        "included, used": (0, 0),
        "granted": 100,
        "period": ["2026-02-28", "2026-03-31"],
        "allowances": [("2026-01-31", "2026-02-28", 5000, 4700)],
        "ledger": {"allowance": 5000, "expiry": -4700, "usage": -300},
        "at Stripe": ["canceled"],
        "invoices": ["paid"],
    }


def test_a_renewal_that_is_never_paid(story: Story) -> None:
    """The plan stays while it is in grace, and ends with what is left of its allowance."""
    story.subscribe()
    story.world.sandbox.control.fail_next_payments(story.world.customer(story.account))
    story.on("2026-02-28T12:00:00Z")
    story.use(1000)
    story.on("2026-03-02T12:00:00Z")
    assert story.world.balance(story.account)["plan"] == "team"
    story.on("2026-03-20T12:00:00Z")
    assert story.end() == {
        "plan": "free",
        "status": "suspended",
        "included, used": (0, 0),
        "granted": 100,
        "period": ["2026-02-28", "2026-03-31"],
        "allowances": [("2026-01-31", "2026-02-28", 5000, 5000), ("2026-02-28", "2026-03-31", 5000, 4000)],
        "ledger": {"allowance": 10000, "expiry": -5000, "plan_change": -4000, "usage": -1000},
        "at Stripe": ["canceled"],
        "invoices": ["open", "paid"],
    }


def test_a_larger_plan_in_the_middle_of_the_month(story: Story) -> None:
    story.subscribe("starter_month")
    story.use(300)
    story.on("2026-02-10T10:00:00Z")
    story.change_price("team_month")
    assert story.end() == {
        "plan": "team",
        "status": "active",
        "included, used": (5000, 300),
        "granted": 100,
        "period": ["2026-01-31", "2026-02-28"],
        "allowances": [("2026-01-31", "2026-02-28", 1000, 0), ("2026-01-31", "2026-02-28", 4000, 0)],
        "ledger": {"allowance": 1000, "plan_change": 4000, "usage": -300},
        "at Stripe": ["active"],
        "invoices": ["paid", "paid"],
    }


@pytest.mark.parametrize(("used", "included"), [(300, 1000), (1700, 1700)])
def test_a_smaller_plan_at_once(story: Story, used: int, included: int) -> None:
    story.subscribe()
    story.use(used)
    story.on("2026-02-10T10:00:00Z")
    story.change_price("starter_month")
    assert story.end() == {
        "plan": "starter",
        "status": "active",
        "included, used": (included, used),
        "granted": 100,
        "period": ["2026-01-31", "2026-02-28"],
        "allowances": [("2026-01-31", "2026-02-28", 5000, 5000 - included)],
        "ledger": {"allowance": 5000, "plan_change": included - 5000, "usage": -used},
        "at Stripe": ["active"],
        "invoices": ["paid", "paid"],
    }


def test_carrying_over_what_a_month_left(story: Story) -> None:
    story.subscribe("rollover_month")
    story.use(800)
    story.on("2026-02-28T12:00:00Z")
    story.use(100)
    story.on("2026-03-31T12:00:00Z")
    assert story.end() == {
        "plan": "saver",
        "status": "active",
        "included, used": (1500, 0),
        "granted": 100,
        "period": ["2026-03-31", "2026-04-30"],
        "allowances": [
            ("2026-01-31", "2026-02-28", 1000, 200),
            ("2026-02-28", "2026-03-31", 200, 200),
            ("2026-02-28", "2026-03-31", 1000, 900),
            ("2026-03-31", "2026-04-30", 500, 0),
            ("2026-03-31", "2026-04-30", 1000, 0),
        ],
        "ledger": {"allowance": 3000, "expiry": -1300, "rollover": 700, "usage": -900},
        "at Stripe": ["active"],
        "invoices": ["paid", "paid", "paid"],
    }


def test_a_first_payment_that_is_never_made(story: Story) -> None:
    """An incomplete subscription gives nothing, for the 23 hours that it waits and ever after."""
    customer = story.world.customer(story.account)
    story.world.client.v1.subscriptions.create(
        params={
            "customer": customer,
            "items": [{"price": story.world.prices["team_month"]}],
            "payment_behavior": "default_incomplete",
        }
    )
    story.tell()
    story.tell()
    assert story.world.balance(story.account)["plan"] == "free"
    story.on("2026-02-02T12:00:00Z")
    assert story.end() == {
        "plan": "free",
        "status": "active",
        "included, used": (0, 0),
        "granted": 100,
        "period": ["2026-01-31", "2026-02-28"],
        "allowances": [],
        "ledger": {},
        "at Stripe": ["incomplete_expired"],
        "invoices": ["void"],
    }
