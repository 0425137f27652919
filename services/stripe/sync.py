"""How what Stripe shows comes into the database: fetched first, then written in one transaction.

A sync's `prepare(object_id, …)` asks Stripe without any lock and answers what is to be written, or None where the
object is none of ours. Whoever asked for it (the inbox, a return page, a job) has it written by `run`, or in a
transaction that holds more. It decides by what is in the database then, so it may be repeated and come in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

import database
from services import catalog

Apply = Callable[[Session], None]
"""Writes what was fetched, in a transaction of the caller's. May run more than once, each time from the start."""
_CLOCK_SLIPS = timedelta(minutes=10)


def run(apply: Apply | None) -> bool:
    """Write it in a transaction of its own; whether there was anything of ours to write. Raises DatabaseBusy."""
    if apply is None:
        return False
    catalog.current()  # before the transaction: on the very first use it writes one of its own
    _run(apply)
    return True


@database.retrying
def _run(apply: Apply) -> None:
    with database.transaction() as session:
        apply(session)


def moment(seconds: int | None) -> datetime | None:
    """Stripe's time: whole seconds since 1970."""
    return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC)


def asking() -> datetime:
    """When Stripe is asked, in real time, which is kept as `synced_at`: the business's clock may stand still."""
    return datetime.now(UTC)


def is_older(asked_at: datetime, synced_at: datetime) -> bool:
    """Whether the row shows what Stripe said to somebody who asked after `asked_at`: that is at least as new.

    A row from far ahead was written by a machine whose clock was wrong, and tells nothing.
    """
    return asked_at < synced_at < asked_at + _CLOCK_SLIPS
