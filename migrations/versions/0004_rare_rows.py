"""Indexes of the rows that are few among many: what statements and the period's statistics look for.

Revision 0004, after 0003. Building them reads both tables once, and nothing can be recorded meanwhile. Most rows are in
neither index, so that recording usage is as fast as before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_OTHER = sa.text("reason <> 'usage'")
_BACKDATED = sa.text("occurred_at < period_start")


def upgrade() -> None:
    op.create_index(
        "ix_ledger_entries_other",
        "ledger_entries",
        ["account_id", "seq"],
        sqlite_where=_OTHER,
        postgresql_where=_OTHER,
    )
    op.create_index(
        "ix_usage_records_backdated",
        "usage_records",
        ["account_id", "period_start"],
        sqlite_where=_BACKDATED,
        postgresql_where=_BACKDATED,
    )


def downgrade() -> None:
    op.drop_index("ix_usage_records_backdated", "usage_records")
    op.drop_index("ix_ledger_entries_other", "ledger_entries")
