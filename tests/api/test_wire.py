"""What every route of the API takes: strict JSON, exact numbers, bodies and queries without anything unknown."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import pytest

from tests.api.helpers import (
    MIB,
    NO_SIGNUP,
    balance,
    invalid,
    open_account,
    padded,
    refused,
    untouched,
    use,
)
from tests.factories import Answer, Api

pytestmark = NO_SIGNUP


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


FOREIGN_CURSORS = [
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
]


def test_a_cursor_that_no_list_gave_is_refused(operator: Api) -> None:
    open_account(operator)
    for value in FOREIGN_CURSORS:
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
