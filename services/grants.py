"""Credits that the operator gives: grants, and an allowance begun anew."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import simplejson
from sqlalchemy import Connection, update

import database
import settings
from amounts import to_credits
from errors import AccountClosed, IdempotencyConflict, NoAllowance, ValidationError
from models.credit import CapCounter, Kind, Lot, Reason
from rows import run
from services import agreed, allowances, balances, credits, outgoing, plans
from services.books import LOTS, RECORDS, SUBSCRIPTIONS, Book


@database.retrying
def grant(
    account_id: str, *, amount: int, reason: str, expires_at: datetime | None, key: str | None
) -> tuple[dict[str, Any], bool]:
    """Give credits. The answer (`lot`, `balance`) and whether it is a replay of the same key and request.

    Raises IdempotencyConflict, AccountClosed, AccountNotFound, ValidationError for an expiry that has passed.
    """
    request = {
        "credits": amount,
        "reason": reason,
        "expires_at": expires_at.isoformat() if expires_at else None,
    }
    with credits.locked([account_id]) as books:
        book = books[account_id]
        if key is not None:
            found = run(
                books.conn,
                [LOTS.select(books.conn, "account_id IN ? AND idempotency_key IN ?", [account_id], [key])],
            )[0]
            if found:
                return replayed(found[0].request, found[0].answer, request), True
        if book.account.is_closed:
            raise AccountClosed()
        if expires_at is not None and expires_at <= book.now:
            raise ValidationError({"expires_at": ["Must be in the future."]})
        lot = book.issue(Kind.GRANTED, amount, Reason.GRANT, ("grant", ""), expires_at=expires_at, note=reason)
        book.new_entries[-1].cause_id = lot.id
        settle_unfunded(books.conn, book, lot)
        answer = {"lot": lot.id, "balance": balances.short_balance(book)}
        told = answer | {"credits": to_credits(amount), "reason": reason}
        outgoing.emit(books.conn, "credits.granted", account_id, told)
        lot.idempotency_key, lot.request, lot.answer = key, json.dumps(request), dump_answer(answer)
    return answer, False


def dump_answer(answer: dict[str, Any]) -> str:
    """An answer as it is kept for replays, numbers exact."""
    return simplejson.dumps(answer, use_decimal=True)


def replayed(stored_request: str, stored_answer: str, request: dict[str, Any]) -> dict[str, Any]:
    """The stored answer, if the request is the stored one. Raises IdempotencyConflict."""
    stored = json.loads(stored_request)
    differs = sorted(name for name in stored.keys() | request.keys() if stored.get(name) != request.get(name))
    if differs:
        raise IdempotencyConflict("The key was used for a request with other values.", differs=differs)
    answer: dict[str, Any] = simplejson.loads(stored_answer, use_decimal=True)
    return answer


def settle_unfunded(conn: Connection, book: Book, lot: Lot) -> None:
    """Let a new lot pay usage that no lot had covered, oldest record first, where the operator wants that."""
    if not settings.current().settle_unfunded or not book.account.unfunded:
        return
    where = "account_id IN ? AND unfunded > settled AND voided_at IS NULL ORDER BY seq"
    for record in run(conn, [RECORDS.select(conn, where, [book.account.id])])[0]:
        part = min(record.unfunded - record.settled, lot.remaining)
        if not part:
            break
        record.settled += part
        book.changed_records[record.id] = record
        book.add_unfunded(-part)
        book.post(lot, -part, Reason.SETTLE, ("usage", record.id))


@database.retrying
def reset_limit(account_id: str, reason: str) -> dict[str, Any]:
    """Replace the running allowance by a full one of its own lot and zero the period's cap counters.

    The balance afterwards. Raises NoAllowance where the plan includes nothing, AccountClosed, AccountNotFound.
    """
    with credits.locked([account_id]) as books:
        book, conn = books[account_id], books.conn
        if book.account.is_closed:
            raise AccountClosed()
        subscription = run(conn, [SUBSCRIPTIONS.select(conn, "id IN ?", [book.account.subscription_id])])[0][0]
        included = plans.included_in(book, subscription)
        if not included:
            raise NoAllowance()
        allowances.take_back(book, Reason.RESET, ("account", account_id))
        allowances.retire(conn, book)
        book.issue(
            Kind.ALLOWANCE,
            included,
            Reason.RESET,
            ("account", account_id),
            expires_at=book.account.period_end,
            subscription_id=subscription.id,
            period_start=book.account.period_start,
            note=reason,
        )
        _zero_counters(conn, book)
    return balances.balance(account_id)


def _zero_counters(conn: Connection, book: Book) -> None:
    counters = update(CapCounter).where(CapCounter.account_id == book.account.id, CapCounter.window == agreed.PERIOD)
    conn.execute(counters.where(CapCounter.starts_at == book.account.period_start).values(used=0))
