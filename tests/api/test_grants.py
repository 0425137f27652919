"""Credits that an operator gives: exact amounts, reasons, expiries, and keys that make repeating safe."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from flask import Flask

from tests import factories
from tests.factories import Answer, Api
from tests.moments import At
from tests.together import at_once


def grant(operator: Api, ref: str = "acme", key: str | None = None, **body: Any) -> Answer:
    return operator.post(f"/accounts/{ref}/grants", {"credits": 5, "reason": "sorry"} | body, key=key)


@pytest.fixture
def acme(app: Flask) -> str:
    """An account with nothing."""
    return factories.account(app, "acme", credits=0)


@pytest.fixture
def small(sqlite_app: Flask) -> Api:
    """The operator on SQLite, with an account `acme` that has the sign-up credits."""
    operator = Api(sqlite_app, factories.service_token(sqlite_app))
    operator.post("/accounts", {"external_id": "acme", "name": "Acme"})
    return operator


class TestGiving:
    def test_a_grant_is_a_lot_of_its_own(self, operator: Api, acme: str, at: At) -> None:
        answer = grant(operator, credits="7.25")
        assert answer.status == 201, answer
        lot = answer.json["lot"]
        assert lot.startswith("lot_")
        available = Decimal("7.25")
        assert answer.json == {
            "lot": lot,
            "balance": {"available": available, "allowance": 0, "purchased": 0, "granted": available, "held": 0},
        }
        entry = operator.get("/ledger?account=acme").json["data"][0]
        assert (entry["lot"], entry["kind"], entry["change"], entry["reason"]) == (lot, "granted", available, "grant")
        assert operator.get("/balance?account=acme").json["granted"]["remaining"] == available

    def test_it_ends_when_it_was_said_to(self, operator: Api, acme: str, at: At) -> None:
        lot = grant(operator, expires_at="2026-11-21T12:00:00+01:00").json["lot"]
        at("2026-11-21T10:59:59.999999Z")
        assert operator.get("/balance?account=acme").json["available"] == 5
        at("2026-11-21T11:00:00Z")
        assert operator.get("/balance?account=acme").json["available"] == 0
        at("2026-11-25T00:00:00Z")
        entry = operator.get("/ledger?account=acme").json["data"][0]
        assert (entry["lot"], entry["change"], entry["reason"]) == (lot, -5, "expiry")
        assert entry["created_at"] == "2026-11-21T11:00:00Z"

    @pytest.mark.parametrize("amount", ["0.000001", 1, "1000000000", 0.1, 1e3, "1.500000", "2.0000000"])
    def test_every_amount_of_six_decimals(self, small: Api, amount: Any) -> None:
        answer = grant(small, credits=amount)
        assert answer.status == 201, answer
        assert answer.json["balance"]["granted"] == 100 + Decimal(str(amount))

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"credits": 0}, "credits"),
            ({"credits": -1}, "credits"),
            ({"credits": "0.0000001"}, "credits"),
            ({"credits": "1000000000.000001"}, "credits"),
            ({"credits": "abc"}, "credits"),
            ({"credits": "1e3"}, "credits"),
            ({"credits": " 1"}, "credits"),
            ({"credits": ""}, "credits"),
            ({"credits": True}, "credits"),
            ({"credits": None}, "credits"),
            ({"credits": [1]}, "credits"),
            ({"reason": ""}, "reason"),
            ({"reason": None}, "reason"),
            ({"reason": "a\x00b"}, "reason"),
            ({"reason": "x" * 501}, "reason"),
            ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
            ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
            ({"expires_at": "2099-01-01"}, "expires_at"),
            ({"expires_at": "2099-02-30T00:00:00Z"}, "expires_at"),
            ({"expires_at": 4070908800}, "expires_at"),
            ({"idempotency_key": ""}, "idempotency_key"),
            ({"idempotency_key": "x" * 256}, "idempotency_key"),
            ({"kind": "purchased"}, "kind"),
            ({"account": "acme"}, "account"),
        ],
    )
    def test_a_bad_field_is_named_and_nothing_is_given(self, small: Api, body: Any, field: str) -> None:
        answer = grant(small, **body)
        assert (answer.status, answer.code, list(answer.json["errors"])) == (422, "validation_error", [field]), answer
        assert small.get("/balance?account=acme").json["available"] == 100

    @pytest.mark.parametrize("body", [{"credits": 5}, {"reason": "x"}, {}])
    def test_amount_and_reason_are_needed(self, small: Api, body: Any) -> None:
        answer = small.post("/accounts/acme/grants", body)
        assert (answer.status, set(answer.json["errors"])) == (422, {"credits", "reason"} - set(body))

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "01", "1.", "+1", "0x1"])
    def test_what_is_no_json_number_is_no_json(self, small: Api, number: str) -> None:
        answer = small.post("/accounts/acme/grants", f'{{"credits": {number}, "reason": "x"}}')
        assert (answer.status, answer.code) == (400, "malformed_json")

    @pytest.mark.settings(settle_unfunded=True)
    def test_it_settles_what_was_left_unfunded_where_the_operator_wants_that(self, operator: Api, acme: str) -> None:
        late = {"account": "acme", "credits": 3, "enforce": False}
        record = operator.post("/usage", late).json
        assert record["consumed"]["unfunded"] == 3
        assert grant(operator, credits=5).json["balance"]["granted"] == 2
        assert operator.get("/balance?account=acme").json["unfunded"] == 0
        entry = operator.get("/ledger?account=acme").json["data"][0]
        assert (entry["change"], entry["reason"]) == (-3, "settle")
        assert entry["cause"] == {"type": "usage", "id": record["id"]}

    def test_it_leaves_unfunded_usage_alone_otherwise(self, operator: Api, acme: str) -> None:
        operator.post("/usage", {"account": "acme", "credits": 3, "enforce": False})
        assert grant(operator, credits=5).json["balance"]["granted"] == 5
        assert operator.get("/balance?account=acme").json["unfunded"] == 3


class TestRepeating:
    def test_the_same_request_again_gets_the_stored_answer(self, operator: Api, acme: str, at: At) -> None:
        body = {"credits": "5.0", "expires_at": "2026-12-01T00:00:00Z"}
        first = grant(operator, key="k", **body)
        assert "Idempotent-Replayed" not in first.headers
        operator.post("/usage", {"account": "acme", "credits": 2})
        operator.post("/accounts/acme/suspend", {"reason": "x"})
        at("2026-12-02T00:00:00Z")  # later than what it granted lived
        same = {"credits": 5, "expires_at": "2026-12-01T01:00:00+01:00"}  # written otherwise
        for again in (grant(operator, key="k", **same), grant(operator, idempotency_key="k", **same)):
            assert (again.status, again.text) == (200, first.text)
            assert again.headers["Idempotent-Replayed"] == "true"
        assert operator.get("/balance?account=acme").json["granted"]["remaining"] == 0

    def test_another_request_names_what_differs(self, operator: Api, acme: str) -> None:
        grant(operator, key="k")
        for body, differs in (
            ({"credits": 6}, ["credits"]),
            ({"reason": "other"}, ["reason"]),
            ({"credits": 6, "expires_at": "2099-01-01T00:00:00Z"}, ["credits", "expires_at"]),
        ):
            answer = grant(operator, key="k", **body)
            assert (answer.status, answer.code) == (409, "idempotency_conflict")
            assert answer.json["differs"] == differs
        assert operator.get("/balance?account=acme").json["available"] == 5

    def test_keys_belong_to_one_account_and_one_family(self, app: Flask, operator: Api, acme: str) -> None:
        factories.account(app, "other", credits=0)
        assert grant(operator, key="k").status == 201
        assert grant(operator, "other", key="k").status == 201
        assert operator.post("/usage", {"account": "acme", "credits": 1}, key="k").status == 201
        assert operator.post("/holds", {"account": "acme", "credits": 1}, key="k").status == 201
        assert grant(operator, key="K").status == 201, "keys tell case apart"

    def test_without_a_key_each_request_counts(self, operator: Api, acme: str) -> None:
        lots = {grant(operator).json["lot"] for _ in range(3)}
        assert len(lots) == 3
        assert operator.get("/balance?account=acme").json["available"] == 15

    def test_many_times_at_once_it_counts_once(self, operator: Api, acme: str) -> None:
        answers = at_once(*[lambda: grant(operator, key="k")] * 6)
        assert sorted(answer.status for answer in answers) == [200] * 5 + [201]
        assert len({answer.text for answer in answers}) == 1
        assert operator.get("/balance?account=acme").json["available"] == 5

    def test_a_refused_request_leaves_its_key_free(self, operator: Api, acme: str) -> None:
        assert grant(operator, key="k", credits=0).status == 422
        assert grant(operator, key="k", expires_at="2020-01-01T00:00:00Z").status == 422
        assert grant(operator, "nobody", key="k").status == 404
        assert grant(operator, key="k").status == 201

    def test_two_different_keys_are_refused(self, small: Api) -> None:
        answer = grant(small, key="a", idempotency_key="b")
        assert (answer.status, list(answer.json["errors"])) == (422, ["idempotency_key"])
        assert grant(small, key="a", idempotency_key="a").status == 201

    @pytest.mark.parametrize("key", ["", "x" * 256])
    def test_a_key_has_1_to_255_characters(self, small: Api, key: str) -> None:
        answer = grant(small, key=key)
        assert (answer.status, list(answer.json["errors"])) == (422, ["Idempotency-Key"])
        assert grant(small, key="x" * 255).status == 201
