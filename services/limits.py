"""A plan's `requests_per_minute`: how many API requests may be made about an account, over all processes.

Each process remembers what limits the accounts it has met, from the rows it reads anyway: an account without a limit
costs nothing, but one question when a process meets it first. Subscribers of Stripe keep the limit they subscribed
to; for local plans the catalog's of today counts.
"""

from __future__ import annotations

from typing import Any

import database
from extensions import db
from models.account import Account
from services import catalog, throttle, tokens
from services.throttle import Limit
from services.tokens import Presented

_NONE_KNOWN = (None, None)


def learn(account: Any) -> None:
    """Remember what limits the account, from its row as it was just read or written."""
    database.memory("limits")[account.id] = (account.plan, account.requests_per_minute)


def of(account_id: str) -> int | None:
    """Requests a minute; None without a limit."""
    remembered = database.memory("limits")
    if account_id not in remembered:
        account = db.session.get(Account, account_id)
        if account is not None:
            learn(account)
    return _in_force(*remembered.get(account_id, _NONE_KNOWN))


def _in_force(tier: str | None, agreed: int | None) -> int | None:
    if agreed is None:
        return catalog.current().paced.get(tier) if tier is not None else None
    return agreed or None


def check(account_id: str, presented: Presented | None, scope: str | None) -> bool:
    """Count one request about the account, where it has a limit; whether it was counted. Raises RateLimited.

    `presented`: a token that nobody has judged yet. It is judged first, so that only who may ask uses the account's
    requests up. Raises Unauthenticated, MissingScope.
    """
    limit = of(account_id)
    if limit is None:
        return False
    if presented is not None:
        tokens.authenticate(presented, scope)
    throttle.pace(_limit(limit), account_id)
    return True


def count_late(account_id: str) -> None:
    """Count a request that was served before this process knew of the account's limit; it stays served."""
    limit = _in_force(*database.memory("limits").get(account_id, _NONE_KNOWN))
    if limit is not None:
        throttle.pace(_limit(limit), account_id, refuse=False)


def _limit(number: int) -> Limit:
    return Limit("requests", number, 60)
