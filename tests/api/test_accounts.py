"""Accounts by API: made once, found by both ids, changed, put on plans, suspended, closed."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask

from tests import factories
from tests.factories import Answer, Api
from tests.moments import At
from tests.together import at_once


def make(operator: Api, external_id: str, **values: Any) -> Any:
    answer = operator.post("/accounts", {"external_id": external_id, "name": external_id} | values)
    assert answer.status == 201, answer
    return answer.json


def granted(operator: Api, ref: str) -> Any:
    return operator.get(f"/balance?account={ref}").json["granted"]["total"]


class TestMaking:
    def test_a_new_account_is_active_free_and_has_the_sign_up_credits(self, operator: Api, at: At) -> None:
        body = {"external_id": "acme", "name": "Acme Ltd", "email": "Boss@Acme.example"}
        answer = operator.post("/accounts", body)
        assert answer.status == 201, answer
        assert answer.headers["Content-Type"] == "application/json"
        account_id = answer.json.pop("id")
        assert account_id.startswith("acc_")
        assert answer.json == {
            "id": account_id,
            "external_id": "acme",
            "name": "Acme Ltd",
            "email": "boss@acme.example",
            "status": "active",
            "plan": "free",
            "created_at": "2026-11-21T10:00:00Z",
        }
        assert operator.get("/balance?account=acme").json == {
            "account": account_id,
            "external_id": "acme",
            "status": "active",
            "plan": "free",
            "available": 100,
            "allowance": {"included": 0, "used": 0, "remaining": 0},
            "purchased": {"total": 0, "used": 0, "remaining": 0},
            "granted": {"total": 100, "used": 0, "remaining": 100},
            "held": 0,
            "overage": {"enabled": False, "used": 0, "cap": None},
            "unfunded": 0,
            "debt": 0,
            "period": {"start": "2026-11-21T10:00:00Z", "end": "2026-12-21T10:00:00Z"},
            "as_of": "2026-11-21T10:00:00Z",
        }

    def test_the_same_external_id_finds_the_account_and_changes_nothing(self, operator: Api) -> None:
        first = make(operator, "acme", email="a@acme.example")
        again = operator.post("/accounts", {"external_id": "acme", "name": "Other", "email": "other@acme.example"})
        assert again.status == 200
        assert again.json == first
        assert granted(operator, "acme") == 100
        assert "Idempotent-Replayed" not in again.headers

    def test_made_many_times_at_once_it_exists_once(self, operator: Api) -> None:
        answers = at_once(*[lambda: operator.post("/accounts", {"external_id": "acme", "name": "Acme"})] * 6)
        assert sorted(answer.status for answer in answers) == [200] * 5 + [201]
        assert len({answer.json["id"] for answer in answers}) == 1
        assert granted(operator, "acme") == 100
        assert len(operator.get("/accounts").json["data"]) == 1

    def test_sign_up_credits_come_once_per_email(self, operator: Api) -> None:
        make(operator, "one", email="Ann@Example.com")
        make(operator, "two", email="ann@example.COM")
        make(operator, "three")
        assert [granted(operator, ref) for ref in ("one", "two", "three")] == [100, 0, 100]

    def test_one_email_at_once_on_many_accounts_has_the_credits_once(self, operator: Api) -> None:
        def call(number: int) -> Callable[[], Answer]:
            body = {"external_id": f"acme-{number}", "name": "Acme", "email": "ann@example.com"}
            return lambda: operator.post("/accounts", body)

        answers = at_once(*[call(number) for number in range(5)])
        assert [answer.status for answer in answers] == [201] * 5
        assert sum(granted(operator, f"acme-{number}") for number in range(5)) == 100

    def test_a_person_who_signed_up_brings_no_credits_to_another_account(self, app: Flask, operator: Api) -> None:
        person = factories.person(app, "ann@example.com")
        make(operator, "one", email="ANN@example.com")
        assert granted(operator, "one") == 0
        assert granted(operator, person.account_id) == 100

    @pytest.mark.settings(signup_credits=Decimal("2.5"))
    def test_the_operator_says_how_many_credits_come_with_it(self, sqlite_app: Flask) -> None:
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        make(operator, "acme")
        assert granted(operator, "acme") == Decimal("2.5")

    @pytest.mark.settings(signup_credits=Decimal(0))
    def test_none_are_given_where_there_are_none(self, sqlite_app: Flask) -> None:
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        make(operator, "acme")
        assert operator.get("/balance?account=acme").json["available"] == 0
        assert operator.get("/ledger?account=acme").json["data"] == []

    def test_external_ids_of_every_allowed_form(self, sqlite_app: Flask) -> None:
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        for external_id in ("a", "A-z0.9_:@x", "x" * 128, "0", "ac_c", "ann@example.com", "..", "plan"):
            made = make(operator, external_id)
            assert operator.get(f"/accounts/{external_id}").json == made, external_id
            assert operator.get(f"/balance?account={external_id}").json["account"] == made["id"]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"external_id": "acc_x", "name": "n"}, "external_id"),
            ({"external_id": "", "name": "n"}, "external_id"),
            ({"external_id": "x" * 129, "name": "n"}, "external_id"),
            ({"external_id": "a b", "name": "n"}, "external_id"),
            ({"external_id": "a/b", "name": "n"}, "external_id"),
            ({"external_id": "é", "name": "n"}, "external_id"),
            ({"external_id": "a\n", "name": "n"}, "external_id"),
            ({"external_id": 5, "name": "n"}, "external_id"),
            ({"external_id": None, "name": "n"}, "external_id"),
            ({"name": "n"}, "external_id"),
            ({"external_id": "a"}, "name"),
            ({"external_id": "a", "name": ""}, "name"),
            ({"external_id": "a", "name": None}, "name"),
            ({"external_id": "a", "name": "x" * 201}, "name"),
            ({"external_id": "a", "name": "a\x00b"}, "name"),
            ({"external_id": "a", "name": "a\nb"}, "name"),
            ({"external_id": "a", "name": "n", "email": "nobody"}, "email"),
            ({"external_id": "a", "name": "n", "email": "a@b"}, "email"),
            ({"external_id": "a", "name": "n", "email": "a b@c.example"}, "email"),
            ({"external_id": "a", "name": "n", "plan": "team"}, "plan"),
            ({"external_id": "a", "name": "n", "account": "a"}, "account"),
        ],
    )
    def test_a_bad_field_is_named_and_nothing_is_made(self, sqlite_app: Flask, body: Any, field: str) -> None:
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        answer = operator.post("/accounts", body)
        assert (answer.status, answer.code) == (422, "validation_error"), answer
        assert list(answer.json["errors"]) == [field]
        assert operator.get("/accounts").json["data"] == []


class TestFinding:
    def test_by_its_id_and_by_the_operators(self, operator: Api) -> None:
        made = make(operator, "acme")
        assert operator.get("/accounts/acme").json == made
        assert operator.get(f"/accounts/{made['id']}").json == made

    @pytest.mark.parametrize("ref", ["nobody", "acc_0000000000000000", "a%20b", "%00", "acc_%00", "%F0%9F%8D%B0"])
    def test_an_account_that_is_not_there(self, operator: Api, ref: str) -> None:
        for call in (
            lambda: operator.get(f"/accounts/{ref}"),
            lambda: operator.patch(f"/accounts/{ref}", {"name": "x"}),
            lambda: operator.post(f"/accounts/{ref}/grants", {"credits": 1, "reason": "x"}),
            lambda: operator.post(f"/accounts/{ref}/plan", {"tier": "free"}),
            lambda: operator.post(f"/accounts/{ref}/reset-limit", {"reason": "x"}),
            lambda: operator.post(f"/accounts/{ref}/suspend", {"reason": "x"}),
        ):
            answer = call()
            assert answer.status == 404, answer
            assert answer.code in ("account_not_found", "not_found")
        if ref == "nobody":
            assert answer.code == "account_not_found"

    def test_the_list_is_newest_first_and_pages_lose_nothing(self, operator: Api, at: At) -> None:
        for number in range(7):
            make(operator, f"acme-{number}")  # all at the same moment
        at.forward(seconds=1)
        newest = make(operator, "newest")
        seen, cursor = [], ""
        while cursor is not None:
            page = operator.get(f"/accounts?limit=3{cursor and '&cursor=' + cursor}").json
            assert len(page["data"]) <= 3
            seen += page["data"]
            cursor = page["next_cursor"]
        assert seen[0] == newest
        assert sorted(row["external_id"] for row in seen[1:]) == [f"acme-{number}" for number in range(7)]

    def test_search_looks_at_name_external_id_and_email(self, operator: Api) -> None:
        make(operator, "one", name="Blue Whale")
        make(operator, "two-whales")
        make(operator, "three", email="whale@example.com")
        make(operator, "four", name="100% Wool")
        found = operator.get("/accounts?search=WHALE").json["data"]
        assert [row["external_id"] for row in found] == ["three", "two-whales", "one"]
        assert [row["external_id"] for row in operator.get("/accounts?search=100%25").json["data"]] == ["four"]
        assert operator.get("/accounts?search=nothing").json == {"data": [], "next_cursor": None}

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=1.5", "limit"),
            ("limit=-1", "limit"),
            ("limit=x", "limit"),
            ("cursor=x", "cursor"),
            ("cursor=WzEsMl0", "cursor"),
            ("cursor=%00", "cursor"),
            ("limit=1&limit=2", "limit"),
            ("page=2", "page"),
            ("search=", "search"),
        ],
    )
    def test_a_bad_query_is_named(self, sqlite_app: Flask, query: str, field: str) -> None:
        answer = Api(sqlite_app, factories.service_token(sqlite_app)).get(f"/accounts?{query}")
        assert (answer.status, answer.code, list(answer.json["errors"])) == (422, "validation_error", [field])


class TestChanging:
    def test_name_and_email(self, operator: Api) -> None:
        made = make(operator, "acme", email="a@acme.example")
        answer = operator.patch("/accounts/acme", {"name": "New", "email": "New@Acme.example"})
        assert answer.status == 200
        assert answer.json == made | {"name": "New", "email": "new@acme.example"}
        assert operator.patch("/accounts/acme", {"email": None}).json == made | {"name": "New", "email": None}
        assert operator.patch("/accounts/acme", {}).json == made | {"name": "New", "email": None}
        assert operator.get("/accounts/acme").json == made | {"name": "New", "email": None}

    @pytest.mark.parametrize(
        "body",
        [{"external_id": "b"}, {"status": "closed"}, {"plan": "team"}, {"name": None}, {"name": ""}, {"email": "x"}],
    )
    def test_nothing_else(self, sqlite_app: Flask, body: Any) -> None:
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        made = make(operator, "acme")
        answer = operator.patch("/accounts/acme", body)
        assert (answer.status, list(answer.json["errors"])) == (422, list(body))
        assert operator.get("/accounts/acme").json == made


class TestPlans:
    def test_an_enterprise_plan_brings_its_allowance_at_once(self, operator: Api, at: At) -> None:
        make(operator, "acme")
        answer = operator.post("/accounts/acme/plan", {"tier": "enterprise", "included_credits": 500})
        assert answer.status == 200
        assert (answer.json["plan"], answer.json["available"]) == ("enterprise", 600)
        assert answer.json["allowance"] == {"included": 500, "used": 0, "remaining": 500}
        assert operator.get("/accounts/acme").json["plan"] == "enterprise"
        assert operator.get("/balance?account=acme").json == answer.json

    def test_it_ends_when_it_was_said_to(self, operator: Api, at: At) -> None:
        make(operator, "acme")
        body = {"tier": "enterprise", "included_credits": "500.000001", "ends_at": "2026-11-30T12:00:00+02:00"}
        assert operator.post("/accounts/acme/plan", body).json["available"] == Decimal("600.000001")
        at("2026-11-30T09:59:59Z")
        assert operator.get("/balance?account=acme").json["plan"] == "enterprise"
        at("2026-11-30T10:00:00Z")
        ended = operator.get("/balance?account=acme").json
        assert (ended["plan"], ended["available"], ended["allowance"]["remaining"]) == ("free", 100, 0)

    def test_negotiated_rates_price_this_account_alone(self, operator: Api) -> None:
        for ref in ("acme", "other"):
            make(operator, ref)
        rates = {"draw": "per_unit=2", "draw@big": "prompt_per_1k=3,round=up"}
        operator.post("/accounts/acme/plan", {"tier": "enterprise", "rates": rates})
        usage = {"account": "acme", "operation": "draw", "quantity": 3}
        assert operator.post("/usage", usage).json["credits"] == 6
        big = {"account": "acme", "operation": "draw", "llm_model": "big", "prompt_tokens": 1100}
        assert operator.post("/usage", big).json["credits"] == 4
        assert operator.post("/usage", usage | {"account": "other"}).code == "unknown_operation"

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "tier"),
            ({"tier": "unknown"}, "tier"),
            ({"tier": ""}, "tier"),
            ({"tier": "enterprise", "included_credits": -1}, "included_credits"),
            ({"tier": "enterprise", "included_credits": "0.0000001"}, "included_credits"),
            ({"tier": "enterprise", "ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
            ({"tier": "enterprise", "ends_at": "2030-01-01T00:00:00"}, "ends_at"),
            ({"tier": "enterprise", "ends_at": "2030-01-01"}, "ends_at"),
            ({"tier": "enterprise", "rates": {"chat": "per_page=1"}}, "rates"),
            ({"tier": "enterprise", "rates": {"chat": 5}}, "rates"),
            ({"tier": "enterprise", "rates": {"": "per_unit=1"}}, "rates"),
            ({"tier": "enterprise", "rates": ["chat"]}, "rates"),
            ({"tier": "enterprise", "credits": 5}, "credits"),
        ],
    )
    def test_bad_terms_are_named_and_change_nothing(self, sqlite_app: Flask, body: Any, field: str) -> None:
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        made = make(operator, "acme")
        answer = operator.post("/accounts/acme/plan", body)
        assert (answer.status, list(answer.json["errors"])) == (422, [field]), answer
        assert operator.get("/accounts/acme").json == made


class TestResetLimit:
    def test_the_rest_goes_and_a_full_allowance_comes(self, app: Flask, operator: Api, at: At) -> None:
        account_id = factories.account(app, "acme", credits=0, included=50)
        capped = Api(app, factories.token(app, account_id, cap=30_000_000))
        assert capped.post("/usage", {"credits": 30}).status == 201
        assert capped.post("/usage", {"credits": 1}).code == "cap_reached"
        answer = operator.post("/accounts/acme/reset-limit", {"reason": "a gift"})
        assert answer.status == 200
        assert answer.json["allowance"] == {"included": 50, "used": 0, "remaining": 50}
        assert answer.json["available"] == 50
        assert capped.post("/usage", {"credits": 30}).status == 201, "the period's cap counters begin anew"
        changes = [
            (entry["change"], entry["reason"]) for entry in operator.get("/ledger?account=acme&limit=3").json["data"]
        ]
        assert changes == [(-30, "usage"), (50, "reset"), (-20, "reset")]

    def test_without_an_allowance_there_is_nothing_to_reset(self, operator: Api) -> None:
        make(operator, "acme")
        answer = operator.post("/accounts/acme/reset-limit", {"reason": "x"})
        assert (answer.status, answer.code) == (409, "no_allowance")

    @pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": 5}, {"reason": "x" * 501}])
    def test_it_needs_a_reason(self, sqlite_app: Flask, body: Any) -> None:
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        make(operator, "acme")
        for action in ("reset-limit", "suspend", "restore", "close"):
            answer = operator.post(f"/accounts/acme/{action}", body)
            assert (answer.status, list(answer.json["errors"])) == (422, ["reason"])


class TestSuspending:
    def test_usage_and_holds_are_refused_until_it_is_restored(self, app: Flask, operator: Api) -> None:
        made = make(operator, "acme")
        tenant = Api(app, factories.token(app, made["id"]))
        suspended = operator.post("/accounts/acme/suspend", {"reason": "unpaid"})
        assert (suspended.status, suspended.json) == (200, made | {"status": "suspended"})
        for path in ("/usage", "/holds"):
            refused = tenant.post(path, {"credits": 1})
            assert (refused.status, refused.code) == (403, "account_suspended")
        assert tenant.post("/usage", {"credits": 1, "enforce": False}).status == 201, "the work is done already"
        assert tenant.post("/check", {"credits": 1}).json["code"] == "account_suspended"
        assert tenant.get("/balance").json["status"] == "suspended"
        assert operator.post("/accounts/acme/grants", {"credits": 1, "reason": "x"}).status == 201
        restored = operator.post("/accounts/acme/restore", {"reason": "paid"})
        assert (restored.status, restored.json) == (200, made)
        assert tenant.post("/usage", {"credits": 1}).status == 201

    def test_a_replay_is_answered_all_the_same(self, app: Flask, operator: Api) -> None:
        tenant = Api(app, factories.token(app, make(operator, "acme")["id"]))
        first = tenant.post("/usage", {"credits": 1}, key="k")
        operator.post("/accounts/acme/suspend", {"reason": "unpaid"})
        again = tenant.post("/usage", {"credits": 1}, key="k")
        assert (again.status, again.json) == (200, first.json)
        assert again.headers["Idempotent-Replayed"] == "true"


class TestClosing:
    def test_tokens_end_at_once_and_the_ledger_stays(self, app: Flask, operator: Api) -> None:
        made = make(operator, "acme")
        tenant = Api(app, factories.token(app, made["id"]))
        assert tenant.post("/usage", {"credits": 1}).status == 201
        closed = operator.post("/accounts/acme/close", {"reason": "bye"})
        assert (closed.status, closed.json) == (200, made | {"status": "closed"})
        for answer in (tenant.get("/balance"), tenant.post("/usage", {"credits": 1})):
            assert (answer.status, answer.code) == (401, "unauthenticated")
        assert operator.get("/balance?account=acme").json["available"] == 99
        assert len(operator.get("/ledger?account=acme").json["data"]) == 2

    def test_nothing_is_done_to_a_closed_account(self, operator: Api) -> None:
        made = make(operator, "acme")
        operator.post("/accounts/acme/plan", {"tier": "enterprise", "included_credits": 5})
        operator.post("/accounts/acme/close", {"reason": "bye"})
        before = operator.get("/ledger?account=acme").json
        for path, body in (
            ("/usage", {"account": "acme", "credits": 1}),
            ("/usage", {"account": "acme", "credits": 1, "enforce": False}),
            ("/holds", {"account": "acme", "credits": 1}),
            ("/tokens", {"account": "acme", "name": "x", "scopes": ["read"]}),
            ("/accounts/acme/grants", {"credits": 1, "reason": "x"}),
            ("/accounts/acme/plan", {"tier": "enterprise"}),
            ("/accounts/acme/reset-limit", {"reason": "x"}),
            ("/accounts/acme/suspend", {"reason": "x"}),
            ("/accounts/acme/restore", {"reason": "x"}),
        ):
            answer = operator.post(path, body)
            assert (answer.status, answer.code) == (403, "account_closed"), (path, answer)
        assert operator.get("/ledger?account=acme").json == before
        again = operator.post("/accounts/acme/close", {"reason": "bye"})
        assert (again.status, again.json["status"]) == (200, "closed")
        assert operator.get(f"/accounts/{made['id']}").json["status"] == "closed"

    def test_a_closed_accounts_external_id_stays_its_own(self, operator: Api) -> None:
        made = make(operator, "acme")
        operator.post("/accounts/acme/close", {"reason": "bye"})
        again = operator.post("/accounts", {"external_id": "acme", "name": "x"})
        assert (again.status, again.json) == (200, made | {"status": "closed"})
