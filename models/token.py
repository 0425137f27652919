"""Access tokens of accounts, and service tokens of the operator."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Micros
from models.types import UtcDateTime

SCOPES = ("read", "write", "billing", "tokens", "admin")
"""`admin` is for service tokens only."""
MEMBER_SCOPES = ("read", "write")
"""What the tokens of somebody who does not manage the account may do."""


class Token(Base):
    """`account_id` is null for a service token, which acts on any account. `scopes` is comma-separated.

    `cap` is micro-credits per period, or null. `digest` is the SHA-256 of the secret in hexadecimal.
    `account_id`, `digest`, `cap` and `expires_at` never change, so processes may remember them.
    """

    __tablename__ = "tokens"
    __table_args__ = (
        CheckConstraint("cap IS NULL OR cap >= 0", name="cap"),
        CheckConstraint("account_id IS NOT NULL OR cap IS NULL", name="service_cap"),
        Index("ix_tokens_account_id", "account_id", "created_at"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    account_id: Mapped[Id | None] = mapped_column(ForeignKey("accounts.id"))
    user_id: Mapped[Id | None] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(100))
    digest: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str] = mapped_column(String(100))
    cap: Mapped[Micros | None]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    @property
    def is_service(self) -> bool:
        return self.account_id is None

    @property
    def scope_list(self) -> list[str]:
        return self.scopes.split(",")
