"""What an account can check its numbers with: explanations, statements, statistics, and the same for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from flask import Blueprint, Response, stream_with_context

from blueprints import csvs, jsonio
from blueprints.answers import CSV
from blueprints.usage import schemas
from blueprints.wire import answer, endpoint
from extensions import db
from services import accounts, explain, exports, forecast, ledger, statements
from services.records import Filters
from services.statements import Statement
from services.tokens import Caller

blueprint = Blueprint("statement_api", __name__, url_prefix="/api/v1")

FILTERS = ("start", "end", "operation", "model", "subject", "source")


@endpoint(
    blueprint,
    "GET",
    "/usage/records/<record_id>/explain",
    summary="Why a record cost what it cost, and what paid it",
    scope="read",
    query=schemas.AccountQuery(),
    answers={200: "Explanation"},
)
def get_explanation(caller: Caller, query: dict[str, Any], record_id: str) -> Response:
    ref = query.get("account")
    own = caller.account_id if ref is None else accounts.locate(caller, ref)
    return answer(explain.explain(record_id, own))


@endpoint(
    blueprint,
    "GET",
    "/usage/records.csv",
    summary="Usage records for a spreadsheet, newest first",
    scope="read",
    query=schemas.RecordQuery(),
    answers={200: CSV},
)
def get_records_csv(caller: Caller, query: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, query.get("account"))
    return records_csv(account_id, Filters(**{name: query.get(name) for name in FILTERS}))


def records_csv(account_id: str, filters: Filters) -> Response:
    return csvs.answer("usage-records.csv", exports.COLUMNS, exports.usage(account_id, filters))


@endpoint(
    blueprint,
    "GET",
    "/usage/stats",
    summary="The running period, and where it is heading",
    scope="read",
    query=schemas.AccountQuery(),
    answers={200: "Stats"},
)
def get_stats(caller: Caller, query: dict[str, Any]) -> Response:
    return answer(forecast.stats(accounts.locate(caller, query.get("account"))))


# Statements


@endpoint(
    blueprint,
    "GET",
    "/statement",
    summary="A month's opening balance, every change, and closing balance",
    scope="read",
    query=schemas.StatementQuery(),
    answers={200: "Statement"},
)
def get_statement(caller: Caller, query: dict[str, Any]) -> Response:
    statement = _statement(caller, query)
    pieces = statements.pieces(statement)
    first = next(pieces, [])
    parts = _json(statement, chain([first], pieces))
    return Response(stream_with_context(parts), mimetype="application/json")


def _statement(caller: Caller, query: dict[str, Any]) -> Statement:
    start, end = statements.month(query.get("month"))
    return statements.draw_up(accounts.locate(caller, query.get("account")), start, end)


def _json(statement: Statement, pieces: Iterator[list[Any]]) -> Iterator[str]:
    """The statement with its entries, made as it is sent: a month may have millions."""
    db.session.rollback()  # a slow reader must not keep a connection
    yield jsonio.dumps(statements.render(statement))[:-1] + ',"entries":['
    comma = ""
    for piece in pieces:
        if piece:
            yield comma + ",".join(jsonio.dumps(ledger.render(entry)) for entry in piece)
            comma = ","
    yield "]}"


@endpoint(
    blueprint,
    "GET",
    "/statement.csv",
    summary="A month's changes for a spreadsheet, in order",
    scope="read",
    query=schemas.StatementQuery(),
    answers={200: CSV},
)
def get_statement_csv(caller: Caller, query: dict[str, Any]) -> Response:
    return statement_csv(_statement(caller, query))


_COLUMNS = ("created_at", "entry", "lot", "kind", "reason", "cause_type", "cause_id", "change", "balance_after")


def statement_csv(statement: Statement) -> Response:
    pieces = ([_row(ledger.render(entry)) for entry in piece] for piece in statements.pieces(statement))
    return csvs.answer(f"statement-{statement.month}.csv", _COLUMNS, pieces)


def _row(entry: dict[str, Any]) -> list[Any]:
    shown = entry | {"entry": entry["id"], "cause_type": entry["cause"]["type"], "cause_id": entry["cause"]["id"]}
    return [shown[name] for name in _COLUMNS]
