"""The versions of the catalog in the database, and the one in force in this process."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
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
from services.catalog import source, vocabulary
from services.catalog.source import BrokenCatalog, Source
from services.catalog.terms import Catalog, Defaults, Finding

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
    """The catalog in force; where the database has none, the source is read first.

    Call it before a transaction is opened: it may need one of its own. Almost always a look-up; every
    RECHECK_SECONDS one thread of the process asks the database for a newer version, the others do not wait.
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
    """Read the source and put it in force when it differs from what is.

    A broken source is recorded, never raised, and changes nothing.
    Mistaken prices and rates are left out and returned as findings.
    """
    try:
        content = _read_source()
    except BrokenCatalog as broken:
        _record_error(str(broken.finding))
        return SyncResult(_newest_id() or 0, False, str(broken.finding), (broken.finding,))
    version, changed = keep("file", content.product, content.prices)
    catalog, findings = vocabulary.parse(content.product, content.prices, _defaults(), version=version)
    _cache().put(catalog)
    return SyncResult(version, changed, None, (*content.findings, *findings))


def lint_current() -> list[Finding]:
    """Every mistake in the source as it is now, in force or not."""
    try:
        content = _read_source()
    except BrokenCatalog as broken:
        return [broken.finding]
    return [*content.findings, *vocabulary.lint(content.product, content.prices)]


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
def keep(origin: str, product: Mapping[str, Any], prices: Sequence[Mapping[str, Any]]) -> tuple[int, bool]:
    """Store the content as the newest version unless it is that already. Answers it and whether it is new."""
    content = _canonical(product, prices)
    digest = _digest(content)
    with database.transaction() as session:
        row = _locked_state(session)
        row.synced_at, row.error, row.error_since = clock.now(), None, None
        newest = session.execute(
            select(CatalogVersion.id, CatalogVersion.digest).order_by(CatalogVersion.id.desc()).limit(1)
        ).first()
        if newest is not None and newest.digest == digest:
            return newest.id, False
        version = CatalogVersion(source=origin, digest=digest, content=content, created_at=clock.now())
        session.add(version)
        session.flush()
        return version.id, True


@database.retrying
def _record_error(message: str) -> None:
    with database.transaction() as session:
        row = _locked_state(session)
        row.error = message
        row.error_since = row.error_since or clock.now()


def _locked_state(session: Session) -> CatalogState:
    """The state's row, made when missing: two syncs at once take turns and store a new content once."""
    session.execute(text("INSERT INTO catalog_state (id) VALUES (1) ON CONFLICT DO NOTHING"))
    return session.get_one(CatalogState, 1, with_for_update=True)


def _read_source() -> Source:
    path = settings.current().catalog_file
    if not os.path.lexists(path) and _default_is_harmless():
        _write_default(path)
    return source.read(path)


def _default_is_harmless() -> bool:
    """Whether the default may fill a gap: never in place of a real catalog whose file has gone missing."""
    with db.engine.connect() as connection:
        digest = connection.scalar(select(CatalogVersion.digest).order_by(CatalogVersion.id.desc()).limit(1))
    default = source.read(source.DEFAULT)
    return digest is None or digest == _digest(_canonical(default.product, default.prices))


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
        newest = sync().version
    if cache.catalog is not None and cache.catalog.version == newest:
        return cache.put(cache.catalog)
    return cache.put(_load(newest))


def _load(version: int) -> Catalog:
    """A stored version; 0 is what the environment alone says, with the plan `free` and no rates."""
    if not version:
        return vocabulary.parse({}, [], _defaults())[0]
    with db.engine.connect() as connection:
        content = connection.execute(select(CatalogVersion.content).where(CatalogVersion.id == version)).scalar_one()
    stored = json.loads(content)
    catalog, _findings = vocabulary.parse(stored["product"], stored["prices"], _defaults(), version=version)
    return catalog


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
    )


def _cache() -> _Cache:
    cache: _Cache = current_app.extensions.setdefault("catalog", _Cache())
    return cache


def _canonical(product: Mapping[str, Any], prices: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps({"product": product, "prices": prices}, sort_keys=True, ensure_ascii=False)


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
