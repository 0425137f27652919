"""Alerts: written once with what crossed them, ended when they are no longer true, listed and dismissed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select, text

import database
from jobs import registry
from models.alert import Alert, AlertKind
from services import alerts
from tests.api.helpers import (
    NO_SIGNUP,
    account_api,
    at_once,
    grant,
    hold,
    open_account,
    operate,
    refused,
    set_plan,
    use,
)
from tests.api.test_spending_caps import Trips, cap, limit, spend
from tests.factories import Api
from tests.moments import At

pytestmark = NO_SIGNUP


def listed(api: Api, ref: str = "acme", state: str = "open") -> list[tuple[str, int | None]]:
    """Kind and threshold, oldest first."""
    answer = api.get(f"/alerts?account={ref}&state={state}")
    assert answer.status == 200, answer
    return [(row["kind"], row["threshold"]) for row in reversed(answer.json["data"])]


def standing(api: Api, ref: str = "acme") -> list[tuple[str, int | None]]:
    """Those of the statistics."""
    told = api.get(f"/usage/stats?account={ref}").json["alerts"]
    assert all(row["standing"] for row in told)
    return [(row["kind"], row["threshold"]) for row in told]


@pytest.fixture
def acme(operator: Api, at: At) -> Api:
    """`acme` with an allowance of 100 and nothing else, as the operator's token sees it."""
    at("2026-11-21T10:00:00Z")
    open_account(operator, included_credits=100)
    return operator


class TestAllowance:
    def test_each_threshold_is_told_once_in_a_period(self, acme: Api) -> None:
        use(acme, "69.999999")
        assert listed(acme) == []
        use(acme, "0.000001")
        assert listed(acme) == [("allowance", 70)]
        use(acme, 10)
        assert listed(acme) == [("allowance", 70)]
        row = acme.get("/alerts?account=acme").json["data"][0]
        assert row["details"] == {"used": 70, "included": 100} and row["standing"] and row["dismissed_at"] is None
        assert row["created_at"] == "2026-11-21T10:00:00Z"
        use(acme, 20)
        assert sorted(listed(acme)) == [("allowance", 70), ("allowance", 90), ("allowance", 100)]
        assert standing(acme) == [("allowance", 100), ("allowance", 90), ("allowance", 70)]

    def test_one_charge_may_cross_several(self, acme: Api) -> None:
        use(acme, 95)
        assert sorted(listed(acme)) == [("allowance", 70), ("allowance", 90)]

    def test_the_renewal_arms_them_again(self, acme: Api, at: At) -> None:
        use(acme, 75)
        at("2026-12-21T10:00:00Z")
        assert standing(acme) == []
        assert listed(acme) == [("allowance", 70)]
        use(acme, 75)
        assert listed(acme) == [("allowance", 70)] * 2
        assert standing(acme) == [("allowance", 70)]

    def test_so_does_a_reset(self, acme: Api) -> None:
        use(acme, 75)
        operate(acme, "acme", "reset-limit")
        assert standing(acme) == []
        use(acme, 75)
        assert standing(acme) == [("allowance", 70)]
        assert len(listed(acme)) == 2

    def test_a_void_ends_it_and_crossing_again_tells_nothing_new(self, acme: Api) -> None:
        record = use(acme, 75).json["id"]
        acme.post(f"/usage/records/{record}/void", {"reason": "x"})
        assert standing(acme) == []
        use(acme, 71)
        assert standing(acme) == [("allowance", 70)]
        assert len(listed(acme)) == 1

    def test_thresholds_of_the_account_replace_the_catalogs(self, acme: Api) -> None:
        acme.put("/controls", {"account": "acme", "alert_thresholds": [50]})
        use(acme, 99)
        assert listed(acme) == [("allowance", 50)]
        acme.put("/controls", {"account": "acme", "alert_thresholds": []})
        use(acme, 1)
        assert listed(acme) == [("allowance", 50)]

    @pytest.mark.settings(alert_thresholds=(10, 100))
    def test_the_environments_thresholds(self, acme: Api) -> None:
        use(acme, 99)
        assert listed(acme) == [("allowance", 10)]

    def test_batches_captures_and_forced_usage_cross_too(self, acme: Api) -> None:
        acme.post("/usage/batch", {"account": "acme", "records": [{"credits": 35}] * 2})
        assert listed(acme) == [("allowance", 70)]
        held = hold(acme, 20)["id"]
        assert listed(acme) == [("allowance", 70)], "held credits do not look spent"
        acme.post(f"/holds/{held}/capture", {})
        assert listed(acme) == [("allowance", 70), ("allowance", 90)]
        use(acme, 500, enforce=False)
        assert listed(acme)[-1] == ("allowance", 100)

    def test_other_credits_are_not_the_allowance(self, acme: Api) -> None:
        open_account(acme, "payg", credits=100)
        acme.post("/usage", {"account": "payg", "credits": 75})
        assert listed(acme, "payg") == []

    def test_a_larger_plan_ends_it(self, acme: Api) -> None:
        use(acme, 75)
        set_plan(acme, "acme", included_credits=1000)
        assert standing(acme) == []

    def test_32_requests_at_once_make_one(self, acme: Api) -> None:
        use(acme, 50)
        answers = at_once([lambda: spend(acme, 1)] * 32)
        assert {answer.status for answer in answers} == {201}
        assert listed(acme) == [("allowance", 70)]

    def test_a_refusal_and_a_replay_tell_nothing(self, acme: Api) -> None:
        refused(spend(acme, 101), 402, "insufficient_credits")
        assert listed(acme) == []
        for _ in range(2):
            spend(acme, 75, idempotency_key="k")
        assert listed(acme) == [("allowance", 70)]


class TestLowBalance:
    def test_below_a_fifth_of_the_last_top_up(self, operator: Api) -> None:
        open_account(operator, credits=100)
        use(operator, 80)
        assert listed(operator) == []
        use(operator, "0.000001")
        assert listed(operator) == [("low_balance", None)]
        use(operator, 1)
        assert len(listed(operator)) == 1
        row = operator.get("/alerts?account=acme").json["data"][0]
        assert row["details"] == {"remaining": Decimal("19.999999"), "top_up": 100}

    def test_a_top_up_ends_it_and_arms_it_again(self, operator: Api) -> None:
        open_account(operator, credits=100)
        use(operator, 90)
        assert standing(operator) == [("low_balance", None)]
        grant(operator, "acme", 50)
        assert standing(operator) == []
        use(operator, 49)
        assert listed(operator) == [("low_balance", None)]
        use(operator, 2)
        assert listed(operator) == [("low_balance", None)] * 2
        assert standing(operator) == [("low_balance", None)]

    def test_credits_that_expire_make_a_balance_low(self, operator: Api, at: At) -> None:
        open_account(operator, credits=10)
        grant(operator, "acme", 100, expires_at="2026-11-25T00:00:00Z")
        at("2026-11-25T00:00:00Z")
        operator.get("/balance?account=acme")
        assert listed(operator) == [("low_balance", None)]

    @pytest.mark.settings(signup_credits=Decimal(100))
    def test_the_sign_up_credits(self, operator: Api) -> None:
        open_account(operator)
        use(operator, 81)
        assert listed(operator) == [("low_balance", None)]

    @pytest.mark.settings(free_monthly_credits=Decimal(50))
    def test_the_free_allowance(self, operator: Api, at: At) -> None:
        at("2026-11-21T10:00:00Z")
        open_account(operator)
        use(operator, 41)
        assert sorted(listed(operator)) == [("allowance", 70), ("low_balance", None)]
        at("2026-12-21T10:00:00Z")
        assert standing(operator) == []
        use(operator, 41)
        assert len(listed(operator)) == 4


class TestCapReached:
    def test_a_refusal_is_told_once_in_a_window(self, acme: Api, at: At) -> None:
        limit(acme, cap("account", "day", 5), cap("subject", "day", 3))
        for _ in range(3):
            refused(spend(acme, 6), 402, "cap_reached")
        assert listed(acme) == [("cap_reached", None)]
        row = acme.get("/alerts?account=acme").json["data"][0]
        assert row["details"].items() >= {"scope": "account", "window": "day", "credits": 5, "used": 0}.items()
        refused(spend(acme, 4, subject="a"), 402, "cap_reached")
        refused(spend(acme, 4, subject="b"), 402, "cap_reached")
        assert listed(acme) == [("cap_reached", None)] * 2, "one for a cap, whomever it stops"
        at("2026-11-22T00:00:00Z")
        assert standing(acme) == []
        refused(spend(acme, 6), 402, "cap_reached")
        assert len(listed(acme)) == 3

    def test_holds_and_batches_and_tokens_of_their_own(self, acme: Api) -> None:
        account = acme.get("/balance?account=acme").json["account"]
        limit(acme, cap("account", "period", 5))
        refused(acme.post("/holds", {"account": "acme", "credits": 6}), 402, "cap_reached")
        assert len(listed(acme)) == 1
        capped = account_api(acme, account, cap=1_000_000)
        capped.post("/usage/batch", {"records": [{"credits": 2}]})
        assert len(listed(acme)) == 2
        held = hold(acme, 5)["id"]
        limit(acme, cap("account", "period", 7))
        refused(acme.post(f"/holds/{held}/extend", {"credits": 8}), 402, "cap_reached")
        assert len(listed(acme)) == 3

    def test_a_changed_cap_is_told_again(self, acme: Api) -> None:
        limit(acme, cap("account", "day", 5))
        refused(spend(acme, 6), 402, "cap_reached")
        limit(acme, cap("account", "day", 7))
        assert standing(acme) == []
        refused(spend(acme, 8), 402, "cap_reached")
        assert standing(acme) == [("cap_reached", None)]

    def test_at_the_same_moment(self, acme: Api) -> None:
        limit(acme, cap("account", "day", 5))
        at_once([lambda: spend(acme, 6)] * 16)
        assert listed(acme) == [("cap_reached", None)]


class TestSpikes:
    def test_a_day_far_above_the_usual_is_told_once(self, operator: Api, app: Flask, at: At) -> None:
        at("2026-11-01T12:00:00Z")
        open_account(operator, credits=100_000)
        for _ in range(10):
            use(operator, 20)
            at.forward(days=1)
            assert registry.run(app, "spike-alerts").outcome == "ok"
        use(operator, 59)
        assert self.found(app) == 0
        use(operator, 2)
        assert (self.found(app), self.found(app)) == (1, 0)
        assert listed(operator) == [("spike", None)]
        assert operator.get("/alerts?account=acme").json["data"][0]["details"]["usual"] == 20
        at.forward(days=2)
        assert standing(operator) == []

    def test_so_does_one_that_took_hours(self, operator: Api, app: Flask, at: At) -> None:
        at("2026-11-01T12:00:00Z")
        open_account(operator, credits=100_000)
        for _ in range(10):
            use(operator, 1)
            at.forward(days=1)
        use(operator, 6)
        at.forward(hours=1)
        assert registry.run(app, "prune").outcome == "ok"
        assert self.found(app) == 0
        use(operator, 6)
        assert self.found(app) == 1

    def test_nothing_is_usual_after_a_few_days(self, operator: Api, app: Flask, at: At) -> None:
        at("2026-11-01T12:00:00Z")
        open_account(operator, credits=100_000)
        for _ in range(5):
            use(operator, 20)
            at.forward(days=1)
        use(operator, 1000)
        assert self.found(app) == 0

    def test_a_weekly_batch_is_usual(self, operator: Api, app: Flask, at: At) -> None:
        at("2026-11-01T12:00:00Z")
        open_account(operator, credits=100_000)
        for day in range(28):
            use(operator, 500 if day % 7 == 0 else 5)
            at.forward(days=1)
        use(operator, 500)
        assert self.found(app) == 0

    def found(self, app: Flask) -> int:
        result = registry.run(app, "spike-alerts")
        assert result.outcome == "ok", result.detail
        return int(result.detail or 0)


class TestPayments:
    def test_other_services_raise_and_settle(self, acme: Api, app: Flask) -> None:
        account = acme.get("/balance?account=acme").json["account"]
        with app.app_context():
            for _ in range(2):
                alerts.raise_now(account, AlertKind.PAYMENT_FAILED, "in_1", {"invoice": "in_1"})
        assert standing(acme) == [("payment_failed", None)]
        with app.app_context(), database.transaction() as session:
            alerts.settle(session.connection(), account, AlertKind.PAYMENT_FAILED)
            alerts.raise_(session.connection(), account, AlertKind.CARD_EXPIRING, "2026-12", {})
        assert standing(acme) == [("card_expiring", None)]


class TestTheList:
    def test_dismissing(self, acme: Api) -> None:
        use(acme, 75)
        account = acme.get("/balance?account=acme").json["account"]
        alert = acme.get("/alerts?account=acme").json["data"][0]
        reader, payer = account_api(acme, account, "read"), account_api(acme, account, "billing", "read")
        refused(reader.post(f"/alerts/{alert['id']}/dismiss"), 403, "missing_scope", scope="billing")
        done = payer.post(f"/alerts/{alert['id']}/dismiss")
        assert done.status == 200 and done.json["dismissed_at"] == "2026-11-21T10:00:00Z"
        assert payer.post(f"/alerts/{alert['id']}/dismiss").json == done.json
        assert listed(acme) == standing(acme) == []
        assert listed(acme, state="dismissed") == listed(acme, state="all") == [("allowance", 70)]
        use(acme, 1)
        assert standing(acme) == []
        other = account_api(acme, open_account(acme, "other"), "billing")
        refused(other.post(f"/alerts/{alert['id']}/dismiss"), 404, "not_found")
        refused(payer.post("/alerts/alt_none/dismiss"), 404, "not_found")

    def test_pages(self, acme: Api, at: At) -> None:
        for _ in range(3):
            use(acme, 75)
            at.forward(days=31)
        first = acme.get("/alerts?account=acme&limit=2").json
        second = acme.get(f"/alerts?account=acme&limit=2&cursor={first['next_cursor']}").json
        rows_ = first["data"] + second["data"]
        assert len({row["id"] for row in rows_}) == 3 and second["next_cursor"] is None
        assert [row["created_at"] for row in rows_] == sorted((row["created_at"] for row in rows_), reverse=True)


def test_they_cost_no_round_trip(acme: Api, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def trips(credits: Any) -> list[list[str]]:
        with Trips().counted(monkeypatch) as seen:
            use(acme, credits)
        return seen.calls

    trips(1)
    usual, crossing = trips(1), trips(75)
    assert len(usual) == len(crossing) == 2
    assert "alerts" not in str(usual) and "alerts" in str(crossing[1])
    assert len(usual[0]) == len(crossing[0])
    if not app.config["SETTINGS"].database_url.startswith("sqlite"):
        assert len(crossing[1]) == len(usual[1]) == 1, "one statement writes it all"


def test_the_database_itself_keeps_them_apart(acme: Api, app: Flask) -> None:
    use(acme, 75)
    with app.app_context():
        with pytest.raises(database.Duplicate), database.transaction() as session:
            first = session.scalars(select(Alert)).one()
            values = {column.name: getattr(first, column.name) for column in Alert.__table__.columns}
            session.execute(Alert.__table__.insert().values(values | {"id": "alt_2"}))
        with database.transaction() as session:
            assert session.scalar(select(func.count()).select_from(Alert)) == 1


def test_what_goes_wrong_with_an_alert_charges_nobody_twice(acme: Api, app: Flask) -> None:
    """Usage that was merged with a refusal is committed before the alert of the refusal is written."""
    limit(acme, cap("subject", "day", 5))
    with app.app_context(), database.transaction() as session:
        session.execute(text("ALTER TABLE alerts RENAME TO lost_alerts"))
    records = [{"credits": 1}, {"credits": 6, "subject": "s"}, {"credits": 2}]
    answer = acme.post("/usage/batch", {"account": "acme", "records": records})
    assert [result["status"] for result in answer.json["results"]] == [201, 402, 201]
    refused(spend(acme, 6, subject="s"), 402, "cap_reached")
    assert acme.get("/balance?account=acme").json["available"] == 97
