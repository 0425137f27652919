"""Invitations: an address that may join an account, once, by a link that was mailed to it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, partial_index
from models.types import UtcDateTime

OPEN = "accepted_at IS NULL AND withdrawn_at IS NULL"


class Invitation(Base):
    """Open until accepted or withdrawn; the link in it works until `expires_at`.

    `secret_hash` is the SHA-256 of the link's secret in hexadecimal; sending again makes another secret. `email` is
    trimmed and lower-cased. `invited_by` is who sent it last. Who joined by invitation is kept in `accepted_by`, for
    it earns no sign-up credits.
    """

    __tablename__ = "invitations"
    __table_args__ = (
        CheckConstraint("role IN ('owner','admin','member')", name="role"),
        CheckConstraint("email = lower(email)", name="email_lower"),
        CheckConstraint("accepted_at IS NULL OR withdrawn_at IS NULL", name="one_end"),
        CheckConstraint("(accepted_at IS NULL) = (accepted_by IS NULL)", name="accepted"),
        UniqueConstraint("secret_hash"),
        partial_index("uq_invitations_open", "account_id", "email", where=OPEN, unique=True),
        Index("ix_invitations_accepted_by", "accepted_by", "account_id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    email: Mapped[str] = mapped_column(String(254))
    role: Mapped[str] = mapped_column(String(20))
    secret_hash: Mapped[str] = mapped_column(String(64))
    invited_by: Mapped[Id] = mapped_column(ForeignKey("users.id"))
    sent_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    accepted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    accepted_by: Mapped[Id | None] = mapped_column(ForeignKey("users.id"))
    withdrawn_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    @property
    def is_open(self) -> bool:
        return self.accepted_at is None and self.withdrawn_at is None

    def works(self, now: datetime) -> bool:
        """Whether its link can be used at `now`."""
        return self.is_open and now < self.expires_at
