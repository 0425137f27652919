"""Recomputing the books from the ledger: every lot, balance, record and hold must follow from the entries.

Reads one snapshot, account by account in the order of their ids, so it is right beside a running server and needs
memory for one account's lots only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, func, select

import database
from amounts import EXACT
from models.account import Account
from models.credit import Hold, HoldState, Kind, LedgerEntry, Lot, Reason
from models.stripe import Purchase, PurchaseStatus, Reversal
from models.usage import RecentUsage, SubjectHour, UsageHour, UsageRecord
from services import bills, controls

_TAKES_BACK = {Reason.EXPIRY, Reason.RESET, Reason.PLAN_CHANGE}
_GOES_BOTH_WAYS = {Reason.PLAN_CHANGE, Reason.REFUND, Reason.DISPUTE, Reason.DISPUTE_REVERSAL}
"""What these reasons took they may return, to the same lot."""
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
    kind: str = ""
    first: int = 0
    remaining: int = 0
    removed: int = 0


@dataclass(slots=True)
class _Told:
    """What one account's ledger says: sums of each lot and kind, what spent under each number, and what came of usage.

    `voids` and `settles` are by usage record. `numbers` counts the entries and records, `highest` is the last number.
    """

    lots: dict[str, _LotSum] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=lambda: dict.fromkeys((kind.value for kind in Kind), 0))
    usage: dict[int, tuple[str, int, str]] = field(default_factory=dict)
    voids: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    settles: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    numbers: int = 0
    highest: int = 0

    def count(self, number: int) -> None:
        self.numbers += 1
        self.highest = max(self.highest, number)


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
    told = _Told()
    query = select(LedgerEntry.__table__).where(LedgerEntry.account_id == account_id).order_by(LedgerEntry.seq)
    for entry in _stream(conn, query):
        report.entries += 1
        yield from _verify_entry(account_id, entry, told)
    yield from _verify_lots(conn, account_id, told, report)
    yield from _verify_issued(conn, account_id)
    yield from _verify_records(conn, account_id, told, report)
    yield from _verify_totals(conn, account_id, told)
    yield from _verify_hours(conn, account_id, UsageHour, ("operation", "llm_model", "source"))
    yield from _verify_hours(conn, account_id, SubjectHour, ("subject",))
    for subject, told_wrong in (*controls.miscounted(conn, account_id), *bills.wrong(conn, account_id)):
        yield Difference(account_id, subject, told_wrong)


def _stream(conn: Connection, query: Any) -> Iterator[Any]:
    yield from conn.execution_options(yield_per=_PAGE).execute(query)


def _compare(account_id: str, subject: str, row: Any, expected: Mapping[str, Any]) -> Iterator[Difference]:
    for name, value in expected.items():
        found = getattr(row, name)
        if found != value:
            yield Difference(account_id, subject, f"{name} is {found}, the ledger makes it {value}")


def _verify_entry(account_id: str, entry: Any, told: _Told) -> Iterator[Difference]:
    begins = entry.lot_id not in told.lots
    lot = told.lots.setdefault(entry.lot_id, _LotSum(entry.kind, entry.change))
    lot.remaining += entry.change
    told.kinds[entry.kind] += entry.change
    told.count(entry.seq)
    if (entry.reason in _TAKES_BACK and entry.change < 0) or (entry.reason in _GOES_BOTH_WAYS and not begins):
        lot.removed -= entry.change
    if entry.reason == Reason.USAGE:
        told.usage[entry.seq] = (entry.kind, -entry.change, entry.cause_id)
    elif entry.reason == Reason.VOID and not begins:  # a lot that begins so stands for overage that was paid
        told.voids[entry.cause_id] += entry.change
    elif entry.reason == Reason.SETTLE:
        told.settles[entry.cause_id] -= entry.change
    expected = {
        "kind": lot.kind,
        "lot_remaining": lot.remaining,
        **{f"{kind}_after": total for kind, total in told.kinds.items()},
        "balance_after": sum(told.kinds.values()),
    }
    yield from _compare(account_id, f"entry {entry.seq}", entry, expected)


def _verify_lots(conn: Connection, account_id: str, told: _Told, report: Report) -> Iterator[Difference]:
    unseen = set(told.lots)
    for lot in _stream(conn, select(Lot.__table__).where(Lot.account_id == account_id)):
        report.lots += 1
        unseen.discard(lot.id)
        entries = told.lots.get(lot.id, _LotSum(lot.kind))
        expected = {
            "kind": entries.kind,
            "issued": entries.first,
            "remaining": entries.remaining,
            "removed": entries.removed,
        }
        yield from _compare(account_id, lot.id, lot, expected)
    for lot_id in sorted(unseen):
        yield Difference(account_id, lot_id, "has entries in this account's ledger but is not its lot")


def _verify_issued(conn: Connection, account_id: str) -> Iterator[Difference]:
    """What was paid for is there, and nothing that comes once came twice."""
    bought = select(Lot.id, Lot.source_key).where(Lot.account_id == account_id, Lot.source_key.startswith("purchase:"))
    lots = {key: lot_id for lot_id, key in conn.execute(bought)}
    paid = Purchase.status == PurchaseStatus.PAID
    for_credits = (Purchase.account_id == account_id, Purchase.mode == "payment", paid)
    for purchase_id, origin, lot_id in conn.execute(
        select(Purchase.id, func.coalesce(Purchase.session_id, Purchase.invoice_id), Purchase.lot_id)
        .where(*for_credits)
        .order_by(Purchase.id)
    ):
        found = lots.pop(f"purchase:{origin}", None)
        if found is None or found != lot_id:
            yield Difference(account_id, purchase_id, f"is paid; its lot is {lot_id}, the account has {found} for it")
    for key, lot_id in sorted(lots.items()):
        yield Difference(account_id, lot_id, f"was issued for {key}, which no purchase of this account is")
    allowances = (Lot.account_id == account_id, Lot.source_key.startswith("allowance:"))
    period = (Lot.subscription_id, Lot.period_start)
    twice = select(*period).where(*allowances).group_by(*period).having(func.count() > 1)
    for subscription_id, start in conn.execute(twice):
        yield Difference(account_id, str(subscription_id), f"has more than one allowance of the period from {start}")


def _verify_records(conn: Connection, account_id: str, told: _Told, report: Report) -> Iterator[Difference]:
    holds = set()
    for record in _stream(conn, select(UsageRecord.__table__).where(UsageRecord.account_id == account_id)):
        report.records += 1
        told.count(record.seq)
        yield from _verify_record(account_id, record, told)
        if record.hold_id is not None:
            holds.add(record.hold_id)
    for seq in told.usage:
        yield Difference(account_id, f"entry {seq}", "spends without a usage record")
    captured = select(Hold.id).where(Hold.account_id == account_id, Hold.state == HoldState.CAPTURED)
    for hold_id in sorted(set(conn.execute(captured).scalars()) ^ holds):
        yield Difference(account_id, hold_id, "a captured hold and its one usage record must go together")


def _verify_record(account_id: str, record: Any, told: _Told) -> Iterator[Difference]:
    drawn = dict.fromkeys(told.kinds, 0)
    for seq in range(record.seq + 1, record.seq + record.entries + 1):
        kind, amount, cause = told.usage.pop(seq, ("", 0, ""))
        if cause != record.id:
            yield Difference(account_id, record.id, f"its ledger entry {seq} is missing")
        else:
            drawn[kind] += amount
    settled = told.settles.get(record.id, 0)
    yield from _compare(account_id, record.id, record, drawn | {"settled": settled})
    given_back, due = told.voids.get(record.id, 0), sum(drawn.values()) + settled
    if given_back != (due if record.voided_at is not None else 0):
        state = "is voided" if record.voided_at is not None else "is not voided"
        message = f"{state} and drew {due}, but the ledger gave {given_back} back"
        yield Difference(account_id, record.id, message)


def _verify_totals(conn: Connection, account_id: str, told: _Told) -> Iterator[Difference]:
    """What the account's row sums up."""
    account = conn.execute(select(Account.__table__).where(Account.id == account_id)).one()
    unsettled = select(func.coalesce(func.sum(UsageRecord.unfunded - UsageRecord.settled), 0))
    unvoided = (UsageRecord.account_id == account_id) & UsageRecord.voided_at.is_(None)
    unfunded = conn.execute(unsettled.where(unvoided)).scalar_one()
    owed = select(func.coalesce(func.sum(Reversal.debt), 0)).where(Reversal.account_id == account_id)
    debt = conn.execute(owed).scalar_one()
    for name, value in {"unfunded": unfunded, "debt": debt}.items():
        if getattr(account, name) != value:
            yield Difference(account_id, name, f"is {getattr(account, name)}, the records make it {value}")
    if not account.seq == told.numbers == told.highest:
        taken = f"{told.numbers} entries and records are there, the last numbered {told.highest}"
        yield Difference(account_id, "seq", f"is {account.seq}, but {taken}")


def _verify_hours(conn: Connection, account_id: str, kept: Any, labels: tuple[str, ...]) -> Iterator[Difference]:
    """The sums that charts are drawn from."""
    stored: dict[tuple[Any, ...], tuple[int, int, Decimal]] = defaultdict(lambda: (0, 0, Decimal(0)))
    for table in (kept, RecentUsage):
        named = [getattr(table, label) for label in labels]
        rows = select(table.hour, table.charged, table.records, table.cost, *named)
        for hour, charged, records, cost, *names in conn.execute(rows.where(table.account_id == account_id)):
            if kept is not SubjectHour or names != [""]:
                so_far = stored[hour, *names]
                stored[hour, *names] = (so_far[0] + charged, so_far[1] + records, EXACT.add(so_far[2], cost))
    columns = [getattr(UsageRecord, label) for label in labels]
    query = select(UsageRecord.occurred_at, UsageRecord.charged, UsageRecord.actual_cost, *columns).where(
        UsageRecord.account_id == account_id, UsageRecord.voided_at.is_(None)
    )
    if kept is SubjectHour:
        query = query.where(UsageRecord.subject.is_not(None))
    summed: dict[tuple[Any, ...], tuple[int, int, Decimal]] = defaultdict(lambda: (0, 0, Decimal(0)))
    for occurred_at, charged, cost, *names in _stream(conn, query):
        key = (occurred_at.replace(minute=0, second=0, microsecond=0), *(name or "" for name in names))
        so_far = summed[key]
        summed[key] = (so_far[0] + charged, so_far[1] + 1, EXACT.add(so_far[2], cost or Decimal(0)))
    for key in sorted(stored.keys() | summed.keys()):
        there, right = stored.get(key, (0, 0, Decimal(0))), summed.get(key, (0, 0, Decimal(0)))
        if there != right:
            told = f"credits, records and cost are {there}, the records make them {right}"
            yield Difference(account_id, f"{kept.__tablename__} {key}", told)
