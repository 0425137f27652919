"""Probes for whoever runs Spillway. They never redirect and need no token."""

from __future__ import annotations

from functools import cache

from alembic.config import Config
from alembic.script import ScriptDirectory
from flask import Blueprint, Response
from sqlalchemy import text

import database
from blueprints.auth import guard
from blueprints.wire import answer
from settings import ROOT

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@guard.public
def healthz() -> Response:
    """The process is up."""
    return answer({"status": "ok"})


@blueprint.get("/readyz")
@guard.public
def readyz() -> Response:
    """The database can be reached and its schema is the one this code expects."""
    try:
        with database.snapshot() as conn:
            versions = set(conn.execute(text("SELECT version_num FROM alembic_version")).scalars())
    except database.UNREADABLE:
        return answer({"status": "unavailable", "reason": "the database can not be read or was never migrated"}, 503)
    if versions != {expected_version()}:
        return answer({"status": "unavailable", "reason": "migrations are not current"}, 503)
    return answer({"status": "ready"})


@cache
def expected_version() -> str | None:
    """The newest migration of this code."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    return ScriptDirectory.from_config(config).get_current_head()
