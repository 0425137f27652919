"""Access tokens: what is kept of them, what they may do, and that an end is an end at once and everywhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from app import create_app
from extensions import db
from tests import factories
from tests.factories import Answer, Api
from tests.moments import At
from tests.together import at_once

SECRET = re.compile(r"spw_([0-9a-z]{16})([A-Za-z0-9_-]{43})", re.ASCII)
UNAUTHENTICATED = {
    "type": "/api/docs#unauthenticated",
    "title": "A valid access token is needed",
    "status": 401,
    "detail": "A valid access token is needed",
    "code": "unauthenticated",
}


def create(api: Api, **body: Any) -> Answer:
    return api.post("/tokens", {"name": "backend", "scopes": ["read", "write"]} | body)


def assert_ended(api: Api) -> None:
    """One and the same answer, on routes that read first and on those that decide under the lock."""
    for answer in (
        api.get("/balance"),
        api.post("/usage", {"credits": 1}),
        api.post("/holds", {"credits": 1}),
        api.post("/usage/batch", {"records": [{"credits": 1}]}),
        api.post("/usage/batch", {"records": [{"credits": 1}, {"credits": -1}, {"account": "nobody", "credits": 1}]}),
        api.post("/usage/batch", {"records": [{"credits": -1}]}),
        api.post("/usage/batch", {"records": [{"account": "nobody", "credits": 1}]}),
        api.post("/usage/batch", {"records": [{"credits": 1}]}, headers={"Idempotency-Key": "k"}),
        api.post("/usage/batch", {"records": []}),
        api.post("/check", {"credits": 1}),
        api.post("/usage", "not JSON"),
        api.get("/usage/records/use_none"),
        api.post("/holds/hld_none/capture"),
    ):
        assert (answer.status, answer.json) == (401, UNAUTHENTICATED)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.fixture
def other_process(app: Flask) -> Iterator[Flask]:
    """A second app on the same database, with a memory of its own."""
    twin = create_app(app.config["SETTINGS"])
    yield twin
    with twin.app_context():
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def acme(app: Flask) -> str:
    return factories.account(app, "acme")


class Unread(BytesIO):
    """A body of which nobody may read anything."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("a stranger's body was read")


@pytest.mark.parametrize("path", ["usage", "usage/batch", "holds", "check", "tokens"])
def test_a_stranger_is_refused_before_anything_is_read(sqlite_app: Flask, path: str) -> None:
    own = factories.service_token(sqlite_app)
    other_secret = f"{own[:-1]}{'A' if own[-1] != 'A' else 'B'}"
    for token in (other_secret, "spw_" + "0" * 16 + "A" * 43):
        answer = sqlite_app.test_client().post(
            f"/api/v1/{path}",
            headers={"Authorization": f"Bearer {token}"},
            content_type="application/json",
            content_length=1000,
            input_stream=Unread(),
        )
        assert (answer.status_code, answer.json) == (401, UNAUTHENTICATED)


class TestForm:
    def test_it_is_shown_once_and_only_its_hash_is_kept(self, app: Flask, operator: Api, acme: str, at: At) -> None:
        answer = create(operator, account="acme", cap="12.5", expires_at="2027-01-01T01:00:00+01:00")
        assert answer.status == 201, answer
        match = SECRET.fullmatch(answer.json["token"])
        assert match is not None
        token_id = f"tok_{match[1]}"
        shown = answer.json
        del shown["token"]
        assert shown == {
            "id": token_id,
            "account": acme,
            "name": "backend",
            "scopes": ["read", "write"],
            "cap": Decimal("12.5"),
            "created_at": "2026-11-21T10:00:00Z",
            "expires_at": "2027-01-01T00:00:00Z",
            "last_used_at": None,
            "revoked_at": None,
        }
        listed = operator.get("/tokens?account=acme")
        assert listed.json["data"] == [shown]
        with app.app_context():
            row = db.session.execute(text("SELECT * FROM tokens WHERE id = :id"), {"id": token_id}).mappings().one()
            kept = " ".join(str(value) for value in row.values())
        assert row["digest"] == hashlib.sha256(match[2].encode()).hexdigest()
        assert match[2] not in kept

    def test_no_two_are_alike(self, operator: Api, acme: str) -> None:
        secrets = {create(operator, account="acme").json["token"] for _ in range(20)}
        assert len({SECRET.fullmatch(secret)[2] for secret in secrets}) == 20

    def test_both_headers_take_it(self, app: Flask, acme: str) -> None:
        secret = factories.token(app, acme)
        nobody = Api(app, None)
        for headers in (
            {"Authorization": f"Bearer {secret}"},
            {"Authorization": f"bearer {secret}"},
            {"X-Api-Key": secret},
            {"X-Api-Key": secret, "Authorization": f"Bearer {secret}"},
        ):
            assert nobody.get("/balance", headers=headers).status == 200, headers

    def test_anything_else_is_one_and_the_same_refusal(self, app: Flask, acme: str) -> None:
        secret, other = factories.token(app, acme), factories.token(app, acme)
        nobody = Api(app, None)
        wrong: list[dict[str, str]] = [
            {},
            {"Authorization": ""},
            {"Authorization": secret},
            {"Authorization": f"Basic {secret}"},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {secret[:-1]}"},
            {"Authorization": f"Bearer {secret}x"},
            {"Authorization": f"Bearer {secret[:-1]}{'B' if secret[-1] == 'A' else 'A'}"},
            {"Authorization": f"Bearer {secret[:20]}{other[20:]}"},
            {"Authorization": f"Bearer spw_{'0' * 16}{secret[20:]}"},
            {"Authorization": f"Bearer {secret.upper()}"},
            {"Authorization": "Bearer spw_é"},
            {"X-Api-Key": f"Bearer {secret}"},
            {"X-Api-Key": other, "Authorization": f"Bearer {secret}"},
        ]
        for headers in wrong:
            for method, path in (("GET", "/balance"), ("POST", "/usage"), ("GET", "/ledger")):
                answer = nobody(method, path, {} if method == "POST" else None, headers=headers)
                assert (answer.status, answer.json) == (401, UNAUTHENTICATED), headers


class TestScopes:
    def test_a_token_does_what_its_scopes_say(self, app: Flask, acme: str) -> None:
        read, write = Api(app, factories.token(app, acme, "read")), Api(app, factories.token(app, acme, "write"))
        assert read.get("/balance").status == 200
        for path in ("/usage", "/holds", "/usage/batch"):
            refused = read.post(path, {"credits": 1, "records": []})
            assert (refused.status, refused.code, refused.json["scope"]) == (403, "missing_scope", "write")
        assert write.post("/usage", {"credits": 1}).status == 201
        refused = write.get("/balance")
        assert (refused.status, refused.code, refused.json["scope"]) == (403, "missing_scope", "read")
        refused = write.get("/tokens")
        assert (refused.status, refused.code, refused.json["scope"]) == (403, "missing_scope", "tokens")
        refused = write.get("/accounts")
        assert (refused.status, refused.code, refused.json["scope"]) == (403, "missing_scope", "admin")

    def test_the_scope_is_judged_before_the_request(self, app: Flask, acme: str) -> None:
        read = Api(app, factories.token(app, acme, "read"))
        assert read.post("/usage", "not JSON").code == "missing_scope"
        assert read.post("/usage", {"credits": -1, "account": "nobody"}).code == "missing_scope"

    def test_a_lost_scope_is_lost_at_once(self, app: Flask, other_process: Flask, acme: str) -> None:
        secret = factories.token(app, acme)
        here, there = Api(app, secret), Api(other_process, secret)
        assert here.post("/usage", {"credits": 1}).status == there.post("/usage", {"credits": 1}).status == 201
        with app.app_context(), db.engine.begin() as conn:
            conn.execute(text("UPDATE tokens SET scopes = 'read'"))
        for api in (here, there):
            for path in ("/usage", "/holds"):
                assert api.post(path, {"credits": 1}).code == "missing_scope"
            assert api.get("/balance").status == 200

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"scopes": []}, "scopes"),
            ({"scopes": ["admin"]}, "scopes.0"),
            ({"scopes": ["read", "fly"]}, "scopes.1"),
            ({"scopes": [["read"]]}, "scopes.0"),
            ({"scopes": "read"}, "scopes"),
            ({"scopes": None}, "scopes"),
            ({"name": ""}, "name"),
            ({"name": "x" * 101}, "name"),
            ({"name": "a\x00"}, "name"),
            ({"name": None}, "name"),
            ({"cap": -1}, "cap"),
            ({"cap": "0.0000001"}, "cap"),
            ({"cap": "many"}, "cap"),
            ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
            ({"expires_at": "2099-01-01"}, "expires_at"),
            ({"user_id": "usr_x"}, "user_id"),
            ({"token": "spw_x"}, "token"),
        ],
    )
    def test_a_bad_field_is_named(self, sqlite_app: Flask, body: Any, field: str) -> None:
        factories.account(sqlite_app, "acme")
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        answer = create(operator, account="acme", **body)
        assert (answer.status, answer.code, list(answer.json["errors"])) == (422, "validation_error", [field]), answer
        assert operator.get("/tokens?account=acme").json["data"] == []


class TestNarrower:
    """What a token with the scope `tokens` may hand out."""

    @pytest.fixture
    def keeper(self, app: Flask, acme: str, at: At) -> Api:
        expires_at = datetime(2026, 12, 21, 10, tzinfo=UTC)
        secret = factories.token(app, acme, "read", "tokens", cap=50_000_000, expires_at=expires_at)
        return Api(app, secret)

    def test_as_much_as_it_has_itself(self, app: Flask, acme: str, keeper: Api) -> None:
        made = create(keeper, scopes=["tokens", "read"], cap=50, expires_at="2026-12-21T10:00:00Z")
        assert made.status == 201, made
        assert (made.json["account"], made.json["scopes"]) == (acme, ["read", "tokens"])
        again = create(Api(app, made.json["token"]), scopes=["read"], cap="49.9", expires_at="2026-12-01T00:00:00Z")
        assert again.status == 201

    @pytest.mark.parametrize(
        "body",
        [
            {"scopes": ["read", "write"]},
            {"scopes": ["billing"]},
            {"cap": "50.000001"},
            {"cap": None},
            {"expires_at": "2026-12-21T10:00:00.000001Z"},
            {"expires_at": None},
        ],
    )
    def test_but_no_more(self, keeper: Api, body: Any) -> None:
        within = {"scopes": ["read"], "cap": 50, "expires_at": "2026-12-21T10:00:00Z"}
        answer = create(keeper, **within | body)
        assert (answer.status, answer.code) == (403, "forbidden"), answer
        assert len(keeper.get("/tokens").json["data"]) == 1

    def test_nor_may_it_edit_a_cap(self, keeper: Api) -> None:
        own = keeper.get("/tokens").json["data"][0]["id"]
        for method in ("PATCH", "PUT", "POST"):
            answer = keeper(method, f"/tokens/{own}", {"cap": None})
            assert (answer.status, answer.code) == (405, "method_not_allowed")

    def test_without_a_cap_and_an_end_of_its_own_it_may_give_any(self, app: Flask, acme: str) -> None:
        keeper = Api(app, factories.token(app, acme, "read", "write", "tokens"))
        for body in ({}, {"cap": 10**9}, {"expires_at": "9999-12-31T23:59:59.999999Z"}):
            assert create(keeper, **body).status == 201, body

    def test_a_service_token_with_admin_may_create_any(self, app: Flask, operator: Api, acme: str) -> None:
        made = create(operator, account="acme", scopes=["read", "write", "billing", "tokens"], cap=1)
        assert (made.status, made.json["scopes"]) == (201, ["read", "write", "billing", "tokens"])
        just_admin = Api(app, factories.service_token(app, "admin"))
        assert create(just_admin, account=acme, scopes=["billing"]).status == 201

    def test_a_service_token_without_it_is_bound_to_its_own_scopes(self, app: Flask, acme: str) -> None:
        keeper = Api(app, factories.service_token(app, "read", "tokens"))
        assert create(keeper, account="acme", scopes=["read"]).status == 201
        assert create(keeper, account="acme", scopes=["write"]).code == "forbidden"

    def test_a_service_token_names_the_account(self, operator: Api) -> None:
        for answer in (create(operator), operator.get("/tokens")):
            assert (answer.status, list(answer.json["errors"])) == (422, ["account"])
        for answer in (create(operator, account="nobody"), operator.get("/tokens?account=nobody")):
            assert (answer.status, answer.code) == (404, "account_not_found")

    def test_an_account_token_stays_at_home(self, app: Flask, acme: str) -> None:
        other = factories.account(app, "other")
        foreign = Api(app, factories.token(app, other, "read")).token
        keeper = Api(app, factories.token(app, acme, "read", "write", "tokens"))
        for ref in ("other", other, "nobody"):
            for answer in (create(keeper, account=ref), keeper.get(f"/tokens?account={ref}")):
                assert (answer.status, answer.code) == (403, "forbidden")
        answer = keeper.delete(f"/tokens/tok_{foreign[4:20]}")
        assert (answer.status, answer.code) == (404, "not_found")
        assert Api(app, foreign).get("/balance").status == 200
        assert keeper.delete(f"/tokens/tok_{keeper.token[4:20]}?account=other").code == "forbidden"


class TestEnding:
    def test_a_revoked_token_never_succeeds_again_in_any_process(
        self, app: Flask, other_process: Flask, operator: Api, acme: str
    ) -> None:
        secret = create(operator, account="acme").json["token"]
        here, there = Api(app, secret), Api(other_process, secret)
        for api in (here, there):  # both remember the token now
            assert api.post("/usage", {"credits": 1}).status == 201
            assert api.get("/balance").status == 200
        gone = operator.delete(f"/tokens/tok_{secret[4:20]}")
        assert (gone.status, gone.text) == (204, "")
        assert_ended(there)
        assert_ended(here)
        assert operator.get("/balance?account=acme").json["available"] == 98
        assert operator.delete(f"/tokens/tok_{secret[4:20]}").status == 204, "harmless when it has ended"
        assert operator.get("/tokens?account=acme").json["data"][0]["revoked_at"] is not None

    def test_an_expired_token_never_succeeds_again(self, app: Flask, operator: Api, acme: str, at: At) -> None:
        secret = create(operator, account="acme", expires_at="2026-11-21T11:00:00Z").json["token"]
        tenant = Api(app, secret)
        at("2026-11-21T10:59:59.999999Z")
        assert tenant.post("/usage", {"credits": 1}).status == 201
        at("2026-11-21T11:00:00Z")
        assert_ended(tenant)

    def test_a_replay_needs_a_token_that_holds(self, app: Flask, operator: Api, acme: str) -> None:
        first, second = (create(operator, account="acme").json["token"] for _ in range(2))
        recorded = Api(app, first).post("/usage", {"credits": 1}, key="k")
        operator.delete(f"/tokens/tok_{first[4:20]}")
        assert Api(app, first).post("/usage", {"credits": 1}, key="k").status == 401
        again = Api(app, second).post("/usage", {"credits": 1}, key="k")
        assert (again.status, again.json) == (200, recorded.json), "keys do not depend on the token"

    def test_revoking_while_it_is_used_leaves_no_gap(self, app: Flask, operator: Api, acme: str) -> None:
        secret = create(operator, account="acme").json["token"]
        tenant = Api(app, secret)

        def spend() -> int:
            """How often it succeeds after it was refused."""
            refused = late = 0
            for _ in range(12):
                status = tenant.post("/usage", {"credits": "0.1"}).status
                assert status in (201, 401)
                refused += status == 401
                late += status == 201 and refused > 0
            return late

        late = at_once(spend, spend, lambda: operator.delete(f"/tokens/tok_{secret[4:20]}").status - 204)
        assert late == [0, 0, 0]
        assert_ended(tenant)

    @pytest.mark.parametrize("token_id", ["tok_0000000000000000", "x", "%00", "acc_x"])
    def test_a_token_that_is_not_there(self, operator: Api, token_id: str) -> None:
        answer = operator.delete(f"/tokens/{token_id}")
        assert (answer.status, answer.code) == (404, "not_found")

    def test_a_token_can_end_itself(self, app: Flask, acme: str) -> None:
        keeper = Api(app, factories.token(app, acme, "read", "write", "tokens"))
        assert keeper.delete(f"/tokens/tok_{keeper.token[4:20]}").status == 204
        assert_ended(keeper)


class TestCap:
    def test_it_counts_per_period(self, app: Flask, operator: Api, acme: str, at: At) -> None:
        created = create(operator, account="acme", cap="2.5").json
        tenant = Api(app, created["token"])
        assert tenant.post("/usage", {"credits": "2.4"}).status == 201
        refused = tenant.post("/usage", {"credits": "0.100001"})
        assert (refused.status, refused.code) == (402, "cap_reached")
        assert refused.json["cap"]["key"] == created["id"]
        assert refused.json["resets_at"] == "2026-12-21T10:00:00Z"
        assert tenant.post("/usage", {"credits": "0.1"}).status == 201
        assert operator.post("/usage", {"account": "acme", "credits": 1}).status == 201, "it is this token's alone"
        at("2026-12-21T10:00:00Z")
        assert tenant.post("/usage", {"credits": "2.5"}).status == 201
        assert tenant.post("/holds", {"credits": "0.000001"}).code == "cap_reached"

    def test_at_once_it_holds_too(self, app: Flask, operator: Api, acme: str) -> None:
        tenant = Api(app, create(operator, account="acme", cap=3).json["token"])
        answers = at_once(*[lambda: tenant.post("/usage", {"credits": 1})] * 6)
        assert sorted(answer.status for answer in answers) == [201] * 3 + [402] * 3

    def test_nothing_at_all_with_a_cap_of_nothing(self, app: Flask, operator: Api, acme: str) -> None:
        tenant = Api(app, create(operator, account="acme", cap=0).json["token"])
        assert tenant.post("/usage", {"credits": "0.000001"}).code == "cap_reached"
        assert tenant.post("/usage", {"credits": 0}).status == 201


class TestReading:
    def test_the_last_use_is_told_to_the_minute(self, app: Flask, operator: Api, acme: str, at: At) -> None:
        def last_used() -> Any:
            return operator.get("/tokens?account=acme").json["data"][0]["last_used_at"]

        tenant = Api(app, create(operator, account="acme").json["token"])
        assert last_used() is None
        tenant.get("/balance")
        assert last_used() == "2026-11-21T10:00:00Z"
        at("2026-11-21T10:00:59Z")
        tenant.post("/usage", {"credits": 1})
        assert last_used() == "2026-11-21T10:00:00Z", "a use within the minute is not worth a write"
        at("2026-11-21T10:01:00Z")
        tenant.post("/usage", {"credits": 1})
        assert last_used() == "2026-11-21T10:01:00Z"

    def test_pages_lose_nothing(self, operator: Api, acme: str, at: At) -> None:
        made = {create(operator, account="acme").json["id"] for _ in range(5)}  # all at the same moment
        seen, cursor = [], ""
        while cursor is not None:
            page = operator.get(f"/tokens?account=acme&limit=2{cursor and '&cursor=' + cursor}").json
            seen += [row["id"] for row in page["data"]]
            assert all("token" not in row and "digest" not in row for row in page["data"])
            cursor = page["next_cursor"]
        assert set(seen) == made
        assert len(seen) == 5

    @pytest.mark.parametrize("query", ["limit=0", "limit=201", "cursor=x", "scopes=read"])
    def test_a_bad_query_is_named(self, sqlite_app: Flask, query: str) -> None:
        tenant = Api(sqlite_app, factories.token(sqlite_app, factories.account(sqlite_app), "tokens"))
        answer = tenant.get(f"/tokens?{query}")
        assert (answer.status, list(answer.json["errors"])) == (422, [query.partition("=")[0]])


def test_a_service_token_made_on_the_command_line_works(app: Flask, runner: Any) -> None:
    made = runner.invoke(args=["tokens", "create", "--service", "--scopes", "read,write,admin", "--name", "ops"])
    assert made.exit_code == 0
    secret = made.output.strip().splitlines()[-1]
    assert SECRET.fullmatch(secret)
    operator = Api(app, secret)
    assert operator.post("/accounts", {"external_id": "acme", "name": "Acme"}).status == 201
    assert create(operator, account="acme").status == 201
    assert operator.post("/usage", {"account": "acme", "credits": 1}).status == 201
    assert runner.invoke(args=["tokens", "create", "--service", "--scopes", "fly", "--name", "x"]).exit_code == 2
