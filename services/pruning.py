"""Throwing away what has served its time. The ledger, usage and their keys are kept for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

import clock
import database
from models.invitation import Invitation
from models.stripe import EventStatus, WebhookEvent
from models.user import Mail, Throttle

_MAILS = timedelta(days=90)
_THROTTLES = timedelta(days=2)
_INVITATIONS = timedelta(days=90)
_EVENTS = timedelta(days=90)
_NO_PAYLOAD = "{}"


@database.retrying
def prune() -> int:
    """Delete sent mails and invitations nobody took after 90 days, counted attempts after two; how many rows went.

    Of Stripe's events those that were ignored go after 90 days, and what the processed ones told: it names people, and
    Stripe itself sends no event again after 30. That they came is kept. What failed stays whole.
    """
    with database.transaction() as session:
        mails = session.execute(delete(Mail).where(Mail.sent_at < clock.now() - _MAILS))
        throttles = session.execute(delete(Throttle).where(Throttle.window < datetime.now(UTC) - _THROTTLES))
        untaken = delete(Invitation).where(Invitation.accepted_at.is_(None))
        invitations = session.execute(untaken.where(Invitation.expires_at < clock.now() - _INVITATIONS))
        events = _prune_events(session)
        return events + sum(result.rowcount for result in (mails, throttles, invitations))  # type: ignore[attr-defined]


def _prune_events(session: Session) -> int:
    old = WebhookEvent.received_at < clock.now() - _EVENTS
    ignored = session.execute(delete(WebhookEvent).where(old, WebhookEvent.status == EventStatus.IGNORED))
    told = (WebhookEvent.status == EventStatus.PROCESSED, WebhookEvent.payload != _NO_PAYLOAD)
    emptied = session.execute(update(WebhookEvent).where(old, *told).values(payload=_NO_PAYLOAD))
    return int(ignored.rowcount + emptied.rowcount)  # type: ignore[attr-defined]
