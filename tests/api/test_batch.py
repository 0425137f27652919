"""POST /usage/batch: each record on its own, in order, and safe to send again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

import database as databases
from services import verify
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
    untouched,
)
from tests.factories import Answer, Api, service_token
from tests.moments import At

pytestmark = NO_SIGNUP


def batch(api: Api, *records: Any) -> Any:
    answer = api.post("/usage/batch", {"records": records})
    assert answer.status == 200, answer
    body = answer.json
    assert len(body["results"]) == len(records)
    assert body["accepted"] + body["refused"] == len(records)
    assert body["accepted"] == sum(result["status"] < 300 for result in body["results"])
    return body


def statuses(body: Any) -> list[int]:
    return [result["status"] for result in body["results"]]


def of(ref: str, credits: Any, **more: Any) -> dict[str, Any]:
    return {"account": ref, "credits": credits, **more}


def test_each_record_is_decided_on_its_own_and_in_order(operator: Api) -> None:
    open_account(operator, credits=10)
    body = batch(operator, of("acme", 8), of("acme", 5), of("acme", Decimal("1.5")), of("acme", 1), of("acme", "0.5"))
    assert statuses(body) == [201, 402, 201, 402, 201]
    assert (body["accepted"], body["refused"]) == (3, 2)
    left = [result["record"]["balance"]["available"] for result in body["results"] if "record" in result]
    assert left == [2, Decimal("0.5"), 0]
    problem = body["results"][1]["error"]
    assert (problem["code"], problem["status"]) == ("insufficient_credits", 402)
    assert (problem["required"], problem["available"]) == (5, 2)
    assert problem["title"] and problem["detail"] and problem["type"]
    assert [entry["balance_after"] for entry in ledger(operator)] == [0, Decimal("0.5"), 2, 10]
    assert len(operator.get("/usage/records?account=acme").json["data"]) == 3


def test_a_record_is_what_a_single_request_answers(service: Api, at: At) -> None:
    open_account(service, credits=10)
    record = of("acme", 2, operation="chat", properties={"a": 1})
    result = batch(service, record)["results"][0]
    single = service.post("/usage", record)
    assert result.keys() == {"status", "record"}
    assert result["record"].keys() == single.json.keys()
    assert result["record"]["consumed"] == single.json["consumed"]


def test_every_refusal_is_its_records_alone(operator: Api) -> None:
    open_account(operator, credits=10)
    for ref, action in (("held-up", "suspend"), ("gone", "close")):
        open_account(operator, ref, credits=10)
        operate(operator, ref, action)
    operator.post("/usage", of("acme", 1, idempotency_key="used"))
    records: list[tuple[Any, int, str]] = [
        (of("acme", -1), 422, "validation_error"),
        ({"account": "acme"}, 422, "validation_error"),
        ({"credits": 1}, 422, "validation_error"),
        (of("acme", 1, unknown=True), 422, "validation_error"),
        (of("acme", 1, occurred_at="2020-01-01T00:00:00Z"), 422, "validation_error"),
        ({"account": "acme", "operation": "chat"}, 422, "validation_error"),
        ({"account": "acme", "operation": "unheard"}, 422, "unknown_operation"),
        (of("acme", 1, subject="\x00"), 422, "validation_error"),
        (of("acme", 1, properties={"a": "\ud800"}), 422, "validation_error"),
        (of("acme", 1, **{"\ud800": 1}), 422, "validation_error"),
        (7, 422, "validation_error"),
        (None, 422, "validation_error"),
        ([of("acme", 1)], 422, "validation_error"),
        (of("nobody", 1), 404, "account_not_found"),
        (of("held-up", 1), 403, "account_suspended"),
        (of("gone", 1), 403, "account_closed"),
        (of("acme", 2, idempotency_key="used"), 409, "idempotency_conflict"),
        (of("acme", 100), 402, "insufficient_credits"),
    ]
    before = [books(operator, ref) for ref in ("held-up", "gone")]
    body = batch(operator, *(record for record, _, _ in records), of("acme", 4))
    told = [(result["status"], result["error"]["code"]) for result in body["results"][:-1]]
    assert told == [(status, code) for _, status, code in records]
    assert all(result.keys() == {"status", "error"} for result in body["results"][:-1])
    assert (body["accepted"], body["refused"]) == (1, len(records))
    assert body["results"][0]["error"]["errors"].keys() == {"credits"}
    assert body["results"][3]["error"]["errors"].keys() == {"unknown"}
    assert body["results"][5]["error"]["errors"].keys() == {"prompt_tokens", "completion_tokens"}
    assert body["results"][16]["error"]["differs"] == ["credits"]
    assert balance(operator)["available"] == 5
    assert [books(operator, ref) for ref in ("held-up", "gone")] == before


def test_a_batch_can_be_for_many_accounts(operator: Api) -> None:
    refs = [f"team-{number}" for number in range(5)]
    for ref in refs:
        open_account(operator, ref, credits=3)
    body = batch(operator, *(of(ref, 2) for _ in range(2) for ref in refs))
    assert statuses(body) == [201] * 5 + [402] * 5
    assert [balance(operator, ref)["available"] for ref in refs] == [1] * 5


def test_an_account_token_records_for_its_own_account_only(service: Api) -> None:
    acme = open_account(service, credits=10)
    open_account(service, "other", credits=10)
    own = account_api(service, acme)
    with untouched(service, "other"):
        body = batch(own, {"credits": 1}, of("other", 1), of("nobody", 1), of("acme", 1), of(acme, 1))
    assert statuses(body) == [201, 403, 403, 201, 201]
    assert {result["error"]["code"] for result in body["results"][1:3]} == {"forbidden"}


def test_a_batch_that_was_half_seen_can_be_sent_again(operator: Api) -> None:
    open_account(operator, credits=10)
    records = [of("acme", 4, idempotency_key=f"k{number}") for number in range(3)]
    first = batch(operator, *records)
    assert statuses(first) == [201, 201, 402]
    with untouched(operator):
        again = batch(operator, *records)
    assert statuses(again) == [200, 200, 402]
    assert [result.get("replayed") for result in again["results"]] == [True, True, None]
    assert [result["record"] for result in again["results"][:2]] == [
        result["record"] for result in first["results"][:2]
    ]
    assert (again["accepted"], again["refused"]) == (2, 1)
    grant(operator, "acme", 10)
    assert statuses(batch(operator, *records)) == [200, 200, 201]


def test_a_key_twice_in_one_batch_counts_once(operator: Api) -> None:
    open_account(operator, credits=10)
    open_account(operator, "other", credits=10)
    same = of("acme", 4, idempotency_key="k")
    body = batch(operator, same, same, {**same, "credits": 5}, of("other", 4, idempotency_key="k"))
    assert statuses(body) == [201, 200, 409, 201]
    assert body["results"][1]["record"] == body["results"][0]["record"]
    assert body["results"][2]["error"]["differs"] == ["credits"]
    assert (balance(operator)["available"], balance(operator, "other")["available"]) == (6, 6)


def test_a_refused_record_leaves_its_key_to_the_next(service: Api) -> None:
    open_account(service, credits=10)
    body = batch(service, of("acme", 20, idempotency_key="k"), of("acme", 2, idempotency_key="k"))
    assert statuses(body) == [402, 201]


def test_a_batch_has_1_to_1000_records_and_no_key_of_its_own(service: Api) -> None:
    open_account(service, credits=1000)
    with untouched(service):
        invalid(service.post("/usage/batch", {"records": []}), "records")
        invalid(service.post("/usage/batch", {"records": [of("acme", 1)] * 1001}), "records")
        invalid(service.post("/usage/batch", {}), "records")
        invalid(service.post("/usage/batch", {"records": None}), "records")
        invalid(service.post("/usage/batch", {"records": of("acme", 1)}), "records")
        invalid(service.post("/usage/batch", {"records": [of("acme", 1)]}, key="k"), "Idempotency-Key")
        invalid(service.post("/usage/batch", {"records": [of("acme", 1)], "idempotency_key": "k"}), "idempotency_key")


def test_a_full_batch_is_exact(operator: Api) -> None:
    open_account(operator, credits=100)
    body = batch(operator, *(of("acme", "0.1", idempotency_key=f"k{number}") for number in range(1000)))
    assert (body["accepted"], body["refused"]) == (1000, 0)
    assert len({result["record"]["id"] for result in body["results"]}) == 1000
    assert body["results"][-1]["record"]["balance"]["available"] == 0
    assert balance(operator)["available"] == 0


def test_the_whole_batch_needs_the_scope(service: Api) -> None:
    open_account(service, credits=10)
    reader = Api(service.app, service_token(service.app, "read"))
    with untouched(service):
        for records in ([of("acme", 1)], [of("acme", 1), of("acme", -1)], [of("acme", -1)], [of("nobody", 1)], []):
            refused(reader.post("/usage/batch", {"records": records}), 403, "missing_scope", scope="write")
        keyed = reader.post("/usage/batch", {"records": [of("acme", 1)]}, headers={"Idempotency-Key": "k"})
        refused(keyed, 403, "missing_scope", scope="write")


@pytest.mark.parametrize("records", [[], [of("acme", 1)]])
def test_nobody_is_told_anything_without_a_token(service: Api, records: list[Any]) -> None:
    refused(Api(service.app, None).post("/usage/batch", {"records": records}), 401, "unauthenticated")


def test_batches_that_cross_neither_block_each_other_nor_count_twice(operator: Api) -> None:
    refs = [f"team-{number}" for number in range(6)]
    for ref in refs:
        open_account(operator, ref, credits=10)
    orders = [refs, refs[::-1], refs[3:] + refs[:3], refs[1::2] + refs[::2]]

    def send(order: list[str]) -> Any:
        records = [of(ref, 1, idempotency_key=f"k{number}") for number in range(3) for ref in order]
        return operator.post("/usage/batch", {"records": records})

    answers = at_once([lambda order=order: send(order) for order in orders])
    assert [answer.json["accepted"] for answer in answers] == [18] * 4
    made = sorted(result["status"] for answer in answers for result in answer.json["results"])
    assert made == [200] * 54 + [201] * 18
    assert [balance(operator, ref)["available"] for ref in refs] == [7] * 6


def test_a_key_that_many_accounts_use_is_each_accounts_own(operator: Api) -> None:
    """So many that they are looked up account by account."""
    for ref in ("acme", "other"):
        open_account(operator, ref, credits=100)
    keys = [f"k{number}" for number in range(40)]
    acme, other = ([of(ref, 1, idempotency_key=key) for key in keys] for ref in ("acme", "other"))
    made = batch(operator, *acme)
    assert statuses(made) == [201] * 40
    both = batch(operator, *acme, *other)
    assert statuses(both) == [200] * 40 + [201] * 40
    assert [result["record"] for result in both["results"][:40]] == [result["record"] for result in made["results"]]
    assert statuses(batch(operator, *other, *acme)) == [200] * 80
    assert [balance(operator, ref)["available"] for ref in ("acme", "other")] == [60, 60]


def at_one_moment(app: Flask, calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Their answers; all of them wait for somebody else who writes, until the last one has come."""
    with ThreadPoolExecutor(len(calls)) as pool:
        with app.app_context(), databases.connection() as conn:
            conn.execute(text("UPDATE accounts SET seq = seq"))
            sent = [pool.submit(call) for call in calls]
            time.sleep(0.5)
        return [future.result(60) for future in sent]


def test_batches_that_come_together_are_recorded_together_and_answered_apart(operator: Api) -> None:
    acme = open_account(operator, credits=200)
    open_account(operator, "other", credits=50)
    with_gone_token = account_api(operator, acme, "write")
    own = account_api(operator, acme, "write")
    assert with_gone_token.post("/usage", {"credits": 1}).status == 201
    assert operator.delete(f"/tokens/tok_{str(with_gone_token.token)[4:20]}").status == 204
    keyed = [of("acme", 1, idempotency_key=f"k{number}") for number in range(60)]
    batches = [
        (operator, keyed),
        (operator, keyed),
        (operator, [of("other", "0.5", subject=f"s{number}") for number in range(60)]),
        (with_gone_token, [{"credits": 1}] * 3),
        (own, [{"credits": 2}, of("other", 1), {"credits": 900}, {"credits": -1}]),
        (operator, [of("nobody", 1), of("other", 3), of("acme", 4), of("other", 900)]),
    ]
    calls = [partial(api.post, "/usage/batch", {"records": records}) for api, records in batches]
    first, again, others, gone, mine, mixed = at_one_moment(operator.app, calls)
    assert sorted([set(statuses(first.json)), set(statuses(again.json))], key=sum) == [{200}, {201}]
    assert [result["record"]["id"] for result in first.json["results"]] == [
        result["record"]["id"] for result in again.json["results"]
    ]
    assert statuses(others.json) == [201] * 60
    refused(gone, 401, "unauthenticated")
    assert statuses(mine.json) == [201, 403, 402, 422]
    assert statuses(mixed.json) == [404, 201, 201, 402]
    assert (balance(operator)["available"], balance(operator, "other")["available"]) == (133, 17)
    moments = {
        result["record"]["recorded_at"]
        for answer in (first, again, others, mine, mixed)
        for result in answer.json["results"]
        if "record" in result
    }
    assert len(moments) <= 2, "they were written one after another"


FAILS = {
    "sqlite": ["CREATE TRIGGER fails BEFORE INSERT ON usage_records WHEN NEW.operation = 'bad' BEGIN {fails} END"],
    "postgresql": [
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$",
        "CREATE TRIGGER fails BEFORE INSERT ON usage_records FOR EACH ROW WHEN (NEW.operation = 'bad')"
        " EXECUTE FUNCTION fails()",
    ],
}
"""The database refuses a record, for a reason that nobody thought of."""


@pytest.mark.parametrize("size", [1, 60])
def test_what_the_database_refuses_spoils_only_the_call_it_came_with(
    operator: Api, database: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    open_account(operator, credits=1000)
    with operator.app.app_context(), databases.connection() as conn:
        for statement in FAILS[database]:
            conn.execute(text(statement.replace("{fails}", "SELECT RAISE(ABORT, 'no');")))

    def call(operation: str) -> Answer:
        record = of("acme", 1, operation=operation)
        return (
            operator.post("/usage", record)
            if size == 1
            else operator.post("/usage/batch", {"records": [record] * size})
        )

    operations = ["good", "good", "bad", "good", "bad", "good"]
    answers = at_one_moment(operator.app, [partial(call, operation) for operation in operations])
    told = {"good": 201 if size == 1 else 200, "bad": 500}
    assert [answer.status for answer in answers] == [told[operation] for operation in operations]
    assert balance(operator)["available"] == 1000 - 4 * size
    with operator.app.app_context():
        assert verify.verify().differences == []
    assert "no" in caplog.text


ODD = [
    "NULL",
    "null",
    "a,b",
    "{a}",
    "{",
    '"',
    '"a"',
    "\\",
    "\\\\",
    '\\"',
    "'",
    " a ",
    "%s",
    "$1",
    "ä€😀",
    "a;--",
    "a\u2028b",
]


@pytest.mark.parametrize("odds", [ODD, [odd for odd in ODD if not {'"', "\\"} & {*odd}]], ids=["all", "unquoted"])
def test_what_databases_write_specially_comes_back_as_it_was_sent(operator: Api, odds: list[str]) -> None:
    """As a subject, a key and a property, many at once and alone."""
    open_account(operator, credits=100)
    records = [of("acme", 1, subject=odd, idempotency_key=odd, properties={odd: odd}, retry=odd == "{") for odd in odds]
    assert statuses(batch(operator, *records)) == [201] * len(odds)
    assert statuses(batch(operator, *records)) == [200] * len(odds)
    assert operator.post("/usage", records[0]).status == 200
    kept = operator.get("/usage/records?account=acme&limit=100").json["data"]
    assert {row["subject"]: (row["idempotency_key"], row["properties"], row["retry"]) for row in kept} == {
        odd: (odd, {odd: odd}, odd == "{") for odd in odds
    }


SHAPES: list[dict[str, Any]] = [
    {
        "operation": "chat",
        "quantity": "1.5",
        "llm_provider": "a, b",
        "llm_model": 'the "large"',
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "actual_cost": Decimal("1.0"),
        "success": False,
        "retry": True,
        "enforce": False,
        "source": "worker\\1",
        "subject": "NULL",
        "properties": {"of": "{all}"},
        "occurred_at": "2026-02-28T12:30:00.25Z",
    },
    {},
    {"operation": "chat", "actual_cost": Decimal("1.00"), "subject": "sam"},
    {"operation": "chat", "actual_cost": 1, "subject": "sam"},
]
OWN = {"id", "idempotency_key", "balance", "occurred_at", "recorded_at"}


@pytest.mark.parametrize("many", [[0], [1], [2, 3], [0, 1, 2, 3]], ids=["all alike", "bare", "costs", "mixed"])
@pytest.mark.parametrize("other", [None, 0, 59])
def test_what_many_records_share_is_kept_for_each(operator: Api, at: At, many: list[int], other: int | None) -> None:
    """Alike or but for one: each is what it would be alone."""
    at("2026-03-01T12:00:00Z")
    open_account(operator, credits=1000)
    chosen = [3 - many[0] if number == other else many[number % len(many)] for number in range(60)]
    sent = [of("acme", "0.25", idempotency_key=f"k{number}", **SHAPES[shape]) for number, shape in enumerate(chosen)]
    alone = [operator.post("/usage", of("acme", "0.25", **shape)).json for shape in SHAPES]
    made = [result["record"] for result in batch(operator, *sent)["results"]]
    kept = {row["id"]: row for row in operator.get("/usage/records?account=acme&limit=100").json["data"]}
    for number, (record, shape) in enumerate(zip(made, chosen, strict=True)):
        row = kept[record["id"]]
        assert row["idempotency_key"] == f"k{number}"
        assert repr({k: v for k, v in row.items() if k not in OWN}) == repr(
            {k: v for k, v in kept[alone[shape]["id"]].items() if k not in OWN}
        )
    assert statuses(batch(operator, *sent)) == [200] * 60
