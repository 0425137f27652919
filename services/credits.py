"""Lots, the ledger and the waterfall: the only module that writes balances.

`locked` takes the row lock of each account in sorted order, reads everything a decision needs in one round trip, hands
out `Book`s and writes what they collected in one more. Whatever happens under the lock, expiries that are due are
written first, dated when they fell, and a period that is due is renewed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import simplejson
from sqlalchemy import Connection, Engine, select

import clock
import database
import settings
from amounts import to_credits
from errors import AccountClosed, AccountNotFound, DatabaseBusy, IdempotencyConflict, NoAllowance, ValidationError
from extensions import db
from models.account import Account, AccountStatus
from models.credit import CapCounter, Kind, Lot, Reason
from models.token import Token
from rows import Statement, glance, run
from services import catalog, periods, plans
from services.books import (
    ACCOUNTS,
    COUNTERS,
    ENTRIES,
    HOLDS,
    HOURS,
    LOTS,
    RECORDS,
    SUBJECT_HOURS,
    SUBSCRIPTIONS,
    TOKENS,
    Book,
)

_log = logging.getLogger("spillway.credits")
_LAST_USED_STEP = 60
"""Seconds between two updates of a token's last-used time."""


@dataclass(slots=True)
class Wanted:
    """What to read beside the accounts: usage records by key, tokens, and counters of the tokens that have a cap."""

    keys: Collection[str] = ()
    token_ids: Collection[str] = ()
    capped_token_ids: Collection[str] = ()


@dataclass(slots=True)
class Books:
    """The locked accounts' books, and the tokens read with them."""

    conn: Connection
    by_id: dict[str, Book]
    tokens: dict[str, Token]

    def __getitem__(self, account_id: str) -> Book:
        """Raises AccountNotFound."""
        try:
            return self.by_id[account_id]
        except KeyError:
            raise AccountNotFound() from None


@contextmanager
def locked(account_ids: Collection[str], wanted: Wanted | None = None) -> Iterator[Books]:
    """Lock the accounts, bring them up to date, and commit what is done to their books."""
    terms = catalog.current()  # before the lock: it may ask the database
    with database.connection() as conn:
        books = read(conn, account_ids, wanted or Wanted(), terms, lock=True)
        for book in books.by_id.values():
            plans.bring_up_to_date(conn, book)
        yield books
        _write(conn, books)


def read(
    conn: Connection, account_ids: Collection[str], wanted: Wanted, terms: catalog.Catalog, *, lock: bool
) -> Books:
    """Read the accounts' state: under `lock` the rows stay locked until the transaction ends."""
    # Each statement of the round trip sees what was committed before it, so all that follow the lock are current.
    results = run(conn, _questions(conn, account_ids, wanted, lock=lock))
    return Books(conn, *_assemble(results, wanted, terms))


def _questions(
    where: Connection | Engine, account_ids: Collection[str], wanted: Wanted, *, lock: bool = False
) -> list[Statement]:
    accounts, tokens, capped = sorted(set(account_ids)), list(wanted.token_ids), list(wanted.capped_token_ids)
    questions = [
        ACCOUNTS.select(where, "id IN ? ORDER BY id" + (" FOR UPDATE" if lock else ""), accounts),
        LOTS.select(where, "account_id IN ? AND open", accounts),
        HOLDS.select(where, "account_id IN ? AND state = 'open'", accounts),
    ]
    if tokens:
        questions.append(TOKENS.select(where, "id IN ?", tokens))
    if wanted.keys:
        keyed = "account_id IN ? AND idempotency_key IN ?"
        questions.append(RECORDS.select(where, keyed, accounts, list(wanted.keys)))
    if capped:
        questions.append(COUNTERS.select(where, "account_id IN ? AND scope = 'token' AND key IN ?", accounts, capped))
    return questions


def _assemble(
    results: Sequence[list[Any]], wanted: Wanted, terms: catalog.Catalog
) -> tuple[dict[str, Book], dict[str, Token]]:
    """The books, by account, and the tokens, by id, of what the `_questions` found."""
    found = iter(results)
    account_rows = next(found)
    # The time is taken under the lock: entries of one account are then written in the order of their times.
    now = clock.now()
    by_id = {account.id: Book(account, now, terms) for account in account_rows}
    for lot in next(found):
        by_id[lot.account_id].add_loaded_lot(lot)
    for hold in next(found):
        by_id[hold.account_id].holds[hold.id] = hold
    tokens = {token.id: token for token in next(found)} if wanted.token_ids else {}
    for record in next(found) if wanted.keys else ():
        by_id[record.account_id].records[record.idempotency_key] = record
    if wanted.capped_token_ids:
        _add_counters(by_id, next(found), wanted.capped_token_ids)
    return by_id, tokens


def _add_counters(by_id: dict[str, Book], counters: Sequence[CapCounter], token_ids: Collection[str]) -> None:
    found = {(counter.account_id, counter.key, counter.starts_at): counter for counter in counters}
    for book in by_id.values():
        start = _running_period(book)[0]
        for token_id in token_ids:
            book.counters[token_id] = found.get((book.account.id, token_id, start)) or COUNTERS.make(
                account_id=book.account.id,
                scope="token",
                key=token_id,
                window="period",
                starts_at=start,
                used=0,
            )


def _running_period(book: Book) -> tuple[datetime, datetime]:
    """The account's period at the book's time, also where the renewal is due but not yet written."""
    account = book.account
    if account.period_end > book.now:
        return account.period_start, account.period_end
    return periods.month_period(account.period_start, book.now)


def write_book(conn: Connection, book: Book) -> None:
    """Send one book's writes in a transaction of the caller's, who opened it for more than credits."""
    _write(conn, Books(conn, {book.account.id: book}, {}))


def _write(conn: Connection, books: Books) -> None:
    """Send everything the books collected; the caller commits."""
    all_books = list(books.by_id.values())
    new_lot_ids = {lot.id for book in all_books for lot in book.new_lots}
    changed_lots = [lot for book in all_books for lot in book.changed_lots.values() if lot.id not in new_lot_ids]
    statements: list[Statement] = []

    def add(rows: Sequence[Any], make: Any, *arguments: Any) -> None:
        if rows:
            statements.append(make(conn, rows, *arguments))

    add([lot for book in all_books for lot in book.new_lots], LOTS.insert)
    add(changed_lots, LOTS.update, ("remaining", "removed", "open"))
    add([record for book in all_books for record in book.new_records], RECORDS.insert)
    add(
        [record for book in all_books for record in book.changed_records.values()],
        RECORDS.update,
        ("settled", "voided_at", "void_reason"),
    )
    add([entry for book in all_books for entry in book.new_entries], ENTRIES.insert)
    add([hold for book in all_books for hold in book.new_holds], HOLDS.insert)
    add(
        [hold for book in all_books for hold in book.changed_holds.values()],
        HOLDS.update,
        ("state", "amount", "expires_at", "closed_at"),
    )
    add([c for book in all_books for c in book.changed_counters.values()], COUNTERS.insert, "used")
    sums = ("records", "charged", "cost")
    add([hour for book in all_books for hour in book.added_hours.values()], HOURS.add, sums)
    add([hour for book in all_books for hour in book.added_subject_hours.values()], SUBJECT_HOURS.add, sums)
    add(
        [book.account for book in all_books if book.account_changed],
        ACCOUNTS.update,
        (
            "subscription_id",
            "plan",
            "period_start",
            "period_end",
            "rates",
            "seq",
            "unfunded",
            "debt",
            "overage",
        ),
    )
    add(_used_tokens(books), TOKENS.update, ("last_used_at",))
    if statements:
        run(conn, statements)


def _used_tokens(books: Books) -> list[Token]:
    """Tokens whose last-used time is old enough to be worth a write, in a fixed order against deadlocks."""
    now = clock.now()
    stale = []
    for token_id in sorted(books.tokens):
        token = books.tokens[token_id]
        if token.last_used_at is None or (now - token.last_used_at).total_seconds() >= _LAST_USED_STEP:
            token.last_used_at = now
            stale.append(token)
    return stale


# What falls due


def renew_due(limit: int = 500) -> int:
    """Start the periods that are due, a few hundred accounts at a time; how many."""
    now = clock.now()
    due = db.session.scalars(
        select(Account.id)
        .where(Account.period_end <= now, Account.status != AccountStatus.CLOSED)
        .order_by(Account.period_end)
        .limit(limit)
    ).all()
    return _touch_each(due)


def _touch_each(account_ids: Sequence[str]) -> int:
    """Touch them one by one, so that one account that can not be keeps nobody else waiting; how many could.

    Raises what the last one raised when none could.
    """
    touched, failure = 0, None
    for account_id in account_ids:
        try:
            touch(account_id)
            touched += 1
        except Exception as error:
            _log.exception("account %s could not be brought up to date", account_id)
            failure = error
    if failure is not None and not touched:
        raise failure
    return touched


@database.retrying
def touch(account_id: str) -> None:
    with locked([account_id]):
        pass


def expire_due(limit: int = 500) -> int:
    """Write the expiries of idle accounts; how many accounts had some."""
    due = db.session.scalars(
        select(Lot.account_id).where(Lot.open, Lot.expires_at <= clock.now()).distinct().limit(limit)
    ).all()
    return _touch_each(due)


@database.retrying
def reset_limit(account_id: str, reason: str) -> dict[str, Any]:
    """Replace the running allowance by a full one of its own lot and zero the period's cap counters.

    The balance afterwards. Raises NoAllowance where the plan includes nothing, AccountClosed, AccountNotFound.
    """
    with locked([account_id]) as books:
        book, conn = books[account_id], books.conn
        if book.account.is_closed:
            raise AccountClosed()
        subscription = run(conn, [SUBSCRIPTIONS.select(conn, "id IN ?", [book.account.subscription_id])])[0][0]
        included = plans.included_in(book, subscription)
        if not included:
            raise NoAllowance()
        plans.take_back_allowance(book, Reason.RESET, ("account", account_id))
        plans.retire_allowance(conn, book)
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
    return balance(account_id)


def _zero_counters(conn: Connection, book: Book) -> None:
    counters = run(conn, [COUNTERS.select(conn, "account_id IN ? AND \"window\" = 'period'", [book.account.id])])[0]
    for counter in counters:
        counter.used = 0
    if counters:
        run(conn, [COUNTERS.insert(conn, counters, "used")])


# Grants


@database.retrying
def grant(
    account_id: str, *, credits: int, reason: str, expires_at: datetime | None, key: str | None
) -> tuple[dict[str, Any], bool]:
    """Give credits. The answer (`lot`, `balance`) and whether it is a replay of the same key and request.

    Raises IdempotencyConflict, AccountClosed, AccountNotFound, ValidationError for an expiry that has passed.
    """
    request = {
        "credits": credits,
        "reason": reason,
        "expires_at": expires_at.isoformat() if expires_at else None,
    }
    with locked([account_id]) as books:
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
        lot = book.issue(Kind.GRANTED, credits, Reason.GRANT, ("grant", ""), expires_at=expires_at, note=reason)
        book.new_entries[-1].cause_id = lot.id
        settle_unfunded(books.conn, book, lot)
        answer = {"lot": lot.id, "balance": short_balance(book)}
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


# Balances


def short_balance(book: Book) -> dict[str, Any]:
    """The balance that answers of usage, holds and grants carry."""
    return {
        "available": to_credits(book.available),
        "allowance": to_credits(book.totals[Kind.ALLOWANCE]),
        "purchased": to_credits(book.totals[Kind.PURCHASED]),
        "granted": to_credits(book.totals[Kind.GRANTED]),
        "held": to_credits(book.held()),
    }


@contextmanager
def snapshot(account_id: str, wanted: Wanted | None = None) -> Iterator[tuple[Connection, Book]]:
    """The account's book as it is now, without a lock, and the connection whose reads see the same moment.

    What is due has been written. What is done to the book never is. Raises AccountNotFound, DatabaseBusy.
    """
    for _ in range(2):
        with database.snapshot() as conn:
            book = read(conn, [account_id], wanted or Wanted(), catalog.current(), lock=False)[account_id]
            if not _is_due(book):
                yield conn, book
                return
        touch(account_id)
    raise DatabaseBusy()


@dataclass(frozen=True, slots=True)
class Sight:
    """One account at one moment, with the tokens that were wanted. `issued` are the totals of the lots, by kind."""

    book: Book
    tokens: dict[str, Token]
    issued: dict[str, int]


def current(account_id: str, wanted: Wanted | None = None) -> Sight:
    """The account as it is now, in one round trip and without a lock. What is done to its book is never written.

    What is due has been written. Raises AccountNotFound, DatabaseBusy.
    """
    engine, wanted = db.engine, wanted or Wanted()
    for _ in range(2):
        terms = catalog.current()
        questions = [*_questions(engine, [account_id], wanted), _issued(engine, account_id)]
        *results, issued = glance(engine, questions)
        by_id, tokens = _assemble(results, wanted, terms)
        if account_id not in by_id:
            raise AccountNotFound()
        if not _is_due(by_id[account_id]):
            return Sight(by_id[account_id], tokens, dict(issued))
        touch(account_id)
    raise DatabaseBusy()


def _issued(engine: Engine, account_id: str) -> Statement:
    mark = "?" if engine.dialect.name == "sqlite" else "%s"
    sql = f"""SELECT kind, sum(issued - removed) AS issued FROM lots
        WHERE account_id = {mark} AND (kind <> 'allowance' OR current) GROUP BY kind"""  # noqa: S608
    return Statement(sql, (account_id,), reads=_kind_sum, reads_json=_kind_sum, columns=("kind", "issued"))


def _kind_sum(row: Sequence[Any]) -> tuple[str, int]:
    return row[0], int(row[1])


def _is_due(book: Book) -> bool:
    """Whether a writer would first have to write expiries or a renewal."""
    ended = book.account.period_end <= book.now and not book.account.is_closed
    return ended or any(lot.expires_at and lot.expires_at <= book.now for lot in book.lots.values())


def refresh(account_id: str) -> None:
    """Have what is due written now, so that what is read next is complete. Raises AccountNotFound."""
    current(account_id)


def balance(account_id: str) -> dict[str, Any]:
    """GET /balance: what the account has, by kind. Raises AccountNotFound."""
    return render_balance(current(account_id))


def render_balance(sight: Sight) -> dict[str, Any]:
    """The balance as the API shows it."""
    book, account = sight.book, sight.book.account

    def part(kind: Kind, total_name: str) -> dict[str, Any]:
        total, remaining = sight.issued.get(kind, 0), book.totals[kind]
        return {
            total_name: to_credits(total),
            "used": to_credits(total - remaining),
            "remaining": to_credits(remaining),
        }

    return {
        "account": account.id,
        "external_id": account.external_id,
        "status": account.status,
        "plan": account.plan,
        "available": to_credits(book.available),
        "allowance": part(Kind.ALLOWANCE, "included"),
        "purchased": part(Kind.PURCHASED, "total"),
        "granted": part(Kind.GRANTED, "total"),
        "held": to_credits(book.held()),
        "overage": {"enabled": False, "used": to_credits(account.overage), "cap": None},
        "unfunded": to_credits(account.unfunded),
        "debt": to_credits(account.debt),
        "period": {"start": account.period_start, "end": account.period_end},
        "as_of": book.now,
    }
