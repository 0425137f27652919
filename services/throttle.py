"""Bounded guessing: attempts are counted in the database, so that all processes count together.

Windows are real time. A key is a keyed hash: the table tells nobody who tried.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete
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


def _key(limit: Limit, parts: tuple[str, ...]) -> str:
    secret = settings.current().secret_key.encode()
    return hmac.new(secret, "\n".join((limit.name, *parts)).encode(), hashlib.sha256).hexdigest()
