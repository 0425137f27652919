"""Every catalog that was ever in force, in the database, and how its source is doing. Nothing here is parsed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

import clock
import database
import settings
from extensions import db
from models.catalog import CatalogState, CatalogVersion
from services.catalog.prices import is_local
from services.catalog.source import Source
from services.catalog.vocabulary import PRODUCT

FILE, STRIPE = "file", "stripe"
"""Where a version comes from."""


@dataclass(frozen=True)
class State:
    """What is in force and how its source is doing: `error` stands since `error_since`."""

    version: int
    source: str | None
    created_at: datetime | None
    synced_at: datetime | None
    error: str | None
    error_since: datetime | None


def state() -> State:
    """For the operator's page and the command line."""
    newest = db.session.scalars(select(CatalogVersion).order_by(CatalogVersion.id.desc()).limit(1)).first()
    row = db.session.get(CatalogState, 1)
    return State(
        version=newest.id if newest else 0,
        source=newest.source if newest else None,
        created_at=newest.created_at if newest else None,
        synced_at=row.synced_at if row else None,
        error=row.error if row else None,
        error_since=row.error_since if row else None,
    )


def newest_id() -> int | None:
    # A connection of its own: the request's session may be reading an older snapshot.
    with db.engine.connect() as connection:
        return connection.scalar(select(func.max(CatalogVersion.id)))


def stored(version: int) -> Source:
    """What the source of a version said; nothing for version 0."""
    if not version:
        return Source()
    with db.engine.connect() as connection:
        query = select(CatalogVersion.source, CatalogVersion.content).where(CatalogVersion.id == version)
        origin, content = connection.execute(query).one()
    told = json.loads(content)
    layers = told["products"] if "products" in told else [(PRODUCT, told["product"])]
    prices = told["prices"]
    if origin == FILE and sells_through_stripe():  # until the first sync: nobody can buy the file's prices there
        prices = [price for price in prices if is_local(price)]
    return Source([(object_id, metadata) for object_id, metadata in layers], prices)


def known_ids() -> set[str]:
    """The ids of every product and price of the newest version."""
    told = stored(newest_id() or 0)
    return {object_id for object_id, _ in told.layers} | {str(price.get("id")) for price in told.prices}


def is_at_most(content: Source) -> bool:
    """Whether there is no version yet, or the newest says just this."""
    with db.engine.connect() as connection:
        digest = connection.scalar(select(CatalogVersion.digest).order_by(CatalogVersion.id.desc()).limit(1))
    return digest is None or digest == _digest(_canonical(content))


def sells_through_stripe() -> bool:
    return settings.current().stripe_secret_key is not None


# Writing


@database.retrying
def begin() -> int:
    """A number for a listing of Stripe's objects, to be taken before the first is asked for.

    Of two listings that overlap the one that began later is kept, whichever ends first.
    """
    with database.transaction() as session:
        row = _locked_state(session)
        row.listings += 1
        return row.listings


@database.retrying
def keep(origin: str, content: Source, listing: int | None = None) -> tuple[int, bool]:
    """Store the content as the newest version unless it is that already. Answers it and whether it is new."""
    with database.transaction() as session:
        return keep_in(session, origin, content, listing)


def keep_in(session: Session, origin: str, content: Source, listing: int | None = None) -> tuple[int, bool]:
    """`keep` in a transaction of the caller's."""
    written = _canonical(content)
    digest = _digest(written)
    row = _locked_state(session)
    newest = session.execute(
        select(CatalogVersion.id, CatalogVersion.digest).order_by(CatalogVersion.id.desc()).limit(1)
    ).first()
    if newest is not None and _is_late(row, listing):
        return newest.id, False
    row.synced_at, row.error, row.error_since = clock.now(), None, None
    row.kept_listing = row.kept_listing if listing is None else listing
    if newest is not None and newest.digest == digest:
        return newest.id, False
    version = CatalogVersion(source=origin, digest=digest, content=written, created_at=clock.now())
    session.add(version)
    session.flush()
    return version.id, True


@database.retrying
def fail(message: str, listing: int | None = None) -> None:
    """Keep why the source is of no use, and since when."""
    with database.transaction() as session:
        fail_in(session, message, listing)


def fail_in(session: Session, message: str, listing: int | None = None) -> None:
    """`fail` in a transaction of the caller's."""
    row = _locked_state(session)
    if not _is_late(row, listing):
        row.error = message
        row.error_since = row.error_since or clock.now()


def _is_late(row: CatalogState, listing: int | None) -> bool:
    """Whether a listing that began later has been kept."""
    return listing is not None and listing < row.kept_listing


def _locked_state(session: Session) -> CatalogState:
    """The state's row, made when missing: two syncs at once take turns and store a new content once."""
    session.execute(text("INSERT INTO catalog_state (id) VALUES (1) ON CONFLICT DO NOTHING"))
    return session.get_one(CatalogState, 1, with_for_update=True)


def _canonical(content: Source) -> str:
    told: dict[str, Any] = {"prices": list(content.prices)}
    if [object_id for object_id, _ in content.layers] == [PRODUCT]:
        told["product"] = content.product
    else:
        told["products"] = [list(layer) for layer in content.layers]
    return json.dumps(told, sort_keys=True, ensure_ascii=False)


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
