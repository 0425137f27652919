"""Sums of usage per hour, kept with the records, and those of the records that are there already.

Revision 0002. Filling them reads every usage record once; nothing can be recorded meanwhile.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _create(name: str, *labels: sa.Column) -> None:
    keys = ["account_id", "hour", *(label.name for label in labels)]
    op.create_table(
        name,
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("hour", types.UtcDateTime(), nullable=False),
        *labels,
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("cost", types.ExactDecimal(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f(f"fk_{name}_account_id_accounts")),
        sa.PrimaryKeyConstraint(*keys, name=op.f(f"pk_{name}")),
    )


def _fill(name: str, labels: tuple[str, ...], where: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        hour, cost = "occurred_at / 3600000000 * 3600000000", "decimal_sum(actual_cost)"
    else:
        hour, cost = "date_trunc('hour', occurred_at)", "coalesce(sum(actual_cost), 0)"
    named = ", ".join(labels)
    given = ", ".join(f"coalesce({label}, '')" for label in labels)
    op.execute(
        f"INSERT INTO {name} (account_id, hour, {named}, records, charged, cost)"  # noqa: S608 - no input
        f" SELECT account_id, {hour}, {given}, count(*), sum(charged), {cost} FROM usage_records"
        f" WHERE voided_at IS NULL AND {where} GROUP BY account_id, {hour}, {named}"
    )


def upgrade() -> None:
    _create(
        "usage_hours",
        sa.Column("operation", sa.String(length=200), nullable=False),
        sa.Column("llm_model", sa.String(length=200), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False),
    )
    _fill("usage_hours", ("operation", "llm_model", "source"), "true")
    _create("subject_hours", sa.Column("subject", sa.String(length=255), nullable=False))
    _fill("subject_hours", ("subject",), "subject IS NOT NULL")


def downgrade() -> None:
    op.drop_table("subject_hours")
    op.drop_table("usage_hours")
