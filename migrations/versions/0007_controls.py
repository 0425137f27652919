"""What customers set for themselves: caps, alerts, notifications; and what the operator's product is told.

Revision 0007, after 0006. The new column may be null and the new tables are empty: nothing waits for them, and the
release before runs on beside them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("controls", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("accounts") as table:
        table.drop_column("controls")
