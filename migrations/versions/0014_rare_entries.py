"""SQLite is told that few entries of a ledger are not usage, so that it looks for those in their own index.

Revision 0014, after 0013. Without it, it would read all entries of the account: they lie together, and it can not know
how many there are. The numbers are no counts but proportions, and hold for books of any size; whoever has them counted
(ANALYZE) gets the same paths. On PostgreSQL, which counts by itself, nothing changes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TABLE = "ledger_entries"
_PROPORTIONS = {
    _TABLE: "1000000 10000 1",
    "ix_ledger_entries_other": "10000 100 1",
    "ix_ledger_entries_cause": "1000 1",
}
"""Rows of the index, and how many of them are alike in its first column, in its first two."""


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute("ANALYZE sqlite_schema")  # makes the table of proportions, and counts nothing
    _forget()
    rows = [{"tbl": _TABLE, "idx": index, "stat": stat} for index, stat in _PROPORTIONS.items()]
    op.bulk_insert(sa.table("sqlite_stat1", *map(sa.column, ("tbl", "idx", "stat"))), rows)
    op.execute("ANALYZE sqlite_schema")  # now it is read


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _forget()


def _forget() -> None:
    op.execute(sa.text("DELETE FROM sqlite_stat1 WHERE tbl = :table").bindparams(table=_TABLE))
