"""The overage bills of one locked account: opened by the first usage beyond its lots, closed when the period is left.

Amounts are micro-credits. What a bill comes to and how it is billed is for services/stripe/overage.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, case, func, literal, select, tuple_, update

import ids
from models.account import Account
from models.credit import Kind, Reason
from models.overage import BillState, OverageBill
from models.types import to_microseconds
from models.usage import UsageRecord
from rows import Rows, Statement, run
from services.books import Book

BILLS = Rows(OverageBill)
_ADD = """INSERT INTO overage_bills (id, account_id, subscription_id, state, terms, credits, first_seq, period_start,
    period_end, created_at) VALUES ({marks})
    ON CONFLICT (account_id, subscription_id, period_start) WHERE state = 'open'
    DO UPDATE SET credits = overage_bills.credits + excluded.credits"""


def writes(conn: Connection, books: list[Book]) -> list[Statement]:
    """What these transactions add to the bills of the running periods: nothing, but for a few of them."""
    return [_adding(conn, book) for book in books if book.added_overage]


def _adding(conn: Connection, book: Book) -> Statement:
    account, sqlite = book.account, conn.dialect.name == "sqlite"
    moments = [account.period_start, account.period_end, book.now]
    values: list[Any] = [ids.new("ovb"), account.id, account.subscription_id, BillState.OPEN.value]
    values += [account.overage_terms, book.added_overage, book.first_overage]
    values += [to_microseconds(moment) for moment in moments] if sqlite else moments
    return Statement(_ADD.format(marks=", ".join(["?" if sqlite else "%s"] * len(values))), values)


def enter(conn: Connection, book: Book) -> None:
    """The account is in another period now: bills of others are due, and what it has used of this one counts."""
    account = book.account
    here = (OverageBill.subscription_id == account.subscription_id, OverageBill.period_start == account.period_start)
    _close(conn, book, ~(here[0] & here[1]))
    used = select(func.coalesce(func.sum(OverageBill.credits), 0))
    book.set_overage(int(conn.execute(used.where(OverageBill.account_id == account.id, *here)).scalar_one()))


def close(conn: Connection, book: Book) -> None:
    """The account is closed: all that it used is due."""
    _close(conn, book)


def _close(conn: Connection, book: Book, *which: Any) -> None:
    now = literal(book.now, OverageBill.period_end.type)
    end = case((OverageBill.period_end > now, now), else_=OverageBill.period_end)
    due = {"state": BillState.DUE.value, "closed_at": book.now, "last_seq": book.account.seq, "period_end": end}
    mine = (OverageBill.account_id == book.account.id, OverageBill.state == BillState.OPEN.value)
    conn.execute(update(OverageBill).where(*mine, *which).values(due))


def void(conn: Connection, book: Book, record: UsageRecord) -> None:
    """Take a record's overage off its bill. Where that was billed, the credits come back as a lot: money was paid."""
    if not record.overage:
        return
    where = "account_id IN ? AND first_seq <= ? ORDER BY first_seq DESC LIMIT 1"
    bill = run(conn, [BILLS.select(conn, where, [record.account_id], record.seq)])[0][0]
    if bill.amount is not None:
        key = f"void:{record.id}"
        book.issue(Kind.GRANTED, record.overage, Reason.VOID, ("usage", record.id), source_key=key)
        return
    bill.credits -= record.overage
    run(conn, [BILLS.update(conn, [bill], ("credits",))])
    running = (book.account.subscription_id, book.account.period_start)
    if (bill.subscription_id, bill.period_start) == running:
        book.set_overage(book.account.overage - record.overage)


# Reading


def exist(conn: Connection, account_id: str) -> bool:
    """Whether the account ever used overage."""
    found = select(OverageBill.id).where(OverageBill.account_id == account_id).limit(1)
    return conn.execute(found).first() is not None


def owed_since(conn: Connection, account_id: str) -> list[datetime]:
    """When each of the bills that could not be collected was first due."""
    unpaid = select(OverageBill.unpaid_since).where(OverageBill.unpaid_since.is_not(None))
    found = conn.execute(unpaid.where(OverageBill.account_id == account_id)).scalars()
    return [moment for moment in found if moment is not None]


def wrong(conn: Connection, account_id: str) -> Iterator[tuple[str, str]]:
    """Bills, and what the account's row says of them, that do not follow from the records: which, and what is wrong."""
    mine = OverageBill.account_id == account_id
    found = conn.execute(select(OverageBill.__table__).where(mine).order_by(OverageBill.first_seq)).all()
    told = 0
    for bill, following in pairwise([*found, None]):
        assert bill is not None
        records = _overage(conn, account_id, bill.first_seq, following.first_seq if following else None)
        told += records
        # What was voided after it was billed has come back as a lot of its own.
        if bill.credits < records or (bill.amount is None and bill.credits != records):
            yield bill.id, f"credits is {bill.credits}, the records make it {records}"
    every = _overage(conn, account_id, 0, None)
    if every != told:
        yield "overage", f"the records have {every}, those on bills {told}"
    account = conn.execute(select(Account.__table__).where(Account.id == account_id)).one()
    period = tuple_(OverageBill.subscription_id, OverageBill.period_start)
    here = select(func.coalesce(func.sum(OverageBill.credits), 0)).where(mine)
    used = conn.execute(here.where(period == (account.subscription_id, account.period_start))).scalar_one()
    if account.overage != used:
        yield "overage", f"is {account.overage}, the bills of the period make it {used}"


def _overage(conn: Connection, account_id: str, first_seq: int, before: int | None) -> int:
    sums = select(func.coalesce(func.sum(UsageRecord.overage), 0)).where(
        UsageRecord.account_id == account_id, UsageRecord.seq >= first_seq, UsageRecord.voided_at.is_(None)
    )
    return int(conn.execute(sums if before is None else sums.where(UsageRecord.seq < before)).scalar_one())
