"""Recomputing the books from the ledger: every lot, balance, record and hold must follow from the entries.

Reads one snapshot, account by account in the order of their ids, so it is right beside a running server and needs
memory for one account's lots only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select

import database
from models.account import Account
from models.credit import Hold, HoldState, Kind, LedgerEntry, Lot, Reason
from models.usage import UsageRecord

_TAKES_BACK = {Reason.EXPIRY, Reason.RESET, Reason.PLAN_CHANGE, Reason.REFUND, Reason.DISPUTE}
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that does not follow from the ledger."""

    account: str
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.account} {self.subject}: {self.message}"


@dataclass(slots=True)
class Report:
    """What was read, and every difference that was found."""

    accounts: int = 0
    lots: int = 0
    entries: int = 0
    records: int = 0
    differences: list[Difference] = field(default_factory=list)


@dataclass(slots=True)
class _LotSum:
    first: int | None = None
    remaining: int = 0
    removed: int = 0


def verify(progress: Callable[[int, int], None] | None = None) -> Report:
    """Check all accounts; `progress(done, of)` is called after each."""
    report = Report()
    with database.snapshot() as conn:
        ids = list(conn.execute(select(Account.id).order_by(Account.id)).scalars())
        for done, account_id in enumerate(ids, 1):
            for difference in _verify_account(conn, account_id, report):
                report.differences.append(difference)
            report.accounts += 1
            if progress is not None:
                progress(done, len(ids))
    return report


def _verify_account(conn: Connection, account_id: str, report: Report) -> Iterator[Difference]:
    usage: dict[int, dict[str, int]] = {}
    sums: dict[str, _LotSum] = defaultdict(_LotSum)
    highest = 0
    kinds = dict.fromkeys((kind.value for kind in Kind), 0)
    for entry in _stream(
        conn,
        select(LedgerEntry.__table__).where(LedgerEntry.account_id == account_id).order_by(LedgerEntry.seq),
    ):
        report.entries += 1
        highest = entry.seq
        yield from _verify_entry(account_id, entry, sums[entry.lot_id], kinds)
        if entry.reason == Reason.USAGE:
            usage[entry.seq] = {"kind": entry.kind, "amount": -entry.change, "cause": entry.cause_id}
    yield from _verify_lots(conn, account_id, sums, report)
    yield from _verify_records(conn, account_id, usage, report)
    yield from _verify_totals(conn, account_id, highest)


def _stream(conn: Connection, query: Any) -> Iterator[Any]:
    yield from conn.execution_options(yield_per=_PAGE).execute(query)


def _verify_entry(account_id: str, entry: Any, lot: _LotSum, kinds: dict[str, int]) -> Iterator[Difference]:
    subject = f"entry {entry.seq}"
    if lot.first is None:
        lot.first = entry.change
    lot.remaining += entry.change
    kinds[entry.kind] += entry.change
    if entry.reason in _TAKES_BACK and entry.change < 0:
        lot.removed -= entry.change
    expected = {
        "lot_remaining": lot.remaining,
        "kind_after": kinds[entry.kind],
        "balance_after": sum(kinds.values()),
    }
    for name, value in expected.items():
        if getattr(entry, name) != value:
            yield Difference(account_id, subject, f"{name} is {getattr(entry, name)}, the ledger makes it {value}")


def _verify_lots(conn: Connection, account_id: str, sums: dict[str, _LotSum], report: Report) -> Iterator[Difference]:
    for lot in _stream(conn, select(Lot.__table__).where(Lot.account_id == account_id)):
        report.lots += 1
        told = sums.pop(lot.id, _LotSum(first=0))
        expected = {"issued": told.first, "remaining": told.remaining, "removed": told.removed}
        for name, value in expected.items():
            if getattr(lot, name) != value:
                yield Difference(account_id, lot.id, f"{name} is {getattr(lot, name)}, the ledger makes it {value}")
    for lot_id in sums:
        yield Difference(account_id, lot_id, "has entries in this account's ledger but is not its lot")


def _verify_records(
    conn: Connection, account_id: str, usage: dict[int, dict[str, Any]], report: Report
) -> Iterator[Difference]:
    holds = {}
    query = select(UsageRecord.__table__).where(UsageRecord.account_id == account_id)
    for record in _stream(conn, query):
        report.records += 1
        drawn = dict.fromkeys((kind.value for kind in Kind), 0)
        for seq in range(record.seq + 1, record.seq + record.entries + 1):
            entry = usage.pop(seq, None)
            if entry is None or entry["cause"] != record.id:
                yield Difference(account_id, record.id, f"its ledger entry {seq} is missing")
            else:
                drawn[entry["kind"]] += entry["amount"]
        for kind, amount in drawn.items():
            if getattr(record, kind) != amount:
                yield Difference(
                    account_id, record.id, f"{kind} is {getattr(record, kind)}, the ledger makes it {amount}"
                )
        if record.hold_id is not None:
            holds[record.hold_id] = record.id
    for seq in usage:
        yield Difference(account_id, f"entry {seq}", "spends without a usage record")
    captured = select(Hold.id).where(Hold.account_id == account_id, Hold.state == HoldState.CAPTURED)
    for hold_id in set(conn.execute(captured).scalars()) ^ set(holds):
        yield Difference(account_id, hold_id, "a captured hold and its one usage record must go together")


def _verify_totals(conn: Connection, account_id: str, highest: int) -> Iterator[Difference]:
    account = conn.execute(select(Account.__table__).where(Account.id == account_id)).one()
    unvoided = (UsageRecord.account_id == account_id) & UsageRecord.voided_at.is_(None)
    outstanding = func.coalesce(func.sum(UsageRecord.unfunded - UsageRecord.settled), 0)
    unfunded, last = conn.execute(
        select(outstanding, func.coalesce(func.max(UsageRecord.seq), 0)).where(unvoided)
    ).one()
    if account.unfunded != unfunded:
        yield Difference(account_id, "unfunded", f"is {account.unfunded}, the records make it {unfunded}")
    if account.seq < max(highest, last):
        yield Difference(account_id, "seq", f"is {account.seq}, but {max(highest, last)} is taken")
