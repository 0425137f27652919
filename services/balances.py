"""What an account has, read without a lock: for balances, checks and whatever must fit to them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

import database
from amounts import to_credits
from errors import AccountNotFound, DatabaseBusy
from extensions import db
from models.credit import Kind
from models.token import Token
from rows import glance
from services import catalog, credits, overages
from services.books import LOTS, Book
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
    """One account at one moment, with the tokens that were wanted. `issued` are the totals of the lots, by kind.

    It is complete where nothing that is due has still to be written and no counter of caps has still to be read.
    """

    book: Book
    tokens: dict[str, Token]
    issued: dict[str, int]
    is_complete: bool


def current(account_id: str, wanted: Wanted | None = None) -> Sight:
    """The account as it is now, in one round trip and without a lock. What is done to its book is never written.

    What is due has been written. Raises AccountNotFound, DatabaseBusy.
    """
    for _ in range(3):
        sight = look([account_id], wanted or Wanted()).get(account_id)
        if sight is None:
            raise AccountNotFound()
        if sight.is_complete:
            return sight
        if _is_due(sight.book):
            credits.touch(account_id)
    raise DatabaseBusy()


def look(account_ids: Collection[str], wanted: Wanted) -> dict[str, Sight]:
    """All accounts of these that there are, in one round trip; some may not be complete."""
    engine, terms = db.engine, catalog.current()
    standing = "account_id IN ? AND (kind <> 'allowance' OR current)"
    issued = LOTS.sums(engine, ("account_id", "kind"), "issued - removed", standing, sorted(set(account_ids)))
    *results, sums = glance(engine, [*credits.questions(engine, account_ids, wanted), issued])
    by_id, tokens = credits.assemble(results, wanted, terms)
    late = {account_id for account_id, _, _ in credits.unread_counters(by_id, wanted)}
    totals: dict[str, dict[str, int]] = {account_id: {} for account_id in by_id}
    for account_id, kind, total in sums:
        totals[account_id][kind] = total
    return {
        account_id: Sight(book, tokens, totals[account_id], account_id not in late and not _is_due(book))
        for account_id, book in by_id.items()
    }


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
