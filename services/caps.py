"""Spending caps, judged and counted in a locked account's book: what one transaction lets pass the next one sees.

What was charged is counted when it is recorded, whatever paid for it; open holds count as long as they are open.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from amounts import to_credits
from errors import CapReached
from services import agreed
from services.agreed import Cap
from services.books import Book

_NAMED = {agreed.ACCOUNT: "The account's", agreed.TOKEN: "The token's", agreed.SUBJECT: "The subject's"}


def check(book: Book, amount: int, token_id: str | None, token_cap: int | None, subject: str | None) -> None:
    """Raises CapReached where the charge would pass a cap; the token's own is judged first."""
    if not amount:
        return
    for cap, key in agreed.applying(book.controls.caps, token_id, token_cap, subject):
        used = book.counter(cap.scope, key, cap.window).used + _held(book, cap.scope, key)
        if used + amount > cap.credits:
            raise _reached(book, cap, key, used)


def count(
    book: Book,
    amount: int,
    token_id: str | None,
    token_cap: int | None,
    subject: str | None,
    windows: Collection[str] = agreed.WINDOWS,
) -> None:
    """Count a charge (or, below zero, its reversal) under every cap that it falls under."""
    if not amount:
        return
    places = {
        (cap.scope, key, cap.window): None
        for cap, key in agreed.applying(book.controls.caps, token_id, token_cap, subject)
        if cap.window in windows
    }
    for place in places:
        counter = book.counter(*place)
        counter.used = max(0, counter.used + amount)
        book.changed_counters[place] = counter


def _held(book: Book, scope: str, key: str) -> int:
    if scope == agreed.ACCOUNT:
        return book.held()
    return book.held(token_id=key) if scope == agreed.TOKEN else book.held(subject=key)


def resets_at(book: Book, window: str) -> datetime:
    """When the running window ends."""
    return agreed.day_after(book.now) if window == agreed.DAY else book.account.period_end


def _reached(book: Book, cap: Cap, key: str, used: int) -> CapReached:
    error = CapReached(
        f"{_NAMED[cap.scope]} cap of {to_credits(cap.credits)} credits per {cap.window} is reached.",
        cap={
            "scope": cap.scope,
            "key": key or None,
            "window": cap.window,
            "credits": to_credits(cap.credits),
            "used": to_credits(used),
        },
        resets_at=resets_at(book, cap.window),
    )
    error.cap_occasion = f"{cap.scope}:{cap.key}:{cap.window}:{cap.credits}"
    return error
