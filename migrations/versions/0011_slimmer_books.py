"""Recording a usage event touches fewer pages.

Revision 0011, after 0010. On SQLite ledger entries are kept in the order of their accounts, so that a statement reads
one account's together; on both databases the index of captured holds no longer lists what was no capture. The two
large tables of SQLite are copied once.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_UNIQUE = "CONSTRAINT uq_usage_records_hold_id UNIQUE (hold_id)"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _rebuild("ledger_entries", lambda sql: f"{sql} WITHOUT ROWID")
        _rebuild("usage_records", lambda sql: re.sub(rf",\s*{re.escape(_UNIQUE)}", "", sql))
    else:
        op.drop_constraint("uq_usage_records_hold_id", "usage_records", type_="unique")
    captured = sa.text("hold_id IS NOT NULL")
    op.create_index(
        "ix_usage_records_hold_id",
        "usage_records",
        ["hold_id"],
        unique=True,
        sqlite_where=captured,
        postgresql_where=captured,
    )


def downgrade() -> None:
    op.drop_index("ix_usage_records_hold_id", "usage_records")
    if op.get_bind().dialect.name == "sqlite":
        _rebuild("usage_records", lambda sql: re.sub(r"\)\s*$", f", {_UNIQUE})", sql))
        _rebuild("ledger_entries", lambda sql: re.sub(r"\s*WITHOUT ROWID\s*$", "", sql))
    else:
        op.create_unique_constraint("uq_usage_records_hold_id", "usage_records", ["hold_id"])


def _rebuild(table: str, change: Callable[[str], str]) -> None:
    """Copy a table of SQLite's into one that is defined a little differently; constraints and indexes stay."""
    bind = op.get_bind()
    kept = "SELECT sql FROM sqlite_master WHERE tbl_name = :table AND type = :type AND sql IS NOT NULL"
    (definition,) = bind.scalars(sa.text(kept), {"table": table, "type": "table"})
    indexes = list(bind.scalars(sa.text(kept), {"table": table, "type": "index"}))
    changed = change(definition)
    if changed == definition:
        raise RuntimeError(f"{table} is not defined as expected: {definition}")
    new = re.sub(rf'^(CREATE TABLE )"?{table}"?', rf'\1"{table}_new"', changed)
    for statement in (
        new,
        f"INSERT INTO {table}_new SELECT * FROM {table}",  # noqa: S608 - names of this file
        f"DROP TABLE {table}",
        f"ALTER TABLE {table}_new RENAME TO {table}",
        *indexes,
    ):
        bind.exec_driver_sql(statement)
