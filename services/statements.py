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
from models.credit import Kind, LedgerEntry, Reason
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
        first, opening = _at(conn, account_id, start)
        last, closing = _at(conn, account_id, end)
        if last < first:  # only where a clock was set back by more than the whole range
            last, closing = first, opening
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


_LEDGER = LedgerEntry.__table__.c
_OF_KIND = (_LEDGER.account_id == bindparam("account_id"), _LEDGER.kind == bindparam("kind"))
_NEWEST = (
    select(_LEDGER.seq, _LEDGER.kind_after)
    .where(*_OF_KIND, _LEDGER.created_at < bindparam("before"))
    .order_by(_LEDGER.created_at.desc(), _LEDGER.seq.desc())
    .limit(1)
)
"""A kind's last entry by time: one step into its index."""
_NEWEST_BY_NUMBER = (
    select(_LEDGER.kind_after)
    .where(*_OF_KIND, _LEDGER.seq <= bindparam("number"))
    .order_by(_LEDGER.seq.desc())
    .limit(1)
)
"""The same by number, which may have to read many entries of other kinds."""
_TOTAL = select(_LEDGER.balance_after).where(
    _LEDGER.account_id == bindparam("account_id"), _LEDGER.seq == bindparam("number")
)


def _at(conn: Connection, account_id: str, moment: datetime) -> tuple[int, Kinds]:
    """The number up to which entries belong to the time before `moment`, and what each kind had then.

    Entries are written in the order of their times. Should a clock have been set back, one that is dated too early
    keeps its place in the order, so that neighbouring statements still meet.
    """
    number, balances = 0, {}
    for kind in Kind:
        row = conn.execute(_NEWEST, {"account_id": account_id, "kind": kind.value, "before": moment}).first()
        balances[kind.value] = row.kind_after if row is not None else 0
        number = max(number, row.seq if row is not None else 0)
    values = {"account_id": account_id, "number": number}
    if sum(balances.values()) != (conn.scalar(_TOTAL, values) or 0):
        for kind in Kind:
            balances[kind.value] = conn.scalar(_NEWEST_BY_NUMBER, {**values, "kind": kind.value}) or 0
    return number, balances


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
