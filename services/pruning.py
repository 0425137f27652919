"""Throwing away what has served its time. The ledger, usage and their keys are kept for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete

import clock
import database
from models.user import Mail, Throttle

_MAILS = timedelta(days=90)
_THROTTLES = timedelta(days=2)


@database.retrying
def prune() -> int:
    """Delete sent mails after 90 days and counted attempts after two; how many rows went."""
    with database.transaction() as session:
        mails = session.execute(delete(Mail).where(Mail.sent_at < clock.now() - _MAILS))
        throttles = session.execute(delete(Throttle).where(Throttle.window < datetime.now(UTC) - _THROTTLES))
        return int(mails.rowcount + throttles.rowcount)  # type: ignore[attr-defined]
