"""GET /usage/summary: every record in its bucket, every bucket there."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.api.helpers import NO_SIGNUP, account_api, balance, invalid, open_account, refused, use
from tests.factories import Api
from tests.moments import At

pytestmark = NO_SIGNUP


def summary(api: Api, query: str) -> Any:
    answer = api.get(f"/usage/summary?account=acme{query}")
    assert answer.status == 200, answer
    body = answer.json
    for name in ("credits", "records", "cost"):
        assert sum(bucket[name] for bucket in body["data"]) == body["total"][name]
    for bucket in (*body["data"], body["total"]):
        assert bucket.keys() - {"start"} == {"credits", "records", "cost", "groups"}
        assert sum(bucket["groups"].values()) == bucket["credits"]
    return body


def used(body: Any) -> list[tuple[str, Any, int]]:
    return [(bucket["start"], bucket["credits"], bucket["records"]) for bucket in body["data"]]


@pytest.fixture
def week(operator: Api, at: At) -> Api:
    """An account with usage of one week, Sunday to Saturday noon, told on that Saturday."""
    at("2026-11-21T12:00:00Z")
    open_account(operator, credits=1000)
    for occurred_at, amount, labels in (
        ("2026-11-15T23:59:59.999999Z", 1, {"operation": "chat", "subject": "u1"}),
        ("2026-11-16T00:00:00Z", 2, {"operation": "chat", "subject": "u2", "source": "web"}),
        ("2026-11-18T10:15:00Z", "3.5", {"operation": "page", "subject": "u1", "llm_model": "large"}),
        ("2026-11-18T10:45:00Z", 4, {"operation": "chat", "actual_cost": "0.023"}),
        ("2026-11-18T11:00:00Z", 5, {"actual_cost": "1.1"}),
        ("2026-11-21T11:59:59Z", 6, {"operation": "chat"}),
    ):
        use(operator, amount, occurred_at=occurred_at, **labels)
    return operator


def test_days_of_a_week(week: Api) -> None:
    body = summary(week, "&from=2026-11-15&to=2026-11-22&interval=day&by=operation")
    assert body["interval"] == "day"
    assert used(body) == [
        ("2026-11-15T00:00:00Z", 1, 1),
        ("2026-11-16T00:00:00Z", 2, 1),
        ("2026-11-17T00:00:00Z", 0, 0),
        ("2026-11-18T00:00:00Z", Decimal("12.5"), 3),
        ("2026-11-19T00:00:00Z", 0, 0),
        ("2026-11-20T00:00:00Z", 0, 0),
        ("2026-11-21T00:00:00Z", 6, 1),
    ]
    assert body["data"][3]["groups"] == {"chat": 4, "page": Decimal("3.5"), "": 5}
    assert body["data"][3]["cost"] == Decimal("1.123")
    assert body["data"][2]["groups"] == {}
    assert body["total"]["groups"] == {"chat": 13, "page": Decimal("3.5"), "": 5}
    assert (body["total"]["credits"], body["total"]["records"]) == (Decimal("21.5"), 6)
    assert body["total"]["credits"] == balance(week)["granted"]["used"]


def test_weeks_begin_on_monday_and_the_outer_ones_are_clipped(week: Api) -> None:
    body = summary(week, "&from=2026-11-12T06:30:00Z&to=2026-11-24T00:00:01Z&interval=week")
    assert used(body) == [
        ("2026-11-12T06:30:00Z", 1, 1),
        ("2026-11-16T00:00:00Z", Decimal("20.5"), 5),
        ("2026-11-23T00:00:00Z", 0, 0),
    ]


def test_hours_are_clipped_in_their_midst(week: Api) -> None:
    body = summary(week, "&from=2026-11-18T10:30:00Z&to=2026-11-18T11:00:00.000001Z&interval=hour")
    assert used(body) == [("2026-11-18T10:30:00Z", 4, 1), ("2026-11-18T11:00:00Z", 5, 1)]
    body = summary(week, "&from=2026-11-18T10:15:00Z&to=2026-11-18T10:45:00Z&interval=hour")
    assert used(body) == [("2026-11-18T10:15:00Z", Decimal("3.5"), 1)]


def test_months_have_their_own_lengths(week: Api) -> None:
    body = summary(week, "&from=2026-01-31T12:00:00Z&to=2026-12-01&interval=month")
    starts = [bucket["start"][:10] for bucket in body["data"]]
    assert starts == ["2026-01-31", *(f"2026-{month:02}-01" for month in range(2, 12))]
    assert body["data"][-1]["credits"] == Decimal("21.5")


def test_the_end_is_not_in_it(week: Api) -> None:
    assert summary(week, "&from=2026-11-15&to=2026-11-16")["total"]["credits"] == 1
    assert summary(week, "&from=2026-11-16&to=2026-11-17")["total"]["credits"] == 2
    assert summary(week, "&from=2026-11-16T00:00:00.000001Z&to=2026-11-17")["total"]["records"] == 0


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("operation", {"chat": 13, "page": Decimal("3.5"), "": 5}),
        ("model", {"large": Decimal("3.5"), "": 18}),
        ("subject", {"u1": Decimal("4.5"), "u2": 2, "": 15}),
        ("source", {"web": 2, "": Decimal("19.5")}),
    ],
)
def test_credits_are_grouped_by_a_label(week: Api, by: str, groups: dict[str, Any]) -> None:
    for span in ("&from=2026-11-15&to=2026-11-22", "&from=2026-11-15T00:00:01Z&to=2026-11-21T23:59:59Z"):
        for interval in ("hour", "day", "week", "month"):
            body = summary(week, f"{span}&interval={interval}&by={by}")
            assert body["total"]["groups"] == groups


def test_what_was_voided_or_is_of_others_does_not_count(week: Api) -> None:
    open_account(week, "other", credits=10)
    week.post("/usage", {"account": "other", "credits": 7})
    for record in week.get("/usage/records?account=acme&operation=chat").json["data"]:
        assert week.post(f"/usage/records/{record['id']}/void", {"reason": "x"}).status == 200
    for interval in ("hour", "day"):
        total = summary(week, f"&from=2026-11-15&to=2026-11-22&interval={interval}")["total"]
        assert (total["credits"], total["records"], total["cost"]) == (Decimal("8.5"), 2, Decimal("1.1"))
        assert {label: much for label, much in total["groups"].items() if much} == {"page": Decimal("3.5"), "": 5}


def test_free_work_is_counted_and_unfunded_work_is_charged(operator: Api) -> None:
    open_account(operator, credits=1)
    use(operator, 5, success=False, actual_cost="0.5")
    use(operator, 5, enforce=False)
    total = summary(operator, "")["total"]
    assert (total["credits"], total["records"], total["cost"]) == (5, 2, Decimal("0.5"))


def test_unless_told_it_is_the_running_period_by_day_and_operation(service: Api, at: At) -> None:
    at("2026-10-05T10:00:00Z")
    open_account(service, credits=100)
    assert summary(service, "")["total"]["records"] == 0
    use(service, 1)
    at("2026-11-07T12:30:00Z")
    use(service, 2, operation="chat")
    body = summary(service, "")
    assert body["interval"] == "day"
    assert used(body) == [
        ("2026-11-05T10:00:00Z", 0, 0),
        ("2026-11-06T00:00:00Z", 0, 0),
        ("2026-11-07T00:00:00Z", 2, 1),
    ]
    assert body["total"]["groups"] == {"chat": 2}


def test_a_thousand_buckets_are_the_most(service: Api) -> None:
    open_account(service)
    start = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    enough, too_many = (start + timedelta(hours=hours) for hours in (1000, 1001))
    query = "&from=2026-01-01&interval=hour&to="
    assert len(summary(service, f"{query}{enough:%Y-%m-%dT%H:%M:%SZ}")["data"]) == 1000
    url = "/usage/summary?account=acme"
    invalid(service.get(f"{url}{query}{too_many:%Y-%m-%dT%H:%M:%SZ}"), "interval")
    invalid(service.get(f"{url}&from=1970-01-01&to=9999-12-31&interval=month"), "interval")
    assert len(summary(service, "&from=9998-12-01&to=9999-12-31&interval=month")["data"]) == 13


def test_what_makes_no_sense_is_refused(service: Api) -> None:
    acme = open_account(service)
    url = "/usage/summary?account=acme"
    invalid(service.get(f"{url}&from=2026-11-21&to=2026-11-21"), "to")
    invalid(service.get(f"{url}&from=2026-11-22&to=2026-11-21"), "to")
    for value in ("minute", "year", "Day", ""):
        invalid(service.get(f"{url}&interval={value}"), "interval")
    for value in ("account", "token", "llm_model", ""):
        invalid(service.get(f"{url}&by={value}"), "by")
    refused(account_api(service, acme, "write").get("/usage/summary"), 403, "missing_scope", scope="read")
