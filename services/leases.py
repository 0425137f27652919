"""A lease in the database: of all processes of the fleet, one holds it. Real time, because processes die in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, or_
from sqlalchemy.dialects import postgresql, sqlite

import database
from models.operation import Lease

SCHEDULER = "scheduler"
"""The lease of the one process that runs the jobs."""


@database.retrying
def acquire(name: str, holder: str, ttl: timedelta) -> bool:
    """Take the lease, or prolong it, unless another holder's has not run out. One statement decides."""
    now = datetime.now(UTC)
    with database.connection() as conn:
        insert = sqlite.insert if conn.dialect.name == "sqlite" else postgresql.insert
        statement = insert(Lease).values(name=name, holder=holder, expires_at=now + ttl)
        statement = statement.on_conflict_do_update(
            index_elements=[Lease.name],
            set_={"holder": holder, "expires_at": now + ttl},
            where=or_(Lease.holder == holder, Lease.expires_at <= now),
        )
        return conn.execute(statement.returning(Lease.name)).first() is not None


@database.retrying
def release(name: str, holder: str) -> None:
    """Let go, so that another process need not wait for the end."""
    with database.connection() as conn:
        conn.execute(delete(Lease).where(Lease.name == name, Lease.holder == holder))
