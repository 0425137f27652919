"""Metered events."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Micros, partial_index
from models.types import ExactDecimal, UtcDateTime


class UsageRecord(Base):
    """One metered event: what was asked, what it cost, and the balances it left.

    The request's fields are kept as they were sent, so that a repeated key can be compared with them and answered
    again from this row alone; `explicit_credits` and `occurred_given` tell what the caller left to us.
    Its ledger entries are those numbered `seq + 1 … seq + entries`. Amounts are micro-credits.
    """

    __tablename__ = "usage_records"
    __table_args__ = (
        CheckConstraint("charged >= 0 AND priced >= 0", name="amounts"),
        CheckConstraint("charged = allowance + purchased + granted + overage + unfunded", name="split"),
        CheckConstraint(
            "allowance >= 0 AND purchased >= 0 AND granted >= 0 AND overage >= 0 AND unfunded >= 0",
            name="parts",
        ),
        CheckConstraint("settled >= 0 AND settled <= unfunded", name="settled"),
        UniqueConstraint("account_id", "idempotency_key"),
        partial_index("ix_usage_records_hold_id", "hold_id", where="hold_id IS NOT NULL", unique=True),
        Index("ix_usage_records_occurred", "account_id", "occurred_at", "seq"),
        partial_index(
            "ix_usage_records_unsettled",
            "account_id",
            "seq",
            where="unfunded > settled AND voided_at IS NULL",
        ),
        partial_index("ix_usage_records_backdated", "account_id", "period_start", where="occurred_at < period_start"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    seq: Mapped[int] = mapped_column(BigInteger)
    entries: Mapped[int] = mapped_column(Integer)
    token_id: Mapped[Id | None]
    hold_id: Mapped[Id | None]
    idempotency_key: Mapped[str | None] = mapped_column(String(255))

    explicit_credits: Mapped[Micros | None]
    operation: Mapped[str | None] = mapped_column(String(200))
    quantity: Mapped[Micros]
    llm_provider: Mapped[str | None] = mapped_column(String(200))
    llm_model: Mapped[str | None] = mapped_column(String(200))
    prompt_tokens: Mapped[int | None] = mapped_column(BigInteger)
    completion_tokens: Mapped[int | None] = mapped_column(BigInteger)
    total_tokens: Mapped[int | None] = mapped_column(BigInteger)
    actual_cost: Mapped[Decimal | None] = mapped_column(ExactDecimal)
    success: Mapped[bool]
    retry: Mapped[bool]
    enforce: Mapped[bool]
    source: Mapped[str | None] = mapped_column(String(200))
    subject: Mapped[str | None] = mapped_column(String(255))
    properties: Mapped[str | None] = mapped_column(Text)
    occurred_given: Mapped[bool]
    occurred_at: Mapped[datetime] = mapped_column(UtcDateTime)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)
    period_start: Mapped[datetime] = mapped_column(UtcDateTime)

    catalog_version: Mapped[int] = mapped_column(Integer)
    rate: Mapped[str | None] = mapped_column(Text)
    priced: Mapped[Micros]
    charged: Mapped[Micros]
    allowance: Mapped[Micros]
    purchased: Mapped[Micros]
    granted: Mapped[Micros]
    overage: Mapped[Micros]
    unfunded: Mapped[Micros]
    settled: Mapped[Micros] = mapped_column(default=0)

    available_after: Mapped[Micros]
    allowance_after: Mapped[Micros]
    purchased_after: Mapped[Micros]
    granted_after: Mapped[Micros]
    held_after: Mapped[Micros]

    voided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    void_reason: Mapped[str | None] = mapped_column(String(500))


class RecentUsage(Base):
    """What an account's records of one hour (by `occurred_at`) with the same labels add up to, voided ones left out.

    Kept with every record in its transaction, so that charts need not read the records. A label that is not there is
    the empty string, which no record has. When its hour is over, a row is added to those of the two tables below and
    goes; so this one stays small, and a record is counted where the last ones were. A void of older usage is counted
    here as well: then the numbers may be negative.
    """

    __tablename__ = "recent_usage"
    __table_args__ = ({"sqlite_with_rowid": False, "postgresql_with": {"fillfactor": "80"}},)

    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    operation: Mapped[str] = mapped_column(String(200), primary_key=True)
    llm_model: Mapped[str] = mapped_column(String(200), primary_key=True)
    source: Mapped[str] = mapped_column(String(200), primary_key=True)
    subject: Mapped[str] = mapped_column(String(255), primary_key=True)
    records: Mapped[int] = mapped_column(BigInteger)
    charged: Mapped[Micros]
    cost: Mapped[Decimal] = mapped_column(ExactDecimal)


class UsageHour(Base):
    """The sums of hours that are over, whatever the subject. With the recent ones they are an account's usage.

    On SQLite the rows of an account lie together, as its charts read them.
    """

    __tablename__ = "usage_hours"
    __table_args__ = ({"sqlite_with_rowid": False},)

    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    operation: Mapped[str] = mapped_column(String(200), primary_key=True)
    llm_model: Mapped[str] = mapped_column(String(200), primary_key=True)
    source: Mapped[str] = mapped_column(String(200), primary_key=True)
    records: Mapped[int] = mapped_column(BigInteger)
    charged: Mapped[Micros]
    cost: Mapped[Decimal] = mapped_column(ExactDecimal)


class SubjectHour(Base):
    """The same by subject, of the records that name one: apart, because there may be as many as customers."""

    __tablename__ = "subject_hours"
    __table_args__ = ({"sqlite_with_rowid": False},)

    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    subject: Mapped[str] = mapped_column(String(255), primary_key=True)
    records: Mapped[int] = mapped_column(BigInteger)
    charged: Mapped[Micros]
    cost: Mapped[Decimal] = mapped_column(ExactDecimal)
