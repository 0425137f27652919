"""Usage records after they were made: reading, listing and voiding them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import simplejson
from sqlalchemy import Connection, Select, select, tuple_

import clock
import database
import settings
from amounts import to_credits
from errors import AlreadyVoided, Forbidden, NotFound
from extensions import db
from models.credit import Lot, Reason
from models.usage import UsageRecord
from rows import run
from services import agreed, bills, caps, credits, debts, tokens
from services.books import ENTRIES, LOTS, RECORDS, Book
from services.credits import Spender, Wanted
from services.tokens import Caller

ACCOUNT_VOID_WINDOW = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """`start` and `end` bound `occurred_at` half-open; the rest must match exactly."""

    start: datetime | None = None
    end: datetime | None = None
    operation: str | None = None
    model: str | None = None
    subject: str | None = None
    source: str | None = None


def answer(record: UsageRecord) -> dict[str, Any]:
    """The answer to the request that made the record, the same whenever it is given."""
    body = {
        "id": record.id,
        "account": record.account_id,
        "credits": to_credits(record.charged),
        "priced": to_credits(record.priced),
        "operation": record.operation,
        "consumed": {
            "allowance": to_credits(record.allowance),
            "purchased": to_credits(record.purchased),
            "granted": to_credits(record.granted),
            "overage": to_credits(record.overage),
            "unfunded": to_credits(record.unfunded),
        },
        "balance": {
            "available": to_credits(record.available_after),
            "allowance": to_credits(record.allowance_after),
            "purchased": to_credits(record.purchased_after),
            "granted": to_credits(record.granted_after),
            "held": to_credits(record.held_after),
        },
        "occurred_at": record.occurred_at,
        "recorded_at": record.recorded_at,
    }
    if record.hold_id is not None:
        body["hold"] = record.hold_id
    return body


def detail(record: UsageRecord) -> dict[str, Any]:
    """The record as it is read later: the answer, the request's fields, and what became of it."""
    return answer(record) | {
        "hold": record.hold_id,
        "quantity": to_credits(record.quantity),
        "llm_provider": record.llm_provider,
        "llm_model": record.llm_model,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "total_tokens": record.total_tokens,
        "actual_cost": record.actual_cost,
        "success": record.success,
        "retry": record.retry,
        "enforce": record.enforce,
        "source": record.source,
        "subject": record.subject,
        "properties": _properties(record.properties),
        "idempotency_key": record.idempotency_key,
        "token": record.token_id,
        "settled": to_credits(record.settled),
        "voided_at": record.voided_at,
        "void_reason": record.void_reason,
    }


def _properties(text: str | None) -> dict[str, Any]:
    """As they were sent, numbers exact however long they are."""
    read: dict[str, Any] = simplejson.loads(text or "{}", use_decimal=True, parse_int=Decimal)
    return read


def find(record_id: str, own_account: str | None) -> UsageRecord:
    """The record, for its own account or (None) the operator. Raises NotFound."""
    record = db.session.get(UsageRecord, record_id)
    if record is None or own_account not in (None, record.account_id):
        raise NotFound("No such usage record.")
    return record


def listing(
    account_id: str, filters: Filters, limit: int, before: tuple[datetime, int] | None = None
) -> list[UsageRecord]:
    """Records, newest first by `occurred_at`, older than the (occurred_at, seq) `before`."""
    query = filtered(select(UsageRecord), account_id, filters)
    if before is not None:
        query = query.where(tuple_(UsageRecord.occurred_at, UsageRecord.seq) < before)
    query = query.order_by(UsageRecord.occurred_at.desc(), UsageRecord.seq.desc()).limit(limit)
    return list(db.session.scalars(query))


def filtered(query: Select[Any], account_id: str, filters: Filters) -> Select[Any]:
    """The query narrowed to the account's records that match."""
    query = query.where(UsageRecord.account_id == account_id)
    if filters.start is not None:
        query = query.where(UsageRecord.occurred_at >= filters.start)
    if filters.end is not None:
        query = query.where(UsageRecord.occurred_at < filters.end)
    exact = {
        UsageRecord.operation: filters.operation,
        UsageRecord.llm_model: filters.model,
        UsageRecord.subject: filters.subject,
        UsageRecord.source: filters.source,
    }
    for column, value in exact.items():
        if value is not None:
            query = query.where(column == value)
    return query


def void(caller: Caller, record_id: str, own_account: str | None, reason: str) -> UsageRecord:
    """Reverse a record (of `own_account`, if it is named) once: its credits go back to the lots they came from.

    Raises NotFound, Forbidden for an account token without the right, AlreadyVoided.
    """
    record = find(record_id, own_account)
    _check_right(caller, record)
    return _void(record.account_id, record_id, reason)


def _check_right(caller: Caller, record: UsageRecord) -> None:
    if caller.is_service:
        tokens.require_scope(caller, "admin")
        return
    if not settings.current().allow_account_void:
        raise Forbidden("Voiding usage is the operator's; ALLOW_ACCOUNT_VOID is off.")
    if clock.now() - record.recorded_at > ACCOUNT_VOID_WINDOW:
        raise Forbidden("An account can void its usage for 24 hours.")


@database.retrying
def _void(account_id: str, record_id: str, reason: str) -> UsageRecord:
    spender, token_cap = _spender(record_id)
    with credits.locked([account_id], Wanted(spenders=[spender])) as books:
        book = books[account_id]
        record: UsageRecord = run(books.conn, [RECORDS.select(books.conn, "id IN ?", [record_id])])[0][0]
        if record.voided_at is not None:
            raise AlreadyVoided(voided_at=clock.rfc3339(record.voided_at))
        debts.claim(books.conn, book, _give_back(books.conn, book, record))
        book.add_unfunded(-(record.unfunded - record.settled))
        bills.void(books.conn, book, record)
        windows = _windows(books.conn, book, record)
        charge = -record.charged, record.token_id, token_cap, record.subject
        caps.count(book, *charge, windows)
        record.voided_at, record.void_reason = book.now, reason
        book.changed_records[record.id] = record
        book.count_usage(record, -1)
        return record


def _windows(conn: Connection, book: Book, record: UsageRecord) -> list[str]:
    """The running windows that count the record: it was recorded in them, and no reset came after it."""
    windows = [agreed.DAY] if record.recorded_at >= agreed.day_of(book.now) else []
    if record.period_start != book.account.period_start:
        return windows
    later = "account_id IN ? AND seq > ? AND reason <> 'usage' AND reason = 'reset'"
    resets = run(conn, [ENTRIES.select(conn, later, [record.account_id], record.seq)])[0]
    return windows if resets else [*windows, agreed.PERIOD]


def _spender(record_id: str) -> tuple[Spender, int | None]:
    """Who made the record, as far as caps count it, and the cap of their token."""
    record = db.session.get_one(UsageRecord, record_id)
    identity = tokens.identity(record.token_id) if record.token_id else None
    cap = identity.cap if identity is not None else None
    return Spender(record.account_id, record.token_id, cap is not None, record.subject), cap


def _give_back(conn: Connection, book: Book, record: UsageRecord) -> list[Lot]:
    """Post the opposite of every entry the record caused, settlements of its unfunded part included; the lots."""
    first, last = record.seq, record.seq + record.entries
    own = ENTRIES.select(
        conn, "account_id IN ? AND seq > ? AND seq <= ? ORDER BY seq", [record.account_id], first, last
    )
    # Both reasons, as the index says it: else it would not be used.
    settled = ENTRIES.select(
        conn, "cause_id IN ? AND reason IN ('settle','void') AND reason = 'settle' ORDER BY seq", [record.id]
    )
    entries = [entry for found in run(conn, [own, settled]) for entry in found]
    lots = run(conn, [LOTS.select(conn, "id IN ?", sorted({entry.lot_id for entry in entries}))])[0]
    for lot in lots:
        book.add_loaded_lot(lot)
    for entry in entries:
        book.give_back(book.lots[entry.lot_id], -entry.change, Reason.VOID, ("usage", record.id))
    return [book.lots[lot.id] for lot in lots]
