"""The versions of the catalog in the database, and the one in force in this process."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import current_app
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

import clock
import database
import settings
from amounts import to_micros
from extensions import db
from models.catalog import CatalogState, CatalogVersion
from services.catalog import layers, source, vocabulary
from services.catalog.prices import is_local
from services.catalog.source import BrokenCatalog, Source
from services.catalog.terms import Catalog, Defaults, Finding

FILE, STRIPE = "file", "stripe"
"""Where a version comes from."""

RECHECK_SECONDS = 2.0
"""How long a process may keep using a catalog after another process has stored a newer one. Real time."""


@dataclass(frozen=True)
class SyncResult:
    """`version` is in force now (0: none yet). `error` is why the source was of no use, None when it was."""

    version: int
    changed: bool
    error: str | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class State:
    """What is in force and how its source is doing: `error` stands since `error_since`."""

    version: int
    source: str | None
    created_at: datetime | None
    synced_at: datetime | None
    error: str | None
    error_since: datetime | None


class _Cache:
    """One per app, that is per process and database."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.catalog: Catalog | None = None
        self.checked_at = float("-inf")

    def put(self, catalog: Catalog) -> Catalog:
        self.catalog, self.checked_at = catalog, time.monotonic()
        return catalog


def current() -> Catalog:
    """The catalog in force; where the database has none, the file is read first.

    With Stripe nobody waits: until the first sync the environment's defaults are in force. Call it before a
    transaction is opened: it may need one of its own. Almost always a look-up; every RECHECK_SECONDS one thread of the
    process asks the database for a newer version, the others do not wait.
    """
    cache = _cache()
    catalog = cache.catalog
    if catalog is not None and time.monotonic() - cache.checked_at < RECHECK_SECONDS:
        return catalog
    if catalog is None:
        with cache.lock:
            return cache.catalog or _refresh(cache)
    if cache.lock.acquire(blocking=False):
        try:
            return _refresh(cache)
        finally:
            cache.lock.release()
    return catalog


def of_version(version: int) -> Catalog:
    """The catalog as that version had it, which never changes; the environment's defaults are today's."""
    catalog = current()
    if catalog.version == version:
        return catalog
    known = database.memory("catalogs")
    if version not in known:
        known[version] = _load(version)
    found: Catalog = known[version]
    return found


def sync() -> SyncResult:
    """Read the file and put it in force when it differs from what is.

    A broken file is recorded, never raised, and changes nothing.
    Mistaken prices and rates are left out and returned as findings.
    """
    try:
        content = read_file()
    except BrokenCatalog as broken:
        return failed(str(broken.finding), (broken.finding,))
    return take(FILE, content)


def take(origin: str, content: Source, listing: int | None = None) -> SyncResult:
    """Put what a source said in force. `listing`: the number that `begin` gave before the source was asked."""
    version, changed = keep(origin, content, listing)
    refresh()
    return SyncResult(version, changed, None, (*content.findings, *_parse_source(content)[1]))


def failed(message: str, findings: Sequence[Finding] = ()) -> SyncResult:
    """Keep why the source was of no use, and since when; what is in force stays so."""
    _record_error(message)
    return SyncResult(_newest_id() or 0, False, message, tuple(findings))


def lint_file() -> list[Finding]:
    """Every mistake in the file as it is now, in force or not."""
    try:
        content = read_file()
    except BrokenCatalog as broken:
        return [broken.finding]
    return lint_source(content)


def lint_source(content: Source) -> list[Finding]:
    """Every mistake in what a source said."""
    return [*content.findings, *_parse_source(content)[1]]


def lint_kept() -> list[Finding]:
    """Every mistake in the newest version; no source is asked."""
    newest = _newest_id()
    return _read_version(newest)[1] if newest else []


def known_ids() -> set[str]:
    """The ids of every product and price of the newest version."""
    stored = _stored(_newest_id() or 0)
    return {object_id for object_id, _ in stored.layers} | {str(price.get("id")) for price in stored.prices}


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
    """`keep` in a transaction of the caller's. This process uses it after `refresh`, others within RECHECK_SECONDS."""
    written = _canonical(content)
    digest = _digest(written)
    row = _locked_state(session)
    newest = session.execute(
        select(CatalogVersion.id, CatalogVersion.digest).order_by(CatalogVersion.id.desc()).limit(1)
    ).first()
    if newest is not None and listing is not None and listing < row.kept_listing:
        return newest.id, False
    row.synced_at, row.error, row.error_since = clock.now(), None, None
    row.kept_listing = row.kept_listing if listing is None else listing
    if newest is not None and newest.digest == digest:
        return newest.id, False
    version = CatalogVersion(source=origin, digest=digest, content=written, created_at=clock.now())
    session.add(version)
    session.flush()
    return version.id, True


def refresh() -> None:
    """Have this process look for a newer version at its next question."""
    _cache().checked_at = float("-inf")


@database.retrying
def _record_error(message: str) -> None:
    with database.transaction() as session:
        fail_in(session, message)


def fail_in(session: Session, message: str) -> None:
    """Keep why the source is of no use, and since when, in a transaction of the caller's."""
    row = _locked_state(session)
    row.error = message
    row.error_since = row.error_since or clock.now()


def _locked_state(session: Session) -> CatalogState:
    """The state's row, made when missing: two syncs at once take turns and store a new content once."""
    session.execute(text("INSERT INTO catalog_state (id) VALUES (1) ON CONFLICT DO NOTHING"))
    return session.get_one(CatalogState, 1, with_for_update=True)


def read_file() -> Source:
    """The catalog file, made from the default where there never was a catalog. Raises BrokenCatalog."""
    path = settings.current().catalog_file
    if not os.path.lexists(path) and _default_is_harmless():
        _write_default(path)
    return source.read(path)


def _default_is_harmless() -> bool:
    """Whether the default may fill a gap: never in place of a real catalog whose file has gone missing."""
    with db.engine.connect() as connection:
        digest = connection.scalar(select(CatalogVersion.digest).order_by(CatalogVersion.id.desc()).limit(1))
    return digest is None or digest == _digest(_canonical(source.read(source.DEFAULT)))


def _write_default(path: Path) -> None:
    try:
        source.write_default(path)
    except OSError as error:
        cure = "make the folder writable, or write the file yourself"
        raise BrokenCatalog(f"{path} can not be created: {error.strerror}", cure) from error


def _refresh(cache: _Cache) -> Catalog:
    """Ask the database for the newest version and parse it when it is another than the one in use."""
    newest = _newest_id()
    if newest is None:
        newest = 0 if _sells_through_stripe() else sync().version
    if cache.catalog is not None and cache.catalog.version == newest:
        return cache.put(cache.catalog)
    return cache.put(_load(newest))


def _load(version: int) -> Catalog:
    """A stored version; 0 is what the environment alone says, with the plan `free` and no rates."""
    return _read_version(version)[0]


def _read_version(version: int) -> tuple[Catalog, list[Finding]]:
    return _parse_source(_stored(version), version)


def _stored(version: int) -> Source:
    if not version:
        return Source()
    with db.engine.connect() as connection:
        query = select(CatalogVersion.source, CatalogVersion.content).where(CatalogVersion.id == version)
        origin, content = connection.execute(query).one()
    stored = json.loads(content)
    found = stored["products"] if "products" in stored else [(vocabulary.PRODUCT, stored["product"])]
    prices = stored["prices"]
    if origin == FILE and _sells_through_stripe():  # until the first sync: nobody can buy the file's prices there
        prices = [price for price in prices if is_local(price)]
    return Source([(object_id, metadata) for object_id, metadata in found], prices)


def _parse_source(content: Source, version: int = 0) -> tuple[Catalog, list[Finding]]:
    product, origins, findings = layers.merged(content.layers)
    product_id = content.layers[0][0] if content.layers else vocabulary.PRODUCT
    several = origins if len(content.layers) > 1 else None
    catalog, found = vocabulary.parse(
        product, content.prices, _defaults(), product_id=product_id, origins=several, version=version
    )
    return catalog, [*findings, *found]


def _sells_through_stripe() -> bool:
    return settings.current().stripe_secret_key is not None


def _newest_id() -> int | None:
    # A connection of its own: the request's session may be reading an older snapshot.
    with db.engine.connect() as connection:
        return connection.scalar(select(func.max(CatalogVersion.id)))


def _defaults() -> Defaults:
    env = settings.current()
    return Defaults(
        credit_name=env.credit_name,
        signup_credits=to_micros(env.signup_credits),
        free_monthly_credits=to_micros(env.free_monthly_credits),
        alert_thresholds=tuple(env.alert_thresholds),
        grace_days=env.grace_days,
        suspend_days=env.suspend_days,
        grace_attempts=env.grace_attempts,
    )


def _cache() -> _Cache:
    cache: _Cache = current_app.extensions.setdefault("catalog", _Cache())
    return cache


def _canonical(content: Source) -> str:
    told: dict[str, Any] = {"prices": list(content.prices)}
    if [object_id for object_id, _ in content.layers] == [vocabulary.PRODUCT]:
        told["product"] = content.product
    else:
        told["products"] = [list(layer) for layer in content.layers]
    return json.dumps(told, sort_keys=True, ensure_ascii=False)


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
