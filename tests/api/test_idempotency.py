"""Keys: the same request again is answered again, another one is a conflict, and a refusal keeps nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.api.helpers import (
    NO_SIGNUP,
    account_api,
    balance,
    grant,
    invalid,
    open_account,
    operate,
    refused,
    set_plan,
    untouched,
    use,
)
from tests.factories import Answer, Api
from tests.moments import At

pytestmark = NO_SIGNUP

FULL: dict[str, Any] = {
    "account": "acme",
    "credits": Decimal("1.5"),
    "operation": "document_page",
    "quantity": 3,
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
    "properties": {"document": "d1", "part": [1, {"of": Decimal("2.5")}]},
    "occurred_at": "2026-11-21T09:00:00Z",
    "enforce": True,
}


@pytest.fixture
def acme(service: Api) -> str:
    return open_account(service, credits=100)


def replayed(first: Answer, again: Answer) -> None:
    """The second answer is the first one, and says that it is a repetition."""
    assert (first.status, again.status) == (201, 200), again
    assert again.text == first.text
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers


def test_the_same_request_again_gets_the_same_answer(operator: Api, at: At) -> None:
    acme = open_account(operator, credits=100)
    first = operator.post("/usage", FULL, key="job-991")
    with untouched(operator):
        replayed(first, operator.post("/usage", FULL, key="job-991"))
        replayed(first, operator.post("/usage", {**FULL, "idempotency_key": "job-991"}))
        replayed(first, operator.post("/usage", {**FULL, "idempotency_key": "job-991"}, key="job-991"))
        replayed(first, operator.post("/usage", {**FULL, "account": acme}, key="job-991"))
    use(operator, 5)
    at.forward(days=400)
    replayed(first, operator.post("/usage", FULL, key="job-991"))


@pytest.mark.parametrize(
    "same",
    [
        {"credits": "1.5"},
        {"credits": "1.500000"},
        {"quantity": "3.0"},
        {"actual_cost": "0.02300"},
        {"occurred_at": "2026-11-21T10:00:00+01:00"},
        {"properties": {"part": [1, {"of": Decimal("2.5")}], "document": "d1"}},
    ],
)
def test_values_written_otherwise_are_the_same_request(service: Api, acme: str, at: At, same: Any) -> None:
    replayed(service.post("/usage", FULL, key="k"), service.post("/usage", {**FULL, **same}, key="k"))


def test_defaults_written_out_are_the_same_request(service: Api, acme: str) -> None:
    short = {"account": "acme", "credits": 1}
    long = {"quantity": 1, "success": True, "retry": False, "enforce": True, "subject": None, "properties": {}}
    replayed(service.post("/usage", short, key="k"), service.post("/usage", {**short, **long}, key="k"))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("credits", 2),
        ("operation", "chat"),
        ("quantity", 4),
        ("llm_provider", "other"),
        ("llm_model", "small"),
        ("prompt_tokens", 1),
        ("completion_tokens", 1),
        ("total_tokens", 1),
        ("actual_cost", 1),
        ("success", False),
        ("retry", True),
        ("source", "other"),
        ("subject", "other"),
        ("properties", {"document": "d2"}),
        ("occurred_at", "2026-11-21T09:00:01Z"),
        ("enforce", False),
    ],
)
def test_another_request_is_a_conflict_that_names_the_field(
    service: Api, acme: str, at: At, name: str, other: Any
) -> None:
    service.post("/usage", FULL, key="k")
    with untouched(service):
        refused(service.post("/usage", {**FULL, name: other}, key="k"), 409, "idempotency_conflict", differs=[name])
        left_out = {field: value for field, value in FULL.items() if field != name}
        answer = service.post("/usage", left_out, key="k")
        default = name in ("success", "retry", "enforce")
        assert answer.status == 200 if default else answer.json["differs"] == [name], answer


def test_a_conflict_names_every_field_that_differs(service: Api, acme: str) -> None:
    service.post("/usage", {"account": "acme", "credits": 1}, key="k")
    other = {"account": "acme", "credits": 2, "operation": "chat", "subject": "s"}
    problem = refused(service.post("/usage", other, key="k"), 409, "idempotency_conflict")
    assert sorted(problem["differs"]) == ["credits", "operation", "subject"]


def test_without_a_key_each_request_counts(service: Api, acme: str) -> None:
    assert use(service, 1).json["id"] != use(service, 1).json["id"]
    assert balance(service)["available"] == 98


def test_keys_belong_to_one_account(service: Api, acme: str) -> None:
    open_account(service, "other", 100)
    first = service.post("/usage", {"account": "acme", "credits": 1}, key="k")
    second = service.post("/usage", {"account": "other", "credits": 2}, key="k")
    assert (first.status, second.status) == (201, 201)
    held = [service.post("/holds", {"account": ref, "credits": 1}, key="k").status for ref in ("acme", "other")]
    given = [
        service.post(f"/accounts/{ref}/grants", {"credits": 1, "reason": "x"}, key="k") for ref in ("acme", "other")
    ]
    assert held == [answer.status for answer in given] == [201, 201]


def test_keys_of_accounts_that_spend_together_are_told_apart(operator: Api) -> None:
    """Each account has used one of two keys; now all four pairs come in one request."""
    open_account(operator, credits=100)
    open_account(operator, "other", 100)
    ref_of = {"a": "acme", "b": "other"}
    old = {ref: operator.post("/usage", {"account": ref, "credits": 1}, key=key).json for key, ref in ref_of.items()}
    pairs = [(ref, key) for ref in ref_of.values() for key in ref_of]
    records = [{"account": ref, "credits": 1, "idempotency_key": key} for ref, key in pairs]
    results = operator.post("/usage/batch", {"records": records}).json["results"]
    assert [result["status"] for result in results] == [200, 201, 201, 200]
    assert [results[0]["record"], results[3]["record"]] == [old["acme"], old["other"]]
    assert len({result["record"]["id"] for result in results}) == 4


def test_usage_batch_and_capture_share_one_family_and_holds_and_grants_have_their_own(operator: Api) -> None:
    open_account(operator, credits=100)
    body = {"account": "acme", "credits": 1}
    usage = operator.post("/usage", body, key="k")
    held = operator.post("/holds", body, key="k")
    given = grant(operator, "acme", 1, idempotency_key="k")
    assert (usage.status, held.status, given.status) == (201, 201, 201)
    batch = operator.post("/usage/batch", {"records": [{**body, "idempotency_key": "k"}]}).json["results"][0]
    assert (batch["status"], batch["replayed"], batch["record"]) == (200, True, usage.json)
    with untouched(operator):
        capture = operator.post(f"/holds/{held.json['id']}/capture", {"credits": 1}, key="k")
        refused(capture, 409, "idempotency_conflict", differs=["hold"])
    captured = operator.post(f"/holds/{held.json['id']}/capture", {"credits": 1}, key="c")
    refused(operator.post("/usage", body, key="c"), 409, "idempotency_conflict", differs=["hold"])
    replayed(captured, operator.post(f"/holds/{held.json['id']}/capture", {"credits": 1}, key="c"))


def test_a_key_does_not_belong_to_a_token(service: Api, acme: str) -> None:
    first, second = account_api(service, acme), account_api(service, acme, cap=1_000_000)
    made = first.post("/usage", {"credits": 5}, key="k")
    replayed(made, second.post("/usage", {"credits": 5}, key="k"))
    replayed(made, service.post("/usage", {"account": "acme", "credits": 5}, key="k"))
    held = first.post("/holds", {"credits": 5}, key="k")
    replayed(held, second.post("/holds", {"credits": 5}, key="k"))
    assert second.post("/usage", {"credits": 1}, key="other").status == 201


def test_only_who_may_write_gets_a_replay(service: Api, acme: str) -> None:
    body = {"credits": 1}
    account_api(service, acme).post("/usage", body, key="k")
    refused(account_api(service, acme, "read").post("/usage", body, key="k"), 403, "missing_scope")
    stranger = account_api(service, open_account(service, "other"))
    refused(stranger.post("/usage", {**body, "account": acme}, key="k"), 403, "forbidden")
    refused(stranger.post("/usage", body, key="k"), 402, "insufficient_credits")


def test_a_replay_outlives_voids_suspensions_closing_and_other_rates(operator: Api) -> None:
    open_account(operator, credits=100, rates={"page": "per_unit=2"})
    body = {"account": "acme", "operation": "page", "quantity": 2}
    made = operator.post("/usage", body, key="k")
    held = operator.post("/holds", body, key="k")
    assert made.json["credits"] == held.json["credits"] == 4

    def again() -> None:
        replayed(made, operator.post("/usage", body, key="k"))
        replayed(held, operator.post("/holds", body, key="k"))

    set_plan(operator, "acme", rates={"page": "per_unit=3"})
    again()
    set_plan(operator, "acme", rates={"page": "cost_multiplier=1"})
    again()
    set_plan(operator, "acme")
    again()
    refused(operator.post("/usage", body, key="new"), 422, "unknown_operation")
    assert operator.post(f"/usage/records/{made.json['id']}/void", {"reason": "x"}).status == 200
    assert operator.post(f"/holds/{held.json['id']}/release").status == 200
    again()
    operate(operator, "acme", "suspend")
    again()
    operate(operator, "acme", "close")
    again()
    assert len(operator.get("/usage/records?account=acme").json["data"]) == 1


def test_what_was_refused_may_be_tried_again_with_its_key(service: Api) -> None:
    acme = open_account(service, credits=10)
    capped = account_api(service, acme, cap=2_000_000)
    attempts: list[tuple[Api, dict[str, Any]]] = [
        (service, {"credits": -1}),
        (service, {"operation": "unknown"}),
        (service, {"credits": 11}),
        (capped, {"credits": 3}),
        (service, {"credits": 1, "occurred_at": "2020-01-01T00:00:00Z"}),
    ]
    with untouched(service):
        for path in ("/usage", "/holds"):
            for api, body in attempts:
                assert api.post(path, {"account": "acme", **body}, key="k").status >= 400
    for path in ("/usage", "/holds"):
        assert service.post(path, {"account": "acme", "credits": 1}, key="k").status == 201


def test_holds_are_replayed_with_their_own_fields(service: Api, acme: str, at: At) -> None:
    body = {"account": "acme", "credits": 5, "subject": "u"}
    first = service.post("/holds", body, key="k")
    at.forward(seconds=5)
    use(service, 1)
    replayed(first, service.post("/holds", {**body, "ttl_seconds": 600, "credits": "5.0"}, key="k"))
    for other, differs in (
        ({"credits": 6}, ["credits"]),
        ({"ttl_seconds": 601}, ["ttl_seconds"]),
        ({"subject": "v", "operation": "chat"}, ["operation", "subject"]),
    ):
        answer = service.post("/holds", {**body, **other}, key="k")
        refused(answer, 409, "idempotency_conflict", differs=differs)
    service.post(f"/holds/{first.json['id']}/release")
    at.forward(days=100)
    replayed(first, service.post("/holds", body, key="k"))
    invalid(service.post("/holds", {**body, "idempotency_key": "other"}, key="k"), "idempotency_key")
