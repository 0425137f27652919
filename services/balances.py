"""What an account has, read without a lock: for balances, checks and whatever must fit to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

import database
from amounts import to_credits
from errors import AccountNotFound, DatabaseBusy
from extensions import db
from models.credit import Kind
from models.token import Token
from rows import Statement, glance
from services import catalog, credits, overages
from services.books import Book
from services.credits import Wanted


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
            book = credits.read(conn, [account_id], wanted or Wanted(), catalog.current(), lock=False)[account_id]
            if not _is_due(book):
                yield conn, book
                return
        credits.touch(account_id)
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
    for _ in range(3):
        terms = catalog.current()
        questions = [*credits.questions(engine, [account_id], wanted), _issued(engine, account_id)]
        *results, issued = glance(engine, questions)
        by_id, tokens = credits.assemble(results, wanted, terms)
        if account_id not in by_id:
            raise AccountNotFound()
        if _is_due(by_id[account_id]):
            credits.touch(account_id)
        elif not credits.unread_counters(by_id, wanted):
            return Sight(by_id[account_id], tokens, dict(issued))
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
    return ended or any(lot.remaining and lot.expires_at and lot.expires_at <= book.now for lot in book.lots.values())


def refresh(account_id: str) -> None:
    """Have what is due written now, so that what is read next is complete. Raises AccountNotFound."""
    current(account_id)


def balance(account_id: str) -> dict[str, Any]:
    """GET /balance: what the account has, by kind. Raises AccountNotFound."""
    return render_balance(current(account_id))


def render_balance(sight: Sight) -> dict[str, Any]:
    """The balance as the API shows it."""
    book, account = sight.book, sight.book.account
    overage = book.controls.overage
    enabled = overage.enabled or (account.overage_terms is not None and overages.parse(account.overage_terms).by_plan)

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
        "overage": {"enabled": enabled, "used": to_credits(account.overage), "cap": overage.cap_amount},
        "unfunded": to_credits(account.unfunded),
        "debt": to_credits(account.debt),
        "period": {"start": account.period_start, "end": account.period_end},
        "as_of": book.now,
    }
