"""Holds: credits set aside before the cost of a piece of work is known. Capturing one is `usage.record`."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

import clock
import database
import ids
from amounts import to_credits
from errors import CapReached, HoldNotOpen, NotFound, SpillwayError, ValidationError
from extensions import db
from models.base import written
from models.credit import Hold, HoldState
from rows import run
from services import accounts, alerts, balances, credits, grants, tokens, usage
from services.books import HOLDS, Book
from services.credits import Spender, Wanted
from services.tokens import Caller, Presented
from services.usage import UsageRequest


def render(hold: Hold, now: datetime) -> dict[str, Any]:
    """A hold as the API shows it; its state is judged by the clock, not by the sweeper."""
    expired = hold.state == HoldState.OPEN and hold.expires_at <= now
    return {
        "id": hold.id,
        "account": hold.account_id,
        "state": HoldState.EXPIRED.value if expired else hold.state,
        "credits": to_credits(hold.amount),
        "operation": hold.operation,
        "subject": hold.subject,
        "created_at": hold.created_at,
        "expires_at": hold.expires_at,
    }


def create(
    presented: Presented, account_ref: str | None, request: UsageRequest, ttl_seconds: int
) -> tuple[dict[str, Any], bool]:
    """Set credits aside. The answer and whether it is a replay. Refused as usage would be."""
    account_id = _locate(presented, account_ref)
    try:
        return _create(presented, account_id, request, ttl_seconds)
    except CapReached as refusal:
        alerts.note_refusals([(account_id, refusal)])
        raise


@database.retrying
def _create(
    presented: Presented, account_id: str, request: UsageRequest, ttl_seconds: int
) -> tuple[dict[str, Any], bool]:
    canonical = _canonical(request, ttl_seconds)
    with credits.locked([account_id], _wanted(presented, account_id, request.subject)) as books:
        book = books[account_id]
        caller = tokens.check(books.tokens.get(presented.token_id), presented, "write", book.now)
        key = request.idempotency_key
        if key is not None:
            where = "account_id IN ? AND idempotency_key IN ?"
            found = run(books.conn, [HOLDS.select(books.conn, where, [account_id], [key])])[0]
            if found:
                return grants.replayed(found[0].request, found[0].answer, canonical), True
        charge = usage.price(book, request)
        usage.check_status(book, enforce=True)
        if not charge.priced:
            raise ValidationError({"credits": ["Must be more than 0 for a hold."]})
        usage.fund(book, charge.priced, caller, request.subject, enforce=True)
        hold = _open(book, caller, request, charge.priced, ttl_seconds)
        answer = render(hold, book.now) | {"balance": balances.short_balance(book)}
        answer |= {name: clock.rfc3339(answer[name]) for name in ("created_at", "expires_at")}
        hold.request, hold.answer = json.dumps(canonical), grants.dump_answer(answer)
    return answer, False


def _locate(presented: Presented, account_ref: str | None) -> str:
    """The account; the token is judged under the lock, but nothing is said of an account to one that is not good."""
    try:
        return accounts.account_for(tokens.known(presented).account_id, account_ref)
    except SpillwayError:
        tokens.authenticate(presented, "write")
        raise


def _wanted(presented: Presented, account_id: str, subject: str | None) -> Wanted:
    capped = tokens.known(presented).cap is not None
    spender = Spender(account_id, presented.token_id, capped, subject)
    return Wanted(token_ids={presented.token_id}, spenders=[spender])


def _canonical(request: UsageRequest, ttl_seconds: int) -> dict[str, Any]:
    values = {name: str(value) for name, value in asdict(request).items() if value is not None}
    values.pop("idempotency_key", None)
    return values | {"ttl_seconds": ttl_seconds}


def _open(book: Book, caller: Caller, request: UsageRequest, amount: int, ttl_seconds: int) -> Hold:
    hold = HOLDS.make(
        id=ids.new("hld"),
        account_id=book.account.id,
        token_id=caller.token_id,
        state=HoldState.OPEN.value,
        amount=amount,
        subject=request.subject,
        operation=request.operation,
        created_at=book.now,
        expires_at=book.now + timedelta(seconds=ttl_seconds),
        idempotency_key=request.idempotency_key,
    )
    book.holds[hold.id] = hold
    book.new_holds.append(hold)
    return hold


@database.retrying
def release(hold_id: str, own_account: str | None) -> dict[str, Any]:
    """Give the credits free; harmless when released or expired already.

    Raises NotFound, and HoldNotOpen for a captured hold.
    """
    account_id = find(hold_id, own_account).account_id
    with credits.locked([account_id]) as books:
        book = books[account_id]
        hold = _reload(books.conn, book, hold_id)
        if hold.state == HoldState.CAPTURED:
            raise HoldNotOpen("The hold is captured.", state=hold.state)
        if hold.state == HoldState.OPEN:
            hold.state, hold.closed_at = HoldState.RELEASED.value, book.now
            book.changed_holds[hold.id] = hold
        return render(hold, book.now) | {"balance": balances.short_balance(book)}


def extend(
    presented: Presented,
    hold_id: str,
    own_account: str | None,
    *,
    ttl_seconds: int | None,
    amount: int | None,
) -> dict[str, Any]:
    """Let an open hold live `ttl_seconds` from now, and raise what it holds to `amount`.

    Raises NotFound, HoldNotOpen, ValidationError for a lower amount, and what refuses usage for the difference.
    """
    found = find(hold_id, own_account)
    try:
        return _extend(presented, found.id, found.account_id, found.subject, ttl_seconds, amount)
    except CapReached as refusal:
        alerts.note_refusals([(found.account_id, refusal)])
        raise


@database.retrying
def _extend(
    presented: Presented,
    hold_id: str,
    account_id: str,
    subject: str | None,
    ttl_seconds: int | None,
    amount: int | None,
) -> dict[str, Any]:
    with credits.locked([account_id], _wanted(presented, account_id, subject)) as books:
        book = books[account_id]
        caller = tokens.check(books.tokens.get(presented.token_id), presented, "write", book.now)
        hold = _reload(books.conn, book, hold_id)
        if hold.state != HoldState.OPEN:
            raise HoldNotOpen(f"The hold is {hold.state}.", state=hold.state)
        if amount is not None and amount < hold.amount:
            raise ValidationError({"credits": ["A hold can only be raised; capture or release it to free credits."]})
        usage.check_status(book, enforce=True)
        if amount is not None and amount > hold.amount:
            usage.fund(book, amount - hold.amount, caller, subject, enforce=True)
            hold.amount = amount
        if ttl_seconds is not None:
            hold.expires_at = book.now + timedelta(seconds=ttl_seconds)
        book.changed_holds[hold.id] = hold
        return render(hold, book.now) | {"balance": balances.short_balance(book)}


def _reload(conn: Any, book: Book, hold_id: str) -> Hold:
    """The hold as it is under the lock."""
    if hold_id not in book.holds:
        book.holds[hold_id] = run(conn, [HOLDS.select(conn, "id IN ?", [hold_id])])[0][0]
    return book.holds[hold_id]


def find(hold_id: str, own_account: str | None) -> Hold:
    """The hold, for its own account or (None) the operator. Raises NotFound."""
    hold = db.session.get(Hold, hold_id)
    if hold is None or own_account not in (None, hold.account_id):
        raise NotFound("No such hold.")
    return hold


def listing(account_id: str, state: str | None, before: str | None, limit: int) -> list[Hold]:
    """Holds of the account, newest first, `limit` at most, older than the id `before`."""
    now = clock.now()
    query = select(Hold).where(Hold.account_id == account_id).order_by(Hold.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Hold.id < before)
    if state == HoldState.OPEN:
        query = query.where(Hold.state == state, Hold.expires_at > now)
    elif state == HoldState.EXPIRED:
        query = query.where((Hold.state == state) | ((Hold.state == HoldState.OPEN) & (Hold.expires_at <= now)))
    elif state is not None:
        query = query.where(Hold.state == state)
    return list(db.session.scalars(query))


def expire_due(limit: int = 500) -> int:
    """Mark forgotten holds as expired; they have held nothing since then. How many accounts had some."""
    due = db.session.scalars(
        select(Hold.account_id)
        .where(Hold.state == written(HoldState.OPEN.value), Hold.expires_at <= clock.now())
        .distinct()
        .limit(limit)
    ).all()
    for account_id in due:
        credits.touch(account_id)
    return len(due)
