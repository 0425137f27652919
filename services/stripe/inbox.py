"""The inbox of Stripe's events: kept first, then handled; what fails is tried again, by Stripe and by a job.

An event's effects and its `processed_at` commit together, under the event's row lock: however often and from wherever
it comes, it has them once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import or_, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

import clock
import database
from errors import DatabaseBusy, NotFound, SpillwayError, StripeRefused, StripeUnavailable
from extensions import db
from models.stripe import UNHANDLED, EventStatus, WebhookEvent
from services import catalog
from services.stripe import gateway, handlers
from services.stripe.gateway import BadEvent
from services.stripe.handlers import Event
from services.stripe.sync import Apply, moment

_log = logging.getLogger("spillway.inbox")
MAX_ATTEMPTS = 15
_FIRST_PAUSE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(hours=6)
"""The last of the attempts comes about two days after the first."""
_ENOUGH_FAILURES = 3
"""In a row: then Stripe is taken to be out of reach, and the rest of a run does not wait for it."""
_MAX_ID, _MAX_TYPE, _END_OF_TIME = 255, 100, 2**37
ALREADY_PROCESSED = "already_processed"


class HandlerFailed(SpillwayError):
    """The event is kept and will be tried again."""

    status, code, title = 500, "internal_error", "The event could not be handled now and will be tried again"


def receive(payload: bytes, signature: str | None) -> str:
    """Take in a webhook's body: `processed`, `already_processed` or `ignored`.

    Raises BadEvent before anything is kept, HandlerFailed with the event kept for the job to retry.
    """
    found = gateway.event(payload, signature)
    event = _read(found)
    if event.type not in handlers.TABLE or bool(found.get("livemode")) != gateway.is_live():
        _log.info("event %s %s: ignored", event.id, event.type)
        return EventStatus.IGNORED.value
    try:
        if not _take(event, payload.decode(), found.get("created")):
            return ALREADY_PROCESSED
        return _handle(event)
    except Exception as error:
        if event.type in handlers.NEVER_REFUSED:
            return EventStatus.IGNORED.value  # by this delivery: where the event could be kept, the job goes on
        if isinstance(error, (DatabaseBusy, *database.OUTAGES)):
            raise
        raise HandlerFailed() from error


def _read(found: dict[str, Any]) -> Event:
    """Raises BadEvent for what is signed but not an event."""
    data = found.get("data")
    about = data.get("object") if isinstance(data, dict) else None
    event = Event(str(found.get("id") or ""), str(found.get("type") or ""), about if isinstance(about, dict) else {})
    texts = ((event.id, _MAX_ID), (event.type, _MAX_TYPE), (event.object_id, _MAX_ID))
    created = found.get("created")
    dated = created is None or (type(created) is int and 0 <= created < _END_OF_TIME)
    if not event.id or not event.type or not dated:
        raise BadEvent()
    if any(len(text) > longest or not text.isprintable() for text, longest in texts):
        raise BadEvent()
    return event


# Keeping and handling


@database.retrying
def _take(event: Event, payload: str, created: int | None) -> bool:
    """Keep the event unless it is kept, and begin an attempt at it; False when it was processed before."""
    with database.transaction() as session:
        _keep(session, event, payload, created)
        row = session.get_one(WebhookEvent, event.id, with_for_update=True)
        if row.processed_at is not None:
            return False
        _begin_attempt(row)
        return True


def _keep(session: Session, event: Event, payload: str, created: int | None) -> None:
    insert = sqlite.insert if database.is_sqlite() else postgresql.insert
    now = clock.now()
    values = {
        "id": event.id,
        "type": event.type,
        "object_id": event.object_id or None,
        "payload": payload,
        "status": EventStatus.PENDING.value,
        "created_at": moment(created) or now,
        "received_at": now,
        "next_attempt_at": _real_now(),
    }
    session.execute(insert(WebhookEvent).values(values).on_conflict_do_nothing())


def _begin_attempt(row: WebhookEvent) -> None:
    """Counted before it begins, so that an event that kills its process is given up some day. Until the pause is over
    the job leaves it to whoever began.
    """
    row.attempts += 1
    row.next_attempt_at = _real_now() + min(_FIRST_PAUSE * 2 ** (row.attempts - 1), _LONGEST_PAUSE)


def _real_now() -> datetime:
    """Pauses are measured by the machine's clock, which nobody moves."""
    return datetime.now(UTC)


def _handle(event: Event) -> str:
    """Run the event's handler and commit what it answers; what became of the event. Raises what the handler raises."""
    try:
        apply = handlers.TABLE[event.type](event)
        catalog.current()  # before the transaction: on the very first use it writes one of its own
        outcome = _finish(event.id, apply)
    except Exception as error:
        ours = isinstance(error, SpillwayError)
        _log.warning("event %s %s failed: %s", event.id, event.type, type(error).__name__, exc_info=not ours)
        _fail(event.id, error)
        raise
    _log.info("event %s %s: %s", event.id, event.type, outcome)
    return outcome


@database.retrying
def _finish(event_id: str, apply: Apply | None) -> str:
    with database.transaction() as session:
        row = session.get_one(WebhookEvent, event_id, with_for_update=True)
        if row.processed_at is not None:
            return ALREADY_PROCESSED
        if apply is not None:
            apply(session)
            row.status = EventStatus.PROCESSED.value
        else:
            row.status, row.payload = EventStatus.IGNORED.value, "{}"  # what is not ours is nothing to keep
        row.processed_at, row.error = clock.now(), None
        return row.status


@database.retrying
def _fail(event_id: str, error: Exception) -> None:
    with database.transaction() as session:
        row = session.get_one(WebhookEvent, event_id, with_for_update=True)
        if row.processed_at is None:
            dead = row.attempts >= MAX_ATTEMPTS
            row.status = (EventStatus.DEAD if dead else EventStatus.FAILED).value
            row.error = _told(error)


def _told(error: Exception) -> str:
    """For operators. Texts of others' errors may hold what was sent, so only their kind is kept."""
    kind = type(error).__name__
    if isinstance(error, StripeRefused):
        return f"{kind}: {error.stripe_code or 'no code'} {error.stripe_param or ''}".rstrip()
    return f"{kind}: {error.title}" if isinstance(error, SpillwayError) else kind


# Trying again


def retry_due(by_hand: bool = False) -> int:
    """Handle the events that failed, or whose process died, oldest first; how many are done now.

    `by_hand` ignores the pauses. While Stripe does not answer the rest waits.
    """
    if not gateway.is_configured():
        return 0
    done, failures = 0, 0
    for event_id in _due(by_hand):
        try:
            replay(event_id)
            done, failures = done + 1, 0
        except StripeRefused:
            failures = 0
        except StripeUnavailable:
            failures += 1
        except Exception:
            _log.exception("event %s can not be handled", event_id)
        if failures == _ENOUGH_FAILURES:
            break
    return done


def _due(by_hand: bool) -> list[str]:
    """Oldest first. Sorted here, lest the database reads all that ever came along the index on when they did."""
    query = select(WebhookEvent.received_at, WebhookEvent.id).where(
        text(UNHANDLED), WebhookEvent.status != EventStatus.DEAD
    )
    if not by_hand:
        query = query.where(WebhookEvent.next_attempt_at <= _real_now())
    db.session.rollback()
    return [event_id for _, event_id in sorted((row[0], row[1]) for row in db.session.execute(query))]


def replay(event_id: str) -> str:
    """Handle a kept event now, dead or not: `processed`, `already_processed` or `ignored`.

    Raises NotFound, and what its handler raises.
    """
    event = _begin_again(event_id)
    return ALREADY_PROCESSED if event is None else _handle(event)


@database.retrying
def _begin_again(event_id: str) -> Event | None:
    with database.transaction() as session:
        row = session.get(WebhookEvent, event_id, with_for_update=True)
        if row is None:
            raise NotFound("No such event in the inbox.")
        if row.processed_at is not None:
            return None
        _begin_attempt(row)
        return _read(json.loads(row.payload))


def backfill(found: Iterable[dict[str, Any]]) -> int:
    """Handle those of Stripe's own list of events that never came, oldest first; how many. One that fails is kept for
    the job.
    """
    done = 0
    for told in list(found)[::-1]:
        event = _read(told)
        if event.type not in handlers.TABLE or bool(told.get("livemode")) != gateway.is_live():
            continue
        if _take(event, json.dumps(told), told.get("created")):
            try:
                _handle(event)
                done += 1
            except Exception:
                _log.exception("event %s can not be handled", event.id)
    return done


# Reading


def listing(
    limit: int, status: str | None = None, before: tuple[datetime, str] | None = None
) -> Sequence[WebhookEvent]:
    """Events of a status, or all, newest first, older than the (received_at, id) `before`."""
    query = select(WebhookEvent).order_by(WebhookEvent.received_at.desc(), WebhookEvent.id.desc()).limit(limit)
    if status is not None:
        query = query.where(WebhookEvent.status == status)
    if before is not None:
        received_at, event_id = before
        older = (WebhookEvent.received_at == received_at) & (WebhookEvent.id < event_id)
        query = query.where(or_(WebhookEvent.received_at < received_at, older))
    return db.session.scalars(query).all()
