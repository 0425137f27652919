"""What is owed after money went back for credits that were spent: the next purchase pays it first."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.credit import Lot, Reason
from models.stripe import Reversal
from services.books import Book


def pay(session: Session, book: Book, lot: Lot) -> None:
    """Let a new purchase pay what is owed, the oldest debt first. What it pays counts as spent."""
    if not book.account.debt:
        return
    owed = select(Reversal).where(Reversal.account_id == book.account.id, Reversal.debt > 0)
    for row in session.scalars(owed.order_by(Reversal.created_at, Reversal.lot_id)):
        part = min(row.debt, lot.remaining)
        if not part:
            break
        row.debt -= part
        book.add_debt(-part)
        book.post(lot, -part, Reason.DISPUTE if row.disputed else Reason.REFUND, ("lot", row.lot_id))
    session.flush()
