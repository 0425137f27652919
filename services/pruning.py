"""Throwing away what has served its time. The ledger, usage and their keys are kept for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete

import clock
import database
from models.invitation import Invitation
from models.user import Mail, Throttle

_MAILS = timedelta(days=90)
_THROTTLES = timedelta(days=2)
_INVITATIONS = timedelta(days=90)


@database.retrying
def prune() -> int:
    """Delete sent mails and invitations nobody took after 90 days, counted attempts after two; how many rows went."""
    with database.transaction() as session:
        mails = session.execute(delete(Mail).where(Mail.sent_at < clock.now() - _MAILS))
        throttles = session.execute(delete(Throttle).where(Throttle.window < datetime.now(UTC) - _THROTTLES))
        untaken = delete(Invitation).where(Invitation.accepted_at.is_(None))
        invitations = session.execute(untaken.where(Invitation.expires_at < clock.now() - _INVITATIONS))
        return sum(result.rowcount for result in (mails, throttles, invitations))  # type: ignore[attr-defined]
