"""What an account owes after money went back for credits that were spent. The next purchase pays it, oldest first."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from models.credit import Lot, Reason
from models.stripe import Reversal
from rows import Rows, run
from services.books import Book

REVERSALS = Rows(Reversal)


def pay(conn: Connection, book: Book, lot: Lot) -> None:
    """Take what is owed from a new purchase."""
    changed = []
    for row in _owing(conn, book):
        part = min(row.debt, lot.remaining)
        if part:
            _lower(book, row, part)
            book.take_back(lot, part, _reason(row), ("lot", row.lot_id))
            changed.append(row)
    _write(conn, changed)


def claim(conn: Connection, book: Book, lots: Collection[Lot]) -> None:
    """Take again what came back to lots whose own money is gone: it pays for itself before anything else can."""
    by_id = {lot.id: lot for lot in lots}
    changed = []
    for row in _owing(conn, book):
        part = min(row.debt, by_id[row.lot_id].remaining) if row.lot_id in by_id else 0
        if part:
            _lower(book, row, part)
            row.from_lot += part
            book.take_back(by_id[row.lot_id], part, _reason(row), ("payment", row.payment_intent))
            changed.append(row)
    _write(conn, changed)


def _owing(conn: Connection, book: Book) -> list[Reversal]:
    if not book.account.debt:
        return []
    where = "account_id IN ? AND debt > 0 ORDER BY created_at, lot_id"
    return run(conn, [REVERSALS.select(conn, where, [book.account.id])])[0]


def _lower(book: Book, row: Reversal, part: int) -> None:
    row.debt -= part
    book.add_debt(-part)


def _reason(row: Reversal) -> Reason:
    return Reason.DISPUTE if row.disputed else Reason.REFUND


def _write(conn: Connection, rows: list[Reversal]) -> None:
    if rows:
        run(conn, [REVERSALS.update(conn, rows, ("debt", "from_lot"))])
