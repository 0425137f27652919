"""What every route of the API shares: strict JSON, exact numbers, the order of refusal, problems, request ids."""

from __future__ import annotations

import base64
import json
import re
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask

from services import tokens
from tests.api.helpers import (
    NO_SIGNUP,
    account_api,
    balance,
    books,
    grant,
    invalid,
    open_account,
    refused,
    untouched,
    use,
)
from tests.factories import Answer, Api, service_token

pytestmark = NO_SIGNUP

MIB = 1024 * 1024


@pytest.fixture
def acme(service: Api) -> str:
    return open_account(service, credits=100)


def raw(api: Api, body: str | bytes, path: str = "/usage", **headers: str) -> Answer:
    return api.post(path, body, headers={name.replace("_", "-"): value for name, value in headers.items()})


# JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"credits":1',
        b'{"credits":1,}',
        b"{'credits':1}",
        b"{credits:1}",
        b'{"credits":01}',
        b'{"credits":.5}',
        b'{"credits":1.}',
        b'{"credits":+1}',
        b'{"credits":0x10}',
        b'{"credits":1} {}',
        b'{"credits":NaN}',
        b'{"credits":Infinity}',
        b'{"credits":-Infinity}',
        b'{"properties":{"deep":[NaN]}}',
        b'{"credits":1,"credits":1}',
        b'{"credits":1,"\\u0063redits":2}',
        b'{"credits":1,"properties":{"a":1,"a":2}}',
        b'{"operation":"a\nb"}',
        b'{"operation":"\xff"}',
        b'{"operation":"\xc3("}',
        b'{"operation":"\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        '{"account":"acme","credits":1}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":["\\u0041"],"b":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
)
def test_what_is_not_one_strict_json_document_is_malformed(service: Api, acme: str, body: bytes) -> None:
    refused(raw(service, body), 400, "malformed_json")


@pytest.mark.parametrize("body", ["[]", "1", '"text"', "null", "true", '[{"credits":1}]'])
def test_a_body_is_an_object(service: Api, body: str) -> None:
    invalid(raw(service, body), "body")


@pytest.mark.parametrize("text", ["\\u0000", "a\\u0000b", "\\ud800", "\\udfff\\ud800", "\\u0007"])
def test_text_that_no_database_keeps_is_refused(service: Api, acme: str, text: str) -> None:
    with untouched(service):
        invalid(raw(service, f'{{"account":"acme","credits":1,"operation":"{text}"}}'), "operation")


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800"])
def test_properties_hold_only_text_that_can_be_kept(service: Api, acme: str, text: str) -> None:
    with untouched(service):
        body = f'{{"account":"acme","credits":1,"properties":{{"a":["{text}"]}}}}'
        invalid(raw(service, body), "properties.a.0")
        body = f'{{"account":"acme","credits":1,"properties":{{"{text}":1}}}}'
        invalid(raw(service, body), "properties")


def test_text_in_every_script_comes_back_as_it_was_sent(service: Api, acme: str) -> None:
    text = "naïve 測試 \U0001f600 e\u0301 \u202e"
    made = use(service, 1, operation=text, subject=text, properties={text: text})
    read = service.get(f"/usage/records/{made.json['id']}").json
    assert (read["operation"], read["subject"], read["properties"]) == (text, text, {text: text})
    escaped = use(service, 1, properties=json.loads('{"a":"\\ud83d\\ude00"}'))
    assert service.get(f"/usage/records/{escaped.json['id']}").json["properties"] == {"a": "\U0001f600"}


def test_properties_keep_every_digit(service: Api, acme: str) -> None:
    digits = '{"long":' + "9" * 5000 + ',"fine":0.12345678901234567890123456789,"large":1E+400,"half":1.50}'
    made = raw(service, f'{{"account":"acme","credits":1,"properties":{digits}}}')
    assert made.status == 201, made
    read = service.get(f"/usage/records/{made.json['id']}")
    assert '"fine":0.12345678901234567890123456789' in read.text
    assert '"half":1.50' in read.text and '"large":1E+400' in read.text
    assert '"long":' + "9" * 5000 in read.text


def test_properties_may_nest_a_hundred_deep(service: Api, acme: str) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = {"a": deep}
    made = use(service, 1, properties=deep)
    assert service.get(f"/usage/records/{made.json['id']}").json["properties"] == deep
    with untouched(service):
        too_deep = {"account": "acme", "credits": 1, "properties": {"a": deep}}
        invalid(service.post("/usage", too_deep), "properties")
        invalid(
            service.post("/usage", {**too_deep, "properties": {"a": json.loads("[" * 400 + "]" * 400)}}), "properties"
        )


# Numbers


@pytest.mark.parametrize(
    ("sent", "charged"),
    [
        ("0.1", "0.1"),
        ("0.000001", "0.000001"),
        ("1e-6", "0.000001"),
        ("12.345678", "12.345678"),
        ("12.34567800000", "12.345678"),
        ("1E1", "10"),
        ("1.0", "1"),
        ("-0", "0"),
        ("0.30", "0.3"),
        ('"0.25"', "0.25"),
        ('"7"', "7"),
    ],
)
def test_credits_are_read_and_answered_exactly(service: Api, acme: str, sent: str, charged: str) -> None:
    made = raw(service, f'{{"account":"acme","credits":{sent}}}')
    assert made.status == 201, made
    left = Decimal(100) - Decimal(charged)
    assert f'"credits":{charged},"priced":{charged},' in made.text
    assert made.json["balance"]["granted"] == left
    assert balance(service)["available"] == left


@pytest.mark.parametrize(
    "sent",
    [
        "0.0000001",
        "1.2345678",
        "-1",
        "-0.000001",
        "1000000000.000001",
        "1e10",
        "1e400",
        "9" * 5000,
        '"1.2345678"',
        '"1e3"',
        '" 1"',
        '"1_0"',
        '"1,5"',
        '"NaN"',
        '"Infinity"',
        '"\uff11"',
        '""',
        "true",
        "[]",
        "{}",
    ],
)
def test_credits_that_would_have_to_be_rounded_or_guessed_are_refused(service: Api, acme: str, sent: str) -> None:
    with untouched(service):
        invalid(raw(service, f'{{"account":"acme","credits":{sent}}}'), "credits")
        invalid(raw(service, f'{{"account":"acme","credits":{sent}}}', "/holds"), "credits")


def test_sums_of_tenths_have_no_rest(service: Api, acme: str) -> None:
    for _ in range(3):
        use(service, Decimal("0.1"))
    assert '"used":0.3,' in service.get("/balance?account=acme").text


def test_a_billion_credits_is_the_most_that_one_request_can_name(service: Api, acme: str) -> None:
    made = service.post("/usage", {"account": "acme", "credits": 1_000_000_000, "enforce": False})
    assert made.status == 201 and made.json["consumed"]["unfunded"] == 999_999_900
    with untouched(service):
        invalid(service.post("/usage", {"account": "acme", "credits": 1_000_000_001, "enforce": False}), "credits")


def test_totals_stop_before_they_would_not_fit(service: Api, acme: str) -> None:
    record = {"account": "acme", "credits": 1_000_000_000, "enforce": False}
    first = service.post("/usage/batch", {"records": [record] * 999})
    assert first.json["accepted"] == 999
    last = service.post("/usage/batch", {"records": [record] * 3}).json["results"]
    assert [result["status"] for result in last] == [201, 422, 422]
    assert last[1]["error"]["code"] == "validation_error"
    assert balance(service)["unfunded"] == 999_999_999_900


@pytest.mark.parametrize("value", ["1.9", "1.0", "1e2", '"3"', "true", "-1", "1000000000000001", "9" * 5000])
def test_whole_numbers_are_whole(service: Api, acme: str, value: str) -> None:
    with untouched(service):
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            invalid(raw(service, f'{{"account":"acme","credits":1,"{name}":{value}}}'), name)
        invalid(raw(service, f'{{"account":"acme","credits":1,"ttl_seconds":{value}}}', "/holds"), "ttl_seconds")


def test_a_cost_keeps_forty_digits(service: Api, acme: str) -> None:
    cost = "123456789.0123456789012345678901234567891"
    made = raw(service, f'{{"account":"acme","credits":1,"actual_cost":{cost}}}')
    assert f'"actual_cost":{cost}' in service.get(f"/usage/records/{made.json['id']}").text
    raw(service, f'{{"account":"acme","credits":1,"actual_cost":{cost}}}')
    assert '"cost":246913578.0246913578024691357802469135782' in service.get("/usage/summary?account=acme").text
    invalid(raw(service, f'{{"account":"acme","credits":1,"actual_cost":{cost}12}}'), "actual_cost")
    invalid(raw(service, '{"account":"acme","credits":1,"actual_cost":-1}'), "actual_cost")


@pytest.mark.parametrize(("name", "value"), [("success", 1), ("retry", "false"), ("enforce", 0)])
def test_booleans_are_booleans(service: Api, acme: str, name: str, value: Any) -> None:
    invalid(service.post("/usage", {"account": "acme", "credits": 1, name: value}), name)


def test_an_explicit_null_says_nothing(service: Api, acme: str) -> None:
    nulls = dict.fromkeys(("operation", "quantity", "llm_model", "success", "enforce", "properties", "occurred_at"))
    made = use(service, 2, **nulls)
    assert made.json["credits"] == 2 and made.json["operation"] is None


# Bodies and queries


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "json"])
def test_a_body_says_that_it_is_json(service: Api, acme: str, kind: str) -> None:
    with untouched(service):
        refused(raw(service, '{"account":"acme","credits":1}', Content_Type=kind), 415, "unsupported_media_type")


def test_a_content_type_may_have_parameters_and_capitals(service: Api, acme: str) -> None:
    made = raw(service, '{"account":"acme","credits":1}', Content_Type="Application/JSON; charset=utf-8")
    assert made.status == 201


def padded(size: int, body: str = '{"account":"acme","credits":1}') -> str:
    return body + " " * (size - len(body))


def test_a_body_has_at_most_a_mebibyte_and_a_batch_eight(service: Api, acme: str) -> None:
    assert raw(service, padded(MIB)).status == 201
    batch = '{"records":[{"account":"acme","credits":1}]}'
    assert raw(service, padded(8 * MIB, batch), "/usage/batch").json["accepted"] == 1
    with untouched(service):
        refused(raw(service, padded(MIB + 1)), 413, "payload_too_large")
        refused(raw(service, padded(MIB + 1), "/holds"), 413, "payload_too_large")
        refused(raw(service, padded(8 * MIB + 1, batch), "/usage/batch"), 413, "payload_too_large")


def test_unknown_fields_are_named(service: Api, acme: str) -> None:
    record = service.post("/usage", {"account": "acme", "credits": 1}).json["id"]
    held = service.post("/holds", {"account": "acme", "credits": 1}).json["id"]
    with untouched(service):
        for path, body in {
            "/usage": {"account": "acme", "credits": 1},
            "/usage/batch": {"records": [{"account": "acme", "credits": 1}]},
            f"/usage/records/{record}/void": {"reason": "x"},
            "/check": {"account": "acme", "credits": 1},
            "/holds": {"account": "acme", "credits": 1},
            f"/holds/{held}/extend": {"ttl_seconds": 60},
            f"/holds/{held}/capture": {},
            f"/holds/{held}/release": {},
        }.items():
            invalid(service.post(path, {**body, "credit": 1, "Credits": 1}), "credit", "Credits")


@pytest.mark.parametrize(
    "path",
    ["/balance", "/usage/records", "/usage/summary", "/holds", "/ledger", "/usage/records/use_x", "/holds/hld_x"],
)
def test_unknown_and_repeated_query_parameters_are_named(service: Api, acme: str, path: str) -> None:
    invalid(service.get(f"{path}?account=acme&acount=x&b=1"), "acount", "b")
    invalid(service.get(f"{path}?account=acme&account=acme"), "account")


@pytest.mark.parametrize("limit", ["0", "201", "-1", "1.5", "x", "", "1e2", "9" * 30, "%EF%BC%91"])
def test_a_list_shows_1_to_200_rows(service: Api, acme: str, limit: str) -> None:
    for path in ("/usage/records", "/holds", "/ledger"):
        invalid(service.get(f"{path}?account=acme&limit={limit}"), "limit")


def cursor(*key: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "%00",
        "e30",
        "%F0%9F%98%80",
        "W" * 501,
        cursor(),
        cursor("a", "b"),
        cursor(True, True),
        cursor(2**61, 1),
        cursor(2**61),
        cursor(-(2**61), 1),
        cursor(-1),
        cursor("\x00"),
        cursor("\ud800"),
        cursor(1.5, 1),
        cursor(None),
        base64.urlsafe_b64encode(b"[" * 300).decode(),
    ],
)
def test_a_cursor_that_no_list_gave_is_refused(operator: Api, value: str) -> None:
    open_account(operator)
    for path in ("/usage/records", "/holds", "/ledger"):
        invalid(operator.get(f"{path}?account=acme&cursor={value}"), "cursor")


@pytest.mark.parametrize(
    "value", ["2026-11-21T10:00:00", "2026-13-01", "21.11.2026", "now", "1700000000", "2026-11-21T"]
)
def test_a_time_without_an_offset_is_refused(service: Api, acme: str, value: str) -> None:
    for path in ("/usage/records", "/usage/summary"):
        invalid(service.get(f"{path}?account=acme&from={value}"), "from")
        invalid(service.get(f"{path}?account=acme&to={value}"), "to")
    invalid(service.post("/usage", {"account": "acme", "credits": 1, "occurred_at": value}), "occurred_at")


def test_a_bare_date_is_for_ranges_only(service: Api, acme: str) -> None:
    assert service.get("/usage/records?account=acme&from=2026-11-01&to=2026-12-01").status == 200
    invalid(service.post("/usage", {"account": "acme", "credits": 1, "occurred_at": "2026-11-21"}), "occurred_at")


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
