"""POST /check: the answer that usage would get, without anything being written."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.api.helpers import (
    NO_SIGNUP,
    account_api,
    balance,
    hold,
    invalid,
    ledger,
    open_account,
    operate,
    refused,
    untouched,
)
from tests.factories import Api
from tests.moments import At

pytestmark = NO_SIGNUP


def check(api: Api, **body: Any) -> Any:
    answer = api.post("/check", {"account": "acme", **body})
    assert answer.status == 200, answer
    return answer.json


def test_what_is_covered_is_allowed(operator: Api) -> None:
    open_account(operator, credits=10, rates={"page": "per_unit=0.5"})
    with untouched(operator):
        allowed = {"allowed": True, "code": None, "available": 10, "cure": []}
        assert check(operator, credits=10) == {**allowed, "required": 10}
        assert check(operator, credits=0) == {**allowed, "required": 0}
        assert check(operator, credits="0.000001", subject="u") == {**allowed, "required": Decimal("0.000001")}
        assert check(operator, operation="page", quantity=3) == {**allowed, "required": Decimal("1.5")}
        assert check(operator, credits=2, operation="unheard") == {**allowed, "required": 2}


def test_what_is_not_covered_is_told_with_what_would_cure_it(operator: Api) -> None:
    open_account(operator, credits=10)
    hold(operator, 4)
    with untouched(operator):
        told = check(operator, credits=Decimal("6.000001"))
    assert (told["allowed"], told["code"]) == (False, "insufficient_credits")
    assert (told["required"], told["available"]) == (Decimal("6.000001"), 6)
    assert told["cure"] == ["buy_credits", "upgrade"]


def test_a_cap_and_the_accounts_state_are_told_in_their_order(service: Api) -> None:
    acme = open_account(service, credits=10)
    own = account_api(service, acme, cap=5_000_000)
    with untouched(service):
        assert check(own, credits=5)["allowed"]
        told = check(own, credits=6)
        assert (told["allowed"], told["code"], told["cure"]) == (False, "cap_reached", ["raise_cap"])
        assert check(own, credits=600)["code"] == "cap_reached"
    own.post("/usage", {"credits": 3})
    assert check(own, credits=2)["allowed"] and check(own, credits=3)["code"] == "cap_reached"
    operate(service, "acme", "suspend")
    told = check(own, credits=600)
    assert (told["allowed"], told["code"]) == (False, "account_suspended") and "pay_invoice" in told["cure"]
    operate(service, "acme", "close")
    assert check(service, credits=0)["code"] == "account_closed"


def test_a_check_agrees_with_the_usage_that_follows(operator: Api) -> None:
    acme = open_account(operator, credits=10)
    own = account_api(operator, acme, cap=8_000_000)
    for api, amount in ((own, 3), (own, 6), (own, 5), (operator, 3), (operator, 2), (operator, 1)):
        told = check(api, credits=amount)
        answer = api.post("/usage", {"account": "acme", "credits": amount})
        assert told["allowed"] == (answer.status == 201)
        assert told["code"] == (None if told["allowed"] else answer.code)
        assert told["required"] == amount


def test_expired_credits_and_holds_count_for_nothing(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=5)
    body = {"credits": 5, "reason": "x", "expires_at": "2026-11-21T11:00:00Z"}
    assert operator.post("/accounts/acme/grants", body).status == 201
    hold(operator, 4, ttl_seconds=3600)
    assert check(operator, credits=1)["available"] == 6
    at("2026-11-21T11:00:00Z")
    assert check(operator, credits=1)["available"] == 5
    at("2026-11-21T12:00:00Z")
    assert check(operator, credits=5)["allowed"]
    assert balance(operator)["available"] == 5
    assert [entry["reason"] for entry in ledger(operator)] == ["expiry", "grant", "grant"]


@pytest.mark.parametrize("name", ["idempotency_key", "enforce", "success", "ttl_seconds", "properties"])
def test_a_check_takes_no_field_of_a_record(service: Api, name: str) -> None:
    open_account(service, credits=5)
    invalid(service.post("/check", {"account": "acme", "credits": 1, name: "x"}), name)


def test_what_can_not_be_priced_is_refused(service: Api) -> None:
    open_account(service, credits=5)
    invalid(service.post("/check", {"account": "acme"}), "credits")
    refused(service.post("/check", {"account": "acme", "operation": "unheard"}), 422, "unknown_operation")
    invalid(service.post("/check", {"account": "acme", "operation": "chat", "prompt_tokens": 1}), "completion_tokens")


def test_a_check_needs_only_the_scope_read(service: Api) -> None:
    acme = open_account(service, credits=5)
    assert check(account_api(service, acme, "read"), credits=1)["allowed"]
    refused(account_api(service, acme, "write").post("/check", {"credits": 1}), 403, "missing_scope", scope="read")
