"""A consistent copy of a SQLite database, taken while it is in use."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import database
from extensions import db


def copy_to(target: Path) -> None:
    """Write the copy to a new file.

    Raises ValueError on PostgreSQL, which has pg_dump for it, and for a file that exists; OSError where it can not
    be written.
    """
    if not database.is_sqlite():
        raise ValueError("backup copies SQLite databases; use pg_dump for PostgreSQL")
    if target.exists():
        raise ValueError(f"{target} exists already")
    if not target.parent.is_dir():
        raise ValueError(f"there is no folder {target.parent}")
    source = Path(str(db.engine.url.database)).absolute().as_uri()
    try:
        with (
            closing(sqlite3.connect(f"{source}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)  # half a copy must not be taken for one
        raise OSError(f"{target} can not be written: {error}") from error
