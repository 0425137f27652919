"""Bounded guessing, and plans' requests a minute: counted in the database, so that all processes count together.

Windows are real time. A key is a keyed hash: the table tells nobody who tried.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

import database
import settings
from errors import RateLimited
from models.user import Throttle


@dataclass(frozen=True, slots=True)
class Limit:
    """`attempts` in each window of `seconds`."""

    name: str
    attempts: int
    seconds: int


@database.retrying
def attempt(limit: Limit, *parts: str) -> None:
    """Count one attempt on what `parts` name. Raises RateLimited when it is one too many."""
    now = datetime.now(UTC).timestamp()
    window = now - now % limit.seconds
    values = {"key": _key(limit, parts), "window": datetime.fromtimestamp(window, UTC), "attempts": 1}
    with database.transaction() as session:
        insert = sqlite.insert if database.is_sqlite() else postgresql.insert
        statement = insert(Throttle).values(values)
        counted = session.scalar(
            statement.on_conflict_do_update(
                index_elements=[Throttle.key, Throttle.window], set_={"attempts": Throttle.attempts + 1}
            ).returning(Throttle.attempts)
        )
    if counted is not None and counted > limit.attempts:
        raise RateLimited(max(1, round(window + limit.seconds - now)), "Too many tries. Wait a little.")


@database.retrying
def forgive(limit: Limit, *parts: str) -> None:
    """Forget the attempts: the person proved to be who they say."""
    with database.transaction() as session:
        session.execute(delete(Throttle).where(Throttle.key == _key(limit, parts)))


_SLICES = 6


@database.retrying
def pace(limit: Limit, *parts: str, refuse: bool = True) -> None:
    """Count one request of at most `attempts` in any `seconds`. Raises RateLimited; a refused one does not count.

    Time is cut in slices, and the last whole window of them is added up: never more than the limit gets through, and
    what was used is free again at most a slice late. Without `refuse` it counts in any case.
    """
    now = datetime.now(UTC).timestamp()
    length = limit.seconds / _SLICES
    slice_start = now - now % length
    key, current = _key(limit, parts), datetime.fromtimestamp(slice_start, UTC)
    oldest = datetime.fromtimestamp(slice_start - limit.seconds, UTC)
    with database.transaction() as session:
        insert = sqlite.insert if database.is_sqlite() else postgresql.insert
        statement = insert(Throttle).values(key=key, window=current, attempts=1)
        # First, as it is the lock: whoever counts for the same key at once waits here, and then sees this one.
        session.execute(
            statement.on_conflict_do_update(
                index_elements=[Throttle.key, Throttle.window], set_={"attempts": Throttle.attempts + 1}
            )
        )
        session.execute(delete(Throttle).where(Throttle.key == key, Throttle.window < oldest))
        counts = {
            row.window: row.attempts
            for row in session.execute(select(Throttle.window, Throttle.attempts).where(Throttle.key == key))
        }
        if refuse and sum(counts.values()) > limit.attempts:
            free_at = _free_at(counts, limit)
            wait = min(limit.seconds, math.ceil(free_at.timestamp() + limit.seconds + length - now))
            raise RateLimited(max(1, wait), f"At most {limit.attempts} requests in {limit.seconds} seconds.")


def _free_at(counts: dict[datetime, int], limit: Limit) -> datetime:
    """The slice with whose end there is room for one more; this request is among the counted ones."""
    too_many = sum(counts.values()) - limit.attempts
    for window in sorted(counts):
        too_many -= counts[window]
        if too_many <= 0:
            break
    return window


def _key(limit: Limit, parts: tuple[str, ...]) -> str:
    secret = settings.current().secret_key.encode()
    return hmac.new(secret, "\n".join((limit.name, *parts)).encode(), hashlib.sha256).hexdigest()
