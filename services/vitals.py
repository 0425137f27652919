"""What the database tells whoever watches an installation: mails and events that wait, the lease, jobs' last runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select, text

import database
from models.operation import JobRun, Lease
from models.stripe import UNHANDLED, EventStatus, WebhookEvent
from models.user import Mail


@dataclass(frozen=True, slots=True)
class LastRun:
    """Times are real time."""

    job: str
    started_at: datetime
    ok: bool


@dataclass(frozen=True, slots=True)
class Vitals:
    """`mails_waiting` are written and not yet sent; `scheduler_alive`: some process holds the lease.

    `events_waiting` are Stripe's that are to be tried again, `events_dead` those that only an operator can replay.
    """

    mails_waiting: int
    mails_failing: int
    events_waiting: int
    events_dead: int
    scheduler_alive: bool
    last_runs: Sequence[LastRun]


def read(lease: str) -> Vitals:
    """Four short reads of one moment. Raises what `database.UNREADABLE` lists."""
    failing = func.count().filter(Mail.attempts > 0)
    dead = func.count().filter(WebhookEvent.status == EventStatus.DEAD)
    with database.snapshot() as conn:
        waiting, failing_mails = conn.execute(select(func.count(), failing).where(Mail.sent_at.is_(None))).one()
        events, dead_events = conn.execute(select(func.count(WebhookEvent.id), dead).where(text(UNHANDLED))).one()
        expires_at = conn.execute(select(Lease.expires_at).where(Lease.name == lease)).scalar()
        runs = conn.execute(select(JobRun.name, JobRun.started_at, JobRun.outcome).order_by(JobRun.name)).all()
    return Vitals(
        mails_waiting=waiting,
        mails_failing=failing_mails,
        events_waiting=events - dead_events,
        events_dead=dead_events,
        scheduler_alive=expires_at is not None and expires_at > datetime.now(UTC),
        last_runs=[LastRun(name, started_at, outcome == "ok") for name, started_at, outcome in runs],
    )
