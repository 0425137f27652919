"""What an account controls: caps, alert thresholds, overage, auto top-up. What is locked in it is the operator's.

Credits are micro-credits, money is in minor units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, literal, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

import clock
import database
import settings
from amounts import to_credits
from errors import AccountClosed, Forbidden, OverageUnavailable, StripeNotConfigured, ValidationError
from extensions import db
from models.account import Account
from models.alert import AlertKind
from models.base import written
from models.credit import CapCounter, LedgerEntry, Reason
from models.token import Token
from models.usage import UsageRecord
from services import accounts, agreed, alerts, auto_top_up, catalog, credits, overages, plans, usage
from services.agreed import AutoTopUp, Cap, Controls, Overage
from services.books import Book

MOST_CAPS = 100
_KEYS = {
    agreed.ACCOUNT: literal(""),
    agreed.TOKEN: UsageRecord.token_id,
    agreed.SUBJECT: UsageRecord.subject,
}


def get(account_id: str) -> dict[str, Any]:
    """GET /controls. Raises AccountNotFound."""
    return render(agreed.of(accounts.get(account_id).controls))


def render(controls: Controls) -> dict[str, Any]:
    """The controls as the API shows them and takes them back."""
    top_up = controls.auto_top_up
    return {
        "overage": {"enabled": controls.overage.enabled, "cap_amount": controls.overage.cap_amount},
        "caps": [_render_cap(cap) for cap in controls.caps],
        "alert_thresholds": list(thresholds(controls)),
        "auto_top_up": {
            "enabled": top_up.enabled,
            "below": None if top_up.below is None else to_credits(top_up.below),
            "credits": None if top_up.credits is None else to_credits(top_up.credits),
            "monthly_ceiling": top_up.monthly_ceiling,
        },
    }


def _render_cap(cap: Cap) -> dict[str, Any]:
    key = {} if cap.key is None else {"key": cap.key}
    return {"scope": cap.scope, **key, "window": cap.window, "credits": to_credits(cap.credits), "locked": cap.locked}


def thresholds(controls: Controls) -> tuple[int, ...]:
    """At what percent of the allowance the account is told: its own choice, or the catalog's."""
    own = controls.alert_thresholds
    return catalog.current().alert_thresholds if own is None else own


@database.retrying
def put(account_id: str, wanted: dict[str, Any], *, by_operator: bool) -> dict[str, Any]:
    """Set the members that `wanted` names (`caps` as dicts of Cap's fields, `locked` None where not said).

    The controls afterwards. Raises ValidationError, Forbidden for what the operator has locked, OverageUnavailable,
    StripeNotConfigured, AccountClosed, AccountNotFound.
    """
    defaults = catalog.current().alert_thresholds
    with credits.locked([account_id]) as books:
        book, conn = books[account_id], books.conn
        if book.account.is_closed:
            raise AccountClosed()
        before = book.controls
        after = before
        if "caps" in wanted:
            after = replace(after, caps=_caps(conn, account_id, before.caps, wanted["caps"], by_operator))
        if "alert_thresholds" in wanted:
            chosen = tuple(sorted(set(wanted["alert_thresholds"])))
            after = replace(after, alert_thresholds=None if chosen == defaults else chosen)
        if "overage" in wanted:
            after = replace(after, overage=_overage(conn, book, before.overage, wanted["overage"]))
        if "auto_top_up" in wanted:
            after = replace(after, auto_top_up=_auto_top_up(before.auto_top_up, wanted["auto_top_up"]))
        if after != before:
            book.account.controls = after.to_json()
            conn.execute(update(Account).where(Account.id == account_id).values(controls=book.account.controls))
            if after.auto_top_up != before.auto_top_up:
                auto_top_up.agree(conn, account_id, after.auto_top_up)
            if after.overage != before.overage:
                _put_in_force(conn, book, after.overage)
                alerts.settle(conn, account_id, AlertKind.OVERAGE)
            if after.caps != before.caps:
                alerts.settle(conn, account_id, AlertKind.CAP_REACHED)
            for cap in _uncounted(before.caps, after.caps):
                _recount(conn, book, cap)
    return render(after)


# Caps


def used(account_id: str) -> list[tuple[Cap, int | None]]:
    """The caps in force, and what was charged under each in its running window; None where it counts for many."""
    account, moment = accounts.get(account_id), clock.now()
    found = []
    for cap in agreed.of(account.controls).caps:
        start = agreed.day_of(moment) if cap.window == agreed.DAY else account.period_start
        counters = select(CapCounter.used).where(*_of_window(account_id, cap, start))
        many = cap.key is None and cap.scope != agreed.ACCOUNT
        found.append((cap, None if many else int(db.session.scalar(counters) or 0)))
    return found


def _caps(
    conn: Connection, account_id: str, before: Sequence[Cap], wanted: Sequence[dict[str, Any]], by_operator: bool
) -> tuple[Cap, ...]:
    _check_caps(conn, account_id, before, wanted, by_operator)
    if by_operator:
        return tuple(Cap(**{**cap, "locked": bool(cap["locked"])}) for cap in wanted)
    locked = {cap.place: cap for cap in before if cap.locked}
    own = []
    for fields in wanted:
        cap = Cap(**{**fields, "locked": bool(fields["locked"])})
        kept = locked.get(cap.place)
        if kept is None and not cap.locked:
            own.append(cap)
        elif kept is None or cap.credits != kept.credits or fields["locked"] is False:
            raise Forbidden("A locked cap is the operator's.")
    return (*locked.values(), *own)


def _check_caps(
    conn: Connection, account_id: str, before: Sequence[Cap], wanted: Sequence[dict[str, Any]], by_operator: bool
) -> None:
    """Raises ValidationError."""
    if len(wanted) > MOST_CAPS:
        raise ValidationError({"caps": [f"At most {MOST_CAPS}."]})
    known = {cap.key for cap in before} | _tokens(conn, account_id, by_operator, (cap["key"] for cap in wanted))
    places = set()
    for number, cap in enumerate(wanted):
        place = (cap["scope"], cap["key"], cap["window"])
        if cap["scope"] == agreed.ACCOUNT and cap["key"] is not None:
            raise ValidationError({f"caps.{number}.key": ["A cap on the whole account has no key."]})
        if cap["scope"] == agreed.TOKEN and cap["key"] is not None and cap["key"] not in known:
            raise ValidationError({f"caps.{number}.key": ["The account has no token with this id."]})
        if place in places:
            raise ValidationError({f"caps.{number}": ["There is another cap for the same scope, key and window."]})
        places.add(place)


def _tokens(conn: Connection, account_id: str, by_operator: bool, keys: Iterable[str | None]) -> set[str | None]:
    """Which of the keys are ids of tokens that the caller may name."""
    found = select(Token.id).where(Token.id.in_([key for key in keys if key is not None]))
    own = Token.account_id == account_id
    return set(conn.execute(found.where(own | Token.account_id.is_(None) if by_operator else own)).scalars())


def _uncounted(before: Sequence[Cap], after: Sequence[Cap]) -> list[Cap]:
    """The caps whose windows nobody has counted so far."""
    counted = {cap.place for cap in before}
    return [cap for cap in after if cap.place not in counted and (cap.scope, None, cap.window) not in counted]


def _recount(conn: Connection, book: Book, cap: Cap) -> None:
    """Set the running window's counters to what was charged in it so far: a new cap counts from the window's start."""
    start = agreed.day_of(book.now) if cap.window == agreed.DAY else book.account.period_start
    conn.execute(update(CapCounter).where(*_of_window(book.account.id, cap, start)).values(used=0))
    sums = _charged(conn, book.account.id, cap, start)
    window = literal(cap.window), literal(start, CapCounter.starts_at.type)
    rows = select(literal(book.account.id), literal(cap.scope), sums.c.key, *window, sums.c.used).where(true())
    into = (sqlite if conn.dialect.name == "sqlite" else postgresql).insert(CapCounter)
    counted = into.from_select(["account_id", "scope", "key", "window", "starts_at", "used"], rows)
    primary = [column.name for column in CapCounter.__table__.primary_key]
    conn.execute(counted.on_conflict_do_update(index_elements=primary, set_={"used": counted.excluded.used}))


def miscounted(conn: Connection, account_id: str) -> Iterator[tuple[str, str]]:
    """Counters of the running windows that do not follow from the records: which, and what is wrong.

    Of the caps in force, and of tokens with a cap of their own.
    """
    account = conn.execute(select(Account.__table__).where(Account.id == account_id)).one()
    capped = select(Token.id).where(Token.account_id == account_id, Token.cap.is_not(None))
    caps = [Cap(agreed.TOKEN, agreed.PERIOD, 0, token_id) for token_id in conn.execute(capped).scalars()]
    places = {cap.place: cap for cap in (*caps, *agreed.of(account.controls).caps)}
    for cap in places.values():
        start = agreed.day_of(clock.now()) if cap.window == agreed.DAY else account.period_start
        counters = select(CapCounter.key, CapCounter.used).where(*_of_window(account_id, cap, start))
        counted = {row.key: row.used for row in conn.execute(counters)}
        sums = _charged(conn, account_id, cap, start)
        right = {row.key: int(row.used) for row in conn.execute(select(sums.c.key, sums.c.used))}
        for key in sorted(counted.keys() | right.keys()):
            there, made = counted.get(key, 0), right.get(key, 0)
            if there != made:
                yield f"cap counter {cap.scope} {key} {cap.window}", f"is {there}, the records make it {made}"


def _of_window(account_id: str, cap: Cap, start: datetime) -> list[Any]:
    """The counters that a cap looks at in the window which began at `start`."""
    found = [CapCounter.account_id == account_id, CapCounter.scope == cap.scope, CapCounter.window == cap.window]
    found.append(CapCounter.starts_at == start)
    return found if cap.key is None else [*found, CapCounter.key == cap.key]


def _charged(conn: Connection, account_id: str, cap: Cap, start: datetime) -> Any:
    """The sums of what was recorded in the running window and not forgotten by a reset."""
    key = _KEYS[cap.scope]
    sums: Any = select(key.label("key"), func.sum(UsageRecord.charged).label("used")).where(
        UsageRecord.account_id == account_id,
        UsageRecord.voided_at.is_(None),
        UsageRecord.charged > 0,
        UsageRecord.occurred_at >= start - usage.OLDEST,
    )
    if cap.window == agreed.DAY:
        sums = sums.where(UsageRecord.recorded_at >= start)
    else:
        last = _last_reset(conn, account_id)
        sums = sums.where(UsageRecord.period_start == start, UsageRecord.seq > last)
    if cap.scope != agreed.ACCOUNT:
        sums = sums.where(key.is_not(None) if cap.key is None else key == cap.key)
    return sums.group_by(key if cap.scope != agreed.ACCOUNT else UsageRecord.account_id).subquery()


def _last_reset(conn: Connection, account_id: str) -> int:
    resets = select(func.max(LedgerEntry.seq)).where(
        LedgerEntry.account_id == account_id,
        LedgerEntry.reason != written(Reason.USAGE.value),  # as the index says it
        LedgerEntry.reason == Reason.RESET.value,
    )
    return int(conn.execute(resets).scalar() or 0)


# What is bought beyond the plan


def _overage(conn: Connection, book: Book, before: Overage, wanted: dict[str, Any]) -> Overage:
    """The price is agreed as it is now; whoever turns it off and on again in a period keeps the period's."""
    after = replace(before, **wanted)
    if after.enabled and after.cap_amount is None:
        raise ValidationError({"overage.cap_amount": ["Overage needs a cap in money."]})
    if not after.enabled or before.enabled:
        return after
    paid = _paid(conn, book)
    if paid is not None and paid.overage_terms is not None:
        return after
    prices = [price for price in book.catalog.overage_prices if paid is not None and price.currency == paid.currency]
    if not prices:
        raise OverageUnavailable()
    if book.account.overage and before.terms is not None:
        return after
    return replace(after, terms=overages.of_price(prices[0]).to_json())


def _paid(conn: Connection, book: Book) -> Any:
    """The subscription whose invoices overage would come on, as Stripe last showed it; None without one."""
    return plans.paid_by(conn, plans.of_account(conn, book))


def _put_in_force(conn: Connection, book: Book, agreed_overage: Overage) -> None:
    paid = _paid(conn, book)
    if paid is not None:
        book.set_overage_terms(overages.in_force(paid.overage_terms, paid.currency, agreed_overage))


def _auto_top_up(before: AutoTopUp, wanted: dict[str, Any]) -> AutoTopUp:
    after = AutoTopUp(**wanted)
    if after.enabled:
        missing = [name for name in ("below", "credits", "monthly_ceiling") if getattr(after, name) is None]
        if missing:
            raise ValidationError({f"auto_top_up.{name}": ["Auto top-up needs it."] for name in missing})
        if not before.enabled and settings.current().stripe_secret_key is None:
            raise StripeNotConfigured()
    return after
