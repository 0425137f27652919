"""Invitations by e-mail, and one free allowance a person.

Revision 0003, after 0002. `invitations` is new. `accounts.free_allowance` has a constant default, so the column is
added without rewriting the table. The claims of those who signed up before are written with one short insert each.
"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OPEN = sa.text("accepted_at IS NULL AND withdrawn_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("invited_by", types.id_type(), nullable=False),
        sa.Column("sent_at", types.UtcDateTime(), nullable=False),
        sa.Column("expires_at", types.UtcDateTime(), nullable=False),
        sa.Column("accepted_at", types.UtcDateTime(), nullable=True),
        sa.Column("accepted_by", types.id_type(), nullable=True),
        sa.Column("withdrawn_at", types.UtcDateTime(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.CheckConstraint("role IN ('owner','admin','member')", name=op.f("ck_invitations_role")),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_invitations_email_lower")),
        sa.CheckConstraint("accepted_at IS NULL OR withdrawn_at IS NULL", name=op.f("ck_invitations_one_end")),
        sa.CheckConstraint("(accepted_at IS NULL) = (accepted_by IS NULL)", name=op.f("ck_invitations_accepted")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_invitations_account_id_accounts")),
        sa.ForeignKeyConstraint(["invited_by"], ["users.id"], name=op.f("fk_invitations_invited_by_users")),
        sa.ForeignKeyConstraint(["accepted_by"], ["users.id"], name=op.f("fk_invitations_accepted_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitations")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_invitations_secret_hash")),
    )
    op.create_index(
        "uq_invitations_open",
        "invitations",
        ["account_id", "email"],
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_index("ix_invitations_accepted_by", "invitations", ["accepted_by", "account_id"])
    op.add_column("accounts", sa.Column("free_allowance", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    _claim_free_allowances()


def _claim_free_allowances() -> None:
    """Every owner so far signed up, and has the free allowance on the account they made first."""
    connection = op.get_bind()
    owners = sa.text(
        "SELECT users.email, memberships.account_id, memberships.created_at FROM memberships "
        "JOIN users ON users.id = memberships.user_id WHERE memberships.role = 'owner' "
        "ORDER BY memberships.created_at DESC"
    )
    first = {email: (account_id, created_at) for email, account_id, created_at in connection.execute(owners)}
    claim = sa.text("INSERT INTO signup_claims (key, account_id, created_at) VALUES (:key, :account, :at)")
    for email, (account_id, created_at) in first.items():
        key = f"free:{hashlib.sha256(email.encode()).hexdigest()}"
        connection.execute(claim, {"key": key, "account": account_id, "at": created_at})


def downgrade() -> None:
    op.execute("DELETE FROM signup_claims WHERE key LIKE 'free:%'")
    op.drop_column("accounts", "free_allowance")
    op.drop_table("invitations")
