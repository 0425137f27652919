"""What customers set for themselves: caps, alerts, notifications; and what the operator's product is told.

Revision 0007, after 0006. The new columns are null or constant and the new tables are empty: the release before runs on
beside them. The index of open lots is made anew, which takes a moment where there are millions of lots.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


_KINDS = "kind IN ('allowance','low_balance','spike','cap_reached','payment_failed','card_expiring')"
_TOP_UPS = "reason IN ('purchase','grant','signup') AND change > 0"
_LAST_TOP_UP = f"""UPDATE accounts SET topped_up = e.change, topped_up_lot = e.lot_id FROM ledger_entries e
    WHERE e.account_id = accounts.id AND e.seq = (
        SELECT max(seq) FROM ledger_entries WHERE account_id = accounts.id AND reason <> 'usage' AND {_TOP_UPS}
    )"""  # noqa: S608


def upgrade() -> None:
    op.add_column("accounts", sa.Column("controls", sa.Text(), nullable=True))
    op.add_column("accounts", sa.Column("topped_up", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("accounts", sa.Column("topped_up_lot", types.id_type(), nullable=True))
    op.execute(_LAST_TOP_UP)
    _index_lots("open OR current")
    op.create_table(
        "alerts",
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("occasion", sa.String(length=160), nullable=False),
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("kind", sa.String(length=30), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=True),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("ends_at", types.UtcDateTime(), nullable=True),
        sa.Column("ended_at", types.UtcDateTime(), nullable=True),
        sa.Column("dismissed_at", types.UtcDateTime(), nullable=True),
        sa.Column("told_at", types.UtcDateTime(), nullable=True),
        sa.CheckConstraint(_KINDS, name=op.f("ck_alerts_kind")),
        sa.CheckConstraint("(kind = 'allowance') = (threshold IS NOT NULL)", name=op.f("ck_alerts_threshold")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_alerts_account_id_accounts")),
        sa.PrimaryKeyConstraint("account_id", "occasion", name=op.f("pk_alerts")),
        sa.UniqueConstraint("id", name=op.f("uq_alerts_id")),
    )
    op.create_index("ix_alerts_created_at", "alerts", ["account_id", "created_at", "id"])
    op.create_table(
        "unsubscriptions",
        sa.Column("address", sa.String(length=254), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=False),
        sa.Column("kind", sa.String(length=30), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_unsubscriptions_account_id_accounts")),
        sa.PrimaryKeyConstraint("address", "account_id", "kind", name=op.f("pk_unsubscriptions")),
    )
    op.add_column("mails", sa.Column("html", sa.Text(), nullable=True))
    op.add_column("mails", sa.Column("unsubscribe", sa.Text(), nullable=True))
    _create_outgoing()
    untold = sa.text("told_at IS NULL")
    op.create_index("ix_alerts_untold", "alerts", ["created_at"], sqlite_where=untold, postgresql_where=untold)


def _create_outgoing() -> None:
    op.create_table(
        "outgoing_endpoints",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("url", sa.String(length=500), nullable=False),
        sa.Column("secret", sa.String(length=100), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("disabled_at", types.UtcDateTime(), nullable=True),
        sa.Column("disabled_reason", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outgoing_endpoints")),
    )
    op.create_table(
        "outgoing_events",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("type", sa.String(length=60), nullable=False),
        sa.Column("account_id", types.id_type(), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outgoing_events")),
    )
    op.create_index("ix_outgoing_events_created_at", "outgoing_events", ["created_at", "id"])
    op.create_table(
        "outgoing_deliveries",
        sa.Column("id", types.id_type(), nullable=False),
        sa.Column("event_id", types.id_type(), nullable=False),
        sa.Column("endpoint_id", types.id_type(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("answer", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("created_at", types.UtcDateTime(), nullable=False),
        sa.Column("next_attempt_at", types.UtcDateTime(), nullable=False),
        sa.Column("last_attempt_at", types.UtcDateTime(), nullable=True),
        sa.Column("delivered_at", types.UtcDateTime(), nullable=True),
        sa.CheckConstraint("status IN ('pending','delivered','dead')", name=op.f("ck_outgoing_deliveries_status")),
        sa.CheckConstraint(
            "(status = 'delivered') = (delivered_at IS NOT NULL)", name=op.f("ck_outgoing_deliveries_delivered")
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["outgoing_events.id"], name=op.f("fk_outgoing_deliveries_event_id_outgoing_events")
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["outgoing_endpoints.id"],
            name=op.f("fk_outgoing_deliveries_endpoint_id_outgoing_endpoints"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outgoing_deliveries")),
        sa.UniqueConstraint("event_id", "endpoint_id", name=op.f("uq_outgoing_deliveries_event_id_endpoint_id")),
    )
    op.create_index("ix_outgoing_deliveries_created_at", "outgoing_deliveries", ["created_at", "id"])
    due = sa.text("status = 'pending'")
    op.create_index(
        "ix_outgoing_deliveries_due", "outgoing_deliveries", ["next_attempt_at"], sqlite_where=due, postgresql_where=due
    )


def _index_lots(where: str) -> None:
    op.drop_index("ix_lots_open", "lots")
    text = sa.text(where)
    op.create_index("ix_lots_open", "lots", ["account_id"], sqlite_where=text, postgresql_where=text)


def downgrade() -> None:
    for table in ("outgoing_deliveries", "outgoing_events", "outgoing_endpoints"):
        op.drop_table(table)
    op.drop_column("mails", "unsubscribe")
    op.drop_column("mails", "html")
    op.drop_table("unsubscriptions")
    op.drop_table("alerts")
    _index_lots("open")
    op.drop_column("accounts", "topped_up_lot")
    op.drop_column("accounts", "topped_up")
    op.drop_column("accounts", "controls")
