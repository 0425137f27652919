"""A token's own cap: credits per period, held ones included, whatever the account has."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.api.helpers import (
    NO_SIGNUP,
    account_api,
    at_once,
    balance,
    open_account,
    operate,
    refused,
    untouched,
)
from tests.factories import Answer, Api
from tests.moments import At

pytestmark = NO_SIGNUP


def spend(api: Api, credits: str | int, **more: object) -> Answer:
    return api.post("/usage", {"credits": credits, **more})


def test_a_cap_counts_what_the_token_charged(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    acme = open_account(operator, credits=100)
    capped, free = account_api(operator, acme, cap=5_500_000), account_api(operator, acme)
    assert spend(capped, 3).status == spend(free, 50).status == 201
    with untouched(operator):
        answer = spend(capped, "2.500001", idempotency_key="k")
        problem = refused(answer, 402, "cap_reached", resets_at="2026-12-21T10:00:00Z")
        assert problem["cap"].items() >= {"scope": "token", "window": "period", "credits": Decimal("5.5")}.items()
        assert problem["cap"]["used"] == 3
    assert spend(capped, "2.5", idempotency_key="k").status == 201
    refused(spend(capped, "0.000001"), 402, "cap_reached")
    assert spend(capped, 0).status == 201
    assert spend(capped, 9, success=False).status == 201
    assert spend(free, 10).status == 201


def test_a_cap_is_told_before_a_shortfall(service: Api) -> None:
    acme = open_account(service, credits=3)
    capped = account_api(service, acme, cap=5_000_000)
    refused(spend(capped, 6), 402, "cap_reached")
    refused(spend(capped, 4), 402, "insufficient_credits")


def test_a_cap_begins_anew_with_the_period_and_with_a_reset(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    acme = open_account(operator, credits=100, included_credits=10)
    capped = account_api(operator, acme, cap=5_000_000)
    assert spend(capped, 5).status == 201
    at("2026-12-21T09:59:59Z")
    refused(spend(capped, 1), 402, "cap_reached")
    at("2026-12-21T10:00:00Z")
    assert spend(capped, 5).status == 201
    refused(spend(capped, 1), 402, "cap_reached", resets_at="2027-01-21T10:00:00Z")
    operate(operator, "acme", "reset-limit")
    assert spend(capped, 5).status == 201
    refused(spend(capped, 1), 402, "cap_reached")


def test_open_holds_of_the_token_count(operator: Api, at: At) -> None:
    acme = open_account(operator, credits=100)
    capped, other = account_api(operator, acme, cap=5_000_000), account_api(operator, acme, cap=5_000_000)
    held = capped.post("/holds", {"credits": 4, "ttl_seconds": 60})
    assert held.status == 201
    with untouched(operator):
        refused(spend(capped, 2), 402, "cap_reached")
        refused(capped.post("/holds", {"credits": 2}), 402, "cap_reached")
        refused(capped.post(f"/holds/{held.json['id']}/extend", {"credits": 6}), 402, "cap_reached")
    assert spend(other, 5).status == 201
    assert capped.post(f"/holds/{held.json['id']}/extend", {"credits": 5}).status == 200
    refused(spend(capped, 1), 402, "cap_reached")
    at.forward(seconds=60)
    assert spend(capped, 1).status == 201
    second = capped.post("/holds", {"credits": 4}).json["id"]
    assert capped.post(f"/holds/{second}/release").status == 200
    assert spend(capped, 4).status == 201
    refused(spend(capped, 1), 402, "cap_reached")


def test_a_capture_counts_and_is_never_refused(operator: Api) -> None:
    acme = open_account(operator, credits=100)
    capped = account_api(operator, acme, cap=5_000_000)
    held = capped.post("/holds", {"credits": 4}).json["id"]
    assert capped.post(f"/holds/{held}/capture", {"credits": 7}).json["credits"] == 7
    refused(spend(capped, 1), 402, "cap_reached")


def test_finished_work_passes_the_cap_and_counts(service: Api) -> None:
    acme = open_account(service, credits=100)
    capped = account_api(service, acme, cap=5_000_000)
    assert spend(capped, 7, enforce=False).status == 201
    answer = spend(capped, 1)
    assert refused(answer, 402, "cap_reached")["cap"]["used"] == 7
    assert spend(capped, 200, enforce=False).json["consumed"]["unfunded"] == 107
    assert refused(spend(capped, 1), 402, "cap_reached")["cap"]["used"] == 207


def test_a_batch_is_capped_record_by_record(operator: Api) -> None:
    acme = open_account(operator, credits=100)
    capped = account_api(operator, acme, cap=5_000_000)
    results = capped.post("/usage/batch", {"records": [{"credits": n} for n in (3, 3, 2, 1, 0)]}).json["results"]
    assert [result["status"] for result in results] == [201, 402, 201, 402, 201]
    assert results[1]["error"]["code"] == "cap_reached" and results[1]["error"]["resets_at"]
    refused(spend(capped, 1), 402, "cap_reached")


def test_a_void_lowers_the_count_of_the_running_period(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    acme = open_account(operator, credits=100)
    capped = account_api(operator, acme, cap=5_000_000)
    old = spend(capped, 5).json["id"]
    at("2026-12-21T10:00:00Z")
    record = spend(capped, 5).json["id"]
    assert operator.post(f"/usage/records/{old}/void", {"reason": "x"}).status == 200
    refused(spend(capped, 1), 402, "cap_reached")
    assert operator.post(f"/usage/records/{record}/void", {"reason": "x"}).status == 200
    assert spend(capped, 5).status == 201
    refused(spend(capped, 1), 402, "cap_reached")


def test_a_void_of_what_a_reset_has_forgotten_lowers_nothing(operator: Api, at: At) -> None:
    acme = open_account(operator, credits=100, included_credits=10)
    capped = account_api(operator, acme, cap=5_000_000)
    record = spend(capped, 5).json["id"]
    at.forward(seconds=1)
    operate(operator, "acme", "reset-limit")
    assert spend(capped, 5).status == 201
    assert operator.post(f"/usage/records/{record}/void", {"reason": "x"}).status == 200
    refused(spend(capped, 1), 402, "cap_reached")


def test_a_replay_is_not_counted_again(service: Api) -> None:
    acme = open_account(service, credits=100)
    capped = account_api(service, acme, cap=5_000_000)
    for status in (201, 200, 200):
        assert spend(capped, 3, idempotency_key="k").status == status
    assert spend(capped, 2).status == 201


def test_a_cap_holds_at_the_same_moment(operator: Api) -> None:
    acme = open_account(operator, credits=100)
    capped = account_api(operator, acme, cap=5_000_000)
    answers = at_once([lambda: spend(capped, 1)] * 10)
    assert sorted(answer.status for answer in answers) == [201] * 5 + [402] * 5
    assert balance(operator)["available"] == 95


@pytest.mark.parametrize("cap", [0, 1])
def test_a_cap_of_next_to_nothing_still_allows_free_work(service: Api, cap: int) -> None:
    acme = open_account(service, credits=100)
    capped = account_api(service, acme, cap=cap)
    assert spend(capped, 0).status == 201
    refused(spend(capped, "0.000002"), 402, "cap_reached")
