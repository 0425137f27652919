"""Who may ask, in which order requests are refused, and what every answer has."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask

from services import tokens
from tests.api.helpers import (
    MIB,
    NO_SIGNUP,
    account_api,
    balance,
    books,
    grant,
    invalid,
    open_account,
    padded,
    refused,
    untouched,
)
from tests.factories import Answer, Api, service_token

pytestmark = NO_SIGNUP


@pytest.fixture
def acme(service: Api) -> str:
    return open_account(service, credits=100)


# Who, and for which account


def test_every_token_that_is_not_good_gets_one_and_the_same_answer(service: Api, acme: str) -> None:
    app = service.app
    gone = account_api(service, acme)
    with app.app_context():
        presented = tokens.parse(f"Bearer {gone.token}", None)
        tokens.revoke(presented.token_id, acme)
    shown: list[dict[str, str]] = [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer spw_"},
        {"Authorization": f"Basic {service.token}"},
        {"Authorization": str(service.token)},
        {"Authorization": f"Bearer {service.token}x"},
        {"Authorization": f"Bearer {str(service.token)[:-1]}{'A' if str(service.token)[-1] != 'A' else 'B'}"},
        {"Authorization": f"Bearer spw_{'0' * 16}{'a' * 43}"},
        {"Authorization": f"Bearer {gone.token}"},
        {"X-Api-Key": ""},
        {"X-Api-Key": f"Bearer {service.token}"},
        {"X-Api-Key": str(service.token), "Authorization": f"Bearer {gone.token}"},
    ]
    nobody = Api(app, None)
    answers = {
        call.text
        for headers in shown
        for call in (
            nobody.get("/balance?account=acme", headers=headers),
            nobody.post("/usage", {"account": "acme", "credits": 1}, headers=headers),
            nobody.post("/holds", {"account": "nobody", "credits": 1}, headers=headers),
        )
        if refused(call, 401, "unauthenticated") and call.headers["WWW-Authenticate"] == "Bearer"
    }
    assert len(answers) == 1
    assert balance(service)["available"] == 100


def test_a_token_may_come_in_either_header(service: Api, acme: str) -> None:
    nobody = Api(service.app, None)
    for headers in (
        {"X-Api-Key": str(service.token)},
        {"Authorization": f"bearer {service.token}"},
        {"X-Api-Key": str(service.token), "Authorization": f"Bearer {service.token}"},
    ):
        assert nobody.get("/balance?account=acme", headers=headers).status == 200


def test_a_service_token_names_the_account(service: Api, acme: str) -> None:
    for path in ("/balance", "/usage/records", "/usage/summary", "/holds", "/ledger"):
        invalid(service.get(path), "account")
        refused(service.get(f"{path}?account=nobody"), 404, "account_not_found")
        refused(service.get(f"{path}?account=acc_0000000000000000"), 404, "account_not_found")
        assert service.get(f"{path}?account=acme").status == service.get(f"{path}?account={acme}").status == 200
        invalid(service.get(f"{path}?account=a%20b"), "account")
        invalid(service.get(f"{path}?account={'a' * 129}"), "account")
        invalid(service.get(f"{path}?account=a%00"), "account")
    for path in ("/usage", "/check", "/holds"):
        invalid(service.post(path, {"credits": 1}), "account")
        refused(service.post(path, {"account": "nobody", "credits": 1}), 404, "account_not_found")


def test_an_account_token_is_about_its_own_account_alone(service: Api, acme: str) -> None:
    other = open_account(service, "other", 100)
    own = account_api(service, acme)
    with untouched(service, "other"):
        for ref in ("other", other, "nobody", "acc_0000000000000000"):
            for path in ("/balance", "/usage/records", "/usage/summary", "/holds", "/ledger"):
                refused(own.get(f"{path}?account={ref}"), 403, "forbidden")
            for path in ("/usage", "/check", "/holds"):
                refused(own.post(path, {"account": ref, "credits": 1}), 403, "forbidden")
    assert own.get("/balance").json["account"] == acme
    for ref in ("acme", acme):
        assert own.get(f"/balance?account={ref}").json["account"] == acme
        assert own.post("/usage", {"account": ref, "credits": 1}).json["account"] == acme


def naming(api: Api, account: str, method: str, path: str, body: Any) -> Answer:
    """The call, with the account named where its method has it."""
    if body is None:
        return api(method, f"{path}?account={account}")
    return api(method, path, {**body, "account": account})


def test_the_objects_of_others_are_not_found(operator: Api) -> None:
    acme, other = open_account(operator, credits=10), open_account(operator, "other", 10)
    record = operator.post("/usage", {"account": "other", "credits": 1}).json["id"]
    held = operator.post("/holds", {"account": "other", "credits": 1}).json["id"]
    own, theirs = account_api(operator, acme), account_api(operator, other)
    calls: list[tuple[str, str, Any]] = [
        ("GET", f"/usage/records/{record}", None),
        ("GET", f"/holds/{held}", None),
        ("POST", f"/holds/{held}/extend", {"ttl_seconds": 60}),
        ("POST", f"/usage/records/{record}/void", {"reason": "x"}),
        ("POST", f"/holds/{held}/capture", {}),
        ("POST", f"/holds/{held}/release", {}),
    ]
    before = books(operator, "other")
    for method, path, body in calls:
        refused(own(method, path, body), 404, "not_found")
        for unknown in ("use_00000000000000000000000", "%00", "a%00b", "%ED%A0%80", "%F0%9F%98%80", "x" * 500):
            missing = path.replace(record, unknown).replace(held, unknown)
            refused(operator(method, missing, body), 404, "not_found")
            refused(own(method, missing, body), 404, "not_found")
        refused(naming(operator, "acme", method, path, body), 404, "not_found")
        refused(naming(own, "other", method, path, body), 403, "forbidden")
    assert books(operator, "other") == before
    assert theirs.get(f"/usage/records/{record}").status == 200
    for method, path, body in calls[:4]:
        assert naming(operator, "other", method, path, body).status == 200
    assert operator.get(f"/holds/{held}?account=other").status == 200
    assert operator.post(f"/holds/{held}/capture", {"account": "other"}).status == 201


# The order of refusal


def test_refusals_come_in_one_order(service: Api, acme: str) -> None:
    nobody = Api(service.app, f"spw_{'0' * 16}{'a' * 43}")
    reader = Api(service.app, service_token(service.app, "read"))
    huge = padded(MIB + 1, "{")
    for path in ("/usage", "/holds", "/usage/batch"):
        big = huge if path != "/usage/batch" else padded(8 * MIB + 1, "{")
        for body, headers in ((big, {}), ("{", {"Content-Type": "text/plain"}), ("{", {}), ('{"x":1}', {})):
            refused(nobody.post(path, body, headers=headers), 401, "unauthenticated")
            refused(reader.post(path, body, headers=headers), 403, "missing_scope", scope="write")
        refused(service.post(path, big, headers={"Content-Type": "text/plain"}), 413, "payload_too_large")
        refused(service.post(path, "{", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
        refused(service.post(path, "{"), 400, "malformed_json")
    for path in ("/usage", "/holds"):
        for api, status, code in ((nobody, 401, "unauthenticated"), (reader, 403, "missing_scope")):
            refused(api.post(path, {"account": "nobody", "credits": 1}), status, code)
            refused(api.post(path, {"credits": 1}), status, code)
            refused(api.post(path, {"credits": 1, "idempotency_key": "a"}, key="b"), status, code)
        invalid(service.post(path, {"account": "nobody", "credits": -1}), "credits")
        invalid(
            service.post(path, {"account": "nobody", "credits": 1, "idempotency_key": "a"}, key="b"), "idempotency_key"
        )


def test_a_replay_comes_before_every_state_of_the_account(service: Api, acme: str) -> None:
    own = account_api(service, acme, cap=5_000_000)
    body = {"credits": 4, "operation": "chat"}
    for path in ("/usage", "/holds"):
        assert own.post(path, body if path == "/usage" else {"credits": 1}, key="first").status == 201
    conflict = {"credits": 5000}
    service.post("/accounts/acme/suspend", {"reason": "test"})
    for path in ("/usage", "/holds"):
        assert own.post(path, body if path == "/usage" else {"credits": 1}, key="first").status == 200
        refused(own.post(path, conflict, key="first"), 409, "idempotency_conflict")
        refused(own.post(path, conflict, key="second"), 403, "account_suspended")
    service.post("/accounts/acme/restore", {"reason": "test"})
    for path in ("/usage", "/holds"):
        refused(own.post(path, conflict, key="second"), 402, "cap_reached")
        refused(service.post(path, {"account": "acme", **conflict}), 402, "insufficient_credits")
        refused(
            service.post(path, {"account": "acme", "operation": "nothing"}, key="first"), 409, "idempotency_conflict"
        )


# Answers


def test_every_answer_has_a_request_id(service: Api, acme: str) -> None:
    calls = [
        service.get("/balance?account=acme"),
        service.get("/nothing"),
        service("PUT", "/balance", {}),
        Api(service.app, None).get("/balance"),
        service.post("/usage", "{"),
        service.post("/usage", padded(MIB + 1)),
    ]
    shown = [call.headers["X-Request-Id"] for call in calls]
    assert len(set(shown)) == len(shown) and all(re.fullmatch(r"[0-9a-f]{32}", value) for value in shown)
    named = service.get("/balance?account=acme", headers={"X-Request-Id": "job-9.A_b"})
    assert named.headers["X-Request-Id"] == "job-9.A_b"
    for bad in ("a b", "é", "x" * 65, "<script>", ""):
        assert service.get("/nothing", headers={"X-Request-Id": bad}).headers["X-Request-Id"] != bad


def test_paths_that_do_not_exist_and_methods_that_are_not_allowed(service: Api) -> None:
    for path in ("/nothing", "/", "/usage/", "/usage/records/", "/holds/x/y/z", "/../balance"):
        refused(service.get(path), 404, "not_found")
    for method, path, allowed in (
        ("PUT", "/balance", "GET"),
        ("GET", "/usage", "POST"),
        ("DELETE", "/usage/batch", "POST"),
        ("PATCH", "/holds", "GET"),
        ("GET", "/holds/hld_x/capture", "POST"),
        ("GET", "/check", "POST"),
    ):
        answer = service(method, path)
        refused(answer, 405, "method_not_allowed")
        assert allowed in answer.headers["Allow"]


def test_a_fault_of_ours_tells_nothing_of_it(sqlite_app: Flask) -> None:
    def broken() -> str:
        raise RuntimeError("a secret of the inside")

    sqlite_app.add_url_rule("/api/v1/broken", view_func=broken)
    answer = Api(sqlite_app, None).get("/broken")
    refused(answer, 500, "internal_error")
    assert "secret" not in answer.text and answer.headers["X-Request-Id"]


# Keys


def test_a_key_has_1_to_255_characters(service: Api, acme: str) -> None:
    for path in ("/usage", "/holds", "/accounts/acme/grants"):
        body = {"credits": 1, "reason": "x"} if "grants" in path else {"account": "acme", "credits": 1}
        with untouched(service):
            for bad in ("", "x" * 256):
                invalid(service.post(path, body, key=bad), "Idempotency-Key")
                invalid(service.post(path, {**body, "idempotency_key": bad}), "idempotency_key")
            invalid(service.post(path, {**body, "idempotency_key": 7}), "idempotency_key")
            invalid(service.post(path, {**body, "idempotency_key": "a"}, key="b"), "idempotency_key")
        longest = "x" * 255
        assert service.post(path, {**body, "idempotency_key": longest}, key=longest).status == 201
        assert service.post(path, body, key=longest).status == 200
        assert service.post(path, {**body, "idempotency_key": longest}).status == 200


def test_grants_are_replayed_like_everything_else(service: Api, acme: str) -> None:
    first = grant(service, "acme", 5, idempotency_key="g")
    again = service.post("/accounts/acme/grants", {"credits": "5.0", "reason": "test"}, key="g")
    assert (again.status, again.json) == (200, first.json)
    assert again.headers["Idempotent-Replayed"] == "true" and "Idempotent-Replayed" not in first.headers
    other = service.post("/accounts/acme/grants", {"credits": 6, "reason": "tests"}, key="g")
    refused(other, 409, "idempotency_conflict", differs=["credits", "reason"])
    assert balance(service)["granted"]["total"] == 105
