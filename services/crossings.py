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
import money
from amounts import to_credits
from models.alert import Alert, AlertKind
from models.types import to_microseconds
from rows import Rows, Statement
from services import overages
from services.books import Book, Level

ALERTS = Rows(Alert)
LOW_PERCENT = 20
"""Of the last top-up: with less than that a balance is low."""


def _crossed(book: Book, before: Level, after: Level) -> Iterator[Alert]:
    used = _percent(after)
    told = _percent(before) if before.allowance == after.allowance else -1
    for threshold in _thresholds(book) if used > told else ():
        if told < threshold <= used:
            details = {"used": to_credits(after.used), "included": to_credits(after.included)}
            occasion = f"{AlertKind.ALLOWANCE}:{after.allowance}:{threshold}"
            ends_at = book.account.period_end
            yield make(book.account.id, AlertKind.ALLOWANCE, occasion, details, book.now, threshold, ends_at)
    if is_low(after) and not is_low(before):
        account = book.account
        details = {"remaining": to_credits(after.remaining), "top_up": to_credits(after.top_up)}
        occasion = f"{AlertKind.LOW_BALANCE}:{account.topped_up_lot}:{account.period_start.isoformat()}"
        yield make(account.id, AlertKind.LOW_BALANCE, occasion, details, book.now)
    if after.overage != before.overage:
        yield from _overrun(book, before, after)


def _overrun(book: Book, before: Level, after: Level) -> Iterator[Alert]:
    """That usage beyond all lots has begun in this period, and how much of what is agreed it has come to."""
    account, limit = book.account, book.overage_limit
    if after.overage <= before.overage or account.overage_terms is None:
        return
    terms, cap = overages.parse(account.overage_terms), book.controls.overage.cap_amount
    details = {
        "used": to_credits(after.overage),
        "cost": money.show(terms.amount(after.overage), terms.currency),
        "limit": None if cap is None else money.show(cap, terms.currency),
    }
    passed = [threshold for threshold in _thresholds(book) if before.overage * 100 < threshold * limit] if cap else []
    told: list[int | None] = [] if before.overage else [None]
    told += [threshold for threshold in passed if after.overage * 100 >= threshold * limit]
    for threshold in told:
        occasion = f"{AlertKind.OVERAGE}:{account.period_start.isoformat()}:{threshold}:{cap if threshold else None}"
        yield make(account.id, AlertKind.OVERAGE, occasion, details, book.now, threshold, account.period_end)


def _thresholds(book: Book) -> tuple[int, ...]:
    own = book.controls.alert_thresholds
    return book.catalog.alert_thresholds if own is None else own


def _percent(level: Level) -> int:
    """Of the allowance, rounded down; thresholds are whole numbers."""
    return level.used * 100 // level.included if level.included else -1


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
    statements: list[Statement] = []
    crossed: list[Alert] = []
    for book in books:
        before, after = book.before, book.level()
        if before is None or before == after:
            continue
        crossed += _crossed(book, before, after)
        if _is_eased(before, after):
            statements.append(_ending(conn, book, after, before.allowance == after.allowance))
    if crossed:
        # What was crossed at one moment is listed in the order it was passed: ids break the tie of their moment.
        for alert, alert_id in zip(crossed, sorted(alert.id for alert in crossed), strict=True):
            alert.id = alert_id
        # One that was told before and had come to an end stands again; it is not told anew.
        statements.append(ALERTS.insert(conn, crossed, "ended_at"))
    return statements


def _is_eased(before: Level, after: Level) -> bool:
    """Whether alerts may no longer be true: credits came, came back, or a period began."""
    if before.allowance != after.allowance or before.included != after.included or after.used < before.used:
        return True
    return is_low(before) and not is_low(after)


def _ending(conn: Connection, book: Book, level: Level, same_allowance: bool) -> Statement:
    """The end of those that are not."""
    percent = _percent(level) if same_allowance else -1
    mark = "?" if conn.dialect.name == "sqlite" else "%s"
    sql = f"""UPDATE alerts SET ended_at = {mark} WHERE account_id = {mark} AND ended_at IS NULL
        AND ((kind = 'allowance' AND threshold > {mark}) OR (kind = 'low_balance' AND {mark} = 0))"""  # noqa: S608
    now = to_microseconds(book.now) if conn.dialect.name == "sqlite" else book.now
    return Statement(sql, (now, book.account.id, percent, int(is_low(level))))
