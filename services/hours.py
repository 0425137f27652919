"""The sums of hours that are over, to which recent usage is added when its hour has ended.

Recording a unit of work counts it in one small table. Whoever reads adds that table to the hours, so it does not matter
when, or whether, its rows move on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, cast, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

import clock
import database
from extensions import db
from models.account import Account
from models.usage import RecentUsage, SubjectHour, UsageHour

_AT_ONCE = 50
"""Accounts in one transaction: who records usage on them waits for so long."""


def close_due(limit: int = 500) -> int:
    """Add what hours that are over have counted to their sums, for `limit` accounts at most; how many had some."""
    this_hour = clock.now().replace(minute=0, second=0, microsecond=0)
    due = select(RecentUsage.account_id).where(RecentUsage.hour < this_hour).distinct().limit(limit)
    found = sorted(db.session.scalars(due))
    for first in range(0, len(found), _AT_ONCE):
        _close(found[first : first + _AT_ONCE], this_hour)
    return len(found)


@database.retrying
def _close(account_ids: Sequence[str], before: datetime) -> None:
    """All of it or nothing; usage is recorded under the same row locks, in the same order."""
    over = (RecentUsage.account_id.in_(account_ids), RecentUsage.hour < before)
    with database.connection() as conn:
        conn.execute(select(Account.id).where(Account.id.in_(account_ids)).order_by(Account.id).with_for_update())
        _add(conn, UsageHour, *over)
        _add(conn, SubjectHour, *over, RecentUsage.subject != "")
        conn.execute(delete(RecentUsage).where(*over))


def _add(conn: Connection, hours: Any, *over: Any) -> None:
    keys = [column.name for column in hours.__table__.primary_key]
    labels = [getattr(RecentUsage, name) for name in keys]
    on_sqlite = conn.dialect.name == "sqlite"
    cost: Any = (func.decimal_sum if on_sqlite else func.sum)(RecentUsage.cost)
    sums = [cast(func.sum(RecentUsage.records), BigInteger), cast(func.sum(RecentUsage.charged), BigInteger), cost]
    rows = select(*labels, *sums).where(*over).group_by(*labels)
    insert: Any = (sqlite if on_sqlite else postgresql).insert(hours)
    insert = insert.from_select([*keys, "records", "charged", "cost"], rows)
    new = insert.excluded
    conn.execute(
        insert.on_conflict_do_update(
            index_elements=keys,
            set_={
                "records": hours.records + new.records,
                "charged": hours.charged + new.charged,
                "cost": func.decimal_add(hours.cost, new.cost) if on_sqlite else hours.cost + new.cost,
            },
        )
    )
