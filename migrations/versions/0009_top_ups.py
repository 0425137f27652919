"""Auto top-up: who is watched, every attempt to buy, and purchases that have an invoice instead of a session.

Revision 0009, after 0008. The new tables are filled from the controls that are set. Alerts get more kinds. The release
before runs on beside them.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_KINDS = "'allowance','low_balance','spike','cap_reached','payment_failed','card_expiring','overage'"
_NEW_KINDS = (
    "'topped_up','top_up_action','top_up_failed','top_up_ceiling','top_up_off','plan_lapsed','suspended','restored'"
)


def upgrade() -> None:
    op.create_table(
        "top_up_watches",
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("below", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before", types.UtcDateTime(), nullable=True),
        sa.Column("off_reason", sa.String(length=100), nullable=True),
        sa.CheckConstraint("below >= 0", name=op.f("ck_top_up_watches_below")),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_top_up_watches_failures")),
        sa.CheckConstraint("off_reason IS NULL OR below IS NULL", name=op.f("ck_top_up_watches_off_reason")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_top_up_watches_account_id_accounts")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_top_up_watches")),
    )
    _index("ix_top_up_watches_on", "top_up_watches", ["account_id"], "below IS NOT NULL")
    _create_attempts()
    with op.batch_alter_table("purchases") as batch:
        batch.alter_column("session_id", existing_type=sa.String(length=255), nullable=True)
        batch.create_check_constraint(op.f("ck_purchases_origin"), "session_id IS NOT NULL OR invoice_id IS NOT NULL")
    _index("uq_purchases_invoice_id", "purchases", ["invoice_id"], "session_id IS NULL", unique=True)
    _constrain_alerts(f"{_KINDS},{_NEW_KINDS}")
    _watch_who_agreed()


def _create_attempts() -> None:
    op.create_table(
        "auto_top_ups",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("per_unit", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("quantity", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("amount", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("price_id", sa.String(length=255), nullable=True),
        sa.Column("customer_id", sa.String(length=255), nullable=True),
        sa.Column("payment_method", sa.String(length=255), nullable=True),
        sa.Column("invoice_id", sa.String(length=255), nullable=True),
        sa.Column("waits_for", sa.String(length=20), nullable=True),
        sa.Column("reason", sa.String(length=100), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("look_at", types.UtcDateTime(), nullable=False),
        sa.Column("finished_at", types.UtcDateTime(), nullable=True),
        sa.CheckConstraint("status IN ('open','paid','failed','withdrawn')", name=op.f("ck_auto_top_ups_status")),
        sa.CheckConstraint("(status = 'open') = (finished_at IS NULL)", name=op.f("ck_auto_top_ups_finished")),
        sa.CheckConstraint("status <> 'paid' OR invoice_id IS NOT NULL", name=op.f("ck_auto_top_ups_paid")),
        sa.CheckConstraint(
            "status NOT IN ('failed','withdrawn') OR reason IS NOT NULL", name=op.f("ck_auto_top_ups_reason")
        ),
        sa.CheckConstraint("waits_for IN ('customer','bank')", name=op.f("ck_auto_top_ups_waits_for")),
        sa.CheckConstraint("credits > 0 AND quantity >= 0 AND amount >= 0", name=op.f("ck_auto_top_ups_amounts")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_auto_top_ups_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_auto_top_ups")),
        sa.UniqueConstraint("invoice_id", name=op.f("uq_auto_top_ups_invoice_id")),
    )
    op.create_index("ix_auto_top_ups_account_id", "auto_top_ups", ["account_id", "created_at", "id"])
    _index("uq_auto_top_ups_open", "auto_top_ups", ["account_id"], "status = 'open'", unique=True)
    _index("ix_auto_top_ups_due", "auto_top_ups", ["look_at"], "status = 'open'")


def _index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    only = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=only, postgresql_where=only)


def _constrain_alerts(kinds: str) -> None:
    with op.batch_alter_table("alerts") as batch:
        batch.drop_constraint(op.f("ck_alerts_kind"), type_="check")
        batch.create_check_constraint(op.f("ck_alerts_kind"), f"kind IN ({kinds})")


def _watch_who_agreed() -> None:
    """Nothing acted on these controls before: whoever set them waits for it."""
    accounts = sa.table("accounts", sa.column("id"), sa.column("controls"))
    watches = sa.table("top_up_watches", sa.column("account_id"), sa.column("below"))
    agreed: list[dict[str, Any]] = []
    for account_id, controls in op.get_bind().execute(
        sa.select(accounts.c.id, accounts.c.controls).where(accounts.c.controls.like("%auto_top_up%"))
    ):
        wanted = json.loads(controls).get("auto_top_up", {})
        if wanted.get("enabled"):
            agreed.append({"account_id": account_id, "below": wanted["below"]})
    op.bulk_insert(watches, agreed)


def downgrade() -> None:
    """Purchases without a session go; the lots they bought stay."""
    op.execute(f"DELETE FROM alerts WHERE kind IN ({_NEW_KINDS})")  # noqa: S608
    _constrain_alerts(_KINDS)
    op.execute("DELETE FROM purchases WHERE session_id IS NULL")
    op.drop_index("uq_purchases_invoice_id", "purchases")
    with op.batch_alter_table("purchases") as batch:
        batch.drop_constraint(op.f("ck_purchases_origin"), type_="check")
        batch.alter_column("session_id", existing_type=sa.String(length=255), nullable=False)
    op.drop_table("auto_top_ups")
    op.drop_table("top_up_watches")
