"""Overage: on what terms an account may use more than it has, and what each period of it comes to.

Revision 0008, after 0007. The new columns are null and the new table is empty: the release before runs on beside them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_KINDS = "'allowance','low_balance','spike','cap_reached','payment_failed','card_expiring'"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("overage_terms", sa.Text(), nullable=True))
    op.add_column("stripe_subscriptions", sa.Column("overage_terms", sa.Text(), nullable=True))
    op.create_table(
        "overage_bills",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("subscription_id", types.id_type(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=True),
        sa.Column("period_start", types.UtcDateTime(), nullable=False),
        sa.Column("period_end", types.UtcDateTime(), nullable=False),
        sa.Column("closed_at", types.UtcDateTime(), nullable=True),
        sa.Column("reported", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("report", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reporting", sa.BigInteger(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("draft_id", sa.String(length=255), nullable=True),
        sa.Column("invoice_id", sa.String(length=255), nullable=True),
        sa.Column("billed_at", types.UtcDateTime(), nullable=True),
        sa.Column("unpaid_since", types.UtcDateTime(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.CheckConstraint("state IN ('open','due','billed')", name=op.f("ck_overage_bills_state")),
        sa.CheckConstraint("credits >= 0", name=op.f("ck_overage_bills_credits")),
        sa.CheckConstraint("amount IS NULL OR amount >= 0", name=op.f("ck_overage_bills_amount")),
        sa.CheckConstraint("(state = 'open') = (closed_at IS NULL)", name=op.f("ck_overage_bills_closed")),
        sa.CheckConstraint("(state = 'billed') = (billed_at IS NOT NULL)", name=op.f("ck_overage_bills_billed")),
        sa.CheckConstraint("state <> 'billed' OR amount IS NOT NULL", name=op.f("ck_overage_bills_billed_amount")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_overage_bills_account_id_accounts")),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_overage_bills_subscription_id_subscriptions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_overage_bills")),
    )
    for name, columns, where, unique in (
        ("uq_overage_bills_open", ["account_id", "subscription_id", "period_start"], "state = 'open'", True),
        ("ix_overage_bills_due", ["closed_at"], "state = 'due'", False),
        ("ix_overage_bills_unpaid", ["account_id"], "unpaid_since IS NOT NULL", False),
    ):
        only = sa.text(where)
        op.create_index(name, "overage_bills", columns, unique=unique, sqlite_where=only, postgresql_where=only)
    op.create_index("ix_overage_bills_account_id", "overage_bills", ["account_id", "first_seq"])
    _constrain_alerts(
        f"kind IN ({_KINDS},'overage')",
        "kind = 'overage' OR (kind = 'allowance') = (threshold IS NOT NULL)",
    )


def _constrain_alerts(kinds: str, threshold: str) -> None:
    with op.batch_alter_table("alerts") as batch:
        for name in ("kind", "threshold"):
            batch.drop_constraint(op.f(f"ck_alerts_{name}"), type_="check")
        batch.create_check_constraint(op.f("ck_alerts_kind"), kinds)
        batch.create_check_constraint(op.f("ck_alerts_threshold"), threshold)


def downgrade() -> None:
    op.execute("DELETE FROM alerts WHERE kind = 'overage'")
    _constrain_alerts(f"kind IN ({_KINDS})", "(kind = 'allowance') = (threshold IS NOT NULL)")
    op.drop_table("overage_bills")
    op.drop_column("stripe_subscriptions", "overage_terms")
    op.drop_column("accounts", "overage_terms")
