"""Money that goes back, and what of its credits was taken back or is owed.

Revision 0006, after 0005. The table is new: nothing waits for it, and the release before runs on beside it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_OWED = sa.text("debt > 0")


def upgrade() -> None:
    op.create_table(
        "reversals",
        sa.Column("lot_id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("payment_intent", sa.String(length=255), nullable=False),
        sa.Column("paid", sa.BigInteger(), nullable=False),
        sa.Column("refunded", sa.BigInteger(), nullable=False),
        sa.Column("disputed", sa.BigInteger(), nullable=False),
        sa.Column("taken", sa.BigInteger(), nullable=False),
        sa.Column("from_lot", sa.BigInteger(), nullable=False),
        sa.Column("absorbed", sa.BigInteger(), nullable=False),
        sa.Column("debt", sa.BigInteger(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("synced_at", types.UtcDateTime(), nullable=False),
        sa.CheckConstraint("paid > 0", name=op.f("ck_reversals_paid")),
        sa.CheckConstraint("refunded >= 0 AND disputed >= 0", name=op.f("ck_reversals_amounts")),
        sa.CheckConstraint("from_lot >= 0 AND absorbed >= 0", name=op.f("ck_reversals_parts")),
        sa.CheckConstraint("debt >= 0 AND from_lot + absorbed + debt <= taken", name=op.f("ck_reversals_debt")),
        sa.ForeignKeyConstraint(["lot_id"], ["lots.id"], name=op.f("fk_reversals_lot_id_lots")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_reversals_account_id_accounts")),
        sa.PrimaryKeyConstraint("lot_id", name=op.f("pk_reversals")),
    )
    op.create_index("ix_reversals_owed", "reversals", ["account_id"], sqlite_where=_OWED, postgresql_where=_OWED)


def downgrade() -> None:
    op.drop_table("reversals")
