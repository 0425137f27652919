"""Usage records for spreadsheets: the same records as the list, exact, harmless to open, sent piece by piece."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask

from blueprints import csvs
from tests.api.helpers import account_api, invalid, open_account, refused, set_plan, use
from tests.factories import Api, service_token
from tests.moments import At

COLUMNS = (
    "id,occurred_at,recorded_at,operation,source,subject,llm_provider,llm_model,prompt_tokens,completion_tokens,"
    "total_tokens,actual_cost,credits,allowance,purchased,granted,overage,unfunded,voided_at"
)
NAMES = COLUMNS.split(",")


def rows(api: Api, query: str = "") -> list[dict[str, str]]:
    answer = api.get(f"/usage/records.csv?account=acme{query}")
    assert answer.status == 200, answer
    assert answer.text.partition("\r\n")[0] == COLUMNS
    return list(csv.DictReader(io.StringIO(answer.text)))


def listed(api: Api, query: str = "") -> list[Any]:
    return api.get(f"/usage/records?account=acme&limit=200{query}").json["data"]


def test_every_column(app: Flask, operator: Api, at: At) -> None:
    open_account(operator, included_credits=1)
    at("2026-11-21T10:00:00.000001Z")
    labels = {
        "operation": "chat",
        "source": "backend",
        "subject": 'Łucja "the first", Nowak',
        "llm_provider": "p",
        "llm_model": "m",
        "prompt_tokens": 1234,
        "completion_tokens": 0,
        "total_tokens": 10**15,
        "actual_cost": Decimal("0.00000000000000000000000000000123"),
        "occurred_at": "2026-11-20T23:59:59Z",
        "enforce": False,
    }
    record_id = use(operator, "102.000001", **labels).json["id"]
    operator.post(f"/usage/records/{record_id}/void", {"reason": "x"})
    assert rows(operator) == [
        {
            "id": record_id,
            "occurred_at": "2026-11-20T23:59:59Z",
            "recorded_at": "2026-11-21T10:00:00.000001Z",
            "operation": "chat",
            "source": "backend",
            "subject": 'Łucja "the first", Nowak',
            "llm_provider": "p",
            "llm_model": "m",
            "prompt_tokens": "1234",
            "completion_tokens": "0",
            "total_tokens": "1000000000000000",
            "actual_cost": "0.00000000000000000000000000000123",
            "credits": "102.000001",
            "allowance": "1",
            "purchased": "0",
            "granted": "100",
            "overage": "0",
            "unfunded": "1.000001",
            "voided_at": "2026-11-21T10:00:00.000001Z",
        }
    ]


def test_what_is_not_there_is_empty(app: Flask, operator: Api) -> None:
    open_account(operator)
    use(operator, 0)
    row = rows(operator)[0]
    assert [name for name in NAMES if not row[name]] == [
        *("operation", "source", "subject", "llm_provider", "llm_model", "prompt_tokens", "completion_tokens"),
        *("total_tokens", "actual_cost", "voided_at"),
    ]


def test_nothing_to_tell_is_a_line_of_columns(app: Flask, operator: Api) -> None:
    open_account(operator)
    answer = operator.get("/usage/records.csv?account=acme")
    assert answer.text == COLUMNS + "\r\n"
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="usage-records.csv"'


def test_no_text_is_a_formula(app: Flask, operator: Api) -> None:
    open_account(operator)
    labels = ("source", "subject", "llm_provider", "llm_model")
    for sign in "=+-@":
        text = f'{sign}HYPERLINK("https://example.com","{sign}")'
        use(operator, 0, operation=text, **dict.fromkeys(labels, text))
    for sign, row in zip("@-+=", rows(operator), strict=True):
        for name in ("operation", *labels):
            assert row[name] == f'\'{sign}HYPERLINK("https://example.com","{sign}")'
    use(operator, 0, operation="a=b", subject="'=1")
    assert [rows(operator)[0][name] for name in ("operation", "subject")] == ["a=b", "'=1"], "only the first character"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        (" =1", " =1"),
        ("", ""),
        (None, ""),
        (-5, "-5"),
        (Decimal("-0.5"), "-0.5"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-7"), "0.0000001"),
    ],
)
def test_cells(value: Any, shown: str) -> None:
    """Texts with control characters are never stored; numbers are never taken for text."""
    assert csvs.cell(value) == shown


@pytest.mark.parametrize(
    "query",
    [
        "",
        "&from=2026-11-20T10:00:00Z",
        "&to=2026-11-20T10:00:00Z",
        "&from=2026-11-18&to=2026-11-20",
        "&operation=op-1",
        "&model=model-1",
        "&subject=subject-2",
        "&source=source-0&operation=op-0",
        "&operation=nothing",
    ],
)
def test_the_same_filters_and_order_as_the_list(service: Api, at: At, query: str) -> None:
    now = at("2026-11-21T10:00:00Z")
    open_account(service)
    records = [
        {
            "credits": number,
            "operation": f"op-{number % 2}",
            "llm_model": f"model-{number % 3}",
            "subject": f"subject-{number % 5}",
            "source": f"source-{number % 7}",
            "occurred_at": (now - timedelta(hours=9 * number % 60)).isoformat(),
        }
        for number in range(12)
    ]
    assert service.post("/usage/batch", {"account": "acme", "records": records}).json["accepted"] == 12
    shown = [(row["id"], row["occurred_at"], row["credits"]) for row in rows(service, query)]
    assert shown == [(r["id"], r["occurred_at"], str(r["credits"])) for r in listed(service, query)]
    assert bool(query) == (len(shown) < 12)


def test_backdated_records_are_in_their_own_place(app: Flask, operator: Api, at: At) -> None:
    now = at("2026-11-21T10:00:00Z")
    open_account(operator)
    for day in (3, 1, 2):
        use(operator, day, occurred_at=(now - timedelta(days=day)).isoformat())
    assert [row["credits"] for row in rows(operator)] == ["1", "2", "3"]
    assert [row["credits"] for row in rows(operator, "&from=2026-11-19&to=2026-11-20")] == ["2"]


def test_thousands_are_all_there_once(app: Flask, operator: Api) -> None:
    open_account(operator)
    set_plan(operator, "acme", included_credits=100)
    for _ in range(2):
        batch = {"account": "acme", "records": [{"credits": "0.01"}] * 1000}
        assert operator.post("/usage/batch", batch).json["accepted"] == 1000
    found = rows(operator)
    assert len({row["id"] for row in found}) == len(found) == 2000
    assert [row["id"] for row in found[:200]] == [record["id"] for record in listed(operator)]
    assert sum(Decimal(row["credits"]) for row in found) == 20


def test_it_is_sent_in_pieces_of_one_size(app: Flask, operator: Api) -> None:
    """So that memory does not grow with the records; and between two pieces no connection is held."""
    open_account(operator)
    for _ in range(3):
        batch = {"account": "acme", "records": [{"credits": 0, "operation": "x" * 50}] * 1000}
        assert operator.post("/usage/batch", batch).status == 200
    headers = {"Authorization": f"Bearer {service_token(app)}"}
    answer = app.test_client().get("/api/v1/usage/records.csv?account=acme", headers=headers)
    assert answer.is_streamed
    pieces = []
    for piece in answer.response:
        pieces.append(len(piece))
        with app.app_context():
            assert app.extensions["snapshot_engine"].pool.checkedout() == 0
    assert len(pieces) == 4 and max(pieces) < 1000 * 200
    answer.close()


class TestAsking:
    def test_a_bad_query_is_named(self, service: Api) -> None:
        open_account(service)
        for query, field in (
            ("account=acme&limit=5", "limit"),
            ("account=acme&cursor=x", "cursor"),
            ("account=acme&from=yesterday", "from"),
            ("account=acme&to=2026-11-21T10:00:00", "to"),
            ("account=acme&operation=", "operation"),
            ("", "account"),
        ):
            invalid(service.get(f"/usage/records.csv?{query}"), field)

    def test_an_account_gets_its_own(self, service: Api) -> None:
        acme, other = open_account(service), open_account(service, "other")
        use(service, 1)
        tenant = account_api(service, acme, "read")
        assert tenant.get("/usage/records.csv").text == service.get("/usage/records.csv?account=acme").text
        for ref in ("other", other, "nobody"):
            refused(tenant.get(f"/usage/records.csv?account={ref}"), 403, "forbidden")
        refused(account_api(service, acme, "write").get("/usage/records.csv"), 403, "missing_scope")
        refused(service.get("/usage/records.csv?account=nobody"), 404, "account_not_found")
