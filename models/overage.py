"""Usage beyond all lots that a customer pays for: what each period came to, and how far its billing is."""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Micros, partial_index
from models.types import UtcDateTime


class BillState(enum.StrEnum):
    OPEN = "open"
    """The account is in the period."""
    DUE = "due"
    """The account has left it: it is to be billed."""
    BILLED = "billed"


class OverageBill(Base):
    """One period's overage of one subscription. `credits` grow with each usage record, in its transaction.

    The records are those numbered from `first_seq` to `last_seq` (null while open). `terms` are what was agreed
    (services/overages.py) when the first of it was used. `amount` (minor units) is fixed before Stripe is asked for
    anything, and with it where it is to stand: on the draft `draft_id` of a renewal, or (null) on an invoice of its
    own. `invoice_id` is the invoice it came to stand on. `reported` are the units that a meter knows, `report` the
    number of the last report, `reporting` what the meter will know once that report is through (null: it is).
    `unpaid_since` is when an invoice of its own could first not be collected.
    """

    __tablename__ = "overage_bills"
    __table_args__ = (
        CheckConstraint("state IN ('open','due','billed')", name="state"),
        CheckConstraint("credits >= 0", name="credits"),
        CheckConstraint("amount IS NULL OR amount >= 0", name="amount"),
        CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="closed"),
        CheckConstraint("(state = 'billed') = (billed_at IS NOT NULL)", name="billed"),
        CheckConstraint("state <> 'billed' OR amount IS NOT NULL", name="billed_amount"),
        partial_index(
            "uq_overage_bills_open",
            "account_id",
            "subscription_id",
            "period_start",
            where="state = 'open'",
            unique=True,
        ),
        partial_index("ix_overage_bills_due", "closed_at", where="state = 'due'"),
        partial_index("ix_overage_bills_unpaid", "account_id", where="unpaid_since IS NOT NULL"),
        Index("ix_overage_bills_account_id", "account_id", "first_seq"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    subscription_id: Mapped[Id] = mapped_column(ForeignKey("subscriptions.id"))
    state: Mapped[str] = mapped_column(String(20))
    terms: Mapped[str] = mapped_column(Text)
    credits: Mapped[Micros]
    first_seq: Mapped[int] = mapped_column(BigInteger)
    last_seq: Mapped[int | None] = mapped_column(BigInteger)
    period_start: Mapped[datetime] = mapped_column(UtcDateTime)
    period_end: Mapped[datetime] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reported: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    report: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    reporting: Mapped[int | None] = mapped_column(BigInteger)
    amount: Mapped[int | None] = mapped_column(BigInteger)
    draft_id: Mapped[str | None] = mapped_column(String(255))
    invoice_id: Mapped[str | None] = mapped_column(String(255))
    billed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    unpaid_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
