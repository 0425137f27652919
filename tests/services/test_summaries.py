"""The summary says what adding up the records by hand says, whatever the range, the buckets and the label."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, func, select

import clock
import database
from errors import ValidationError
from jobs import registry
from models.usage import RecentUsage, SubjectHour, UsageHour
from services import hours, summaries, verify
from tests import factories
from tests.moments import At
from tests.together import at_once

LABELS = {"operation": ["chat", "page", None], "llm_model": ["large", None], "subject": ["u1", "u2", "u3", None]}
NAMES = {"operation": "operation", "model": "llm_model", "subject": "subject", "source": "source"}


@pytest.fixture
def account(app: Flask, at: At) -> str:
    """Two hundred records over 35 days in five hours of each day, every seventh of them voided."""
    now = at("2026-11-21T10:30:00Z")
    account_id = factories.account(app, included=50_000)
    operator = factories.Api(app, factories.service_token(app))
    chance = random.Random(7)
    for _ in range(2):
        records = [record(chance, account_id, now) for _ in range(100)]
        answer = operator.post("/usage/batch", {"records": records})
        assert answer.json["accepted"] == 100, answer
        for result in answer.json["results"][::7]:
            assert operator.post(f"/usage/records/{result['record']['id']}/void", {"reason": "x"}).status == 200
    return account_id


def record(chance: random.Random, account_id: str, now: datetime) -> dict[str, Any]:
    moment = now - timedelta(days=chance.randrange(35), hours=chance.randrange(5), microseconds=chance.randrange(10**9))
    body: dict[str, Any] = {
        "account": account_id,
        "credits": Decimal(chance.randrange(1, 10**7)).scaleb(-6),
        "occurred_at": clock.rfc3339(moment),
        "actual_cost": chance.choice([Decimal("0.1"), Decimal("0.000000000123"), None]),
        "source": chance.choice(["api", None]),
    }
    body |= {name: chance.choice(values) for name, values in LABELS.items()}
    return {name: value for name, value in body.items() if value is not None}


def listed(app: Flask, account_id: str) -> list[dict[str, Any]]:
    operator = factories.Api(app, factories.service_token(app))
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = operator.get(f"/usage/records?account={account_id}&limit=200{cursor and '&cursor=' + cursor}").json
        found += page["data"]
        cursor = page["next_cursor"]
    return [one for one in found if one.get("voided_at") is None]


def by_hand(records: list[dict[str, Any]], start: datetime, end: datetime, interval: str, by: str) -> Any:
    ranges = summaries.buckets(start, end, interval)
    sums = []
    for low, high in ranges:
        inside = [one for one in records if low <= datetime.fromisoformat(one["occurred_at"]) < high]
        groups: dict[str, Any] = defaultdict(int)
        for one in inside:
            groups[one[NAMES[by]] or ""] += one["credits"]
        cost = sum((one["actual_cost"] or 0 for one in inside), Decimal(0))
        sums.append((low, sum(one["credits"] for one in inside), len(inside), cost, dict(groups)))
    return sums


RANGES = [
    ("2026-10-17T00:00:00Z", "2026-11-22T00:00:00Z"),
    ("2026-10-30T07:12:34.000001Z", "2026-11-20T08:59:59.999999Z"),
    ("2026-11-20T07:10:00Z", "2026-11-20T07:50:00Z"),
    ("2026-11-20T07:59:00Z", "2026-11-20T08:01:00Z"),
    ("2026-11-21T00:00:00Z", "2026-11-21T11:00:00Z"),
]


def close_hours(app: Flask) -> None:
    result = registry.run(app, "prune")
    assert result.outcome == "ok", result.detail


def rows(app: Flask, table: Any) -> int:
    with app.app_context(), database.snapshot() as conn:
        return conn.execute(select(func.count()).select_from(table)).scalar_one()


def test_the_summary_is_what_the_records_add_up_to(app: Flask, account: str, at: At) -> None:
    records = listed(app, account)
    assert len(records) == 200 - 30
    agrees(app, account, records)
    close_hours(app)
    assert rows(app, RecentUsage) > 0, "the running hour goes on"
    assert rows(app, UsageHour) > 0 and rows(app, SubjectHour) > 0
    agrees(app, account, records)
    # What is taken out of hours that are over, among it all there was of a label in one.
    operator = factories.Api(app, factories.service_token(app))
    for record in records[::3]:
        assert operator.post(f"/usage/records/{record['id']}/void", {"reason": "x"}).status == 200
    records = [one for number, one in enumerate(records) if number % 3]
    agrees(app, account, records)
    at.forward(hours=1)
    close_hours(app)
    assert rows(app, RecentUsage) == 0
    agrees(app, account, records)
    close_hours(app)
    agrees(app, account, records)


def agrees(app: Flask, account: str, records: list[dict[str, Any]]) -> None:
    with app.app_context():
        assert verify.verify().differences == []
    for (start, end), interval, by in product(RANGES, summaries.INTERVALS, NAMES):
        low, high = (datetime.fromisoformat(text).astimezone(UTC) for text in (start, end))
        with app.app_context():
            told = summaries.summary(account, low, high, interval, by)
        shown = [(b["start"], b["credits"], b["records"], b["cost"], b["groups"]) for b in told["data"]]
        expected = by_hand(records, low, high, interval, by)
        assert shown == expected, (start, interval, by)
        assert told["total"]["credits"] == sum(one[1] for one in expected)
        assert told["total"]["records"] == sum(one[2] for one in expected)
        assert told["total"]["cost"] == sum(one[3] for one in expected)


def test_verify_compares_the_sums_with_the_records(app: Flask, account: str) -> None:
    with app.app_context():
        assert verify.verify().differences == []
        with database.transaction() as session:
            session.execute(delete(RecentUsage).where(RecentUsage.operation == "chat", RecentUsage.subject == "u1"))
        told = [str(difference) for difference in verify.verify().differences]
        assert {line.split()[1] for line in told} == {"usage_hours", "subject_hours"}
        assert all("chat" in line for line in told if "usage_hours" in line)
        assert all("u1" in line for line in told if "subject_hours" in line)


def test_verify_looks_at_hours_that_are_over(app: Flask, account: str) -> None:
    close_hours(app)
    with app.app_context():
        with database.transaction() as session:
            session.execute(delete(UsageHour).where(UsageHour.operation == "chat"))
        told = [str(difference) for difference in verify.verify().differences]
    assert told
    assert all("usage_hours" in line and "chat" in line for line in told)


def test_hours_are_closed_while_usage_is_recorded(app: Flask, at: At) -> None:
    """Nothing is counted twice and nothing is lost, whoever comes first."""
    now = at("2026-11-21T10:30:00Z")
    account = factories.account(app, included=50_000)
    operator = factories.Api(app, factories.service_token(app))
    moments = [clock.rfc3339(now - timedelta(hours=1 + hour)) for hour in range(3)]

    def record() -> bool:
        bodies = [{"account": account, "credits": 1, "subject": "u1", "occurred_at": one} for one in moments * 10]
        return all(operator.post("/usage", body).status == 201 for body in bodies)

    def close() -> bool:
        for _ in range(10):
            with app.app_context():
                hours.close_due()
        return True

    assert all(at_once(record, record, record, close, close))
    close()
    assert rows(app, RecentUsage) == 0 and rows(app, UsageHour) == rows(app, SubjectHour) == 3
    with app.app_context():
        assert verify.verify().differences == []
        told = summaries.summary(account, now - timedelta(hours=5), now, "hour", "subject")
    assert told["total"] == {"credits": 90, "records": 90, "cost": 0, "groups": {"u1": 90}}


def test_many_accounts_are_closed_a_few_at_a_time(app: Flask, at: At) -> None:
    at("2026-11-21T10:30:00Z")
    operator = factories.Api(app, factories.service_token(app))
    accounts = [factories.account(app, f"acme-{number}") for number in range(7)]
    for account in accounts:
        assert operator.post("/usage", {"account": account, "credits": 1}).status == 201
    at.forward(hours=1)
    with app.app_context():
        assert [hours.close_due(3), hours.close_due(3), hours.close_due(3), hours.close_due(3)] == [3, 3, 1, 0]
    assert rows(app, UsageHour) == 7 and rows(app, SubjectHour) == 0


def test_impossible_ranges_are_refused(sqlite_app: Flask) -> None:
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    with pytest.raises(ValidationError):
        summaries.buckets(moment, moment, "day")
    with pytest.raises(ValidationError):
        summaries.buckets(moment, moment + timedelta(hours=1001), "hour")
    assert len(summaries.buckets(moment, moment + timedelta(hours=1000), "hour")) == 1000
