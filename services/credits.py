"""Lots, the ledger and the waterfall: the only module that writes balances.

`locked` takes the row lock of each account in sorted order, reads everything a decision needs in one round trip, hands
out `Book`s and writes what they collected in one more. Whatever happens under the lock, expiries that are due are
written first, dated when they fell, and a period that is due is renewed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, select

import clock
import database
from errors import AccountNotFound
from extensions import db
from models.account import Account, AccountStatus
from models.credit import CapCounter, Lot
from models.token import Token
from rows import Statement, run
from services import agreed, bills, catalog, crossings, limits, plans
from services.books import (
    ACCOUNTS,
    COUNTERS,
    ENTRIES,
    HOLDS,
    LOTS,
    RECENT,
    RECORDS,
    TERMS,
    TOKENS,
    Book,
)

_log = logging.getLogger("spillway.credits")
_LAST_USED_STEP = 60
"""Seconds between two updates of a token's last-used time."""
_MANY_KEYS = 32
"""Of each account: then a list of them is found faster than one by one."""


_SPENT = ("seq", "unfunded", "debt")
"""What any change of credits may change of an account's row."""
_TOP_UP = ("topped_up", "topped_up_lot")
_OVERAGE = ("overage", "overage_terms")
_LONGEST_PERIOD = timedelta(days=800)
"""No period began longer ago; a trial may last two years."""


class Spender(NamedTuple):
    """Who charges an account, as far as caps count it. `capped`: the token has a cap of its own."""

    account_id: str
    token_id: str | None
    capped: bool
    subject: str | None

    def counted(self, account_is_capped: bool) -> list[tuple[str, str, str]]:
        """The account, scope and key of each counter that may count what is charged."""
        found = []
        if self.token_id is not None and (self.capped or account_is_capped):
            found.append((self.account_id, agreed.TOKEN, self.token_id))
        if account_is_capped:
            found.append((self.account_id, agreed.ACCOUNT, ""))
            if self.subject is not None:
                found.append((self.account_id, agreed.SUBJECT, self.subject))
        return found


@dataclass(slots=True)
class Wanted:
    """What to read beside the accounts: usage records by account and key, tokens, and the cap counters of who spends.

    `counted` are the counters that `questions` asked for.
    """

    keys: Collection[tuple[str, str]] = ()
    token_ids: Collection[str] = ()
    spenders: Collection[Spender] = ()
    counted: list[tuple[str, str, str]] = field(default_factory=list, init=False)


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
    with database.connection() as conn, within(conn, account_ids, terms, wanted) as books:
        yield books


@contextmanager
def within(
    conn: Connection, account_ids: Collection[str], terms: catalog.Catalog, wanted: Wanted | None = None
) -> Iterator[Books]:
    """`locked` in a transaction of the caller's, who writes more than credits in it and commits."""
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
    results = run(conn, questions(conn, account_ids, wanted, lock=lock))
    by_id, tokens = assemble(results, wanted, terms)
    late = unread_counters(by_id, wanted)
    if late:
        _add_counters(by_id, late, run(conn, [_counters(conn, late)])[0])
    return Books(conn, by_id, tokens)


def questions(
    where: Connection | Engine, account_ids: Collection[str], wanted: Wanted, *, lock: bool = False
) -> list[Statement]:
    accounts, tokens = sorted(set(account_ids)), list(wanted.token_ids)
    questions = [
        ACCOUNTS.select(where, "id IN ? ORDER BY id" + (" FOR UPDATE" if lock else ""), accounts),
        LOTS.select(where, "account_id IN ? AND (open OR current)", accounts),
        HOLDS.select(where, "account_id IN ? AND state = 'open'", accounts),
    ]
    if tokens:
        questions.append(TOKENS.select(where, "id IN ?", tokens))
    if wanted.keys:
        questions.append(_keyed(where, wanted.keys))
    capped = database.memory("capped accounts")
    places = {place for spender in wanted.spenders for place in spender.counted(spender.account_id in capped)}
    wanted.counted = sorted(places)
    if wanted.counted:
        questions.append(_counters(where, wanted.counted))
    return questions


def _counters(where: Connection | Engine, places: Sequence[tuple[str, str, str]]) -> Statement:
    """The counters of the running windows; a few that are over may come with them."""
    now = clock.now()
    since = agreed.day_of(now), now - _LONGEST_PERIOD
    started = "starts_at >= CASE \"window\" WHEN 'day' THEN ? ELSE ? END"
    asked, found = _among(where, ("account_id", "scope", "key"), places)
    return COUNTERS.select(where, f"{asked} AND {started}", *found, *since)


def _keyed(where: Connection | Engine, keys: Collection[tuple[str, str]]) -> Statement:
    """The records that these keys of these accounts made.

    The index is gone through once for each account that has many keys, and once for each key where accounts have few.
    """
    by_account: dict[str, list[str]] = {}
    for account_id, key in sorted(keys):
        by_account.setdefault(account_id, []).append(key)
    # SQLite goes through it so for one account only.
    if len(by_account) == 1 or (where.dialect.name != "sqlite" and len(keys) >= _MANY_KEYS * len(by_account)):
        condition = " OR ".join(["account_id IN ? AND idempotency_key IN ?"] * len(by_account))
        found: list[Sequence[Any]] = [part for one, its in by_account.items() for part in ([one], its)]
    else:
        condition, found = _among(where, ("account_id", "idempotency_key"), sorted(keys))
    return RECORDS.select(where, condition, *found)


def _among(
    where: Connection | Engine, names: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> tuple[str, list[Sequence[Any]]]:
    """The condition that the texts in these columns are together one of the `rows`, and its parameters."""
    columns = ", ".join(names)
    if where.dialect.name == "sqlite":
        row = ", ".join(f"value ->> {number}" for number in range(len(names)))
        return f"({columns}) IN (SELECT {row} FROM json_each(?))", [rows]  # noqa: S608
    arrays = ", ".join("?::text[]" for _ in names)
    return f"({columns}) IN (SELECT * FROM unnest({arrays}))", [list(column) for column in zip(*rows, strict=True)]  # noqa: S608


def assemble(
    results: Sequence[list[Any]], wanted: Wanted, terms: catalog.Catalog
) -> tuple[dict[str, Book], dict[str, Token]]:
    """The books, by account, and the tokens, by id, of what the `questions` found."""
    found = iter(results)
    account_rows = next(found)
    # The time is taken under the lock: entries of one account are then written in the order of their times.
    now = clock.now()
    by_id = {account.id: Book(account, now, terms) for account in account_rows}
    for account in account_rows:
        limits.learn(account)
    for lot in next(found):
        by_id[lot.account_id].add_loaded_lot(lot)
    for hold in next(found):
        by_id[hold.account_id].holds[hold.id] = hold
    tokens = {token.id: token for token in next(found)} if wanted.token_ids else {}
    for record in next(found) if wanted.keys else ():
        by_id[record.account_id].records[record.idempotency_key] = record
    if wanted.counted:
        _add_counters(by_id, wanted.counted, next(found))
    for book in by_id.values():
        book.before = book.level()
    return by_id, tokens


def _add_counters(
    by_id: dict[str, Book], places: Sequence[tuple[str, str, str]], counters: Sequence[CapCounter]
) -> None:
    for account_id, scope, key in places:
        if account_id in by_id:
            by_id[account_id].counted.add((scope, key))
    for counter in counters:
        place = (counter.scope, counter.key, counter.window, counter.starts_at)
        by_id[counter.account_id].counters[place] = counter


def unread_counters(by_id: dict[str, Book], wanted: Wanted) -> list[tuple[str, str, str]]:
    """Counters that should have been asked for: this process did not know that the account has caps.

    It knows from now on and asks at once, so that accounts with caps cost no round trip and others nothing at all.
    """
    late = set()
    for spender in wanted.spenders:
        book = by_id.get(spender.account_id)
        if book is not None and book.controls.caps:
            database.memory("capped accounts")[spender.account_id] = True
            late |= {place for place in spender.counted(True) if place[1:] not in book.counted}
    return sorted(late)


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
    # Where nothing changes that an index looks at, the indexes need not be touched.
    turned = {lot_id for book in all_books for lot_id in book.turned_lots}
    add([lot for lot in changed_lots if lot.id not in turned], LOTS.update, ("remaining", "removed"))
    add([lot for lot in changed_lots if lot.id in turned], LOTS.update, ("remaining", "removed", "open"))
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
    add([row for book in all_books for row in book.added_usage.values()], RECENT.add, ("records", "charged", "cost"))
    changed = [book for book in all_books if book.account_changed]
    columns = _SPENT + (TERMS if any(book.terms_changed for book in changed) else ())
    columns += _TOP_UP if any(book.topped_up for book in changed) else ()
    columns += _OVERAGE if any(book.overage_changed for book in changed) else ()
    add([book.account for book in changed], ACCOUNTS.update, columns)
    statements += bills.writes(conn, all_books)
    statements += crossings.writes(conn, all_books)
    add(_used_tokens(books), TOKENS.update, ("last_used_at",))
    if statements:
        run(conn, statements)
    for book in all_books:
        limits.learn(book.account)


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
        .order_by(Account.period_end, Account.id)
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
