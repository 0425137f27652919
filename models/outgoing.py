"""What the operator's product is told: endpoints, events and every try to deliver one."""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, partial_index
from models.types import UtcDateTime


class OutgoingEndpoint(Base):
    """An address of the operator's product. `secret` (`whsec_…`) signs what is sent there.

    `disabled_reason` tells why nothing is sent any more.
    """

    __tablename__ = "outgoing_endpoints"

    id: Mapped[Id] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(String(500))
    secret: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disabled_reason: Mapped[str | None] = mapped_column(String(200))


class OutgoingEvent(Base):
    """Something that happened, written with it. `payload` is the body that is sent, byte for byte, each time."""

    __tablename__ = "outgoing_events"
    __table_args__ = (Index("ix_outgoing_events_created_at", "created_at", "id"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(String(60))
    account_id: Mapped[Id | None]
    payload: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DeliveryStatus(enum.StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Tried for the last time; only an operator's re-send tries again."""


class Delivery(Base):
    """One event on its way to one endpoint. `answer` is the last HTTP status, `error` what went wrong instead."""

    __tablename__ = "outgoing_deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending','delivered','dead')", name="status"),
        CheckConstraint("(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered"),
        UniqueConstraint("event_id", "endpoint_id"),
        partial_index("ix_outgoing_deliveries_due", "next_attempt_at", where="status = 'pending'"),
        Index("ix_outgoing_deliveries_created_at", "created_at", "id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    event_id: Mapped[Id] = mapped_column(ForeignKey("outgoing_events.id"))
    endpoint_id: Mapped[Id] = mapped_column(ForeignKey("outgoing_endpoints.id"))
    status: Mapped[str] = mapped_column(String(20), default=DeliveryStatus.PENDING)
    attempts: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    answer: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
