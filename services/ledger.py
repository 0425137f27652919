"""Reading the ledger."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from amounts import to_credits
from extensions import db
from models.credit import LedgerEntry


def listing(account_id: str, limit: int, before: int | None = None) -> list[LedgerEntry]:
    """The account's entries, newest first, with a number below `before`."""
    query = select(LedgerEntry).where(LedgerEntry.account_id == account_id)
    if before is not None:
        query = query.where(LedgerEntry.seq < before)
    return list(db.session.scalars(query.order_by(LedgerEntry.seq.desc()).limit(limit)))


def render(entry: LedgerEntry) -> dict[str, Any]:
    """An entry as the API shows it."""
    return {
        "id": entry_id(entry),
        "lot": entry.lot_id,
        "kind": entry.kind,
        "change": to_credits(entry.change),
        "reason": entry.reason,
        "cause": {"type": entry.cause_type, "id": entry.cause_id},
        "lot_remaining": to_credits(entry.lot_remaining),
        "balance_after": to_credits(entry.balance_after),
        "created_at": entry.created_at,
    }


def entry_id(entry: LedgerEntry) -> str:
    """Derived from the key, so that the largest table needs no third one."""
    return f"led_{entry.account_id.removeprefix('acc_')}{entry.seq}"
