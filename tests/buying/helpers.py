"""What the tests of buying share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import select

import database as databases
from extensions import db
from models.credit import Lot
from models.stripe import Purchase
from services.stripe import purchases, sync
from tests import factories
from tests.factories import Api
from tests.stripe_world import StripeWorld


def inside(world: StripeWorld, call: Callable[..., Any], *arguments: Any) -> Any:
    """Call it within the app."""
    with world.app.app_context():
        try:
            return call(*arguments)
        finally:
            db.session.remove()


def tenant(world: StripeWorld, external_id: str = "acme") -> tuple[str, Api]:
    """An account without credits, and its API with every scope."""
    account_id = factories.account(world.app, external_id, credits=0)
    return account_id, Api(world.app, factories.token(world.app, account_id, "read", "write", "billing", "tokens"))


def fulfil(world: StripeWorld, session_id: str) -> bool:
    """Fetch a session and write what it means; whether it was ours."""
    return bool(inside(world, lambda: sync.run(purchases.prepare(session_id))))


def lots(world: StripeWorld, account_id: str) -> list[tuple[str, int, int]]:
    """Kind, issued and remaining in whole credits, of what was bought."""
    with world.app.app_context(), databases.transaction() as session:
        query = select(Lot).where(Lot.account_id == account_id, Lot.kind == "purchased").order_by(Lot.created_at)
        return [(lot.kind, lot.issued, lot.remaining) for lot in session.scalars(query)]


def bought(world: StripeWorld, account_id: str) -> int:
    """Micro-credits in all purchased lots."""
    return sum(issued for _, issued, _ in lots(world, account_id))


def rows(world: StripeWorld, account_id: str) -> list[Purchase]:
    """The account's purchases, oldest first."""
    with world.app.app_context():
        found = purchases.listing(account_id, 100)[::-1]
        db.session.expunge_all()
        db.session.remove()
    return found
