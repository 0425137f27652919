"""Lots, the ledger, holds and cap counters: everything the account's row lock guards.

Amounts are micro-credits. Only services/credits.py writes these tables.
"""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Micros, partial_index
from models.types import UtcDateTime


class Kind(enum.StrEnum):
    """What a lot's credits are, in the order they are spent."""

    ALLOWANCE = "allowance"
    PURCHASED = "purchased"
    GRANTED = "granted"


class Reason(enum.StrEnum):
    SIGNUP = "signup"
    GRANT = "grant"
    PURCHASE = "purchase"
    ALLOWANCE = "allowance"
    ROLLOVER = "rollover"
    USAGE = "usage"
    VOID = "void"
    EXPIRY = "expiry"
    REFUND = "refund"
    DISPUTE = "dispute"
    DISPUTE_REVERSAL = "dispute_reversal"
    PLAN_CHANGE = "plan_change"
    RESET = "reset"
    SETTLE = "settle"


class Lot(Base):
    """One batch of credits: `issued` once, `remaining` now, `removed` by expiry or taking back; the rest was spent.

    `open` says that something remains; it changes far less often than `remaining`, so it carries the index and
    PostgreSQL can update a lot in place. `source_key` makes issuing idempotent (one allowance per period, one
    sign-up grant per account). `request` and `answer` are an API grant's, for its replay.
    `current` marks the allowance lots of the running period since its last reset.
    """

    __tablename__ = "lots"
    __table_args__ = (
        CheckConstraint("kind IN ('allowance','purchased','granted')", name="kind"),
        CheckConstraint("issued >= 0", name="issued"),
        CheckConstraint("remaining >= 0", name="remaining"),
        CheckConstraint("removed >= 0", name="removed"),
        CheckConstraint("remaining + removed <= issued", name="sum"),
        CheckConstraint("open = (remaining > 0)", name="open"),
        CheckConstraint("kind <> 'allowance' OR expires_at IS NOT NULL", name="allowance_expires"),
        UniqueConstraint("source_key"),
        UniqueConstraint("account_id", "idempotency_key"),
        partial_index("ix_lots_open", "account_id", where="open OR current"),
        partial_index("ix_lots_expiring", "expires_at", where="open"),
        Index("ix_lots_account_id", "account_id", "kind", "created_at"),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    kind: Mapped[str] = mapped_column(String(20))
    issued: Mapped[Micros]
    remaining: Mapped[Micros]
    removed: Mapped[Micros] = mapped_column(default=0)
    open: Mapped[bool] = mapped_column(default=True)
    current: Mapped[bool] = mapped_column(default=False)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    subscription_id: Mapped[Id | None]
    period_start: Mapped[datetime | None] = mapped_column(UtcDateTime)
    note: Mapped[str | None] = mapped_column(String(500))
    source_key: Mapped[str | None] = mapped_column(String(120))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    request: Mapped[str | None] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(Text)


class LedgerEntry(Base):
    """One immutable signed change of one lot, and what the account has afterwards: of each kind, and in all.

    On SQLite an account's entries lie together, as its statements read them.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (
        CheckConstraint("change <> 0", name="change"),
        CheckConstraint("lot_remaining >= 0", name="lot_remaining"),
        CheckConstraint(
            "allowance_after >= 0 AND purchased_after >= 0 AND granted_after >= 0"
            " AND balance_after = allowance_after + purchased_after + granted_after",
            name="after",
        ),
        partial_index("ix_ledger_entries_cause", "cause_id", where="reason IN ('settle','void')"),
        partial_index("ix_ledger_entries_other", "account_id", "seq", where="reason <> 'usage'"),
        {"sqlite_with_rowid": False},
    )

    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    lot_id: Mapped[Id] = mapped_column(ForeignKey("lots.id"))
    kind: Mapped[str] = mapped_column(String(20))
    change: Mapped[Micros]
    reason: Mapped[str] = mapped_column(String(20))
    cause_type: Mapped[str] = mapped_column(String(20))
    cause_id: Mapped[str] = mapped_column(String(100))
    lot_remaining: Mapped[Micros]
    allowance_after: Mapped[Micros]
    purchased_after: Mapped[Micros]
    granted_after: Mapped[Micros]
    balance_after: Mapped[Micros]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class HoldState(enum.StrEnum):
    OPEN = "open"
    CAPTURED = "captured"
    RELEASED = "released"
    EXPIRED = "expired"


class Hold(Base):
    """Credits set aside. An open hold past `expires_at` holds nothing, whatever the sweeper has done."""

    __tablename__ = "holds"
    __table_args__ = (
        CheckConstraint("state IN ('open','captured','released','expired')", name="state"),
        CheckConstraint("amount > 0", name="amount"),
        UniqueConstraint("account_id", "idempotency_key"),
        partial_index("ix_holds_open", "account_id", where="state = 'open'"),
        Index("ix_holds_account_id", "account_id", "id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    token_id: Mapped[Id | None]
    state: Mapped[str] = mapped_column(String(20), default=HoldState.OPEN)
    amount: Mapped[Micros]
    subject: Mapped[str | None] = mapped_column(String(255))
    operation: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    request: Mapped[str] = mapped_column(Text)
    answer: Mapped[str] = mapped_column(Text)


class CapCounter(Base):
    """Credits charged in one window (`day` from midnight UTC, or `period`) by whom a cap counts.

    `key` is the token's id or the subject; for the scope `account` it is empty. Only what a cap counts has a counter.
    """

    __tablename__ = "cap_counters"
    __table_args__ = (CheckConstraint("used >= 0", name="used"),)

    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    scope: Mapped[str] = mapped_column(String(20), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    window: Mapped[str] = mapped_column(String(20), primary_key=True)
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    used: Mapped[Micros] = mapped_column(default=0)
