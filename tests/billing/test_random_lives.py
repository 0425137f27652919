"""Random lives of accounts at Stripe, told in random ways: at the end the plan is what Stripe's own objects say."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

import clock
from models.stripe import IN_FORCE
from tests import factories
from tests.factories import Api
from tests.moments import At
from tests.stripe_world import WAYS, StripeWorld

MICRO = 1_000_000
PRICES = ("starter_month", "team_month", "team_year", "rollover_month")
TERMS = {"starter": 1000, "team": 5000, "saver": 1000, "free": 0}
CARRIED = 500
"""What at most is carried into a period, whatever plan the account changes to within it."""
STEPS = 30


class Life:
    """Some accounts; each step one of them, or time, does something."""

    def __init__(self, world: StripeWorld, operator: Api, seed: int) -> None:
        self.world, self.operator, self.chance = world, operator, random.Random(seed)
        self.accounts = [factories.account(world.app, f"t{number}") for number in range(3)]
        self.told: list[str] = []

    def live(self, account: str) -> list[Any]:
        """The account's subscriptions that have not ended, oldest first."""
        listed = self.world.client.v1.subscriptions.list(params={"status": "all", "limit": 100})
        mine = [one for one in listed.data if one.metadata["account"] == account]
        over = ("canceled", "incomplete_expired")
        return sorted((one for one in mine if one.status not in over), key=lambda one: (one.created, one.id))

    def step(self) -> None:
        account = self.chance.choice(self.accounts)
        acts = [self.subscribe, self.change_price, self.cancel, self.cancel_later, self.go_on, self.use, self.use]
        acts += [
            self.deliver,
            self.deliver,
            self.days,
            self.days,
            self.month,
            self.job,
            self.outage,
            self.operator_plan,
        ]
        act = self.chance.choice(acts)
        self.told.append(f"{clock.now():%m-%d %H:%M} {act.__name__} {account[-4:]}")
        act(account)

    def subscribe(self, account: str) -> None:
        if len(self.live(account)) < 2:
            trial = self.chance.choice((0, 0, 7))
            self.world.subscribe(account, self.chance.choice(PRICES), trial_days=trial)

    def change_price(self, account: str) -> None:
        for one in self.live(account)[:1]:
            if one.status in IN_FORCE:
                item, price = one["items"].data[0], self.world.prices[self.chance.choice(PRICES)]
                params: Any = {"items": [{"id": item.id, "price": price}], "proration_behavior": "none"}
                self.world.client.v1.subscriptions.update(one.id, params=params)

    def cancel(self, account: str) -> None:
        for one in self.live(account)[-1:]:
            self.world.client.v1.subscriptions.cancel(one.id)

    def cancel_later(self, account: str) -> None:
        for one in self.live(account)[:1]:
            self.world.client.v1.subscriptions.update(one.id, params={"cancel_at_period_end": True})

    def go_on(self, account: str) -> None:
        for one in self.live(account)[:1]:
            self.world.client.v1.subscriptions.update(one.id, params={"cancel_at_period_end": False})

    def use(self, account: str) -> None:
        body = {"account": account, "credits": self.chance.choice((1, 90, 700)), "enforce": self.chance.random() < 0.7}
        assert self.operator.post("/usage", body).status in (201, 402)

    def operator_plan(self, account: str) -> None:
        ends = (clock.now() + timedelta(days=self.chance.choice((1, 9)))).isoformat()
        body = {"tier": "enterprise", "included_credits": 70, "ends_at": ends}
        assert self.operator.post(f"/accounts/{account}/plan", body).status == 200

    def deliver(self, _account: str) -> None:
        self.world.deliver(self.chance.choice(WAYS))

    def days(self, _account: str) -> None:
        self.world.advance(hours=self.chance.choice((1, 30, 100, 400)))

    def month(self, _account: str) -> None:
        self.world.advance(days=33)

    def job(self, _account: str) -> None:
        for name in self.chance.sample(("renew-allowances", "expire-lots", "retry-inbox", "dunning"), 2):
            assert self.world.run_job(name) == "ok"

    def outage(self, _account: str) -> None:
        self.world.sandbox.control.fault("rate_limit", times=0)
        self.world.run_job("renew-allowances")
        self.world.sandbox.control.clear_faults()

    def end(self) -> None:
        """Time passes until the operator's plans have ended and everything is told."""
        self.world.advance(days=10)
        self.world.run_job("renew-allowances")
        self.world.settle()
        self.world.run_job("renew-allowances")

    def check(self, account: str) -> None:
        state = self.world.end_state(account)
        in_force = [one for one in self.live(account) if one.status in IN_FORCE]
        tier = (
            self.world.client.v1.prices.retrieve(in_force[0]["items"].data[0].price.id).metadata["tier"]
            if in_force
            else "free"
        )
        shown = state["balance"]["allowance"]
        assert state["balance"]["plan"] == tier, self.told
        assert TERMS[tier] <= shown["included"], self.told
        assert shown["included"] <= max(TERMS[tier] + CARRIED, shown["used"]), self.told
        if in_force and in_force[0]["items"].data[0].price.recurring.interval == "month":
            end = in_force[0]["items"].data[0].current_period_end
            assert state["balance"]["period"]["end"].timestamp() == end, self.told
        again = {"invoices", "purchases"}
        self.world.run_job("renew-allowances")
        repeated = self.world.end_state(account)
        assert {k: v for k, v in repeated.items() if k not in again} == {
            k: v for k, v in state.items() if k not in again
        }, self.told


@pytest.mark.parametrize("seed", range(3))
def test_a_random_life(at: At, stripe: StripeWorld, operator: Api, seed: int) -> None:
    at("2026-01-31T10:00:00Z")
    stripe.seed()
    life = Life(stripe, operator, seed)
    for _ in range(STEPS):
        life.step()
    life.end()
    for account in life.accounts:
        life.check(account)
