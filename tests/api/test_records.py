"""Usage records afterwards: lists, filters, cursors, one record, and voids."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.api.helpers import (
    NO_SIGNUP,
    account_api,
    at_once,
    balance,
    grant,
    hold,
    invalid,
    ledger,
    open_account,
    operate,
    refused,
    set_plan,
    untouched,
    use,
)
from tests.factories import Answer, Api, service_token
from tests.moments import At

pytestmark = NO_SIGNUP


def ids(api: Api, query: str = "") -> list[str]:
    answer = api.get(f"/usage/records?account=acme{query}")
    assert answer.status == 200, answer
    return [record["id"] for record in answer.json["data"]]


def void(api: Api, record: str, reason: str = "test") -> Answer:
    return api.post(f"/usage/records/{record}/void", {"reason": reason})


# Reading


def test_a_list_is_by_when_it_happened_newest_first(operator: Api, at: At) -> None:
    now = at("2026-11-21T10:00:00Z")
    open_account(operator, credits=100)
    hours = [5, 1, 3, 1, 0]
    made = [use(operator, 1, occurred_at=(now - timedelta(hours=h)).isoformat()).json["id"] for h in hours]
    by_time = [made[4], made[3], made[1], made[2], made[0]]
    assert ids(operator) == by_time
    first = operator.get("/usage/records?account=acme&limit=2").json
    assert [record["id"] for record in first["data"]] == by_time[:2]
    newer = use(operator, 1).json["id"]
    second = operator.get(f"/usage/records?account=acme&limit=2&cursor={first['next_cursor']}").json
    assert [record["id"] for record in second["data"]] == by_time[2:4]
    third = operator.get(f"/usage/records?account=acme&limit=2&cursor={second['next_cursor']}").json
    assert [record["id"] for record in third["data"]] == by_time[4:]
    assert third["next_cursor"] is None
    assert ids(operator, "&limit=1") == [newer]


def test_a_page_that_is_just_full_is_the_last(service: Api) -> None:
    open_account(service, credits=100)
    assert service.get("/usage/records?account=acme").json == {"data": [], "next_cursor": None}
    for _ in range(3):
        use(service, 1)
    assert service.get("/usage/records?account=acme&limit=3").json["next_cursor"] is None
    assert service.get("/usage/records?account=acme&limit=2").json["next_cursor"] is not None


def test_fifty_rows_are_shown_unless_told(service: Api) -> None:
    open_account(service, credits=100)
    service.post("/usage/batch", {"records": [{"account": "acme", "credits": 1}] * 60})
    assert len(ids(service)) == 50
    assert len(ids(service, "&limit=200")) == 60


def test_filters_narrow_a_list(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=100)
    a = use(operator, 1, operation="chat", llm_model="large", subject="u1", source="web").json["id"]
    b = use(operator, 1, operation="chat", llm_model="small", subject="u2", source="web").json["id"]
    c = use(operator, 1, operation="page", occurred_at="2026-11-20T00:00:00Z").json["id"]
    for query, found in {
        "&operation=chat": [b, a],
        "&operation=cha": [],
        "&operation=CHAT": [],
        "&operation=%25": [],
        "&model=large": [a],
        "&subject=u2": [b],
        "&source=web": [b, a],
        "&source=web&subject=u1": [a],
        "&from=2026-11-21": [b, a],
        "&to=2026-11-21": [c],
        "&from=2026-11-20&to=2026-11-21": [c],
        "&from=2026-11-20T00:00:00.000001Z&to=2026-11-21T10:00:00Z": [],
        "&to=2026-11-20T00:00:00Z": [],
        "&from=2026-11-21T12:00:00%2B02:00": [b, a],
        "&from=2026-11-22&to=2026-11-21": [],
    }.items():
        assert ids(operator, query) == found, query


def test_one_record_tells_all_that_was_sent(operator: Api, at: At) -> None:
    acme = open_account(operator, credits=100)
    own = account_api(operator, acme)
    sent: dict[str, Any] = {
        "credits": Decimal("1.5"),
        "operation": "document_page",
        "quantity": Decimal("2.5"),
        "llm_provider": "anthropic",
        "llm_model": "large",
        "prompt_tokens": 1234,
        "completion_tokens": 567,
        "total_tokens": 1801,
        "actual_cost": Decimal("0.023"),
        "success": True,
        "retry": False,
        "source": "backend",
        "subject": "user-17",
        "properties": {"document": "d1", "pages": [1, 2]},
        "occurred_at": "2026-11-21T09:30:00Z",
        "enforce": False,
        "idempotency_key": "job-991",
    }
    made = own.post("/usage", sent).json
    read = own.get(f"/usage/records/{made['id']}").json
    assert read.items() >= {**made, **sent}.items()
    assert read["token"].startswith("tok_") and read["voided_at"] is None and read["hold"] is None
    assert operator.get(f"/usage/records/{made['id']}?account=acme").json == read
    assert own.get("/usage/records").json["data"] == [read]


# Voids


def test_a_void_gives_the_credits_back_to_the_very_lots(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=10, included_credits=5)
    second = grant(operator, "acme", 10, expires_at="2027-01-01T00:00:00Z").json["lot"]
    record = use(operator, 18).json
    assert record["consumed"] == {"allowance": 5, "purchased": 0, "granted": 13, "overage": 0, "unfunded": 0}
    drawn = {entry["lot"]: entry["change"] for entry in ledger(operator)[:3]}
    moment = at.forward(minutes=1)
    voided = void(operator, record["id"], "billed twice")
    assert voided.status == 200
    assert voided.json["voided_at"] == moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert voided.json["void_reason"] == "billed twice"
    assert (voided.json["id"], voided.json["credits"]) == (record["id"], 18)
    entries = ledger(operator)[:3]
    assert {entry["lot"]: -entry["change"] for entry in entries} == drawn and second in drawn
    assert {entry["reason"] for entry in entries} == {"void"}
    assert all(entry["cause"] == {"type": "usage", "id": record["id"]} for entry in entries)
    now = balance(operator)
    assert now["available"] == 25
    assert now["allowance"] == {"included": 5, "used": 0, "remaining": 5}
    assert now["granted"] == {"total": 20, "used": 0, "remaining": 20}


def test_a_record_is_voided_once(operator: Api) -> None:
    open_account(operator, credits=10)
    record = use(operator, 4).json["id"]
    answers = at_once([lambda: void(operator, record)] * 6)
    assert sorted(answer.status for answer in answers) == [200] + [409] * 5
    with untouched(operator):
        refused(void(operator, record), 409, "already_voided")
    assert balance(operator)["available"] == 10
    assert [entry["reason"] for entry in ledger(operator)] == ["void", "usage", "grant"]


def test_what_went_to_an_expired_lot_expires_again(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=10)
    soon = grant(operator, "acme", 5, expires_at="2026-11-21T11:00:00Z").json["lot"]
    record = use(operator, 7).json["id"]
    at("2026-11-21T12:00:00Z")
    assert void(operator, record).status == 200
    entries = [(entry["lot"] == soon, entry["change"], entry["reason"]) for entry in ledger(operator)[:3]]
    assert sorted(entries) == [(False, 2, "void"), (True, -5, "expiry"), (True, 5, "void")]
    assert balance(operator)["granted"] == {"total": 10, "used": 0, "remaining": 10}


def test_a_void_in_the_next_period_does_not_raise_its_allowance(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(operator, included_credits=10)
    record = use(operator, 6).json["id"]
    at("2026-12-21T10:00:00Z")
    assert void(operator, record).status == 200
    now = balance(operator)
    assert (now["available"], now["allowance"]) == (10, {"included": 10, "used": 0, "remaining": 10})


def test_a_void_after_a_reset_or_another_plan_does_not_raise_the_allowance(operator: Api, at: At) -> None:
    open_account(operator, included_credits=10)
    for number, replace in enumerate(
        (lambda: operate(operator, "acme", "reset-limit"), lambda: set_plan(operator, "acme", included_credits=10))
    ):
        record = use(operator, 6 + number).json["id"]
        replace()
        assert void(operator, record).status == 200
        assert balance(operator)["allowance"] == {"included": 10, "used": 0, "remaining": 10}


def test_unfunded_usage_shrinks_by_a_void(operator: Api) -> None:
    open_account(operator, credits=10)
    record = operator.post("/usage", {"account": "acme", "credits": 25, "enforce": False}).json["id"]
    other = operator.post("/usage", {"account": "acme", "credits": 3, "enforce": False}).json["id"]
    assert balance(operator)["unfunded"] == 18
    void(operator, record)
    assert (balance(operator)["unfunded"], balance(operator)["available"]) == (3, 10)
    void(operator, other)
    assert (balance(operator)["unfunded"], balance(operator)["available"]) == (0, 10)


@pytest.mark.settings(settle_unfunded=True)
def test_a_void_takes_settlements_back_too(operator: Api) -> None:
    open_account(operator)
    record = operator.post("/usage", {"account": "acme", "credits": 25, "enforce": False}).json["id"]
    grant(operator, "acme", 10)
    assert (balance(operator)["unfunded"], balance(operator)["available"]) == (15, 0)
    void(operator, record)
    now = balance(operator)
    assert (now["unfunded"], now["available"], now["granted"]["used"]) == (0, 10, 0)
    assert [entry["reason"] for entry in ledger(operator)] == ["void", "settle", "grant"]


def test_a_voided_record_stays_listed_and_leaves_the_summaries(service: Api) -> None:
    open_account(service, credits=10)
    kept, gone = use(service, 1).json["id"], use(service, 2).json["id"]
    void(service, gone)
    assert ids(service) == [gone, kept]
    assert service.get(f"/usage/records/{gone}").json["voided_at"] is not None
    total = service.get("/usage/summary?account=acme").json["total"]
    assert (total["credits"], total["records"]) == (1, 1)


def test_a_captured_hold_stays_captured(service: Api) -> None:
    open_account(service, credits=10)
    held = hold(service, 4)["id"]
    record = service.post(f"/holds/{held}/capture").json["id"]
    assert void(service, record).json["hold"] == held
    assert service.get(f"/holds/{held}").json["state"] == "captured"
    assert balance(service)["available"] == 10
    refused(service.post(f"/holds/{held}/capture", key="new"), 409, "hold_not_open")


def test_work_that_was_free_can_be_voided_too(service: Api) -> None:
    open_account(service, credits=10)
    record = use(service, 4, success=False).json["id"]
    assert void(service, record).status == 200
    assert [entry["reason"] for entry in ledger(service)] == ["grant"]


def test_a_void_says_why(service: Api) -> None:
    open_account(service, credits=10)
    record = use(service, 4).json["id"]
    with untouched(service):
        for body in ({}, {"reason": ""}, {"reason": "x" * 501}, {"reason": None}, {"reason": 7}, {"reason": "a\nb"}):
            invalid(service.post(f"/usage/records/{record}/void", body), "reason")


def test_voids_are_the_operators_with_admin(service: Api) -> None:
    acme = open_account(service, credits=10)
    record = use(service, 4).json["id"]
    writer = Api(service.app, service_token(service.app, "read", "write"))
    admin = Api(service.app, service_token(service.app, "admin"))
    with untouched(service):
        refused(void(writer, record), 403, "missing_scope", scope="admin")
        refused(writer.post(f"/usage/records/{record}/void", "{"), 403, "missing_scope", scope="admin")
        refused(void(writer, "use_unknown"), 403, "missing_scope", scope="admin")
        refused(void(account_api(service, acme), record), 403, "forbidden")
        refused(void(account_api(service, acme, "read"), record), 403, "missing_scope", scope="write")
    assert void(admin, record).status == 200


@pytest.mark.settings(allow_account_void=True)
def test_an_account_may_void_for_a_day_where_the_operator_allows_it(service: Api, at: At) -> None:
    acme = open_account(service, credits=10)
    own = account_api(service, acme)
    stranger = account_api(service, open_account(service, "other"))
    first, second, third = (use(service, 1, occurred_at="2026-11-01T00:00:00Z").json["id"] for _ in range(3))
    refused(void(account_api(service, acme, "read"), first), 403, "missing_scope", scope="write")
    refused(void(stranger, first), 404, "not_found")
    assert void(own, first).status == 200
    at.forward(hours=24)
    assert void(own, second).status == 200
    at.forward(microseconds=1)
    with untouched(service):
        refused(void(own, third), 403, "forbidden")
    assert void(service, third).status == 200
    assert balance(service)["available"] == 10
