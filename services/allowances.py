"""The allowance lots of one locked account: issued once per (subscription, period start), taken back, given again.

Amounts are micro-credits. A lot is `current` while it counts as included: lots of the account's running period since
the last reset. The lots of a period that an account left and came back to are found again here, not issued anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, func, select, text, update

from models.credit import Kind, LedgerEntry, Lot, Reason
from rows import run
from services import bills, periods
from services.books import LOTS, Book

_UPGRADE = "upgrade:"
_ROLLOVER = "rollover:"
_NOT_USAGE = text("ledger_entries.reason <> 'usage'")
"""As the index of the few other entries says it: an account may have millions of usage entries."""


def enter_period(
    conn: Connection,
    book: Book,
    subscription: Any,
    start: datetime,
    end: datetime,
    included: int,
    *,
    first: bool = False,
) -> None:
    """Make `[start, end)` of this subscription the account's running period, with its allowance.

    What is left of another period's allowance is taken back. `first`: the account is new and has no lots.
    """
    known = [] if first else _lots_of(conn, book, subscription.id, start)
    if not first:
        leave_period(conn, book, but=known)
    book.account.period_start, book.account.period_end = start, end
    book.account_changed = True
    if not first:
        bills.enter(conn, book)
    if known:  # the account comes back to it, or its allowance was issued before Stripe could be asked
        _give_again(conn, book, known)
        move_end(conn, book, end)
        set_included(conn, book, subscription, included, may_raise=False)
        return
    key = f"{subscription.id}:{start.isoformat()}"
    if included:
        _issue(book, subscription, included, Reason.ALLOWANCE, f"allowance:{key}")
    carried = _carried(conn, book, subscription, included) if subscription.rollover_max and not first else 0
    if carried:
        _issue(book, subscription, carried, Reason.ROLLOVER, f"{_ROLLOVER}{key}")


def _issue(book: Book, subscription: Any, amount: int, reason: Reason, key: str) -> Lot:
    return book.issue(
        Kind.ALLOWANCE,
        amount,
        reason,
        ("subscription", subscription.id),
        expires_at=book.account.period_end,
        subscription_id=subscription.id,
        period_start=book.account.period_start,
        source_key=key,
    )


def leave_period(conn: Connection, book: Book, but: Sequence[Lot] = ()) -> None:
    """What is left of the running allowance is taken back, except of these lots, and no longer counts."""
    take_back(book, Reason.PLAN_CHANGE, ("account", book.account.id), but)
    retire(conn, book)


def has_lots(conn: Connection, book: Book, subscription: Any, start: datetime) -> bool:
    """Whether the period's allowance was issued, by whomever."""
    return bool(_lots_of(conn, book, subscription.id, start))


def retire(conn: Connection, book: Book) -> None:
    """Lots of the period or the reset before no longer count as included."""
    conn.execute(update(Lot).where(Lot.account_id == book.account.id, Lot.current).values(current=False))
    for lot in book.lots.values():
        lot.current = False


def take_back(book: Book, reason: Reason, cause: tuple[str, str], but: Sequence[Lot] = ()) -> None:
    """Remove what is left of the running allowance, except of these lots."""
    kept = {lot.id for lot in but}
    for lot in book.spending_order():
        if lot.kind == Kind.ALLOWANCE and lot.current and lot.id not in kept:
            book.take_back(lot, lot.remaining, reason, cause)


def move_end(conn: Connection, book: Book, end: datetime) -> None:
    """The running period ends at another moment than was thought: so does its allowance."""
    lots = [lot for lot in book.lots.values() if lot.kind == Kind.ALLOWANCE and lot.current and lot.expires_at != end]
    for lot in lots:
        lot.expires_at = end
    if lots:
        conn.execute(update(Lot).where(Lot.id.in_([lot.id for lot in lots])).values(expires_at=end))
    book.account.period_end = end
    book.account_changed = True


def set_included(conn: Connection, book: Book, subscription: Any, included: int, *, may_raise: bool = True) -> None:
    """Make what the running period includes max(used, `included`), what was carried over into it aside.

    Growing gives the difference in a lot of its own. It follows from what the period has, so that going up and down
    again and again never gives more than the larger plan has.
    """
    lots = [lot for lot in _current_lots(conn, book) if not (lot.source_key or "").startswith(_ROLLOVER)]
    difference = included - sum(lot.issued - lot.removed for lot in lots)
    if difference > 0 and may_raise:
        key = f"{_UPGRADE}{subscription.id}:{book.account.period_start.isoformat()}:{book.account.seq}"
        _issue(book, subscription, difference, Reason.PLAN_CHANGE, key)
    for lot in lots:
        if difference < 0 and lot.remaining:
            part = min(lot.remaining, -difference)
            book.take_back(lot, part, Reason.PLAN_CHANGE, ("subscription", subscription.id))
            difference += part


def _current_lots(conn: Connection, book: Book) -> list[Lot]:
    """Newest first, exhausted ones too."""
    found = run(conn, [LOTS.select(conn, "account_id IN ? AND current", [book.account.id])])[0]
    lots = {lot.id: book.add_loaded_lot(lot) for lot in found} | {lot.id: lot for lot in book.new_lots if lot.current}
    newest_first = sorted(lots.values(), key=lambda lot: (lot.created_at, lot.id), reverse=True)
    return [lot for lot in newest_first if lot.current]


# A period that was left and entered again


def _lots_of(conn: Connection, book: Book, subscription_id: str, start: datetime) -> list[Lot]:
    """The period's lots since its last reset, exhausted ones too."""
    where = "account_id IN ? AND subscription_id = ? AND period_start = ? ORDER BY created_at, id"
    found = run(conn, [LOTS.select(conn, where, [book.account.id], subscription_id, start)])[0]
    lots = [book.add_loaded_lot(lot) for lot in found]
    resets = [number for number, lot in enumerate(lots) if lot.source_key is None]
    return lots[resets[-1] :] if resets else lots


def _give_again(conn: Connection, book: Book, lots: Sequence[Lot]) -> None:
    """They count again, with what was taken from them when the account left for another plan."""
    ids = [lot.id for lot in lots]
    conn.execute(update(Lot).where(Lot.id.in_(ids)).values(current=True))
    taken = dict.fromkeys(ids, 0)
    changes = select(LedgerEntry.lot_id, func.sum(LedgerEntry.change)).where(
        LedgerEntry.account_id == book.account.id,
        LedgerEntry.lot_id.in_(ids),
        LedgerEntry.reason == Reason.PLAN_CHANGE.value,
        _NOT_USAGE,
    )
    for lot_id, change in conn.execute(changes.group_by(LedgerEntry.lot_id)):
        taken[lot_id] -= int(change)
    for entry in book.new_entries:
        if entry.lot_id in taken and entry.reason == Reason.PLAN_CHANGE:
            taken[entry.lot_id] -= entry.change
    for lot in lots:
        lot.current = True
        amount = taken[lot.id] + (lot.issued if (lot.source_key or "").startswith(_UPGRADE) else 0)
        if amount > 0:
            book.put_back(lot, amount, Reason.PLAN_CHANGE, ("account", book.account.id))


# Carrying over


def _carried(conn: Connection, book: Book, subscription: Any, included: int) -> int:
    """What the subscription's last period left, up to the plan's limit.

    Periods that passed unseen issued nothing; what they would have carried over is carried all the same.
    """
    start, limit = book.account.period_start, int(subscription.rollover_max)
    last = select(Lot.period_start, Lot.expires_at).where(
        Lot.account_id == book.account.id, Lot.subscription_id == subscription.id, Lot.period_start < start
    )
    row = conn.execute(last.order_by(Lot.period_start.desc()).limit(1)).first()
    if row is None:
        return 0
    carried = min(_expired(conn, book, subscription.id, row.period_start), limit)
    for _ in range(periods.months_between(row.expires_at, start)):
        carried = min(included + carried, limit)
    return carried


def _expired(conn: Connection, book: Book, subscription_id: str, start: datetime) -> int:
    """What expired at the end of a period, whether it was written long ago or in this transaction."""
    of_period = (Lot.account_id == book.account.id, Lot.subscription_id == subscription_id, Lot.period_start == start)
    at_the_end = case((LedgerEntry.created_at == Lot.expires_at, -LedgerEntry.change), else_=0)
    written = select(func.coalesce(func.sum(at_the_end), 0)).where(
        LedgerEntry.account_id == book.account.id, LedgerEntry.lot_id == Lot.id, _NOT_USAGE, *of_period
    )
    total = int(conn.execute(written.where(LedgerEntry.reason == Reason.EXPIRY.value)).scalar_one())
    for entry in book.new_entries:
        lot = book.lots[entry.lot_id]
        due = entry.reason == Reason.EXPIRY and entry.created_at == lot.expires_at
        if due and (lot.subscription_id, lot.period_start) == (subscription_id, start):
            total -= entry.change
    return total
