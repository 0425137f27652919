"""Runs migrations on the app's own engine: all that are due in one transaction, one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from alembic import context
from flask import current_app
from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects import postgresql

import models  # noqa: F401 - registers every table
from models.base import Base
from models.types import ExactDecimal, UtcDateTime, id_type

_POSTGRESQL = postgresql.dialect()
_LOCK = 7_011_994
"""PostgreSQL's advisory lock of everybody who migrates this database."""


@contextmanager
def _sqlite(engine: Engine) -> Iterator[Connection]:
    """Foreign keys are off while tables are rebuilt (batch mode), and checked before the commit.

    An index of many rows is sorted in files: it may not fit into memory.
    """
    with current_app.extensions["writer_lock"], engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.execute("PRAGMA foreign_keys=OFF")
        raw.execute("PRAGMA temp_store=FILE")
        try:
            yield connection
        finally:
            connection.rollback()
            raw.execute("PRAGMA temp_store=MEMORY")
            raw.execute("PRAGMA foreign_keys=ON")


@contextmanager
def _postgresql(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _check_foreign_keys(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise RuntimeError(f"the migration would leave dangling references: {broken[:5]}")


def _skip_empty(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """`flask db migrate` without a change writes no file."""
    options = context.config.cmd_opts
    if getattr(options, "autogenerate", False) and directives[0].upgrade_ops.is_empty():
        directives[:] = []


def _render(kind: str, item: Any, autogenerate: Any) -> str | Literal[False]:
    """Our column types, as a revision names them."""
    if kind == "type" and isinstance(item, ExactDecimal | UtcDateTime):
        autogenerate.imports.add("from models import types")
        return f"types.{type(item).__name__}()"
    if kind == "type" and item.compile(_POSTGRESQL) == id_type().compile(_POSTGRESQL):
        autogenerate.imports.add("from models import types")
        return "types.id_type()"
    return False


def _run() -> None:
    engine: Engine = current_app.extensions["write_engine"]
    opened = _sqlite if engine.dialect.name == "sqlite" else _postgresql
    with opened(engine) as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            process_revision_directives=_skip_empty,
            render_item=_render,
            render_as_batch=True,
            compare_type=True,
            compare_server_default=True,
            transactional_ddl=True,
        )
        with context.begin_transaction():
            _lock(connection)
            context.run_migrations()
            _check_foreign_keys(connection)


if context.is_offline_mode():
    raise SystemExit("Migrations read the database, so they can not be written as SQL (--sql).")
_run()
