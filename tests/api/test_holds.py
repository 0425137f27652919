"""Holds: credits set aside, captured with less, as much or more, released, extended, expired by the clock alone."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from services import holds
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
    untouched,
    use,
)
from tests.factories import Answer, Api, service_token
from tests.moments import At

pytestmark = NO_SIGNUP


def capture(api: Api, held: str, body: dict[str, Any] | None = None, **more: Any) -> Answer:
    return api.post(f"/holds/{held}/capture", body, **more)


def captured(api: Api, held: str, body: dict[str, Any] | None = None) -> Any:
    answer = capture(api, held, body)
    assert answer.status == 201, answer
    return answer.json


def state(api: Api, held: str) -> str:
    return str(api.get(f"/holds/{held}").json["state"])


# Making


def test_a_hold_sets_credits_aside_without_spending_them(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    acme = open_account(operator, credits=10)
    made = operator.post("/holds", {"account": "acme", "credits": "2.5", "subject": "u", "operation": "chat"})
    assert made.status == 201
    body = made.json
    assert body["id"].startswith("hld_")
    assert body == {
        "id": body["id"],
        "account": acme,
        "state": "open",
        "credits": Decimal("2.5"),
        "operation": "chat",
        "subject": "u",
        "created_at": "2026-11-21T10:00:00Z",
        "expires_at": "2026-11-21T10:10:00Z",
        "balance": {"available": Decimal("7.5"), "allowance": 0, "purchased": 0, "granted": 10, "held": Decimal("2.5")},
    }
    del body["balance"]
    assert operator.get(f"/holds/{body['id']}").json == body
    assert operator.get("/holds?account=acme").json == {"data": [body], "next_cursor": None}
    assert [entry["reason"] for entry in ledger(operator)] == ["grant"]


def test_a_hold_can_be_priced_by_an_operation(service: Api) -> None:
    open_account(service, credits=10, rates={"page": "per_unit=0.5"})
    assert service.post("/holds", {"account": "acme", "operation": "page", "quantity": 3}).json["credits"] == Decimal(
        "1.5"
    )
    with untouched(service):
        refused(service.post("/holds", {"account": "acme", "operation": "unheard"}), 422, "unknown_operation")
        invalid(
            service.post("/holds", {"account": "acme", "operation": "chat", "prompt_tokens": 1}), "completion_tokens"
        )
        invalid(service.post("/holds", {"account": "acme", "operation": "page", "quantity": 0}), "credits")


def test_a_hold_is_of_something_and_lives_from_a_second_to_a_day(service: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(service, credits=10)
    with untouched(service):
        for ttl in (0, 86401, "60", 1.5, -1):
            invalid(service.post("/holds", {"account": "acme", "credits": 1, "ttl_seconds": ttl}), "ttl_seconds")
        invalid(service.post("/holds", {"account": "acme", "credits": 0}), "credits")
        invalid(service.post("/holds", {"account": "acme"}), "credits")
        invalid(service.post("/holds", {"account": "acme", "credits": 1, "enforce": False}), "enforce")
    assert hold(service, 1, ttl_seconds=1)["expires_at"] == "2026-11-21T10:00:01Z"
    assert hold(service, 1, ttl_seconds=86400)["expires_at"] == "2026-11-22T10:00:00Z"


def test_a_hold_is_refused_like_usage(operator: Api) -> None:
    acme = open_account(operator, credits=10)
    capped = account_api(operator, acme, cap=3_000_000)
    hold(operator, 4)
    with untouched(operator):
        answer = operator.post("/holds", {"account": "acme", "credits": "6.5"}, key="k")
        refused(answer, 402, "insufficient_credits", required=Decimal("6.5"), available=6)
        refused(capped.post("/holds", {"credits": 4}), 402, "cap_reached")
    operate(operator, "acme", "suspend")
    with untouched(operator):
        refused(operator.post("/holds", {"account": "acme", "credits": 1}), 403, "account_suspended")
    operate(operator, "acme", "restore")
    assert operator.post("/holds", {"account": "acme", "credits": 6}, key="k").status == 201
    refused(operator.post("/usage", {"account": "acme", "credits": "0.000001"}), 402, "insufficient_credits")
    operate(operator, "acme", "close")
    refused(operator.post("/holds", {"account": "acme", "credits": 1}), 403, "account_closed")


def test_holds_are_listed_newest_first_by_state(operator: Api, at: At) -> None:
    open_account(operator, credits=10)
    made = [hold(operator, 1, ttl_seconds=60 if number == 3 else 600)["id"] for number in range(5)]
    captured(operator, made[0])
    operator.post(f"/holds/{made[1]}/release")
    at.forward(seconds=60)

    def listed(query: str) -> list[str]:
        return [one["id"] for one in operator.get(f"/holds?account=acme{query}").json["data"]]

    assert listed("") == made[::-1]
    assert listed("&state=open") == [made[4], made[2]]
    assert listed("&state=captured") == [made[0]]
    assert listed("&state=released") == [made[1]]
    assert listed("&state=expired") == [made[3]]
    invalid(operator.get("/holds?account=acme&state=closed"), "state")
    page = operator.get("/holds?account=acme&limit=3").json
    assert [one["id"] for one in page["data"]] == made[:1:-1]
    rest = operator.get(f"/holds?account=acme&limit=3&cursor={page['next_cursor']}").json
    assert [one["id"] for one in rest["data"]] == [made[1], made[0]] and rest["next_cursor"] is None


# Capturing


def test_a_capture_without_a_price_takes_what_was_held(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=10)
    held = hold(operator, 4, operation="chat", subject="u")["id"]
    record = captured(operator, held)
    assert (record["hold"], record["credits"], record["operation"]) == (held, 4, "chat")
    assert record["consumed"] == {"allowance": 0, "purchased": 0, "granted": 4, "overage": 0, "unfunded": 0}
    assert record["balance"] == {"available": 6, "allowance": 0, "purchased": 0, "granted": 6, "held": 0}
    kept = operator.get(f"/usage/records/{record['id']}").json
    assert (kept["hold"], kept["subject"]) == (held, "u")
    assert state(operator, held) == "captured"
    assert balance(operator)["held"] == 0


def test_a_capture_may_have_any_field_of_usage(service: Api) -> None:
    open_account(service, credits=10, rates={"page": "per_unit=0.5"})
    held = [hold(service, 2, operation="page", subject="u")["id"] for _ in range(4)]
    assert captured(service, held[0], {"credits": "0.5"})["operation"] == "page"
    assert captured(service, held[1], {"operation": "page", "quantity": 3})["credits"] == Decimal("1.5")
    assert captured(service, held[2], {"credits": 0})["credits"] == 0
    failed = captured(service, held[3], {"success": False, "subject": "v", "properties": {"a": 1}})
    assert (failed["priced"], failed["credits"]) == (2, 0)
    assert service.get(f"/usage/records/{failed['id']}").json["subject"] == "v"
    assert (balance(service)["available"], balance(service)["held"]) == (8, 0)


def test_a_capture_that_can_not_be_priced_leaves_the_hold_open(service: Api) -> None:
    open_account(service, credits=10)
    held = hold(service, 2)["id"]
    with untouched(service):
        refused(capture(service, held, {"operation": "unheard"}), 422, "unknown_operation")
        invalid(capture(service, held, {"operation": "chat", "prompt_tokens": 1}), "completion_tokens")
        invalid(capture(service, held, {"credits": -1}), "credits")
        invalid(capture(service, held, {"credits": 1, "ttl_seconds": 1}), "ttl_seconds")
        invalid(capture(service, held, {"idempotency_key": "a"}, key="b"), "idempotency_key")
        refused(service.post(f"/holds/{held}/capture", "{"), 400, "malformed_json")
        writeless = Api(service.app, service_token(service.app, "read"))
        refused(capture(writeless, held), 403, "missing_scope", scope="write")
        refused(capture(writeless, "hld_unknown"), 403, "missing_scope", scope="write")
    assert captured(service, held)["credits"] == 2


@pytest.mark.parametrize(
    ("amount", "granted", "unfunded", "available"),
    [(3, 3, 0, 4), (5, 5, 0, 2), (7, 7, 0, 0), (Decimal("7.5"), 7, Decimal("0.5"), 0), (50, 7, 43, 0)],
)
def test_beyond_the_held_amount_a_capture_leaves_other_holds_theirs(
    service: Api, amount: Any, granted: Any, unfunded: Any, available: Any
) -> None:
    open_account(service, credits=10)
    held, other = hold(service, 5)["id"], hold(service, 3)["id"]
    record = captured(service, held, {"credits": amount})
    assert (record["consumed"]["granted"], record["consumed"]["unfunded"]) == (granted, unfunded)
    assert record["balance"]["available"] == available and record["balance"]["held"] == 3
    assert balance(service)["unfunded"] == unfunded
    assert captured(service, other)["consumed"] == {
        "allowance": 0,
        "purchased": 0,
        "granted": 3,
        "overage": 0,
        "unfunded": 0,
    }


def test_a_hold_keeps_its_amount_when_others_do_not_fit_any_more(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=4)
    grant(operator, "acme", 6, expires_at="2026-11-21T10:05:00Z")
    first, second = hold(operator, 5)["id"], hold(operator, 5)["id"]
    at("2026-11-21T10:05:00Z")
    record = captured(operator, first, {"credits": 5})
    assert (record["consumed"]["granted"], record["consumed"]["unfunded"]) == (4, 1)
    assert captured(operator, second)["consumed"]["unfunded"] == 5


def test_work_that_was_held_is_taken_from_a_suspended_account_but_not_from_a_closed_one(service: Api) -> None:
    open_account(service, credits=10)
    first, second = hold(service, 2)["id"], hold(service, 2)["id"]
    operate(service, "acme", "suspend")
    assert captured(service, first)["credits"] == 2
    operate(service, "acme", "close")
    with untouched(service):
        refused(capture(service, second), 403, "account_closed")


def test_after_its_expiry_a_hold_is_captured_once_as_work_done_already(operator: Api, at: At) -> None:
    open_account(operator, credits=10)
    held = hold(operator, 4, ttl_seconds=60)["id"]
    other = hold(operator, 3, ttl_seconds=600)["id"]
    at.forward(seconds=60)
    assert state(operator, held) == "expired"
    use(operator, 6)
    record = captured(operator, held)
    assert (record["credits"], record["hold"]) == (4, held)
    assert (record["consumed"]["granted"], record["consumed"]["unfunded"]) == (1, 3)
    assert state(operator, held) == "captured"
    with untouched(operator):
        refused(capture(operator, held), 409, "hold_not_open", state="captured")
    assert captured(operator, other)["consumed"]["granted"] == 3


def test_an_expired_hold_that_the_sweeper_has_met_is_captured_all_the_same(operator: Api, at: At) -> None:
    open_account(operator, credits=10)
    held = hold(operator, 4, ttl_seconds=60)["id"]
    at.forward(days=40)
    with operator.app.app_context():
        assert holds.expire_due() == 1
        assert holds.expire_due() == 0
    assert state(operator, held) == "expired"
    operate(operator, "acme", "suspend")
    assert captured(operator, held, {"credits": 11})["consumed"] == {
        "allowance": 0,
        "purchased": 0,
        "granted": 10,
        "overage": 0,
        "unfunded": 1,
    }


def test_a_hold_that_was_taken_or_released_is_not_taken_again(operator: Api) -> None:
    open_account(operator, credits=10)
    taken, released = hold(operator, 2)["id"], hold(operator, 2)["id"]
    first = capture(operator, taken, {"credits": 1}, key="k")
    operator.post(f"/holds/{released}/release")
    with untouched(operator):
        refused(capture(operator, taken), 409, "hold_not_open", state="captured")
        refused(capture(operator, taken, {"credits": 1}, key="other"), 409, "hold_not_open")
        refused(capture(operator, taken, {"credits": 2}, key="k"), 409, "idempotency_conflict", differs=["credits"])
        refused(capture(operator, released), 409, "hold_not_open", state="released")
        refused(capture(operator, released, {"credits": 1}, key="k"), 409, "idempotency_conflict", differs=["hold"])
        again = capture(operator, taken, {"credits": 1}, key="k")
    assert (again.status, again.text) == (200, first.text)
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_capture_of_the_held_amount_is_replayed_too(service: Api) -> None:
    open_account(service, credits=10)
    held = hold(service, 2, operation="chat", subject="u")["id"]
    first = capture(service, held, key="k")
    for body in (None, {"credits": 2}, {"subject": "u", "operation": None}, {"account": "acme"}):
        again = capture(service, held, body, key="k")
        assert (again.status, again.text) == (200, first.text), body


def test_a_body_of_a_capture_and_a_release_may_be_left_out(service: Api) -> None:
    open_account(service, credits=10)
    first, second = hold(service, 2)["id"], hold(service, 2)["id"]
    assert service("POST", f"/holds/{first}/capture").status == 201
    assert service("POST", f"/holds/{second}/release").status == 200


def test_a_capture_at_the_same_moment_counts_once(operator: Api) -> None:
    open_account(operator, credits=10)
    held = hold(operator, 4)["id"]
    keyed = at_once([lambda: capture(operator, held, key="k")] * 6)
    assert sorted(answer.status for answer in keyed) == [200] * 5 + [201]
    other = hold(operator, 4)["id"]
    bare = at_once([lambda: capture(operator, other)] * 6)
    assert sorted(answer.status for answer in bare) == [201] + [409] * 5
    assert balance(operator)["available"] == 2


def test_holds_at_the_same_moment_never_hold_more_than_there_is(operator: Api) -> None:
    open_account(operator, credits=6)
    answers = at_once([lambda: operator.post("/holds", {"account": "acme", "credits": 2})] * 8)
    assert sorted(answer.status for answer in answers) == [201] * 3 + [402] * 5
    same = at_once([lambda: operator.post("/holds", {"account": "acme", "credits": 6}, key="k")] * 4)
    assert [answer.status for answer in same] == [402] * 4
    for answer in answers:
        if answer.status == 201:
            operator.post(f"/holds/{answer.json['id']}/release")
    same = at_once([lambda: operator.post("/holds", {"account": "acme", "credits": 6}, key="k")] * 6)
    assert sorted(answer.status for answer in same) == [200] * 5 + [201]
    assert len({answer.text for answer in same}) == 1
    assert balance(operator)["held"] == 6


# Releasing and extending


def test_a_release_frees_the_credits_and_may_be_repeated(operator: Api, at: At) -> None:
    open_account(operator, credits=10)
    held, expired = hold(operator, 4)["id"], hold(operator, 3, ttl_seconds=60)["id"]
    released = operator.post(f"/holds/{held}/release")
    assert (released.status, released.json["state"], released.json["balance"]["available"]) == (200, "released", 7)
    at.forward(seconds=60)
    with untouched(operator):
        assert operator.post(f"/holds/{held}/release").json["state"] == "released"
        answer = operator.post(f"/holds/{expired}/release")
        assert (answer.status, answer.json["state"]) == (200, "expired")
    assert balance(operator)["available"] == 10
    taken = hold(operator, 1)["id"]
    captured(operator, taken)
    with untouched(operator):
        refused(operator.post(f"/holds/{taken}/release"), 409, "hold_not_open", state="captured")


def test_a_hold_can_live_longer_and_hold_more(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=10)
    held = hold(operator, 4, ttl_seconds=60)["id"]
    path = f"/holds/{held}/extend"
    at("2026-11-21T10:00:59Z")
    longer = operator.post(path, {"ttl_seconds": 120})
    assert (longer.status, longer.json["expires_at"], longer.json["credits"]) == (200, "2026-11-21T10:02:59Z", 4)
    more = operator.post(path, {"credits": "9.5"})
    assert (more.json["credits"], more.json["expires_at"]) == (Decimal("9.5"), "2026-11-21T10:02:59Z")
    assert more.json["balance"]["available"] == Decimal("0.5") and more.json["balance"]["held"] == Decimal("9.5")
    shorter = operator.post(path, {"ttl_seconds": 1, "credits": 10})
    assert (shorter.json["credits"], shorter.json["expires_at"]) == (10, "2026-11-21T10:01:00Z")
    with untouched(operator):
        refused(operator.post(path, {"credits": "10.000001"}), 402, "insufficient_credits")
        refused(operator.post(path, {"credits": 11, "ttl_seconds": 600}), 402, "insufficient_credits")
        invalid(operator.post(path, {"credits": 9}), "credits")
        invalid(operator.post(path, {"credits": 0}), "credits")
        invalid(operator.post(path, {}), "ttl_seconds")
        invalid(operator.post(path, {"account": "acme"}), "ttl_seconds")
        invalid(operator.post(path, {"ttl_seconds": 86401}), "ttl_seconds")
    assert captured(operator, held)["credits"] == 10


def test_only_an_open_hold_is_extended(service: Api, at: At) -> None:
    open_account(service, credits=10)
    expired = hold(service, 1, ttl_seconds=60)["id"]
    taken, released, open_one = (hold(service, 1)["id"] for _ in range(3))
    captured(service, taken)
    service.post(f"/holds/{released}/release")
    at.forward(seconds=60)
    for held, told in ((expired, "expired"), (taken, "captured"), (released, "released")):
        with untouched(service):
            answer = service.post(f"/holds/{held}/extend", {"ttl_seconds": 60})
            refused(answer, 409, "hold_not_open", state=told)
    operate(service, "acme", "suspend")
    refused(service.post(f"/holds/{open_one}/extend", {"ttl_seconds": 60}), 403, "account_suspended")


def test_an_expired_hold_holds_nothing_though_nobody_swept(operator: Api, at: At) -> None:
    open_account(operator, credits=10)
    held = hold(operator, 10, ttl_seconds=60)["id"]
    at.forward(seconds=59)
    refused(operator.post("/usage", {"account": "acme", "credits": 1}), 402, "insufficient_credits")
    at.forward(seconds=1)
    assert balance(operator)["available"] == 10
    assert state(operator, held) == "expired"
    assert use(operator, 10).json["balance"] == {
        "available": 0,
        "allowance": 0,
        "purchased": 0,
        "granted": 0,
        "held": 0,
    }
