"""Money that goes back or does not come: what of its credits was taken back or is owed, and since when it is unpaid.

Revision 0006, after 0005. `reversals` is new; the columns of `stripe_subscriptions` are null or constant, so that they
are added without rewriting the table. The release before runs on.
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
_UNPAID = sa.text("past_due_since IS NOT NULL")


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
    op.add_column("stripe_subscriptions", sa.Column("past_due_since", types.UtcDateTime(), nullable=True))
    op.add_column(
        "stripe_subscriptions", sa.Column("failed_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.create_index(
        "ix_stripe_subscriptions_past_due",
        "stripe_subscriptions",
        ["account_id"],
        sqlite_where=_UNPAID,
        postgresql_where=_UNPAID,
    )


def downgrade() -> None:
    op.drop_index("ix_stripe_subscriptions_past_due", "stripe_subscriptions")
    with op.batch_alter_table("stripe_subscriptions") as batch:
        batch.drop_column("failed_attempts")
        batch.drop_column("past_due_since")
    op.drop_table("reversals")
