"""Auto top-up: how each account stands with it, and every attempt to buy.

Credits are micro-credits, money is in minor units of the attempt's currency.
"""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Micros, partial_index
from models.types import UtcDateTime


class TopUpWatch(Base):
    """An account that ever turned auto top-up on. `below` repeats its controls, so that one query finds who is short.

    It is null while auto top-up is off; where we turned it off, `off_reason` says why. `failures` counts what failed
    since the last success, `not_before` is when the next attempt may begin.
    """

    __tablename__ = "top_up_watches"
    __table_args__ = (
        CheckConstraint("below >= 0", name="below"),
        CheckConstraint("failures >= 0", name="failures"),
        CheckConstraint("off_reason IS NULL OR below IS NULL", name="off_reason"),
        partial_index("ix_top_up_watches_on", "account_id", where="below IS NOT NULL"),
    )

    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    below: Mapped[Micros | None]
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)
    off_reason: Mapped[str | None] = mapped_column(String(100))


class TopUpStatus(enum.StrEnum):
    OPEN = "open"
    """It is under way, or waits for the customer or their bank. An account has one such attempt at most."""
    PAID = "paid"
    FAILED = "failed"
    """It counts as a failure: the card was declined, or there was none, say."""
    WITHDRAWN = "withdrawn"
    """It ended without being paid, by nobody's fault."""


class WaitsFor(enum.StrEnum):
    CUSTOMER = "customer"
    """Their bank asks them something, such as 3-D Secure, on Stripe's invoice page."""
    BANK = "bank"
    """The payment is under way, as debits are for days."""


class TopUp(Base):
    """One attempt. What is asked of Stripe follows from this row alone, so that it can be asked again after a crash.

    `reason` is why it is to end, or has ended, unpaid; it is written before the invoice is voided. `look_at` is when
    the job looks at it next, in real time, because processes die in it.
    """

    __tablename__ = "auto_top_ups"
    __table_args__ = (
        CheckConstraint("status IN ('open','paid','failed','withdrawn')", name="status"),
        CheckConstraint("(status = 'open') = (finished_at IS NULL)", name="finished"),
        CheckConstraint("status <> 'paid' OR invoice_id IS NOT NULL", name="paid"),
        CheckConstraint("status NOT IN ('failed','withdrawn') OR reason IS NOT NULL", name="reason"),
        CheckConstraint("waits_for IN ('customer','bank')", name="waits_for"),
        CheckConstraint("credits > 0 AND quantity >= 0 AND amount >= 0", name="amounts"),
        UniqueConstraint("invoice_id"),
        partial_index("uq_auto_top_ups_open", "account_id", where="status = 'open'", unique=True),
        partial_index("ix_auto_top_ups_due", "look_at", where="status = 'open'"),
        Index("ix_auto_top_ups_account_id", "account_id", "created_at", "id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    status: Mapped[str] = mapped_column(String(20), default=TopUpStatus.OPEN)
    credits: Mapped[Micros]
    per_unit: Mapped[Micros] = mapped_column(default=0, server_default=text("0"))
    quantity: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    amount: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    currency: Mapped[str | None] = mapped_column(String(3))
    price_id: Mapped[str | None] = mapped_column(String(255))
    customer_id: Mapped[str | None] = mapped_column(String(255))
    payment_method: Mapped[str | None] = mapped_column(String(255))
    invoice_id: Mapped[str | None] = mapped_column(String(255))
    waits_for: Mapped[str | None] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    look_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
