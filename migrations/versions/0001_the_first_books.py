"""The first books: people, accounts and their terms, tokens, credits, usage, catalogs, jobs, mail.

Revision 0001. Every table is new, so no lock is waited for.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("external_id", sa.String(length=128), nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("status_reason", sa.String(length=500), nullable=True),
        sa.Column("subscription_id", types.id_type(), nullable=False),
        sa.Column("plan", sa.String(length=100), nullable=False),
        sa.Column("period_start", types.UtcDateTime(), nullable=False),
        sa.Column("period_end", types.UtcDateTime(), nullable=False),
        sa.Column("rates", sa.Text(), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("unfunded", sa.BigInteger(), nullable=False),
        sa.Column("debt", sa.BigInteger(), nullable=False),
        sa.Column("overage", sa.BigInteger(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.CheckConstraint("status IN ('active','past_due','suspended','closed')", name=op.f("ck_accounts_status")),
        sa.CheckConstraint("debt >= 0", name=op.f("ck_accounts_debt")),
        sa.CheckConstraint("overage >= 0", name=op.f("ck_accounts_overage")),
        sa.CheckConstraint("period_start < period_end", name=op.f("ck_accounts_period")),
        sa.CheckConstraint("unfunded >= 0", name=op.f("ck_accounts_unfunded")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("external_id", name=op.f("uq_accounts_external_id")),
    )
    op.create_index("ix_accounts_created_at", "accounts", ["created_at", "id"])
    op.create_index("ix_accounts_period_end", "accounts", ["period_end"])

    op.create_table(
        "catalog_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("synced_at", types.UtcDateTime(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_since", types.UtcDateTime(), nullable=True),
        sa.CheckConstraint("(error IS NULL) = (error_since IS NULL)", name=op.f("ck_catalog_state_error")),
        sa.CheckConstraint("id = 1", name=op.f("ck_catalog_state_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_state")),
    )
    op.create_table(
        "catalog_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=20), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_versions")),
    )
    op.create_table(
        "job_runs",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("started_at", types.UtcDateTime(), nullable=False),
        sa.Column("finished_at", types.UtcDateTime(), nullable=True),
        sa.Column("outcome", sa.String(length=20), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_job_runs")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=False),
        sa.Column("expires_at", types.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "mails",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("to", sa.String(length=254), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=300), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("next_attempt_at", types.UtcDateTime(), nullable=False),
        sa.Column("sent_at", types.UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mails")),
    )
    op.create_index(
        "ix_mails_unsent",
        "mails",
        ["next_attempt_at"],
        sqlite_where=sa.text("sent_at IS NULL"),
        postgresql_where=sa.text("sent_at IS NULL"),
    )

    op.create_table(
        "setup_links",
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("used_at", types.UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("secret_hash", name=op.f("pk_setup_links")),
    )
    op.create_table(
        "throttles",
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("window", types.UtcDateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", "window", name=op.f("pk_throttles")),
    )
    op.create_table(
        "users",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=False),
        sa.Column("is_operator", sa.Boolean(), nullable=False),
        sa.Column("session_version", sa.Integer(), nullable=False),
        sa.Column("email_verified_at", types.UtcDateTime(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("last_login_at", types.UtcDateTime(), nullable=True),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_users_email_lower")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    op.create_table(
        "cap_counters",
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("scope", sa.String(length=20), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("window", sa.String(length=20), nullable=False),
        sa.Column("starts_at", types.UtcDateTime(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("used >= 0", name=op.f("ck_cap_counters_used")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_cap_counters_account_id_accounts")),
        sa.PrimaryKeyConstraint("account_id", "scope", "key", "window", "starts_at", name=op.f("pk_cap_counters")),
    )
    op.create_table(
        "holds",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("token_id", types.id_type(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=True),
        sa.Column("operation", sa.String(length=200), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("expires_at", types.UtcDateTime(), nullable=False),
        sa.Column("closed_at", types.UtcDateTime(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('open','captured','released','expired')", name=op.f("ck_holds_state")),
        sa.CheckConstraint("amount > 0", name=op.f("ck_holds_amount")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_holds_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
        sa.UniqueConstraint("account_id", "idempotency_key", name=op.f("uq_holds_account_id_idempotency_key")),
    )
    op.create_index("ix_holds_account_id", "holds", ["account_id", "id"])
    op.create_index(
        "ix_holds_open",
        "holds",
        ["account_id"],
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )

    op.create_table(
        "lots",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("issued", sa.BigInteger(), nullable=False),
        sa.Column("remaining", sa.BigInteger(), nullable=False),
        sa.Column("removed", sa.BigInteger(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("expires_at", types.UtcDateTime(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("subscription_id", types.id_type(), nullable=True),
        sa.Column("period_start", types.UtcDateTime(), nullable=True),
        sa.Column("note", sa.String(length=500), nullable=True),
        sa.Column("source_key", sa.String(length=120), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.CheckConstraint("kind <> 'allowance' OR expires_at IS NOT NULL", name=op.f("ck_lots_allowance_expires")),
        sa.CheckConstraint("kind IN ('allowance','purchased','granted')", name=op.f("ck_lots_kind")),
        sa.CheckConstraint("issued >= 0", name=op.f("ck_lots_issued")),
        sa.CheckConstraint("open = (remaining > 0)", name=op.f("ck_lots_open")),
        sa.CheckConstraint("remaining + removed <= issued", name=op.f("ck_lots_sum")),
        sa.CheckConstraint("remaining >= 0", name=op.f("ck_lots_remaining")),
        sa.CheckConstraint("removed >= 0", name=op.f("ck_lots_removed")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_lots_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lots")),
        sa.UniqueConstraint("account_id", "idempotency_key", name=op.f("uq_lots_account_id_idempotency_key")),
        sa.UniqueConstraint("source_key", name=op.f("uq_lots_source_key")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index("ix_lots_account_id", "lots", ["account_id", "kind", "created_at"])
    op.create_index(
        "ix_lots_expiring",
        "lots",
        ["expires_at"],
        sqlite_where=sa.text("open"),
        postgresql_where=sa.text("open"),
    )
    op.create_index(
        "ix_lots_open", "lots", ["account_id"], sqlite_where=sa.text("open"), postgresql_where=sa.text("open")
    )

    op.create_table(
        "memberships",
        sa.Column("user_id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.CheckConstraint("role IN ('owner','admin','member')", name=op.f("ck_memberships_role")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_memberships_account_id_accounts")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_memberships_user_id_users")),
        sa.PrimaryKeyConstraint("user_id", "account_id", name=op.f("pk_memberships")),
        sa.UniqueConstraint("account_id", "user_id", name=op.f("uq_memberships_account_id_user_id")),
    )
    op.create_table(
        "signup_claims",
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_signup_claims_account_id_accounts")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_signup_claims")),
    )
    op.create_table(
        "subscriptions",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("source", sa.String(length=20), nullable=False),
        sa.Column("tier", sa.String(length=100), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("included", sa.BigInteger(), nullable=False),
        sa.Column("rollover_max", sa.BigInteger(), nullable=True),
        sa.Column("anchor", types.UtcDateTime(), nullable=False),
        sa.Column("ends_at", types.UtcDateTime(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("ended_at", types.UtcDateTime(), nullable=True),
        sa.CheckConstraint("source IN ('local')", name=op.f("ck_subscriptions_source")),
        sa.CheckConstraint("status IN ('active','ended')", name=op.f("ck_subscriptions_status")),
        sa.CheckConstraint("included >= 0", name=op.f("ck_subscriptions_included")),
        sa.CheckConstraint("rollover_max IS NULL OR rollover_max >= 0", name=op.f("ck_subscriptions_rollover_max")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_subscriptions_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
    )
    op.create_index(
        "uq_subscriptions_active",
        "subscriptions",
        ["account_id"],
        unique=True,
        sqlite_where=sa.text("status = 'active'"),
        postgresql_where=sa.text("status = 'active'"),
    )

    op.create_table(
        "tokens",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=True),
        sa.Column("user_id", types.id_type(), nullable=True),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=100), nullable=False),
        sa.Column("cap", sa.BigInteger(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("expires_at", types.UtcDateTime(), nullable=True),
        sa.Column("last_used_at", types.UtcDateTime(), nullable=True),
        sa.Column("revoked_at", types.UtcDateTime(), nullable=True),
        sa.CheckConstraint("account_id IS NOT NULL OR cap IS NULL", name=op.f("ck_tokens_service_cap")),
        sa.CheckConstraint("cap IS NULL OR cap >= 0", name=op.f("ck_tokens_cap")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_tokens_account_id_accounts")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_tokens_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index("ix_tokens_account_id", "tokens", ["account_id", "created_at"])

    op.create_table(
        "usage_records",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("token_id", types.id_type(), nullable=True),
        sa.Column("hold_id", types.id_type(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("explicit_credits", sa.BigInteger(), nullable=True),
        sa.Column("operation", sa.String(length=200), nullable=True),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("llm_provider", sa.String(length=200), nullable=True),
        sa.Column("llm_model", sa.String(length=200), nullable=True),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=True),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=True),
        sa.Column("total_tokens", sa.BigInteger(), nullable=True),
        sa.Column("actual_cost", types.ExactDecimal(), nullable=True),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("retry", sa.Boolean(), nullable=False),
        sa.Column("enforce", sa.Boolean(), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=True),
        sa.Column("subject", sa.String(length=255), nullable=True),
        sa.Column("properties", sa.Text(), nullable=True),
        sa.Column("occurred_given", sa.Boolean(), nullable=False),
        sa.Column("occurred_at", types.UtcDateTime(), nullable=False),
        sa.Column("recorded_at", types.UtcDateTime(), nullable=False),
        sa.Column("period_start", types.UtcDateTime(), nullable=False),
        sa.Column("catalog_version", sa.Integer(), nullable=False),
        sa.Column("rate", sa.Text(), nullable=True),
        sa.Column("priced", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("allowance", sa.BigInteger(), nullable=False),
        sa.Column("purchased", sa.BigInteger(), nullable=False),
        sa.Column("granted", sa.BigInteger(), nullable=False),
        sa.Column("overage", sa.BigInteger(), nullable=False),
        sa.Column("unfunded", sa.BigInteger(), nullable=False),
        sa.Column("settled", sa.BigInteger(), nullable=False),
        sa.Column("available_after", sa.BigInteger(), nullable=False),
        sa.Column("allowance_after", sa.BigInteger(), nullable=False),
        sa.Column("purchased_after", sa.BigInteger(), nullable=False),
        sa.Column("granted_after", sa.BigInteger(), nullable=False),
        sa.Column("held_after", sa.BigInteger(), nullable=False),
        sa.Column("voided_at", types.UtcDateTime(), nullable=True),
        sa.Column("void_reason", sa.String(length=500), nullable=True),
        sa.CheckConstraint(
            "allowance >= 0 AND purchased >= 0 AND granted >= 0 AND overage >= 0 AND unfunded >= 0",
            name=op.f("ck_usage_records_parts"),
        ),
        sa.CheckConstraint(
            "charged = allowance + purchased + granted + overage + unfunded",
            name=op.f("ck_usage_records_split"),
        ),
        sa.CheckConstraint("charged >= 0 AND priced >= 0", name=op.f("ck_usage_records_amounts")),
        sa.CheckConstraint("settled >= 0 AND settled <= unfunded", name=op.f("ck_usage_records_settled")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_usage_records_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_records")),
        sa.UniqueConstraint("account_id", "idempotency_key", name=op.f("uq_usage_records_account_id_idempotency_key")),
        sa.UniqueConstraint("hold_id", name=op.f("uq_usage_records_hold_id")),
    )
    op.create_index("ix_usage_records_occurred", "usage_records", ["account_id", "occurred_at", "seq"])
    op.create_index(
        "ix_usage_records_unsettled",
        "usage_records",
        ["account_id", "seq"],
        sqlite_where=sa.text("unfunded > settled AND voided_at IS NULL"),
        postgresql_where=sa.text("unfunded > settled AND voided_at IS NULL"),
    )

    op.create_table(
        "ledger_entries",
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("lot_id", types.id_type(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=20), nullable=False),
        sa.Column("cause_type", sa.String(length=20), nullable=False),
        sa.Column("cause_id", sa.String(length=100), nullable=False),
        sa.Column("lot_remaining", sa.BigInteger(), nullable=False),
        sa.Column("kind_after", sa.BigInteger(), nullable=False),
        sa.Column("balance_after", sa.BigInteger(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.CheckConstraint("change <> 0", name=op.f("ck_ledger_entries_change")),
        sa.CheckConstraint("kind_after >= 0 AND balance_after >= kind_after", name=op.f("ck_ledger_entries_after")),
        sa.CheckConstraint("lot_remaining >= 0", name=op.f("ck_ledger_entries_lot_remaining")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_ledger_entries_account_id_accounts")),
        sa.ForeignKeyConstraint(["lot_id"], ["lots.id"], name=op.f("fk_ledger_entries_lot_id_lots")),
        sa.PrimaryKeyConstraint("account_id", "seq", name=op.f("pk_ledger_entries")),
    )
    op.create_index("ix_ledger_entries_kind", "ledger_entries", ["account_id", "kind", "created_at", "seq"])
    op.create_index(
        "ix_ledger_entries_settled",
        "ledger_entries",
        ["cause_id"],
        sqlite_where=sa.text("reason = 'settle'"),
        postgresql_where=sa.text("reason = 'settle'"),
    )


def downgrade() -> None:
    op.drop_table("ledger_entries")
    op.drop_table("usage_records")
    op.drop_table("tokens")
    op.drop_table("subscriptions")
    op.drop_table("signup_claims")
    op.drop_table("memberships")
    op.drop_table("lots")
    op.drop_table("holds")
    op.drop_table("cap_counters")
    op.drop_table("users")
    op.drop_table("throttles")
    op.drop_table("setup_links")
    op.drop_table("mails")
    op.drop_table("leases")
    op.drop_table("job_runs")
    op.drop_table("catalog_versions")
    op.drop_table("catalog_state")
    op.drop_table("accounts")
