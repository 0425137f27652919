"""People, what proves who they are, and the mail they are sent."""

from __future__ import annotations

from datetime import datetime

from flask_login import UserMixin
from sqlalchemy import CheckConstraint, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, partial_index
from models.types import UtcDateTime


class User(UserMixin, Base):
    """`email` is trimmed and lower-cased. `session_version` rises when all sessions must end (new password)."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("email = lower(email)", name="email_lower"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    password_hash: Mapped[str] = mapped_column(String(200))
    is_operator: Mapped[bool] = mapped_column(default=False)
    session_version: Mapped[int] = mapped_column(Integer, default=1)
    email_verified_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_login_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    def get_id(self) -> str:
        """What a browser's session remembers of the user."""
        return f"{self.id}.{self.session_version}"


class SetupLink(Base):
    """The one-time link that makes the first operator; only the hash of its secret is kept."""

    __tablename__ = "setup_links"

    secret_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Throttle(Base):
    """Attempts on one log-in or mail form, counted for every process; `key` is a hash, `window` real time."""

    __tablename__ = "throttles"

    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    window: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    attempts: Mapped[int] = mapped_column(Integer, default=0)


class Mail(Base):
    """The outbox: a mail is written with what caused it and sent later by the `send-outbox` job.

    `unsubscribe` is the address that stops mails like it.
    """

    __tablename__ = "mails"
    __table_args__ = (partial_index("ix_mails_unsent", "next_attempt_at", where="sent_at IS NULL"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    to: Mapped[str] = mapped_column(String(254))
    kind: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(300))
    text: Mapped[str] = mapped_column(Text)
    html: Mapped[str | None] = mapped_column(Text)
    unsubscribe: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    error: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
