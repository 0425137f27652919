"""Statements: what an account had, every change of it, and what it has afterwards.

A statement is a range of the account's ledger numbers, found by time once. What is written later gets higher numbers,
so its entries can be read piece by piece, however many there are, and still add up. Amounts are micro-credits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from dateutil.relativedelta import relativedelta
from sqlalchemy import Connection, Select, bindparam, func, select, text

import clock
import database
from amounts import to_credits
from errors import ValidationError
from models.account import Account
from models.credit import Kind, LedgerEntry, Reason
from models.types import UtcDateTime
from models.usage import UsageRecord
from services import balances, bills
from services.usage import AHEAD, OLDEST

_MONTH = re.compile(r"(\d{4})-(\d\d)", re.ASCII)
_PAGE = 1000
Kinds = dict[str, int]
"""Micro-credits by kind."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The account's entries numbered above `first` up to `last`, which are those of `[start, end)`.

    `unfunded` and `overage` are of the usage recorded in that time and not voided; `unfunded` without what has been
    settled since. `debt` is the account's as it stands at `as_of`. None of the three is in a balance.
    """

    account_id: str
    start: datetime
    end: datetime
    first: int
    last: int
    opening: Kinds
    closing: Kinds
    unfunded: int
    overage: int
    debt: int
    as_of: datetime

    @property
    def month(self) -> str:
        return self.start.strftime("%Y-%m")


def month(name: str | None) -> tuple[datetime, datetime]:
    """The UTC calendar month `2026-11`, or (None) the running one. Raises ValidationError."""
    if name is None:
        start = clock.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return start, start + relativedelta(months=1)
    match = _MONTH.fullmatch(name)
    try:
        if match is None or int(match[1]) < 1970:
            raise ValueError
        start = datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC)
        return start, start + relativedelta(months=1)
    except ValueError:
        raise ValidationError({"month": ["Must be a month such as 2026-11."]}) from None


def draw_up(account_id: str, start: datetime, end: datetime) -> Statement:
    """The statement of `[start, end)`, expiries that are due included. Raises AccountNotFound."""
    with balances.snapshot(account_id) as (conn, book):
        first, opening = _at(conn, book.account, start)
        last, closing = _at(conn, book.account, end)
        return Statement(
            account_id=account_id,
            start=start,
            end=end,
            first=first,
            last=last,
            opening=opening,
            closing=closing,
            unfunded=_unfunded(conn, account_id, start, end) if book.account.unfunded else 0,
            overage=_overage(conn, account_id, start, end) if bills.exist(conn, account_id) else 0,
            debt=book.account.debt,
            as_of=book.now,
        )


_SEARCH = text("""
    WITH RECURSIVE search (low, step) AS (
        SELECT CAST(0 AS BIGINT), CAST(:step AS BIGINT)
        UNION ALL
        SELECT
            CASE WHEN (
                SELECT created_at FROM ledger_entries
                WHERE account_id = :account_id AND seq >= low + step ORDER BY seq LIMIT 1
            ) < :moment THEN low + step ELSE low END,
            step / 2
        FROM search WHERE step > 0
    )
    SELECT seq, allowance_after, purchased_after, granted_after FROM ledger_entries
    WHERE account_id = :account_id AND seq = (SELECT low FROM search WHERE step = 0)
""").bindparams(bindparam("moment", type_=UtcDateTime))


def _at(conn: Connection, account: Account, moment: datetime) -> tuple[int, Kinds]:
    """The number up to which entries belong to the time before `moment`, and what each kind had then.

    Entries are written in the order of their times, so the number is found bit by bit, the highest first: a bit is in
    it if the first entry from there on is dated before `moment`. Should a clock have been set back, some entries get
    into a neighbouring statement. But statements still meet, whenever each was drawn up: what is written later moves
    no step of the search unless it too is dated before `moment`, and a later moment never has a lower number.
    """
    highest = 1 << account.seq.bit_length() >> 1
    row = conn.execute(_SEARCH, {"account_id": account.id, "moment": moment, "step": highest}).first()
    if row is None:
        return 0, {kind.value: 0 for kind in Kind}
    return row.seq, {kind.value: getattr(row, f"{kind}_after") for kind in Kind}


def _unfunded(conn: Connection, account_id: str, start: datetime, end: datetime) -> int:
    """Read by the index of what is not settled."""
    query = _of_usage(UsageRecord.unfunded - UsageRecord.settled, account_id, start, end)
    return int(conn.scalar(query.where(UsageRecord.unfunded > UsageRecord.settled)) or 0)


def _overage(conn: Connection, account_id: str, start: datetime, end: datetime) -> int:
    """Read by the index of when the usage was: that can lie back from its recording, and a little ahead."""
    query = _of_usage(UsageRecord.overage, account_id, start, end)
    near = (UsageRecord.occurred_at >= start - OLDEST, UsageRecord.occurred_at < end + AHEAD)
    return int(conn.scalar(query.where(*near)) or 0)


def _of_usage(amount: Any, account_id: str, start: datetime, end: datetime) -> Select[Any]:
    return select(func.sum(amount)).where(
        UsageRecord.account_id == account_id,
        UsageRecord.recorded_at >= start,
        UsageRecord.recorded_at < end,
        UsageRecord.voided_at.is_(None),
    )


# What is in it


def entries(statement: Statement, after: int | None = None, limit: int = _PAGE) -> list[Any]:
    """Its entries in order, `limit` at most, from the one that follows the number `after`."""
    query = (
        select(LedgerEntry.__table__)
        .where(
            LedgerEntry.account_id == statement.account_id,
            LedgerEntry.seq > max(statement.first, after or 0),
            LedgerEntry.seq <= statement.last,
        )
        .order_by(LedgerEntry.seq)
        .limit(limit)
    )
    with database.snapshot() as conn:
        return list(conn.execute(query))


def pieces(statement: Statement) -> Iterator[list[Any]]:
    """All its entries in order, a thousand at a time; between two pieces no connection is held."""
    after = statement.first
    while after < statement.last:
        piece = entries(statement, after)
        if not piece:
            return
        yield piece
        after = piece[-1].seq


def movements(statement: Statement) -> dict[str, Kinds]:
    """What each reason changed of each kind, in the order of `Reason`; with the opening they make the closing.

    Usage is nearly every entry, so it is what the rare other reasons leave of the whole change.
    """
    query = (
        select(LedgerEntry.reason, LedgerEntry.kind, func.sum(LedgerEntry.change))
        .where(
            LedgerEntry.account_id == statement.account_id,
            LedgerEntry.seq > statement.first,
            LedgerEntry.seq <= statement.last,
            text("reason <> 'usage'"),  # as their index says it
        )
        .group_by(LedgerEntry.reason, LedgerEntry.kind)
    )
    found = {reason.value: dict.fromkeys(statement.opening, 0) for reason in Reason}
    found[Reason.USAGE] = {kind: statement.closing[kind] - before for kind, before in statement.opening.items()}
    seen = set()
    with database.snapshot() as conn:
        for reason, kind, change in conn.execute(query):
            found[reason][kind] += int(change)
            found[Reason.USAGE][kind] -= int(change)
            seen.add(reason)
    return {reason: changes for reason, changes in found.items() if reason in seen or any(changes.values())}


def render(statement: Statement) -> dict[str, Any]:
    """The statement as the API shows it, but for its entries."""
    return {
        "account": statement.account_id,
        "month": statement.month,
        "period": {"start": statement.start, "end": statement.end},
        "opening_balance": to_credits(sum(statement.opening.values())),
        "closing_balance": to_credits(sum(statement.closing.values())),
        "by_kind": {
            kind: {
                "opening_balance": to_credits(before),
                "change": to_credits(statement.closing[kind] - before),
                "closing_balance": to_credits(statement.closing[kind]),
            }
            for kind, before in statement.opening.items()
        },
        "unfunded": to_credits(statement.unfunded),
        "overage": to_credits(statement.overage),
        "debt": to_credits(statement.debt),
        "as_of": statement.as_of,
    }


def render_movements(statement: Statement) -> dict[str, dict[str, int | Decimal]]:
    """`movements` in credits, with each reason's `total`."""
    shown = {}
    for reason, changes in movements(statement).items():
        amounts = changes | {"total": sum(changes.values())}
        shown[reason] = {name: to_credits(amount) for name, amount in amounts.items()}
    return shown
