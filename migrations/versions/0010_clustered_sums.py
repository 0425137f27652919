"""On SQLite the hourly sums are kept in the order of their accounts, so that one account's lie together.

Revision 0010, after 0009. The two tables are copied once, a few seconds for a million rows; they look the same to the
release before. On PostgreSQL nothing changes.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TABLES = ("usage_hours", "subject_hours")


def upgrade() -> None:
    _copy({"sqlite_with_rowid": False})


def _copy(how: dict[str, bool]) -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table in _TABLES:
            with op.batch_alter_table(table, recreate="always", table_kwargs=how):
                pass


def downgrade() -> None:
    _copy({"sqlite_with_rowid": True})
