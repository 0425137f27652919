"""POST /usage: prices, the waterfall, refusals that leave nothing behind, what is recorded in any case."""

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
    books,
    grant,
    invalid,
    ledger,
    open_account,
    operate,
    refused,
    set_plan,
    untouched,
    use,
)
from tests.factories import Api
from tests.moments import At

pytestmark = NO_SIGNUP

RATES = {
    "page": "per_unit=0.5",
    "chat": "prompt_per_1k=0.5,completion_per_1k=1.5,minimum=0.1,maximum=20",
    "chat@small": "prompt_per_1k=0.05",
    "cost": "cost_multiplier=1.2",
    "whole": "per_unit=0.4,round=up,bill_failed=1",
    "retried": "per_unit=1,bill_retry=1",
    "always": "per_unit=1,bill_failed=1,bill_retry=1",
    "third": "per_unit=0.333333",
}


@pytest.fixture
def acme(service: Api) -> str:
    return open_account(service, credits=1000, rates=RATES)


# The answer and the waterfall


def test_the_answer_is_complete_and_agrees_with_the_books(operator: Api, at: At) -> None:
    acme = open_account(operator, credits=100, included_credits=10)
    moment = at.forward(seconds=1)
    made = operator.post("/usage", {"account": "acme", "credits": Decimal("12.5"), "operation": "chat"})
    assert made.status == 201
    answer = made.json
    assert answer.pop("id").startswith("use_")
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert answer == {
        "account": acme,
        "credits": Decimal("12.5"),
        "priced": Decimal("12.5"),
        "operation": "chat",
        "consumed": {"allowance": 10, "purchased": 0, "granted": Decimal("2.5"), "overage": 0, "unfunded": 0},
        "balance": {
            "available": Decimal("97.5"),
            "allowance": 0,
            "purchased": 0,
            "granted": Decimal("97.5"),
            "held": 0,
        },
        "occurred_at": stamp,
        "recorded_at": stamp,
    }
    now = balance(operator)
    assert now["available"] == Decimal("97.5")
    assert now["allowance"] == {"included": 10, "used": 10, "remaining": 0}
    assert now["granted"] == {"total": 100, "used": Decimal("2.5"), "remaining": Decimal("97.5")}
    newest, before = ledger(operator)[:2]
    assert (newest["kind"], newest["change"], newest["reason"]) == ("granted", Decimal("-2.5"), "usage")
    assert (before["kind"], before["change"], before["reason"]) == ("allowance", -10, "usage")
    assert newest["cause"] == before["cause"] == {"type": "usage", "id": made.json["id"]}
    assert (newest["balance_after"], before["balance_after"]) == (Decimal("97.5"), 100)


def test_granted_credits_go_soonest_expiry_first(operator: Api, at: At) -> None:
    now = at("2026-11-21T10:00:00Z")
    open_account(operator)
    forever = grant(operator, "acme", 5).json["lot"]
    later = grant(operator, "acme", 5, expires_at=(now + timedelta(days=9)).isoformat()).json["lot"]
    sooner = grant(operator, "acme", 5, expires_at=(now + timedelta(days=2)).isoformat()).json["lot"]
    use(operator, 12)
    drawn = [(entry["lot"], entry["change"]) for entry in reversed(ledger(operator)) if entry["reason"] == "usage"]
    assert drawn == [(sooner, -5), (later, -5), (forever, -2)]


def test_an_expired_lot_is_never_spent(operator: Api, at: At) -> None:
    now = at("2026-11-21T10:00:00Z")
    ends = now + timedelta(hours=1)
    open_account(operator)
    grant(operator, "acme", 5, expires_at=ends.isoformat())
    at(ends - timedelta(microseconds=1))
    use(operator, 2)
    at(ends)
    refused(operator.post("/usage", {"account": "acme", "credits": 1}), 402, "insufficient_credits", available=0)
    newest = ledger(operator)[0]
    assert (newest["reason"], newest["change"], newest["created_at"]) == ("expiry", -3, "2026-11-21T11:00:00Z")
    assert balance(operator)["granted"] == {"total": 2, "used": 2, "remaining": 0}


# Prices


@pytest.mark.parametrize(
    ("body", "credits"),
    [
        ({"operation": "page"}, "0.5"),
        ({"operation": "page", "quantity": 3}, "1.5"),
        ({"operation": "page", "quantity": "2.5"}, "1.25"),
        ({"operation": "page", "quantity": 0}, "0"),
        ({"operation": "page", "llm_model": "small"}, "0.5"),
        ({"operation": "chat", "prompt_tokens": 1234, "completion_tokens": 567}, "1.4675"),
        ({"operation": "chat", "prompt_tokens": 1, "completion_tokens": 0}, "0.1"),
        ({"operation": "chat", "prompt_tokens": 10**6, "completion_tokens": 0}, "20"),
        ({"operation": "chat", "llm_model": "small", "prompt_tokens": 10}, "0.0005"),
        ({"operation": "chat", "llm_model": "SMALL", "prompt_tokens": 10, "completion_tokens": 10}, "0.1"),
        ({"operation": "cost", "actual_cost": "0.023"}, "2.76"),
        ({"operation": "cost", "actual_cost": "0.000000004166"}, "0"),
        ({"operation": "cost", "actual_cost": "0.0000000041666666"}, "0"),
        ({"operation": "cost", "actual_cost": "0.00000000416666666666666666667"}, "0.000001"),
        ({"operation": "whole"}, "1"),
        ({"operation": "whole", "quantity": 5}, "2"),
        ({"operation": "third", "quantity": "0.5"}, "0.166667"),
        ({"operation": "third", "quantity": "0.000001"}, "0"),
    ],
)
def test_an_operation_is_priced_by_its_rate(service: Api, acme: str, body: dict[str, Any], credits: str) -> None:
    made = service.post("/usage", {"account": "acme", **body})
    assert made.status == 201, made
    assert made.json["credits"] == made.json["priced"] == Decimal(credits)
    assert made.json["operation"] == body["operation"]
    assert balance(service)["available"] == 1000 - Decimal(credits)


def test_explicit_credits_win_and_the_operation_is_a_label(service: Api, acme: str) -> None:
    assert use(service, 7, operation="page", quantity=100).json["credits"] == 7
    assert use(service, 3, operation="never heard of").json["operation"] == "never heard of"
    assert use(service, 1, operation="chat").json["credits"] == 1


def test_a_price_can_be_nothing(service: Api, acme: str) -> None:
    made = use(service, 0)
    assert made.json["credits"] == 0 and made.json["balance"]["available"] == 1000
    assert not [entry for entry in ledger(service) if entry["reason"] == "usage"]
    assert service.get("/usage/records?account=acme").json["data"][0]["id"] == made.json["id"]


def test_what_can_not_be_priced_is_refused(service: Api, acme: str) -> None:
    with untouched(service):
        invalid(service.post("/usage", {"account": "acme"}), "credits")
        invalid(service.post("/usage", {"account": "acme", "quantity": 3}), "credits")
        refused(service.post("/usage", {"account": "acme", "operation": "unknown"}), 422, "unknown_operation")
        refused(service.post("/usage", {"account": "acme", "operation": "Page"}), 422, "unknown_operation")
        invalid(service.post("/usage", {"account": "acme", "operation": "cost"}), "actual_cost")
        chat = {"account": "acme", "operation": "chat"}
        invalid(service.post("/usage", chat), "prompt_tokens", "completion_tokens")
        invalid(service.post("/usage", {**chat, "prompt_tokens": 1}), "completion_tokens")
        invalid(service.post("/usage", {**chat, "llm_model": "small", "completion_tokens": 1}), "prompt_tokens")
        much = {"account": "acme", "operation": "page", "quantity": 1_000_000_000, "enforce": False}
        assert service.post("/check", {"account": "acme", "operation": "page", "quantity": 10**9}).status == 200
        invalid(service.post("/usage", {**much, "operation": "cost", "actual_cost": 10**9}), "operation")


@pytest.mark.parametrize(
    ("operation", "failed", "retry", "both"),
    [(None, 0, 0, 0), ("page", 0, 0, 0), ("whole", 1, 0, 0), ("retried", 0, 1, 0), ("always", 1, 1, 1)],
)
def test_failed_work_and_retries_cost_what_the_rate_says(
    service: Api, acme: str, operation: str | None, failed: int, retry: int, both: int
) -> None:
    body = {"account": "acme", "credits": 5} | ({"operation": operation} if operation else {})
    for markers, billed in (
        ({"success": False}, failed),
        ({"retry": True}, retry),
        ({"success": False, "retry": True}, both),
        ({"success": True, "retry": False}, 1),
    ):
        made = service.post("/usage", {**body, **markers}).json
        assert (made["priced"], made["credits"]) == (5, 5 * billed)
        assert sum(made["consumed"].values()) == 5 * billed


def test_free_work_needs_no_credits(service: Api) -> None:
    open_account(service)
    made = service.post("/usage", {"account": "acme", "credits": 50, "success": False})
    assert made.status == 201 and made.json["priced"] == 50 and made.json["credits"] == 0


# Refusals


def test_a_402_changes_nothing_and_stores_nothing(operator: Api) -> None:
    open_account(operator, credits=10)
    body = {"account": "acme", "credits": Decimal("10.000001")}
    with untouched(operator):
        answer = operator.post("/usage", body, key="k")
        refused(answer, 402, "insufficient_credits", required=Decimal("10.000001"), available=10)
        refused(operator.post("/usage", body, key="k"), 402, "insufficient_credits")
    grant(operator, "acme", 1)
    made = operator.post("/usage", body, key="k")
    assert made.status == 201 and "Idempotent-Replayed" not in made.headers
    assert (
        operator.post("/usage", {"account": "acme", "credits": Decimal("0.999999")}).json["balance"]["available"] == 0
    )
    refused(operator.post("/usage", {"account": "acme", "credits": Decimal("0.000001")}), 402, "insufficient_credits")


def test_a_suspended_account_is_refused_until_it_is_restored(service: Api, acme: str) -> None:
    operate(service, "acme", "suspend")
    with untouched(service):
        refused(service.post("/usage", {"account": "acme", "credits": 1}, key="k"), 403, "account_suspended")
        refused(service.post("/usage", {"account": "acme", "credits": 0}), 403, "account_suspended")
        refused(service.post("/usage", {"account": "acme", "credits": 5000}), 403, "account_suspended")
    operate(service, "acme", "restore")
    assert service.post("/usage", {"account": "acme", "credits": 1}, key="k").status == 201


def test_a_closed_account_takes_nothing_more(service: Api, acme: str) -> None:
    own = account_api(service, acme)
    body = {"account": "acme", "credits": 1}
    kept = service.post("/usage", body, key="before")
    operate(service, "acme", "close")
    with untouched(service):
        for more in ({}, {"enforce": False}, {"credits": 5000}):
            refused(service.post("/usage", {**body, **more}), 403, "account_closed")
        refused(own.post("/usage", {"credits": 1}), 401, "unauthenticated")
    replay = service.post("/usage", body, key="before")
    assert (replay.status, replay.json) == (200, kept.json)


@pytest.mark.settings(operator_only_fields=frozenset({"enforce", "success", "retry", "occurred_at"}))
def test_fields_can_be_the_operators_alone(service: Api, acme: str, at: At) -> None:
    own = account_api(service, acme, "read", "write")
    held = service.post("/holds", {"account": "acme", "credits": 1}).json["id"]
    reserved = {"enforce": True, "success": True, "retry": False, "occurred_at": at.forward(seconds=1).isoformat()}
    with untouched(service):
        for name, value in reserved.items():
            refused(own.post("/usage", {"credits": 1, name: value}), 403, "forbidden")
            refused(own.post(f"/holds/{held}/capture", {name: value}), 403, "forbidden")
            batch = own.post("/usage/batch", {"records": [{"credits": 1, name: value}]}).json
            assert batch["results"][0]["status"] == 403
            assert batch["results"][0]["error"]["code"] == "forbidden"
        reader = account_api(service, acme, "read")
        refused(reader.post("/usage", {"credits": 1, "enforce": True}), 403, "missing_scope")
    assert own.post("/usage", {"credits": 1}).status == 201
    assert service.post("/usage", {"account": "acme", "credits": 1, **reserved}).status == 201


@pytest.mark.settings(operator_only_fields=frozenset({"credits"}))
def test_no_hold_goes_around_a_reserved_price(service: Api, acme: str) -> None:
    own = account_api(service, acme)
    refused(own.post("/usage", {"credits": 1}), 403, "forbidden")
    refused(own.post("/holds", {"credits": 1}), 403, "forbidden")
    held = own.post("/holds", {"operation": "page"}).json["id"]
    refused(own.post(f"/holds/{held}/extend", {"credits": 2}), 403, "forbidden")
    assert own.post(f"/holds/{held}/capture").json["credits"] == Decimal("0.5")


# Done already


def test_finished_work_is_always_recorded(operator: Api) -> None:
    open_account(operator, credits=10)
    done = {"account": "acme", "credits": 25, "enforce": False}
    made = operator.post("/usage", done)
    assert made.status == 201
    assert made.json["credits"] == 25
    assert made.json["consumed"] == {"allowance": 0, "purchased": 0, "granted": 10, "overage": 0, "unfunded": 15}
    operate(operator, "acme", "suspend")
    assert operator.post("/usage", done).json["consumed"]["unfunded"] == 25
    now = balance(operator)
    assert (now["unfunded"], now["available"], now["debt"]) == (40, 0, 0)
    operate(operator, "acme", "restore")
    grant(operator, "acme", 100)
    now = balance(operator)
    assert (now["unfunded"], now["available"]) == (40, 100)


def test_finished_work_leaves_open_holds_their_credits(service: Api) -> None:
    open_account(service, credits=10)
    held = service.post("/holds", {"account": "acme", "credits": 8}).json["id"]
    made = service.post("/usage", {"account": "acme", "credits": 5, "enforce": False}).json
    assert (made["consumed"]["granted"], made["consumed"]["unfunded"]) == (2, 3)
    captured = service.post(f"/holds/{held}/capture").json
    assert (captured["consumed"]["granted"], captured["consumed"]["unfunded"]) == (8, 0)


@pytest.mark.settings(settle_unfunded=True)
def test_a_grant_settles_what_no_lot_had_covered_if_the_operator_wants_it(operator: Api) -> None:
    open_account(operator)
    first, second = (
        operator.post("/usage", {"account": "acme", "credits": much, "enforce": False}).json["id"] for much in (10, 20)
    )
    set_plan(operator, "acme", included_credits=5)
    assert balance(operator)["unfunded"] == 30
    granted = grant(operator, "acme", 12).json
    assert granted["balance"]["granted"] == 0
    now = balance(operator)
    assert (now["unfunded"], now["allowance"]["remaining"]) == (18, 5)
    settled = [(entry["change"], entry["cause"]["id"]) for entry in ledger(operator) if entry["reason"] == "settle"]
    assert settled == [(-2, second), (-10, first)]
    assert operator.get(f"/usage/records/{second}").json["settled"] == 2
    grant(operator, "acme", 100)
    now = balance(operator)
    assert (now["unfunded"], now["granted"]["remaining"]) == (0, 82)


# When it happened


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("2026-11-20T23:59:59Z", "2026-11-20T23:59:59Z"),
        ("2026-11-20T23:59:59.123456Z", "2026-11-20T23:59:59.123456Z"),
        ("2026-11-21T01:00:00+05:30", "2026-11-20T19:30:00Z"),
        ("2026-11-20t20:00:00z", "2026-11-20T20:00:00Z"),
        ("2026-10-17T10:00:00Z", "2026-10-17T10:00:00Z"),
        ("2026-11-21T10:05:00Z", "2026-11-21T10:05:00Z"),
    ],
)
def test_usage_may_be_told_of_later(service: Api, acme: str, at: At, sent: str, kept: str) -> None:
    at("2026-11-21T10:00:00Z")
    made = use(service, 1, occurred_at=sent).json
    assert (made["occurred_at"], made["recorded_at"]) == (kept, "2026-11-21T10:00:00Z")


def test_backdated_usage_is_paid_from_what_there_is_now(service: Api, at: At) -> None:
    at("2026-11-01T10:00:00Z")
    open_account(service, included_credits=10)
    at("2026-12-02T10:00:00Z")
    use(service, 4, occurred_at="2026-11-20T10:00:00Z")
    assert balance(service)["allowance"] == {"included": 10, "used": 4, "remaining": 6}


@pytest.mark.parametrize("moment", ["2026-10-17T09:59:59Z", "2026-11-21T10:05:00.000001Z", "1969-12-31T23:59:59Z"])
def test_usage_of_too_long_ago_or_to_come_is_refused(service: Api, acme: str, at: At, moment: str) -> None:
    at("2026-11-21T10:00:00Z")
    with untouched(service):
        body = {"account": "acme", "credits": 1, "occurred_at": moment}
        invalid(service.post("/usage", body), "occurred_at")
        invalid(service.post("/usage", {**body, "enforce": False}), "occurred_at")


# At once


def test_the_same_key_at_the_same_moment_counts_once(operator: Api) -> None:
    open_account(operator, credits=10)
    body = {"account": "acme", "credits": 3, "operation": "chat"}
    answers = at_once([lambda: operator.post("/usage", body, key="same")] * 8)
    assert sorted(answer.status for answer in answers) == [200] * 7 + [201]
    assert len({answer.text for answer in answers}) == 1
    assert balance(operator)["available"] == 7
    assert len(operator.get("/usage/records?account=acme").json["data"]) == 1


def test_different_requests_with_one_key_at_the_same_moment_leave_one(operator: Api) -> None:
    open_account(operator, credits=10)
    bodies = [{"account": "acme", "credits": number, "idempotency_key": "same"} for number in range(1, 7)]
    answers = at_once([lambda body=body: operator.post("/usage", body) for body in bodies])
    assert sorted(answer.status for answer in answers) == [201] + [409] * 5
    spent = next(answer.json["credits"] for answer in answers if answer.status == 201)
    assert balance(operator)["available"] == 10 - spent


def test_nobody_spends_a_credit_twice(operator: Api) -> None:
    open_account(operator, credits=6)
    answers = at_once([lambda: operator.post("/usage", {"account": "acme", "credits": 1})] * 12)
    assert sorted(answer.status for answer in answers) == [201] * 6 + [402] * 6
    accepted = [answer.json["balance"]["available"] for answer in answers if answer.status == 201]
    assert sorted(accepted) == [0, 1, 2, 3, 4, 5]
    after = books(operator)
    assert after["balance"]["available"] == 0
    assert [entry["balance_after"] for entry in after["/ledger"]] == [0, 1, 2, 3, 4, 5, 6]
