"""Stripe: the mirror of what is ours there, purchases, and the inbox of its events.

Revision 0005, after 0004. All tables are new but `subscriptions`, which has a row per plan an account ever had: its new
CHECKs are validated at once, and SQLite copies it, while nothing is recorded for a moment. The release before runs on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=100), nullable=False),
        sa.Column("object_id", sa.String(length=255), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("received_at", types.UtcDateTime(), nullable=False),
        sa.Column("next_attempt_at", types.UtcDateTime(), nullable=False),
        sa.Column("processed_at", types.UtcDateTime(), nullable=True),
        sa.CheckConstraint(
            "(status IN ('processed','ignored')) = (processed_at IS NOT NULL)", name=op.f("ck_webhook_events_processed")
        ),
        sa.CheckConstraint(
            "status IN ('pending','processed','ignored','failed','dead')", name=op.f("ck_webhook_events_status")
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_webhook_events_attempts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_events")),
    )
    op.create_index(
        "ix_webhook_events_due",
        "webhook_events",
        ["next_attempt_at"],
        sqlite_where=sa.text("status IN ('pending','failed','dead')"),
        postgresql_where=sa.text("status IN ('pending','failed','dead')"),
    )
    op.create_index("ix_webhook_events_object_id", "webhook_events", ["object_id"])
    op.create_index("ix_webhook_events_received_at", "webhook_events", ["received_at", "id"])

    op.create_table(
        "purchases",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=False),
        sa.Column("mode", sa.String(length=20), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("price_id", sa.String(length=255), nullable=True),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("payment_intent", sa.String(length=255), nullable=True),
        sa.Column("invoice_id", sa.String(length=255), nullable=True),
        sa.Column("subscription_id", sa.String(length=255), nullable=True),
        sa.Column("lot_id", types.id_type(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("paid_at", types.UtcDateTime(), nullable=True),
        sa.CheckConstraint("lot_id IS NULL OR status = 'paid'", name=op.f("ck_purchases_lot_paid")),
        sa.CheckConstraint("mode IN ('payment','subscription')", name=op.f("ck_purchases_mode")),
        sa.CheckConstraint("status IN ('open','pending','paid','failed','expired')", name=op.f("ck_purchases_status")),
        sa.CheckConstraint("credits >= 0", name=op.f("ck_purchases_credits")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_purchases_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_purchases")),
        sa.UniqueConstraint("lot_id", name=op.f("uq_purchases_lot_id")),
        sa.UniqueConstraint("session_id", name=op.f("uq_purchases_session_id")),
    )
    op.create_index("ix_purchases_account_id", "purchases", ["account_id", "created_at", "id"])
    op.create_index("ix_purchases_payment_intent", "purchases", ["payment_intent"])

    op.create_table(
        "stripe_customers",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("payment_method", sa.String(length=255), nullable=True),
        sa.Column("card_brand", sa.String(length=40), nullable=True),
        sa.Column("card_last4", sa.String(length=4), nullable=True),
        sa.Column("card_exp_month", sa.Integer(), nullable=True),
        sa.Column("card_exp_year", sa.Integer(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("deleted_at", types.UtcDateTime(), nullable=True),
        sa.Column("synced_at", types.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_stripe_customers_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_customers")),
    )
    op.create_index("ix_stripe_customers_account_id", "stripe_customers", ["account_id"])
    op.create_index(
        "uq_stripe_customers_account",
        "stripe_customers",
        ["account_id"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )

    op.create_table(
        "stripe_invoices",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("subscription_id", sa.String(length=255), nullable=True),
        sa.Column("number", sa.String(length=100), nullable=True),
        sa.Column("status", sa.String(length=30), nullable=False),
        sa.Column("billing_reason", sa.String(length=40), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("amount_due", sa.BigInteger(), nullable=False),
        sa.Column("amount_paid", sa.BigInteger(), nullable=False),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", types.UtcDateTime(), nullable=True),
        sa.Column("hosted_url", sa.Text(), nullable=True),
        sa.Column("pdf_url", sa.Text(), nullable=True),
        sa.Column("period_start", types.UtcDateTime(), nullable=True),
        sa.Column("period_end", types.UtcDateTime(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("synced_at", types.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_stripe_invoices_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_invoices")),
    )
    op.create_index("ix_stripe_invoices_account_id", "stripe_invoices", ["account_id", "created_at"])

    op.create_table(
        "stripe_subscriptions",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("customer_id", sa.String(length=255), nullable=False),
        sa.Column("item_id", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=30), nullable=False),
        sa.Column("price_id", sa.String(length=255), nullable=False),
        sa.Column("price_type", sa.String(length=20), nullable=False),
        sa.Column("tier", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("included", sa.BigInteger(), nullable=False),
        sa.Column("rollover_max", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("interval", sa.String(length=10), nullable=False),
        sa.Column("interval_count", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("unit_amount", sa.String(length=40), nullable=True),
        sa.Column("quantity", sa.BigInteger(), nullable=True),
        sa.Column("anchor", types.UtcDateTime(), nullable=False),
        sa.Column("period_start", types.UtcDateTime(), nullable=False),
        sa.Column("period_end", types.UtcDateTime(), nullable=False),
        sa.Column("trial_end", types.UtcDateTime(), nullable=True),
        sa.Column("cancel_at", types.UtcDateTime(), nullable=True),
        sa.Column("paused_at", types.UtcDateTime(), nullable=True),
        sa.Column("ended_at", types.UtcDateTime(), nullable=True),
        sa.Column("latest_invoice", sa.String(length=255), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("synced_at", types.UtcDateTime(), nullable=False),
        sa.CheckConstraint("included >= 0", name=op.f("ck_stripe_subscriptions_included")),
        sa.CheckConstraint(
            "rollover_max IS NULL OR rollover_max >= 0", name=op.f("ck_stripe_subscriptions_rollover_max")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_subscriptions_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_subscriptions")),
    )
    op.create_index("ix_stripe_subscriptions_account_id", "stripe_subscriptions", ["account_id", "created_at"])
    op.create_index("ix_stripe_subscriptions_price_id", "stripe_subscriptions", ["price_id"])

    with op.batch_alter_table("subscriptions") as batch:
        batch.add_column(sa.Column("stripe_id", sa.String(length=255), nullable=True))
        batch.add_column(sa.Column("covered_until", types.UtcDateTime(), nullable=True))
        batch.create_unique_constraint(op.f("uq_subscriptions_stripe_id"), ["stripe_id"])
        batch.drop_constraint(op.f("ck_subscriptions_source"), type_="check")
        batch.create_check_constraint(op.f("ck_subscriptions_source"), "source IN ('local','stripe')")
        batch.create_check_constraint(
            op.f("ck_subscriptions_stripe_id"), "(source = 'stripe') = (stripe_id IS NOT NULL)"
        )
        batch.create_check_constraint(
            op.f("ck_subscriptions_covered_until"), "(source = 'stripe') = (covered_until IS NOT NULL)"
        )
    active = sa.text("status = 'active'")
    op.create_index(
        "ix_subscriptions_covered_until",
        "subscriptions",
        ["covered_until"],
        sqlite_where=active,
        postgresql_where=active,
    )
    op.create_index("ix_subscriptions_account_id", "subscriptions", ["account_id"])

    op.add_column("accounts", sa.Column("requests_per_minute", sa.Integer(), nullable=True))
    with op.batch_alter_table("catalog_state") as batch:
        batch.add_column(sa.Column("listings", sa.Integer(), server_default=sa.text("0"), nullable=False))
        batch.add_column(sa.Column("kept_listing", sa.Integer(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    """Only while no account is on a plan of Stripe's: the old CHECK refuses the rows of those that are."""
    op.drop_column("accounts", "requests_per_minute")
    with op.batch_alter_table("catalog_state") as batch:
        batch.drop_column("kept_listing")
        batch.drop_column("listings")
    op.drop_index("ix_subscriptions_account_id", table_name="subscriptions")
    op.drop_index("ix_subscriptions_covered_until", table_name="subscriptions")
    with op.batch_alter_table("subscriptions") as batch:
        batch.drop_constraint(op.f("ck_subscriptions_covered_until"), type_="check")
        batch.drop_constraint(op.f("ck_subscriptions_stripe_id"), type_="check")
        batch.drop_constraint(op.f("ck_subscriptions_source"), type_="check")
        batch.create_check_constraint(op.f("ck_subscriptions_source"), "source IN ('local')")
        batch.drop_constraint(op.f("uq_subscriptions_stripe_id"), type_="unique")
        batch.drop_column("covered_until")
        batch.drop_column("stripe_id")
    for table in ("stripe_subscriptions", "stripe_invoices", "stripe_customers", "purchases", "webhook_events"):
        op.drop_table(table)
