"""Usage is counted in one small table, and added to the hours' sums when its hour is over.

Revision 0013, after 0012. Nothing is copied: the sums that are there stay as they are. On the way back what has not yet
been added is added.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_SUMS = ("records", "charged", "cost")


def upgrade() -> None:
    op.create_table(
        "recent_usage",
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("hour", types.UtcDateTime(), nullable=False),
        sa.Column("operation", sa.String(length=200), nullable=False),
        sa.Column("llm_model", sa.String(length=200), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("cost", types.ExactDecimal(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_recent_usage_account_id_accounts")),
        sa.PrimaryKeyConstraint(
            "account_id", "hour", "operation", "llm_model", "source", "subject", name=op.f("pk_recent_usage")
        ),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": "80"},
    )


def downgrade() -> None:
    _add("usage_hours", ("operation", "llm_model", "source"), "true")
    _add("subject_hours", ("subject",), "subject <> ''")
    op.drop_table("recent_usage")


def _add(table: str, labels: tuple[str, ...], where: str) -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    cost = "decimal_sum(cost)" if on_sqlite else "sum(cost)"
    both = {name: f"{table}.{name} + excluded.{name}" for name in _SUMS}
    if on_sqlite:
        both["cost"] = f"decimal_add({table}.cost, excluded.cost)"
    keys = ", ".join(("account_id", "hour", *labels))
    sets = ", ".join(f"{name} = {value}" for name, value in both.items())
    op.execute(
        f"INSERT INTO {table} ({keys}, {', '.join(_SUMS)})"  # noqa: S608 - names of this file
        f" SELECT {keys}, sum(records), sum(charged), {cost} FROM recent_usage WHERE {where} GROUP BY {keys}"
        f" ON CONFLICT ({keys}) DO UPDATE SET {sets}"
    )
