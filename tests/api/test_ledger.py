"""The ledger as it is read: every change once, in order, with its reason and cause, adding up to the balance."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from tests import factories
from tests.factories import Api
from tests.moments import At


def entries(api: Api, ref: str, limit: int = 200) -> list[Any]:
    """Every entry, oldest first, read page by page."""
    found, cursor = [], ""
    while cursor is not None:
        page = api.get(f"/ledger?account={ref}&limit={limit}{cursor and '&cursor=' + cursor}")
        assert page.status == 200, page
        found += page.json["data"]
        cursor = page.json["next_cursor"]
    return found[::-1]


def told(entry: Any) -> tuple[Any, ...]:
    return entry["kind"], entry["change"], entry["reason"], entry["cause"]["type"]


@pytest.mark.settings(settle_unfunded=True)
def test_each_change_has_its_reason_and_its_cause(app: Flask, operator: Api, at: At) -> None:
    account_id = operator.post("/accounts", {"external_id": "acme", "name": "Acme"}).json["id"]
    grant = {"credits": 10, "reason": "x", "expires_at": "2026-11-22T00:00:00Z"}
    lot = operator.post("/accounts/acme/grants", grant).json["lot"]
    used = operator.post("/usage", {"account": "acme", "credits": 13}).json["id"]
    operator.post(f"/usage/records/{used}/void", {"reason": "x"})
    at("2026-11-23T00:00:00Z")
    operator.post("/accounts/acme/plan", {"tier": "enterprise", "included_credits": 50})
    operator.post("/accounts/acme/reset-limit", {"reason": "x"})
    operator.post("/accounts/acme/plan", {"tier": "free"})
    late = operator.post("/usage", {"account": "acme", "credits": 101, "enforce": False}).json["id"]
    operator.post("/accounts/acme/grants", {"credits": 4, "reason": "x"})

    found = entries(operator, "acme")
    assert [told(entry) for entry in found] == [
        ("granted", 100, "signup", "account"),
        ("granted", 10, "grant", "grant"),
        ("granted", -10, "usage", "usage"),
        ("granted", -3, "usage", "usage"),
        ("granted", 10, "void", "usage"),
        ("granted", 3, "void", "usage"),
        ("granted", -10, "expiry", "lot"),
        ("allowance", 50, "allowance", "subscription"),
        ("allowance", -50, "reset", "account"),
        ("allowance", 50, "reset", "account"),
        ("allowance", -50, "plan_change", "account"),
        ("granted", -100, "usage", "usage"),
        ("granted", 4, "grant", "grant"),
        ("granted", -1, "settle", "usage"),
    ]
    causes = [entry["cause"]["id"] for entry in found]
    assert causes[0] == account_id
    assert causes[1] == lot == causes[6]
    assert causes[2:6] == [used] * 4, "the record's own id, also for what a void gives back"
    assert causes[11] == causes[13] == late
    assert [entry["created_at"] for entry in found[5:8]] == [
        "2026-11-21T10:00:00Z",
        "2026-11-22T00:00:00Z",
        "2026-11-23T00:00:00Z",
    ], "an expiry is dated when it fell due"


def test_entries_add_up_to_the_balance(app: Flask, operator: Api, at: At) -> None:
    factories.account(app, "acme", credits=0, included="20.5")
    for number in range(5):
        operator.post("/accounts/acme/grants", {"credits": f"{number}.100001", "reason": "x"})
        operator.post("/usage", {"account": "acme", "credits": "6.000007", "enforce": False})
    operator.post("/holds", {"account": "acme", "credits": "0.000001"})
    total, lots = 0, {}
    for entry in entries(operator, "acme"):
        total += entry["change"]
        lots[entry["lot"]] = lots.get(entry["lot"], 0) + entry["change"]
        assert entry["balance_after"] == total
        assert entry["lot_remaining"] == lots[entry["lot"]] >= 0
    balance = operator.get("/balance?account=acme").json
    parts = [balance[kind]["remaining"] for kind in ("allowance", "purchased", "granted")]
    assert total == sum(parts)


def test_pages_lose_and_repeat_nothing_while_new_entries_come(app: Flask, operator: Api) -> None:
    factories.account(app, "acme", credits=0)
    for number in range(9):
        operator.post("/accounts/acme/grants", {"credits": number + 1, "reason": "x"})
    known = operator.get("/ledger?account=acme&limit=200").json
    assert known["next_cursor"] is None
    assert [entry["change"] for entry in known["data"][:9]] == list(range(9, 0, -1)), "newest first"
    seen, cursor = [], ""
    while cursor is not None:
        page = operator.get(f"/ledger?account=acme&limit=4{cursor and '&cursor=' + cursor}").json
        seen += page["data"]
        cursor = page["next_cursor"]
        operator.post("/usage", {"account": "acme", "credits": 1})
    assert seen == known["data"]
    ids = [entry["id"] for entry in seen]
    assert len(set(ids)) == len(ids)
    assert all(entry_id.startswith("led_") for entry_id in ids)


def test_an_account_reads_its_own(app: Flask, operator: Api) -> None:
    acme, other = factories.account(app, "acme"), factories.account(app, "other")
    tenant = Api(app, factories.token(app, acme, "read"))
    own = tenant.get("/ledger")
    assert own.json == operator.get("/ledger?account=acme").json == tenant.get("/ledger?account=acme").json
    assert own.json["data"][0]["balance_after"] == 100
    for ref in ("other", other, "nobody"):
        answer = tenant.get(f"/ledger?account={ref}")
        assert (answer.status, answer.code) == (403, "forbidden")
        assert other not in answer.text


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "account"),
        ("account=acme&limit=0", "limit"),
        ("account=acme&limit=201", "limit"),
        ("account=acme&cursor=x", "cursor"),
        ("account=acme&cursor=WyJhIl0", "cursor"),
        ("account=acme&cursor=W10", "cursor"),
        ("account=acme&cursor=WzFlOTldCg", "cursor"),
        ("account=acme&from=2026-11-01", "from"),
        ("account=acme&account=acme", "account"),
    ],
)
def test_a_bad_query_is_named(sqlite_app: Flask, query: str, field: str) -> None:
    factories.account(sqlite_app, "acme")
    answer = Api(sqlite_app, factories.service_token(sqlite_app)).get(f"/ledger?{query}")
    assert (answer.status, answer.code, list(answer.json["errors"])) == (422, "validation_error", [field])
