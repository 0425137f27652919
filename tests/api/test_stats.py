"""The running period in numbers, and where it is heading."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask

from tests.api.helpers import NO_SIGNUP, account_api, grant, hold, open_account, refused, set_plan, use
from tests.factories import Api
from tests.moments import At


def stats(api: Api, ref: str = "acme") -> Any:
    answer = api.get(f"/usage/stats?account={ref}")
    assert answer.status == 200, answer
    return answer.json


def test_a_new_account(app: Flask, operator: Api, at: At) -> None:
    account_id = open_account(operator)
    assert stats(operator) == {
        "account": account_id,
        "period": {"start": "2026-11-21T10:00:00Z", "end": "2026-12-21T10:00:00Z"},
        "used": 0,
        "remaining": 100,
        "percent": 0,
        "daily_average": 0,
        "forecast": {"period_end_credits": 0, "range": None, "runs_out": None, "enough_history": False},
        "cost": None,
        "alerts": [],
        "as_of": "2026-11-21T10:00:00Z",
    }


@NO_SIGNUP
def test_nothing_at_all(app: Flask, operator: Api) -> None:
    open_account(operator)
    assert [stats(operator)[name] for name in ("used", "remaining", "percent")] == [0, 0, 0]


def test_what_is_used_and_what_remains(app: Flask, operator: Api, at: At) -> None:
    open_account(operator, included_credits=200)
    use(operator, 70)
    use(operator, "0.000001")
    voided = use(operator, 30).json["id"]
    operator.post(f"/usage/records/{voided}/void", {"reason": "x"})
    hold(operator, 29)
    told = stats(operator)
    assert (told["used"], told["remaining"]) == (Decimal("70.000001"), Decimal("200.999999"))
    assert told["percent"] == Decimal("25.83")


@NO_SIGNUP
def test_usage_that_no_lot_paid_is_used_too(app: Flask, operator: Api) -> None:
    open_account(operator, credits=10)
    use(operator, 50, enforce=False)
    assert [stats(operator)[name] for name in ("used", "remaining", "percent")] == [50, 0, 100]


def test_usage_counts_in_the_period_in_which_it_was_recorded(app: Flask, operator: Api, at: At) -> None:
    """In its own day in the statistics, in the current period for credits."""
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=900)
    use(operator, 1, occurred_at="2026-10-20T00:00:00Z")
    use(operator, 2)
    assert stats(operator)["used"] == 3
    at("2026-12-21T09:58:00Z")
    use(operator, 4, occurred_at="2026-12-21T10:02:00Z")
    assert stats(operator)["used"] == 7, "what is dated a little ahead counts already"
    at("2026-12-21T10:00:00Z")
    assert stats(operator)["used"] == 0
    use(operator, 8, occurred_at="2026-12-21T09:59:59.999999Z")
    use(operator, 16)
    late = use(operator, 32, occurred_at="2026-11-30T00:00:00Z").json["id"]
    assert stats(operator)["used"] == 56
    operator.post(f"/usage/records/{late}/void", {"reason": "x"})
    assert stats(operator)["used"] == 24


def test_a_new_plan_begins_a_period(app: Flask, operator: Api, at: At) -> None:
    open_account(operator)
    use(operator, 5)
    at.forward(seconds=1)
    set_plan(operator, "acme", included_credits=50)
    assert stats(operator)["used"] == 0
    use(operator, 6)
    assert stats(operator)["used"] == 6
    at("2026-11-22T00:00:00Z")
    set_plan(operator, "acme", included_credits=50)
    assert [stats(operator)[name] for name in ("used", "remaining")] == [0, 145]


class TestForecast:
    def steady(self, api: Api, at: At, days: int, amount: Any) -> None:
        """So much at ten each day, ending now."""
        for day in range(days):
            at(f"2026-11-{day + 1:02}T10:00:00Z")
            if day == 0:
                open_account(api, credits=900)
            use(api, amount)

    def test_a_first_day_is_no_history(self, app: Flask, operator: Api, at: At) -> None:
        self.steady(operator, at, 1, 10)
        told = stats(operator)
        assert told["daily_average"] == 10
        nothing = {"range": None, "runs_out": None, "enough_history": False}
        assert told["forecast"] == nothing | {"period_end_credits": 310}

    def test_the_average_is_of_the_days_gone_by(self, app: Flask, operator: Api, at: At) -> None:
        self.steady(operator, at, 1, 10)
        at("2026-11-05T10:00:00Z")
        assert stats(operator)["daily_average"] == Decimal("2.5")

    def test_at_a_steady_rate(self, app: Flask, operator: Api, at: At) -> None:
        self.steady(operator, at, 10, 20)
        at("2026-11-11T00:00:00Z")
        told = stats(operator)
        assert (told["used"], told["remaining"]) == (200, 800)
        forecast = told["forecast"]
        assert forecast["enough_history"]
        assert forecast["period_end_credits"] == Decimal("608.333333"), "200, and 20 a day for 20 days and 10 hours"
        assert forecast["range"] == dict.fromkeys(("low", "high"), forecast["period_end_credits"])
        assert forecast["runs_out"] == dict.fromkeys(("earliest", "likely", "latest"), "2026-12-21T00:00:00Z")

    def test_the_rest_of_today_counts_by_the_hour(self, app: Flask, operator: Api, at: At) -> None:
        self.steady(operator, at, 10, 24)
        at("2026-11-11T18:00:00Z")
        forecast = stats(operator)["forecast"]
        assert forecast["period_end_credits"] == 240 + 6 + 19 * 24 + 10
        assert forecast["runs_out"]["likely"] == "2026-12-13T10:00:00Z", "760 are left: 6, then 31 days and ten hours"

    def test_the_rhythm_of_the_week_is_known(self, app: Flask, operator: Api, at: At) -> None:
        for day in range(42):  # from a Monday on, nothing at weekends
            at((datetime(2026, 9, 7, 10, tzinfo=UTC) + timedelta(days=day)).isoformat())
            if day == 0:
                open_account(operator, credits=10_000)
            if day % 7 < 5:
                use(operator, 10)
        at("2026-10-19T00:00:00Z")
        set_plan(operator, "acme")  # a period from Monday on: a month with 23 days of work
        forecast = stats(operator)["forecast"]
        assert 210 < forecast["period_end_credits"] < 240
        assert forecast["range"]["low"] < forecast["period_end_credits"] < forecast["range"]["high"]

    def test_a_busy_end_makes_a_range(self, app: Flask, operator: Api, at: At) -> None:
        self.steady(operator, at, 10, 10)
        use(operator, 100)
        at("2026-11-11T00:00:00Z")
        runs_out = stats(operator)["forecast"]["runs_out"]
        assert runs_out["earliest"] < runs_out["likely"] < runs_out["latest"]

    def test_an_allowance_that_lasts_does_not_run_out(self, app: Flask, operator: Api, at: At) -> None:
        self.steady(operator, at, 5, 10)
        set_plan(operator, "acme", included_credits=10)
        assert stats(operator)["forecast"]["runs_out"] is None
        use(operator, 700)
        assert stats(operator)["forecast"]["runs_out"] is not None

    def test_a_renewal_ends_the_range(self, app: Flask, operator: Api, at: At) -> None:
        self.steady(operator, at, 5, 10)
        set_plan(operator, "acme", included_credits=10)
        use(operator, 700)
        at("2026-11-06T10:00:00Z")
        told = stats(operator)
        assert told["forecast"]["runs_out"]["latest"] <= told["period"]["end"]

    def test_nothing_left_has_run_out_now(self, app: Flask, operator: Api, at: At) -> None:
        self.steady(operator, at, 5, 200)
        told = stats(operator)
        assert told["remaining"] == 0
        assert told["forecast"]["runs_out"] == dict.fromkeys(("earliest", "likely", "latest"), told["as_of"])

    def test_what_lasts_for_ages_does_not_run_out(self, app: Flask, operator: Api, at: At) -> None:
        self.steady(operator, at, 5, "0.000001")
        grant(operator, "acme", 10**9)
        told = stats(operator)["forecast"]
        assert told["enough_history"] and told["runs_out"] is None


@pytest.mark.parametrize("query", ["account=acme&month=2026-11", "account=acme&account=acme"])
def test_a_bad_query(service: Api, query: str) -> None:
    open_account(service)
    refused(service.get(f"/usage/stats?{query}"), 422, "validation_error")


def test_an_account_sees_its_own(service: Api, at: At) -> None:
    acme, other = open_account(service), open_account(service, "other")
    tenant = account_api(service, acme, "read")
    assert tenant.get("/usage/stats").json == stats(service)
    refused(tenant.get(f"/usage/stats?account={other}"), 403, "forbidden")
    refused(account_api(service, acme, "write").get("/usage/stats"), 403, "missing_scope")
