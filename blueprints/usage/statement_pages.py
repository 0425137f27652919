"""The ledger and the monthly statement as pages, and their downloads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dateutil.relativedelta import relativedelta
from flask import Blueprint, Response, render_template, request

import clock
from blueprints.auth import guard
from blueprints.usage import statement_api
from blueprints.usage.schemas import RecordQuery, StatementQuery
from blueprints.usage.words import KINDS, REASONS
from blueprints.wire import decode_cursor, encode_cursor
from errors import ValidationError
from models.account import Account
from services import balances, catalog, ledger, statements
from services.records import Filters
from services.statements import Statement

blueprint = Blueprint("statement_pages", __name__)

_ROWS = 100


@blueprint.get("/ledger")
@guard.member_required
def ledger_page() -> str:
    account = guard.current_account()
    key, problem = _key()
    balances.refresh(account.id)
    rows = ledger.listing(account.id, _ROWS + 1, key)
    shown = rows[:_ROWS]
    return render_template(
        "usage/ledger.html",
        account=account,
        entries=[ledger.render(entry) for entry in shown],
        older=encode_cursor(shown[-1].seq) if len(rows) > _ROWS else None,
        first=key is None,
        problem=problem,
        reasons=REASONS,
        credit_name=catalog.current().credit_name,
    )


def _key() -> tuple[int | None, str | None]:
    """Where the shown part of a list begins; with a message where the link is none of ours."""
    try:
        key = decode_cursor(request.args.get("cursor"), int)
    except ValidationError:
        return None, "That link leads to no part of this list; it begins here."
    return (key[0] if key else None), None


@blueprint.get("/statement")
@guard.member_required
def statement_page() -> str:
    account = guard.current_account()
    statement, problem = _statement(account)
    key, lost = _key()
    rows = statements.entries(statement, key, _ROWS + 1)
    shown = rows[:_ROWS]
    movements = statements.render_movements(statement)
    return render_template(
        "usage/statement.html",
        account=account,
        statement=statements.render(statement),
        movements=movements,
        months=_months(account, statement),
        entries=[ledger.render(entry) for entry in shown],
        later=encode_cursor(shown[-1].seq) if len(rows) > _ROWS else None,
        first=key is None,
        problem=problem or lost,
        reasons=REASONS,
        kinds=_kinds(statement, movements),
        credit_name=catalog.current().credit_name,
    )


def _kinds(statement: Statement, movements: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The kinds of which there is anything to tell."""
    told = [statement.opening, statement.closing, *movements.values()]
    return [kind for kind in KINDS if any(amounts[kind] for amounts in told)] or list(KINDS)


def _statement(account: Account) -> tuple[Statement, str | None]:
    """The statement of the month that the query names; with a message where it names none."""
    problem = None
    try:
        start, end = statements.month(request.args.get("month") or None)
    except ValidationError:
        start, end = statements.month(None)
        problem = "That is no month such as 2026-11; this is the running one."
    return statements.draw_up(account.id, start, end), problem


def _months(account: Account, statement: Statement) -> dict[str, Any]:
    """Every month the account has lived in, newest first, with the shown one and its neighbours."""
    now = clock.now()
    first = _first_day(min(account.created_at, now))
    listed = []
    month = _first_day(now)
    while month >= first:
        listed.append(month)
        month -= relativedelta(months=1)
    if statement.start not in listed:
        listed = sorted([*listed, statement.start], reverse=True)
    place = listed.index(statement.start)
    return {
        "listed": listed,
        "shown": statement.start,
        "before": listed[place + 1] if place + 1 < len(listed) else None,
        "after": listed[place - 1] if place else None,
    }


def _first_day(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


# Downloads


@blueprint.get("/statement.csv")
@guard.member_required
def statement_csv() -> Response:
    account = guard.current_account()
    query = StatementQuery().load_strict({name: value for name, value in request.args.items() if value})
    start, end = statements.month(query.get("month"))
    return statement_api.statement_csv(statements.draw_up(account.id, start, end))


@blueprint.get("/usage/records.csv")
@guard.member_required
def records_csv() -> Response:
    account = guard.current_account()
    query = RecordQuery().load_strict({name: value for name, value in request.args.items() if value})
    return statement_api.records_csv(account.id, Filters(**{n: query.get(n) for n in statement_api.FILTERS}))
