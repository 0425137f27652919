"""Alerts after they were written, and those that no spending crosses: caps that refused, payments, cards."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import simplejson
from sqlalchemy import Connection, select, update

import clock
import database
from errors import CapReached, NotFound
from extensions import db
from models.alert import Alert, AlertKind
from rows import run
from services import crossings, sentences
from services.crossings import ALERTS

STATES = ("open", "standing", "dismissed", "all")
_log = logging.getLogger("spillway.alerts")
_MOST = 200
_GOOD_NEWS = (AlertKind.TOPPED_UP, AlertKind.RESTORED)
"""Told by mail and listed; no page need begin with it."""
_BY_THRESHOLD = (AlertKind.ALLOWANCE, AlertKind.OVERAGE)
_AGAIN = timedelta(minutes=1)
"""A cap that keeps refusing is looked at no more often, in each process."""


def render(alert: Alert, now: datetime) -> dict[str, Any]:
    """An alert as the API shows it."""
    return {
        "id": alert.id,
        "account": alert.account_id,
        "kind": alert.kind,
        "threshold": alert.threshold,
        "message": message(alert),
        "details": details(alert),
        "standing": alert.stands(now),
        "created_at": alert.created_at,
        "dismissed_at": alert.dismissed_at,
    }


def details(alert: Alert) -> dict[str, Any]:
    """The numbers it was raised with, in credits."""
    told: dict[str, Any] = simplejson.loads(alert.details, use_decimal=True)
    return told


def message(alert: Alert) -> str:
    """One sentence for people."""
    told = details(alert)
    if alert.kind == AlertKind.ALLOWANCE:
        return f"{alert.threshold} % of this period's allowance of {told['included']:,} credits is used."
    if alert.kind == AlertKind.LOW_BALANCE:
        return f"Credits run low: less than a fifth of the last top-up, {told['top_up']:,}, is left."
    if alert.kind == AlertKind.CAP_REACHED:
        whose = "the account" if told["scope"] == "account" else f"{told['scope']} {told['key']}"
        return f"The cap of {told['credits']:,} credits per {told['window']} for {whose} is reached."
    if alert.kind == AlertKind.OVERAGE and alert.threshold is not None:
        return f"{alert.threshold} % of the {told['limit']} agreed for usage beyond the plan is used."
    if alert.kind == AlertKind.OVERAGE:
        return "What the plan includes and every other credit is used; usage beyond it is billed from now on."
    if alert.kind == AlertKind.SPIKE:
        return f"{told['today']:,} credits were used today; {told['usual']:,} a day are usual."
    if alert.kind == AlertKind.CARD_EXPIRING:
        return "The card on file expires soon."
    return sentences.OF[alert.kind](told)


# Reading and dismissing


def listing(
    account_id: str, limit: int, before: tuple[datetime, str] | None = None, state: str = "open"
) -> list[Alert]:
    """Alerts, newest first, older than the (created_at, id) `before`; `open` are all that were not dismissed."""
    query = select(Alert).where(Alert.account_id == account_id)
    if state == "dismissed":
        query = query.where(Alert.dismissed_at.is_not(None))
    elif state != "all":
        query = query.where(Alert.dismissed_at.is_(None))
    if state == "standing":
        now = clock.now()
        query = query.where(Alert.ended_at.is_(None), (Alert.ends_at.is_(None)) | (Alert.ends_at > now))
    if before is not None:
        moment, alert_id = before
        query = query.where((Alert.created_at < moment) | ((Alert.created_at == moment) & (Alert.id < alert_id)))
    return list(db.session.scalars(query.order_by(Alert.created_at.desc(), Alert.id.desc()).limit(limit)))


def standing(account_id: str) -> list[Alert]:
    """Those that are true now, newest first."""
    return listing(account_id, _MOST, state="standing")


def for_banner(account_id: str) -> list[Alert]:
    """What the account should look at now, newest first; of thresholds of one thing the highest alone."""
    return highest([alert for alert in standing(account_id) if alert.kind not in _GOOD_NEWS])


def highest(found: Sequence[Alert]) -> list[Alert]:
    """Without those that a higher threshold of the same thing says, too."""
    most: dict[str, int] = {}
    for alert in found:
        if alert.kind in _BY_THRESHOLD:
            most[alert.kind] = max(most.get(alert.kind, 0), alert.threshold or 0)
    return [alert for alert in found if most.get(alert.kind, alert.threshold or 0) == (alert.threshold or 0)]


@database.retrying
def dismiss(alert_id: str, own_account: str | None) -> Alert:
    """Take an alert away; harmless when it is gone. `own_account` None: the operator's right. Raises NotFound."""
    with database.transaction() as session:
        found = session.scalars(select(Alert).where(Alert.id == alert_id)).first()
        if found is None or own_account not in (None, found.account_id):
            raise NotFound("No such alert.")
        if found.dismissed_at is None:
            found.dismissed_at = clock.now()
        return found


# Raising


def raise_(
    conn: Connection,
    account_id: str,
    kind: AlertKind,
    occasion: str,
    told: dict[str, Any],
    *,
    ends_at: datetime | None = None,
) -> None:
    """Write an alert in the caller's transaction, unless this occasion was told before; then it stands again.

    `occasion` is the caller's name of what happened (an invoice's id); `told` are its details, JSON values. It ends at
    `ends_at`, or by `settle`.
    """
    alert = crossings.make(account_id, kind, f"{kind}:{occasion}", told, clock.now(), ends_at=ends_at)
    run(conn, [ALERTS.insert(conn, [alert], "ended_at")])


def was_told(account_id: str, kind: AlertKind, occasion: str) -> bool:
    """Whether this occasion has an alert, standing or not."""
    db.session.rollback()
    return db.session.get(Alert, (account_id, f"{kind}:{occasion}")) is not None


def settle(conn: Connection, account_id: str, kind: AlertKind) -> None:
    """Alerts of this kind are no longer true; in the caller's transaction."""
    standing = update(Alert).where(Alert.account_id == account_id, Alert.kind == kind.value, Alert.ended_at.is_(None))
    conn.execute(standing.values(ended_at=clock.now()))


@database.retrying
def raise_now(
    account_id: str, kind: AlertKind, occasion: str, told: dict[str, Any], *, ends_at: datetime | None = None
) -> None:
    """`raise_` in a transaction of its own."""
    with database.connection() as conn:
        raise_(conn, account_id, kind, occasion, told, ends_at=ends_at)


def note_refusals(refusals: Iterable[tuple[str, Exception | None]]) -> None:
    """Tell the accounts whose caps refused something, after the transaction that refused it, which wrote nothing.

    Only the first refusal of a window pays for that, in each process and minute. Nothing that goes wrong here changes
    the refusal.
    """
    for account_id, error in refusals:
        if isinstance(error, CapReached) and error.cap_occasion is not None:
            _note_cap(account_id, error)


def _note_cap(account_id: str, error: CapReached) -> None:
    noted, now = database.memory("noted caps"), clock.now()
    occasion = f"{error.cap_occasion}:{error.extra['resets_at'].isoformat()}"
    digest = hashlib.sha256(occasion.encode()).hexdigest()[:32]
    last = noted.get((account_id, digest))
    if last is not None and now - last < _AGAIN:
        return
    try:
        raise_now(account_id, AlertKind.CAP_REACHED, digest, dict(error.extra["cap"]), ends_at=error.extra["resets_at"])
        noted[account_id, digest] = now
    except Exception:
        # What was charged with the refusal is committed: an error here would have it charged again.
        _log.exception("the alert of a cap that is reached could not be written")
