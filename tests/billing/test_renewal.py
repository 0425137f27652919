"""Renewal without events, with events and both at once; Stripe out of reach; and what the mirror alone proves."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

import database
from models.credit import Lot
from tests import factories, servers
from tests.factories import Api
from tests.moments import At
from tests.stripe_world import SECRET_KEY, WAYS, WEBHOOK_SECRET, StripeWorld

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])
OUTAGE = "rate_limit"
"""A failure that Stripe's package does not try again by itself, so that tests do not wait."""


class Subscriber:
    """An account that has subscribed on 31 January, everything told."""

    def __init__(self, world: StripeWorld, operator: Api, price: str = "team_month", ref: str = "acme") -> None:
        self.world, self.operator = world, operator
        self.account = factories.account(world.app, ref)
        self.id = world.subscribe(self.account, price)
        world.deliver()

    def use(self, credits: int) -> factories.Answer:
        return self.operator.post("/usage", {"account": self.account, "credits": credits})

    def change(self, **params: Any) -> None:
        self.world.client.v1.subscriptions.update(self.id, params=params)  # type: ignore[arg-type]

    @property
    def balance(self) -> Any:
        return self.operator.get(f"/balance?account={self.account}").json

    @property
    def allowance(self) -> tuple[str, int, int]:
        """Plan, included, remaining."""
        shown = self.balance
        return shown["plan"], shown["allowance"]["included"], shown["allowance"]["remaining"]

    @property
    def period(self) -> tuple[str, str]:
        shown = self.balance["period"]
        return shown["start"], shown["end"]

    @property
    def issued(self) -> list[int]:
        """Allowances ever issued, newest first."""
        return [entry["change"] for entry in self.entries("allowance")]

    def entries(self, reason: str) -> list[Any]:
        """Of the ledger, newest first."""
        entries = self.operator.get(f"/ledger?account={self.account}&limit=200").json["data"]
        return [entry for entry in entries if entry["reason"] == reason]

    def renew(self) -> None:
        assert self.world.run_job("renew-allowances") == "ok"


@pytest.fixture
def world(at: At, stripe: StripeWorld) -> Iterator[StripeWorld]:
    """Its books must be in order at the end."""
    at("2026-01-31T10:00:00Z")
    stripe.seed()
    yield stripe
    stripe.settle()
    with stripe.app.app_context():
        from services import verify

        assert [str(one) for one in verify.verify().differences] == []


def asked(world: StripeWorld) -> int:
    """How many calls of its API Stripe has answered."""
    return world.sandbox.world.counts["req"]


# The hot path


def test_spending_at_the_first_moment_of_a_month_asks_nobody_and_gives_nothing_unproven(
    world: StripeWorld, operator: Api
) -> None:
    subscriber = Subscriber(world, operator)
    world.advance("2026-02-28T10:00:00Z")
    before = asked(world)
    refused = subscriber.use(200)
    assert (refused.code, refused.json["available"]) == ("insufficient_credits", 100)
    assert subscriber.use(10).json["consumed"]["granted"] == 10
    assert subscriber.allowance == ("team", 0, 0)
    assert subscriber.period == ("2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z")
    assert asked(world) == before
    subscriber.renew()
    assert subscriber.allowance == ("team", 5000, 5000)
    assert subscriber.period == ("2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z")


def test_the_months_of_a_paid_year_come_without_asking_anybody(world: StripeWorld, operator: Api, at: At) -> None:
    subscriber = Subscriber(world, operator, "team_year")
    before = asked(world)
    ends = []
    for _ in range(12):
        end = subscriber.period[1]
        ends.append(end[:10])
        assert subscriber.allowance == ("team", 5000, 5000)
        assert subscriber.use(1).json["consumed"]["allowance"] == 1
        at(end)
    assert ends[:4] == ["2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]
    assert ends[-1] == "2027-01-31"
    assert subscriber.allowance == ("team", 0, 0), "the next year is not paid yet"
    assert (asked(world), len(subscriber.issued)) == (before, 12)
    world.advance("2027-01-31T10:00:05Z")
    subscriber.renew()
    assert subscriber.allowance == ("team", 5000, 5000)


def test_a_year_that_begins_on_a_leap_day_has_twelve_months(world: StripeWorld, operator: Api, at: At) -> None:
    at("2028-02-29T10:00:00Z")
    subscriber = Subscriber(world, operator, "team_year")
    for year in (2029, 2030):
        while subscriber.period[1] < f"{year}-02-28T10:00:00Z":
            at(subscriber.period[1])
        assert subscriber.period == (f"{year}-01-29T10:00:00Z", f"{year}-02-28T10:00:00Z")
        world.advance(subscriber.period[1])
        subscriber.renew()
    assert len(subscriber.issued) == 25


def test_a_machine_that_was_off_for_months_issues_what_is_due_now(world: StripeWorld, operator: Api) -> None:
    subscriber = Subscriber(world, operator)
    world.advance("2026-06-10T00:00:00Z")
    subscriber.renew()
    assert subscriber.allowance == ("team", 5000, 5000)
    assert subscriber.period == ("2026-05-31T10:00:00Z", "2026-06-30T10:00:00Z")
    world.settle()
    assert subscriber.issued == [5000, 5000]


@ON_SQLITE
def test_what_a_month_left_is_carried_over_however_late_its_renewal_is_known(world: StripeWorld, operator: Api) -> None:
    subscriber = Subscriber(world, operator, "rollover_month")
    subscriber.use(800)
    world.advance("2026-02-28T10:00:00Z")
    assert subscriber.allowance == ("saver", 0, 0)
    world.run_job("expire-lots")
    world.advance("2026-03-02T10:00:00Z")
    subscriber.renew()
    assert subscriber.allowance == ("saver", 1200, 1200)
    subscriber.renew()
    world.settle()
    assert subscriber.allowance == ("saver", 1200, 1200)


# Stripe out of reach


def test_while_stripe_can_not_be_asked_the_next_month_is_issued_all_the_same(world: StripeWorld, operator: Api) -> None:
    subscriber = Subscriber(world, operator)
    world.advance("2026-02-28T11:00:00Z")
    world.sandbox.control.fault(OUTAGE, times=0)
    for _ in range(3):
        subscriber.renew()
    assert subscriber.allowance == ("team", 5000, 5000)
    assert subscriber.use(70).status == 201
    world.sandbox.control.clear_faults()
    subscriber.renew()
    world.settle()
    assert subscriber.allowance == ("team", 5000, 4930)
    assert subscriber.issued == [5000, 5000]
    assert subscriber.period == ("2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z")


def test_a_renewal_that_was_assumed_and_did_not_happen_is_taken_back(world: StripeWorld, operator: Api) -> None:
    subscriber = Subscriber(world, operator)
    subscriber.change(cancel_at_period_end=True)  # which nobody told us
    world.advance("2026-02-28T11:00:00Z")
    world.sandbox.control.fault(OUTAGE, times=0)
    subscriber.renew()
    assert subscriber.allowance == ("team", 5000, 5000)
    subscriber.use(70)
    world.sandbox.control.clear_faults()
    subscriber.renew()
    assert subscriber.allowance == ("free", 0, 0)
    assert subscriber.balance["available"] == 100


def test_a_subscription_that_is_to_be_cancelled_is_not_assumed_to_go_on(world: StripeWorld, operator: Api) -> None:
    subscriber = Subscriber(world, operator)
    subscriber.change(cancel_at_period_end=True)
    world.deliver()
    world.advance("2026-02-28T11:00:00Z")
    world.sandbox.control.fault(OUTAGE, times=0)
    subscriber.renew()
    assert subscriber.allowance == ("team", 0, 0)
    assert subscriber.issued == [5000]
    world.sandbox.control.clear_faults()
    subscriber.renew()
    assert subscriber.allowance == ("free", 0, 0)


def test_an_outage_of_months_issues_each_month_in_its_time(world: StripeWorld, operator: Api) -> None:
    subscriber = Subscriber(world, operator)
    world.sandbox.control.fault(OUTAGE, times=0)
    for moment in ("2026-02-28T11:00:00Z", "2026-03-31T11:00:00Z", "2026-04-30T11:00:00Z"):
        world.advance(moment)
        subscriber.renew()
        assert subscriber.allowance == ("team", 5000, 5000)
    world.sandbox.control.clear_faults()
    subscriber.renew()
    world.settle()
    assert subscriber.issued == [5000] * 4
    assert subscriber.period == ("2026-04-30T10:00:00Z", "2026-05-31T10:00:00Z")


@ON_SQLITE
def test_the_job_stops_asking_when_nobody_answers(world: StripeWorld, operator: Api) -> None:
    accounts = []
    for number in range(6):
        accounts.append(factories.account(world.app, f"t{number}"))
        world.subscribe(accounts[-1])
    world.deliver()
    world.advance("2026-02-28T11:00:00Z")
    world.sandbox.control.fault(OUTAGE, times=0)
    before = asked(world)
    assert world.run_job("renew-allowances") == "ok"
    assert asked(world) - before == 3
    assert {world.balance(account)["allowance"]["remaining"] for account in accounts} == {5000}
    world.sandbox.control.clear_faults()


# Events and the job at once


def test_the_event_and_the_job_in_another_process_renew_once(
    world: StripeWorld, operator: Api, tmp_path: Path, database_url: str, clock_file: Path
) -> None:
    subscribers = [Subscriber(world, operator, ref=f"t{number}") for number in range(6)]
    world.advance("2026-02-28T12:00:00Z")
    environ = servers.environment(
        tmp_path,
        database_url,
        STRIPE_SECRET_KEY=SECRET_KEY,
        STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET,
        STRIPE_API_BASE=world.sandbox.url,
        CLOCK_FILE=str(clock_file),
        SCHEDULER="off",
    )
    outcomes: list[Any] = []

    def job() -> None:
        outcomes.append(servers.command(environ, "jobs", "run", "renew-allowances"))

    threads = [threading.Thread(target=job) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        world.deliver("shuffled")
        world.run_job("renew-allowances")
    for thread in threads:
        thread.join()
    assert [(one.returncode, one.stderr) for one in outcomes if one.returncode] == []
    for subscriber in subscribers:
        assert subscriber.issued == [5000, 5000]
        assert subscriber.allowance == ("team", 5000, 5000)


# Accounts that are not active


def test_a_suspended_account_is_renewed_and_a_closed_one_cancelled(world: StripeWorld, operator: Api) -> None:
    asleep, gone = Subscriber(world, operator), Subscriber(world, operator, ref="gone")
    assert operator.post(f"/accounts/{asleep.account}/suspend", {"reason": "test"}).status == 200
    assert operator.post(f"/accounts/{gone.account}/close", {"reason": "test"}).status == 200
    assert world.client.v1.subscriptions.retrieve(gone.id).status == "canceled"
    world.advance("2026-02-28T12:00:00Z")
    world.run_job("renew-allowances")
    world.settle()
    assert asleep.allowance == ("team", 5000, 5000)
    assert gone.issued == [5000]


def test_closing_holds_while_stripe_is_down_and_the_job_cancels_later(world: StripeWorld, operator: Api) -> None:
    subscriber = Subscriber(world, operator)
    world.sandbox.control.fault(OUTAGE, times=0)
    closed = operator.post(f"/accounts/{subscriber.account}/close", {"reason": "test"})
    assert (closed.status, closed.json["status"]) == (200, "closed")
    subscriber.renew()
    world.sandbox.control.clear_faults()
    assert world.client.v1.subscriptions.retrieve(subscriber.id).status == "active"
    subscriber.renew()
    assert world.client.v1.subscriptions.retrieve(subscriber.id).status == "canceled"
    before = asked(world)
    subscriber.renew()
    assert asked(world) == before, "there is nothing left to cancel"


def test_who_subscribes_just_as_their_account_is_closed_is_cancelled(world: StripeWorld, operator: Api) -> None:
    account = factories.account(world.app)
    subscription = world.subscribe(account)
    assert operator.post(f"/accounts/{account}/close", {"reason": "test"}).status == 200
    world.deliver()
    assert world.run_job("renew-allowances") == "ok"
    assert world.client.v1.subscriptions.retrieve(subscription).status == "canceled"
    world.settle()
    assert world.end_state(account)["lots"] == [
        ("granted", 100_000_000, 100_000_000, 0, True, False, None, None),
    ]


# A long time


@pytest.mark.parametrize("price", ["team_month", "team_year"])
@pytest.mark.parametrize("told", [True, False])
def test_fourteen_months_over_a_leap_day_bring_one_allowance_each(
    world: StripeWorld, operator: Api, at: At, price: str, told: bool
) -> None:
    """Whether the events come (in any way) or never do; the job runs every third day as it does each minute."""
    at("2027-12-31T10:00:00Z")
    subscriber = Subscriber(world, operator, price)
    ways = itertools.cycle(WAYS)
    while world.sandbox.control.now() < datetime(2029, 2, 28, 12, tzinfo=UTC):
        world.advance(days=3, minutes=1)
        subscriber.renew()
        if told and world.waiting():
            world.deliver(next(ways))
    with world.app.app_context(), database.transaction() as session:
        query = select(Lot.period_start).where(Lot.account_id == subscriber.account, Lot.kind == "allowance")
        starts = sorted(session.scalars(query))
    assert [(one.year, one.month) for one in starts] == [(2027 + (11 + n) // 12, (11 + n) % 12 + 1) for n in range(15)]
    assert [one.day for one in starts] == [31, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 28]
    assert {(one.hour, one.minute) for one in starts} == {(10, 0)}
