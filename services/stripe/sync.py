"""How what Stripe shows comes into the database: fetched first, then written in one transaction.

A sync's `prepare(object_id, …)` asks Stripe without any lock and answers what is to be written, or None where the
object is none of ours. Whoever asked for it (the inbox, a return page, a job) has it written by `run`, or in a
transaction that holds more. It decides by what is in the database then, so it may be repeated and come in any order.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

import database
from services import catalog

Apply = Callable[[Session], None]
"""Writes what was fetched, in a transaction of the caller's. May run more than once, each time from the start."""


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
