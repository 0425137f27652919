"""Throwing away what has served its time. The ledger, usage and their keys are kept for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

import clock
import database
from models.base import written
from models.credit import CapCounter
from models.invitation import Invitation
from models.outgoing import Delivery, DeliveryStatus, OutgoingEvent
from models.stripe import EventStatus, WebhookEvent
from models.user import Mail, Throttle
from services import agreed

_DAYS = timedelta(days=2)
_MAILS = timedelta(days=90)
_THROTTLES = timedelta(days=2)
_INVITATIONS = timedelta(days=90)
_EVENTS = timedelta(days=90)
_NO_PAYLOAD = "{}"


@database.retrying
def prune() -> int:
    """Delete what has served its time; how many rows went.

    Sent mails, delivered webhooks and invitations nobody took go after 90 days, counted attempts and days of caps after
    two.

    Of Stripe's events those that were ignored go after 90 days, and what the processed ones told: it names people, and
    Stripe itself sends no event again after 30. That they came is kept. What failed stays whole.
    """
    with database.transaction() as session:
        mails = session.execute(delete(Mail).where(Mail.sent_at < clock.now() - _MAILS))
        throttles = session.execute(delete(Throttle).where(Throttle.window < datetime.now(UTC) - _THROTTLES))
        untaken = delete(Invitation).where(Invitation.accepted_at.is_(None))
        invitations = session.execute(untaken.where(Invitation.expires_at < clock.now() - _INVITATIONS))
        events = _prune_events(session) + _prune_deliveries(session) + _prune_counters(session)
        return events + sum(result.rowcount for result in (mails, throttles, invitations))  # type: ignore[attr-defined]


def _prune_deliveries(session: Session) -> int:
    """What the operator's product was told goes with the log of it, once nothing is under way any more."""
    old = OutgoingEvent.created_at < clock.now() - _EVENTS
    waiting = select(Delivery.event_id).where(Delivery.status == written(DeliveryStatus.PENDING.value))
    gone = select(OutgoingEvent.id).where(old, OutgoingEvent.id.not_in(waiting))
    session.execute(delete(Delivery).where(Delivery.event_id.in_(gone)))
    return int(session.execute(delete(OutgoingEvent).where(OutgoingEvent.id.in_(gone))).rowcount)  # type: ignore[attr-defined]


def _prune_counters(session: Session) -> int:
    """Days that caps have counted to their end."""
    over = (CapCounter.window == agreed.DAY, CapCounter.starts_at < clock.now() - _DAYS)
    return int(session.execute(delete(CapCounter).where(*over)).rowcount)  # type: ignore[attr-defined]


def _prune_events(session: Session) -> int:
    old = WebhookEvent.received_at < clock.now() - _EVENTS
    ignored = session.execute(delete(WebhookEvent).where(old, WebhookEvent.status == EventStatus.IGNORED))
    told = (WebhookEvent.status == EventStatus.PROCESSED, WebhookEvent.payload != _NO_PAYLOAD)
    emptied = session.execute(update(WebhookEvent).where(old, *told).values(payload=_NO_PAYLOAD))
    return int(ignored.rowcount + emptied.rowcount)  # type: ignore[attr-defined]
