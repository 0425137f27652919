"""Every catalog that was ever in force, and how its source is doing."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base
from models.types import UtcDateTime


class CatalogVersion(Base):
    """One catalog as its source told it. The newest is in force; usage records name the one that priced them.

    `content` is JSON: `{"product": {metadata}, "prices": [price objects]}`, or from Stripe `{"products": [[id,
    metadata], …], "prices": …}`. `digest` is SHA-256 of that text.
    """

    __tablename__ = "catalog_versions"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    source: Mapped[str] = mapped_column(String(20))
    digest: Mapped[str] = mapped_column(String(64))
    content: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CatalogState(Base):
    """One row, the lock of every sync: when the source was last read well, and what is wrong since when.

    `listings` counts the listings of Stripe's objects that were begun; `kept_listing` is the one in force.
    """

    __tablename__ = "catalog_state"
    __table_args__ = (
        CheckConstraint("id = 1", name="single"),
        CheckConstraint("(error IS NULL) = (error_since IS NULL)", name="error"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    synced_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)
    error_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    listings: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    kept_listing: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
