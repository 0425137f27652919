"""Which thresholds a transaction crossed: pure, on the account's book before and after.

What is crossed is told with the very transaction that crossed it, in the statement that writes it. Nothing is read for
it: the running period's allowance lots are there, and the last top-up is kept on the account's row.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import simplejson
from sqlalchemy import Connection

import ids
from amounts import to_credits
from models.alert import Alert, AlertKind
from models.types import to_microseconds
from rows import Rows, Statement
from services.books import Book, Level

ALERTS = Rows(Alert)
LOW_PERCENT = 20
"""Of the last top-up: with less than that a balance is low."""


def new_alerts(book: Book) -> list[Alert]:
    """The alerts of what was crossed since the book was read."""
    before, after = book.before, book.level()
    return [] if before is None or before == after else list(_crossed(book, before, after))


def _crossed(book: Book, before: Level, after: Level) -> Iterator[Alert]:
    same_allowance = before.allowance == after.allowance
    for threshold in _thresholds(book):
        if _is_used(after, threshold) and not (same_allowance and _is_used(before, threshold)):
            details = {"used": to_credits(after.used), "included": to_credits(after.included)}
            occasion = f"{AlertKind.ALLOWANCE}:{after.allowance}:{threshold}"
            ends_at = book.account.period_end
            yield make(book.account.id, AlertKind.ALLOWANCE, occasion, details, book.now, threshold, ends_at)
    if is_low(after) and not is_low(before):
        account = book.account
        details = {"remaining": to_credits(after.remaining), "top_up": to_credits(after.top_up)}
        occasion = f"{AlertKind.LOW_BALANCE}:{account.topped_up_lot}:{account.period_start.isoformat()}"
        yield make(account.id, AlertKind.LOW_BALANCE, occasion, details, book.now)


def _thresholds(book: Book) -> tuple[int, ...]:
    own = book.controls.alert_thresholds
    return book.catalog.alert_thresholds if own is None else own


def _is_used(level: Level, threshold: int) -> bool:
    return level.included > 0 and level.used * 100 >= threshold * level.included


def is_low(level: Level) -> bool:
    return level.remaining * 100 < LOW_PERCENT * level.top_up


def make(
    account_id: str,
    kind: AlertKind,
    occasion: str,
    details: dict[str, Any],
    now: datetime,
    threshold: int | None = None,
    ends_at: datetime | None = None,
) -> Alert:
    """A row that is not yet written."""
    return ALERTS.make(
        id=ids.new("alt"),
        account_id=account_id,
        occasion=occasion,
        kind=kind.value,
        threshold=threshold,
        details=simplejson.dumps(details, use_decimal=True),
        created_at=now,
        ends_at=ends_at,
    )


def writes(conn: Connection, books: list[Book]) -> list[Statement]:
    """What has to be written about what these transactions crossed: nothing, but for a few of them."""
    statements = [statement for book in books if (statement := _ending(conn, book)) is not None]
    crossed = [alert for book in books for alert in new_alerts(book)]
    if crossed:
        # One that was told before and had come to an end stands again; it is not told anew.
        statements.append(ALERTS.insert(conn, crossed, "ended_at"))
    return statements


def _ending(conn: Connection, book: Book) -> Statement | None:
    """The end of alerts that are no longer true, where credits came, came back, or a period began."""
    before, after = book.before, book.level()
    if before is None or before == after:
        return None
    same_allowance = before.allowance == after.allowance
    eased = not same_allowance or after.used < before.used or after.included != before.included
    if not eased and not (is_low(before) and not is_low(after)):
        return None
    percent = after.used * 100 // after.included if same_allowance and after.included else -1
    mark = "?" if conn.dialect.name == "sqlite" else "%s"
    sql = f"""UPDATE alerts SET ended_at = {mark} WHERE account_id = {mark} AND ended_at IS NULL
        AND ((kind = 'allowance' AND threshold > {mark}) OR (kind = 'low_balance' AND {mark} = 0))"""  # noqa: S608
    now = to_microseconds(book.now) if conn.dialect.name == "sqlite" else book.now
    return Statement(sql, (now, book.account.id, percent, int(is_low(after))))
