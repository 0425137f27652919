"""Plans and their periods: what is issued, when it ends, what is carried over, and that nothing comes twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from services import accounts, catalog, credits, verify
from tests.factories import Api
from tests.moments import At

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])
"""For rules that no statement of either database has a part in."""

CATALOG = """
[product]
free_monthly_credits = {free}

[[prices]]
id = "keep_month"
price_type = "base"
tier = "keep"
name = "Keep"
currency = "usd"
unit_amount = 1000
interval = "month"
included_credits = {included}
rollover_max = 40
"""


class Tenant:
    """One account as the operator sees it."""

    def __init__(self, app: Flask, operator: Api, at: At, ref: str = "acme") -> None:
        self.app, self.operator, self.at, self.ref = app, operator, at, ref
        made = operator.post("/accounts", {"external_id": ref, "name": ref})
        assert made.status == 201, made
        self.id = made.json["id"]

    @property
    def balance(self) -> Any:
        return self.operator.get(f"/balance?account={self.ref}").json

    @property
    def allowance(self) -> tuple[Any, Any, Any]:
        """Included, used, remaining."""
        shown = self.balance["allowance"]
        return shown["included"], shown["used"], shown["remaining"]

    @property
    def period(self) -> tuple[str, str]:
        shown = self.balance["period"]
        return shown["start"], shown["end"]

    @property
    def ledger(self) -> list[Any]:
        """Oldest first."""
        return list(reversed(self.operator.get(f"/ledger?account={self.ref}&limit=200").json["data"]))

    def entries(self, *reasons: str) -> list[tuple[str, Any, str]]:
        """Reason, change and time of those with one of the reasons (all, when none is named)."""
        return [
            (entry["reason"], entry["change"], entry["created_at"])
            for entry in self.ledger
            if not reasons or entry["reason"] in reasons
        ]

    def use(self, amount: int) -> Any:
        answer = self.operator.post("/usage", {"account": self.ref, "credits": amount})
        assert answer.status == 201, answer
        return answer.json["consumed"]

    def plan(self, tier: str, **terms: Any) -> None:
        answer = self.operator.post(f"/accounts/{self.ref}/plan", {"tier": tier, **terms})
        assert answer.status == 200, answer

    def renew(self) -> int:
        """What the renewal job does; how many accounts."""
        with self.app.app_context():
            return credits.renew_due()


@pytest.fixture
def tenant(app: Flask, operator: Api, at: At) -> Iterator[Tenant]:
    """An account made on 31 January; at the end its books must be in order."""
    at("2026-01-31T10:00:00Z")
    yield Tenant(app, operator, at)
    with app.app_context():
        assert verify.verify().differences == []


@pytest.fixture
def write_catalog(app: Flask) -> Any:
    path: Path = app.config["SETTINGS"].catalog_file

    def write(*, included: int = 100, free: int = 0) -> None:
        path.write_text(CATALOG.format(included=included, free=free))
        with app.app_context():
            assert catalog.sync().error is None

    return write


# Renewal


def test_an_allowance_ends_with_its_period_and_a_full_one_begins(tenant: Tenant, at: At) -> None:
    tenant.plan("custom", included_credits=100)
    tenant.use(30)
    at("2026-02-28T10:00:05Z")
    assert tenant.renew() == 1
    assert tenant.allowance == (100, 0, 100)
    assert tenant.period == ("2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z")
    assert tenant.entries("allowance", "expiry") == [
        ("allowance", 100, "2026-01-31T10:00:00Z"),
        ("expiry", -70, "2026-02-28T10:00:00Z"),
        ("allowance", 100, "2026-02-28T10:00:05Z"),
    ]


def test_nothing_is_renewed_before_its_time(tenant: Tenant, at: At) -> None:
    tenant.plan("custom", included_credits=100)
    at("2026-02-28T09:59:59.999999Z")
    assert tenant.renew() == 0
    assert len(tenant.entries("allowance")) == 1
    at("2026-02-28T10:00:00Z")
    assert tenant.renew() == 1


def test_renewing_again_and_again_issues_once(tenant: Tenant, at: At) -> None:
    tenant.plan("custom", included_credits=100)
    at("2026-03-01T00:00:00Z")
    assert [tenant.renew() for _ in range(3)] == [1, 0, 0]
    assert len(tenant.entries("allowance")) == 2


def test_who_asks_first_gets_the_new_period_without_any_job(tenant: Tenant, at: At) -> None:
    """A balance, or a charge, at the first moment of a period finds it begun."""
    tenant.plan("custom", included_credits=100)
    tenant.use(100)
    at("2026-02-28T10:00:00Z")
    assert tenant.use(60) == {"allowance": 60, "purchased": 0, "granted": 0, "overage": 0, "unfunded": 0}
    assert tenant.renew() == 0
    at("2026-03-31T10:00:00Z")
    assert tenant.allowance == (100, 0, 100)
    assert tenant.renew() == 0
    assert len(tenant.entries("allowance")) == 3


def test_jobs_and_requests_at_once_renew_each_account_once(app: Flask, operator: Api, at: At) -> None:
    at("2026-01-31T10:00:00Z")
    tenants = [Tenant(app, operator, at, f"t{number}") for number in range(4)]
    for tenant in tenants:
        tenant.plan("custom", included_credits=100)
    at("2026-03-05T00:00:00Z")
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            start.wait(120)
            if number % 2:
                assert tenants[number].use(1)["allowance"] == 1
            with app.app_context():
                credits.renew_due()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    for number, tenant in enumerate(tenants):
        assert [change for _, change, _ in tenant.entries("allowance")] == [100, 100]
        assert tenant.allowance == (100, number % 2, 100 - number % 2)


def test_the_job_works_through_more_accounts_than_a_page(app: Flask, operator: Api, at: At) -> None:
    at("2026-01-31T10:00:00Z")
    tenants = [Tenant(app, operator, at, f"t{number}") for number in range(3)]
    for tenant in tenants:
        tenant.plan("custom", included_credits=5)
    at("2026-02-28T10:00:00Z")
    with app.app_context():
        assert [credits.renew_due(2), credits.renew_due(2), credits.renew_due(2)] == [2, 1, 0]
    assert all(len(tenant.entries("allowance")) == 2 for tenant in tenants)


def test_after_months_off_only_the_running_period_is_issued(tenant: Tenant, at: At) -> None:
    tenant.plan("custom", included_credits=100)
    tenant.use(10)
    at("2026-06-15T08:00:00Z")
    assert tenant.renew() == 1
    assert tenant.allowance == (100, 0, 100)
    assert tenant.period == ("2026-05-31T10:00:00Z", "2026-06-30T10:00:00Z")
    assert tenant.entries("allowance", "expiry") == [
        ("allowance", 100, "2026-01-31T10:00:00Z"),
        ("expiry", -90, "2026-02-28T10:00:00Z"),
        ("allowance", 100, "2026-06-15T08:00:00Z"),
    ]


@ON_SQLITE
def test_a_month_end_anchor_comes_back_to_its_day(tenant: Tenant, at: At) -> None:
    tenant.plan("custom", included_credits=100)
    ends = []
    for _ in range(4):
        ends.append(tenant.period[1][:10])
        at(tenant.period[1])
        assert tenant.renew() == 1
    assert ends == ["2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]
    assert tenant.balance["allowance"]["remaining"] == 100


@ON_SQLITE
def test_a_leap_year_gives_the_anchor_a_29th(tenant: Tenant, at: At) -> None:
    tenant.plan("custom", included_credits=100)
    at("2028-02-10T00:00:00Z")
    assert tenant.period == ("2028-01-31T10:00:00Z", "2028-02-29T10:00:00Z")
    at("2028-02-29T10:00:00Z")
    assert tenant.period == ("2028-02-29T10:00:00Z", "2028-03-31T10:00:00Z")


@ON_SQLITE
def test_what_was_given_survives_the_renewal(tenant: Tenant, at: At) -> None:
    tenant.plan("custom", included_credits=100)
    at("2026-02-28T10:00:00Z")
    assert tenant.renew() == 1
    assert tenant.balance["granted"] == {"total": 100, "used": 0, "remaining": 100}


def test_a_suspended_account_is_renewed_and_a_closed_one_is_not(app: Flask, operator: Api, at: At) -> None:
    at("2026-01-31T10:00:00Z")
    asleep, gone = Tenant(app, operator, at, "asleep"), Tenant(app, operator, at, "gone")
    for tenant, act in ((asleep, "suspend"), (gone, "close")):
        tenant.plan("custom", included_credits=100)
        assert operator.post(f"/accounts/{tenant.ref}/{act}", {"reason": "test"}).status == 200
    at("2026-03-31T10:00:00Z")
    assert asleep.renew() == 1
    assert asleep.allowance == (100, 0, 100)
    assert len(gone.entries("allowance")) == 1
    assert gone.allowance[2] == 0


# The free plan


@ON_SQLITE
def test_the_free_plan_has_todays_free_allowance(tenant: Tenant, at: At, write_catalog: Any) -> None:
    assert (tenant.balance["plan"], tenant.allowance) == ("free", (0, 0, 0))
    write_catalog(free=50)
    at("2026-02-28T10:00:00Z")
    assert tenant.allowance == (50, 0, 50)
    write_catalog(free=20)
    assert tenant.allowance == (50, 0, 50)
    at("2026-03-31T10:00:00Z")
    assert tenant.allowance == (20, 0, 20)


@pytest.mark.settings(free_monthly_credits=Decimal("12.5"))
def test_the_free_allowance_comes_with_the_account(tenant: Tenant) -> None:
    assert tenant.allowance == (Decimal("12.5"), 0, Decimal("12.5"))
    assert tenant.balance["available"] == Decimal("112.5")


# Carrying over


def test_unused_allowance_is_carried_over_up_to_the_plans_limit(tenant: Tenant, at: At, write_catalog: Any) -> None:
    write_catalog()
    tenant.plan("keep")
    tenant.use(70)
    at("2026-02-28T10:00:00Z")
    assert tenant.renew() == 1
    assert tenant.allowance == (130, 0, 130), "30 were left, below the limit of 40"
    at("2026-03-31T10:00:00Z")
    assert tenant.renew() == 1
    assert tenant.allowance == (140, 0, 140), "130 were left, above the limit"
    assert tenant.entries("rollover") == [
        ("rollover", 30, "2026-02-28T10:00:00Z"),
        ("rollover", 40, "2026-03-31T10:00:00Z"),
    ]


@ON_SQLITE
def test_nothing_left_carries_nothing(tenant: Tenant, at: At, write_catalog: Any) -> None:
    write_catalog()
    tenant.plan("keep")
    tenant.use(100)
    at("2026-02-28T10:00:00Z")
    assert tenant.allowance == (100, 0, 100)
    assert tenant.entries("rollover") == []


@ON_SQLITE
def test_what_is_carried_ends_with_the_next_period(tenant: Tenant, at: At, write_catalog: Any) -> None:
    write_catalog()
    tenant.plan("keep")
    at("2026-02-28T10:00:00Z")
    assert tenant.allowance == (140, 0, 140)
    tenant.use(140)
    at("2026-03-31T10:00:00Z")
    assert tenant.allowance == (100, 0, 100)


def test_unseen_periods_carry_over_as_if_they_had_been_seen(
    app: Flask, operator: Api, at: At, write_catalog: Any
) -> None:
    """Two accounts, alike but that the machine was off for one: they have the same in May."""
    write_catalog(included=15)
    at("2026-01-31T10:00:00Z")
    seen, unseen = Tenant(app, operator, at, "seen"), Tenant(app, operator, at, "unseen")
    for tenant in (seen, unseen):
        tenant.plan("keep")
        tenant.use(10)
    carried = []
    for moment in ("2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z", "2026-04-30T10:00:00Z"):
        at(moment)
        carried.append(seen.allowance[0])
    assert carried == [20, 35, 50]
    assert unseen.allowance == seen.allowance
    assert [change for _, change, _ in unseen.entries("rollover")] == [35]


@ON_SQLITE
def test_a_plan_without_a_limit_carries_nothing(tenant: Tenant, at: At) -> None:
    tenant.plan("custom", included_credits=100)
    at("2026-02-28T10:00:00Z")
    assert tenant.allowance == (100, 0, 100)


# The end of a plan


def test_a_plan_with_an_end_falls_back_to_free_on_time(tenant: Tenant, at: At) -> None:
    tenant.plan(
        "enterprise",
        included_credits=100,
        ends_at="2026-03-10T00:00:00Z",
        rates={"page": "per_unit=7"},
    )
    assert tenant.period == ("2026-01-31T10:00:00Z", "2026-02-28T10:00:00Z")
    at("2026-02-28T10:00:00Z")
    assert tenant.period == ("2026-02-28T10:00:00Z", "2026-03-10T00:00:00Z")
    at("2026-03-09T23:59:59Z")
    assert (tenant.balance["plan"], tenant.allowance) == ("enterprise", (100, 0, 100))
    at("2026-03-10T00:00:00Z")
    assert tenant.renew() == 1
    assert (tenant.balance["plan"], tenant.allowance) == ("free", (0, 0, 0))
    assert tenant.balance["granted"]["remaining"] == 100
    assert tenant.period == ("2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z")
    assert tenant.entries("allowance", "expiry", "plan_change")[-1] == ("expiry", -100, "2026-03-10T00:00:00Z")
    unknown = tenant.operator.post("/usage", {"account": tenant.ref, "operation": "page"})
    assert (unknown.status, unknown.code) == (422, "unknown_operation"), "the negotiated rates end with the plan"


def test_a_plan_that_ended_while_nobody_looked_issues_nothing(tenant: Tenant, at: At) -> None:
    tenant.plan("enterprise", included_credits=100, ends_at="2026-03-10T00:00:00Z")
    at("2026-08-01T00:00:00Z")
    assert tenant.renew() == 1
    assert (tenant.balance["plan"], tenant.allowance) == ("free", (0, 0, 0))
    assert tenant.entries("allowance", "expiry") == [
        ("allowance", 100, "2026-01-31T10:00:00Z"),
        ("expiry", -100, "2026-02-28T10:00:00Z"),
    ]


@ON_SQLITE
def test_an_end_in_the_past_is_refused(tenant: Tenant) -> None:
    body = {"tier": "enterprise", "included_credits": 1, "ends_at": "2026-01-31T10:00:00Z"}
    answer = tenant.operator.post(f"/accounts/{tenant.ref}/plan", body)
    assert answer.status == 422
    assert answer.json["errors"] == {"ends_at": ["Must be in the future."]}
    assert tenant.balance["plan"] == "free"


# Changing plans


def test_an_upgrade_takes_effect_at_once_with_its_whole_allowance(tenant: Tenant, at: At) -> None:
    tenant.plan("small", included_credits=100)
    tenant.use(30)
    moment = at("2026-02-10T12:00:00Z")
    tenant.plan("large", included_credits=500)
    assert tenant.balance["plan"] == "large"
    assert tenant.allowance == (500, 0, 500)
    assert tenant.period == ("2026-02-10T12:00:00Z", "2026-03-10T12:00:00Z")
    assert tenant.entries("plan_change", "allowance") == [
        ("allowance", 100, "2026-01-31T10:00:00Z"),
        ("plan_change", -70, "2026-02-10T12:00:00Z"),
        ("allowance", 500, "2026-02-10T12:00:00Z"),
    ]
    at(moment + timedelta(days=30))
    assert tenant.allowance[2] == 500


@ON_SQLITE
def test_a_downgrade_leaves_the_smaller_allowance_and_what_was_given(tenant: Tenant, at: At) -> None:
    tenant.plan("large", included_credits=500)
    tenant.use(30)
    at("2026-02-10T12:00:00Z")
    tenant.plan("small", included_credits=20)
    assert tenant.allowance == (20, 0, 20)
    assert tenant.balance["available"] == 120
    refused = tenant.operator.post("/usage", {"account": tenant.ref, "credits": 121})
    assert (refused.code, refused.json["available"]) == ("insufficient_credits", 120)


def test_going_free_ends_the_allowance_and_returns_to_the_accounts_own_month(tenant: Tenant, at: At) -> None:
    at("2026-02-10T12:00:00Z")
    tenant.plan("custom", included_credits=100)
    at("2026-02-11T12:00:00Z")
    tenant.plan("free")
    assert (tenant.balance["plan"], tenant.balance["available"]) == ("free", 100)
    assert tenant.period == ("2026-01-31T10:00:00Z", "2026-02-28T10:00:00Z")


@ON_SQLITE
def test_a_plan_of_the_catalog_needs_no_terms_and_an_unknown_one_does(tenant: Tenant, write_catalog: Any) -> None:
    write_catalog(included=250)
    tenant.plan("keep")
    assert tenant.allowance == (250, 0, 250)
    answer = tenant.operator.post(f"/accounts/{tenant.ref}/plan", {"tier": "nothing-like-it"})
    assert answer.status == 422
    assert "tier" in answer.json["errors"]
    assert tenant.balance["plan"] == "keep"


@ON_SQLITE
def test_a_subscriber_keeps_the_allowance_of_the_day_they_subscribed(
    tenant: Tenant, at: At, write_catalog: Any
) -> None:
    write_catalog(included=100)
    tenant.plan("keep")
    tenant.use(100)
    write_catalog(included=10)
    at("2026-02-28T10:00:00Z")
    assert tenant.allowance == (100, 0, 100)


@ON_SQLITE
def test_a_closed_account_gets_no_plan(tenant: Tenant) -> None:
    assert tenant.operator.post(f"/accounts/{tenant.ref}/close", {"reason": "test"}).status == 200
    answer = tenant.operator.post(f"/accounts/{tenant.ref}/plan", {"tier": "custom", "included_credits": 1})
    assert (answer.status, answer.code) == (403, "account_closed")


# What expires


def test_idle_lots_expire_dated_when_they_fell(app: Flask, tenant: Tenant, at: At) -> None:
    body = {"credits": 25, "reason": "trial", "expires_at": "2026-02-05T00:00:00Z"}
    assert tenant.operator.post(f"/accounts/{tenant.ref}/grants", body).status == 201
    tenant.use(1)
    at("2026-02-07T03:00:00Z")
    with app.app_context():
        assert [credits.expire_due(), credits.expire_due()] == [1, 0]
    assert tenant.entries("expiry") == [("expiry", -24, "2026-02-05T00:00:00Z")]


def test_credits_that_have_expired_are_never_spent(tenant: Tenant, at: At) -> None:
    body = {"credits": 25, "reason": "trial", "expires_at": "2026-02-05T00:00:00Z"}
    assert tenant.operator.post(f"/accounts/{tenant.ref}/grants", body).status == 201
    at("2026-02-05T00:00:00Z")
    refused = tenant.operator.post("/usage", {"account": tenant.ref, "credits": 101})
    assert (refused.code, refused.json["available"]) == ("insufficient_credits", 100)
    assert tenant.balance["granted"] == {"total": 100, "used": 0, "remaining": 100}


def test_a_plan_set_by_two_operators_at_once_leaves_one(app: Flask, tenant: Tenant) -> None:
    start = threading.Barrier(2)
    failures: list[BaseException] = []

    def work(included: int) -> None:
        try:
            start.wait(120)
            with app.app_context():
                accounts.set_plan(tenant.id, tier=f"plan-{included}", included=included * 1_000_000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[included]) for included in (10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    plan = tenant.balance["plan"]
    assert tenant.allowance[2] == int(plan.removeprefix("plan-"))
    assert datetime.fromisoformat(tenant.period[1]) > datetime.fromisoformat(tenant.period[0])
