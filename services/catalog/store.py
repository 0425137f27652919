"""The catalog in force in this process: read from the newest version, and from the file that makes new ones."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flask import current_app

import database
import settings
from amounts import to_micros
from services.catalog import layers, source, versions, vocabulary
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
    return take(versions.FILE, content)


def take(origin: str, content: Source, listing: int | None = None) -> SyncResult:
    """Put what a source said in force. `listing`: the number that `begin` gave before the source was asked."""
    version, changed = versions.keep(origin, content, listing)
    refresh()
    return SyncResult(version, changed, None, (*content.findings, *_parse_source(content)[1]))


def failed(message: str, findings: Sequence[Finding] = (), listing: int | None = None) -> SyncResult:
    """Keep why the source was of no use, and since when; what is in force stays so."""
    versions.fail(message, listing)
    return SyncResult(versions.newest_id() or 0, False, message, tuple(findings))


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
    newest = versions.newest_id()
    return _read_version(newest)[1] if newest else []


def refresh() -> None:
    """Have this process look for a newer version at its next question."""
    _cache().checked_at = float("-inf")


def read_file() -> Source:
    """The catalog file, made from the default where there never was a catalog. Raises BrokenCatalog."""
    path = settings.current().catalog_file
    # Never in place of a real catalog whose file has gone missing.
    if not os.path.lexists(path) and versions.is_at_most(source.read(source.DEFAULT)):
        _write_default(path)
    return source.read(path)


def _write_default(path: Path) -> None:
    try:
        source.write_default(path)
    except OSError as error:
        cure = "make the folder writable, or write the file yourself"
        raise BrokenCatalog(f"{path} can not be created: {error.strerror}", cure) from error


def _refresh(cache: _Cache) -> Catalog:
    """Ask the database for the newest version and parse it when it is another than the one in use."""
    newest = versions.newest_id()
    if newest is None:
        newest = 0 if versions.sells_through_stripe() else sync().version
    if cache.catalog is not None and cache.catalog.version == newest:
        return cache.put(cache.catalog)
    return cache.put(_load(newest))


def _load(version: int) -> Catalog:
    """A stored version; 0 is what the environment alone says, with the plan `free` and no rates."""
    return _read_version(version)[0]


def _read_version(version: int) -> tuple[Catalog, list[Finding]]:
    return _parse_source(versions.stored(version), version)


def _parse_source(content: Source, version: int = 0) -> tuple[Catalog, list[Finding]]:
    product, origins, findings = layers.merged(content.layers)
    product_id = content.layers[0][0] if content.layers else vocabulary.PRODUCT
    several = origins if len(content.layers) > 1 else None
    catalog, found = vocabulary.parse(
        product, content.prices, _defaults(), product_id=product_id, origins=several, version=version
    )
    return catalog, [*findings, *found]


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
    extensions = current_app.extensions
    if "catalog" not in extensions:
        extensions.setdefault("catalog", _Cache())
    cache: _Cache = extensions["catalog"]
    return cache
