"""What an account is told about its credits and payments, once for each occasion."""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, partial_index
from models.types import UtcDateTime


class AlertKind(enum.StrEnum):
    ALLOWANCE = "allowance"
    """A threshold of the period's allowance is used."""
    LOW_BALANCE = "low_balance"
    SPIKE = "spike"
    CAP_REACHED = "cap_reached"
    PAYMENT_FAILED = "payment_failed"
    CARD_EXPIRING = "card_expiring"
    OVERAGE = "overage"
    """Usage beyond all lots began in this period; with a threshold: so much of its cap in money is used."""
    TOPPED_UP = "topped_up"
    """Auto top-up bought credits."""
    TOP_UP_ACTION = "top_up_action"
    """An auto top-up waits for the customer, who has to answer their bank."""
    TOP_UP_FAILED = "top_up_failed"
    """An auto top-up was declined or could not be made; it is tried again."""
    TOP_UP_CEILING = "top_up_ceiling"
    """The next auto top-up would pass the month's ceiling."""
    TOP_UP_OFF = "top_up_off"
    """Auto top-up was turned off after its last failure."""
    PLAN_LAPSED = "plan_lapsed"
    """Nobody paid within the grace: the account is on the free plan until somebody does."""
    SUSPENDED = "suspended"
    """Nobody paid for even longer: the account is stopped until somebody does."""
    RESTORED = "restored"
    """Nothing is unpaid any more."""


_KINDS = ",".join(f"'{kind.value}'" for kind in AlertKind)


class Alert(Base):
    """`occasion` names what the account is told once about, whoever notices it and however often.

    It stands until it is dismissed, until `ends_at`, or until it is no longer true (`ended_at`). `details` is JSON;
    `told_at` is when mails and messages about it were written.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        CheckConstraint(f"kind IN ({_KINDS})", name="kind"),
        CheckConstraint(
            "kind = 'overage' OR (kind = 'allowance') = (threshold IS NOT NULL)",
            name="threshold",
        ),
        UniqueConstraint("id"),
        Index("ix_alerts_created_at", "account_id", "created_at", "id"),
        partial_index("ix_alerts_untold", "created_at", where="told_at IS NULL"),
    )

    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    occasion: Mapped[str] = mapped_column(String(160), primary_key=True)
    id: Mapped[Id]
    kind: Mapped[str] = mapped_column(String(30))
    threshold: Mapped[int | None] = mapped_column(Integer)
    details: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ends_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    dismissed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    told_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    def stands(self, now: datetime) -> bool:
        return self.dismissed_at is None and self.ended_at is None and (self.ends_at is None or self.ends_at > now)


class Unsubscription(Base):
    """Mails of one kind about an account that this address does not want."""

    __tablename__ = "unsubscriptions"

    address: Mapped[str] = mapped_column(String(254), primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(30), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
