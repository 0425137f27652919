"""The paying tenant, its plan, and the row that is the lock for all of its credits."""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Micros, partial_index
from models.types import UtcDateTime


class AccountStatus(enum.StrEnum):
    ACTIVE = "active"
    PAST_DUE = "past_due"
    SUSPENDED = "suspended"
    CLOSED = "closed"


class Account(Base):
    """`seq` counts the account's usage records and ledger entries, so that their order is certain.

    `period_start`/`period_end` mirror the current subscription's period, so that spending reads one row.
    `controls` are the account's caps, thresholds and agreements as JSON (services/agreed.py), null for none.
    `topped_up` is how many credits last came by a purchase, a grant, or as the free plan's allowance, in which lot.
    `rates` are negotiated rates as JSON (`{"chat@gpt": "per_unit=2"}`), null for the catalog's. `free_allowance`: the
    free plan's monthly credits come to it; a person has them on one account, however many they open.
    `overage` is what the running period used beyond all lots, `overage_terms` what of that is agreed (JSON of
    services/overages.py; null: nothing, or no subscription in force that could bill it).
    `requests_per_minute` is what a subscriber of Stripe subscribed to (0: no limit); null: the catalog's plan says.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint("status IN ('active','past_due','suspended','closed')", name="status"),
        CheckConstraint("unfunded >= 0", name="unfunded"),
        CheckConstraint("debt >= 0", name="debt"),
        CheckConstraint("overage >= 0", name="overage"),
        CheckConstraint("period_start < period_end", name="period"),
        Index("ix_accounts_period_end", "period_end"),
        Index("ix_accounts_created_at", "created_at", "id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    external_id: Mapped[str | None] = mapped_column(String(128), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    email: Mapped[str | None] = mapped_column(String(254))
    status: Mapped[str] = mapped_column(String(20), default=AccountStatus.ACTIVE)
    status_reason: Mapped[str | None] = mapped_column(String(500))
    subscription_id: Mapped[Id]
    plan: Mapped[str] = mapped_column(String(100))
    period_start: Mapped[datetime] = mapped_column(UtcDateTime)
    period_end: Mapped[datetime] = mapped_column(UtcDateTime)
    rates: Mapped[str | None] = mapped_column(Text)
    controls: Mapped[str | None] = mapped_column(Text)
    topped_up: Mapped[Micros] = mapped_column(default=0, server_default=text("0"))
    topped_up_lot: Mapped[Id | None]
    free_allowance: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    requests_per_minute: Mapped[int | None] = mapped_column(Integer)
    seq: Mapped[int] = mapped_column(BigInteger, default=0)
    unfunded: Mapped[Micros] = mapped_column(default=0)
    debt: Mapped[Micros] = mapped_column(default=0)
    overage: Mapped[Micros] = mapped_column(default=0)
    overage_terms: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    @property
    def is_closed(self) -> bool:
        return self.status == AccountStatus.CLOSED


class SubscriptionStatus(enum.StrEnum):
    ACTIVE = "active"
    ENDED = "ended"


class Subscription(Base):
    """The terms an account is on, with the allowance as it was when they began (grandfathering).

    Local plans follow a monthly anchor; `included` is micro-credits per period. The free plan has one row per account
    and a subscription of Stripe's (`source` stripe) one row for ever, however often they come in force and end, so that
    no period's allowance comes twice. `stripe_id` names it in the mirror; `covered_until` is the end of the period that
    Stripe has shown: what lies beyond is not known to be paid.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint("included >= 0", name="included"),
        CheckConstraint("rollover_max IS NULL OR rollover_max >= 0", name="rollover_max"),
        CheckConstraint("status IN ('active','ended')", name="status"),
        CheckConstraint("source IN ('local','stripe')", name="source"),
        CheckConstraint("(source = 'stripe') = (stripe_id IS NOT NULL)", name="stripe_id"),
        CheckConstraint("(source = 'stripe') = (covered_until IS NOT NULL)", name="covered_until"),
        UniqueConstraint("stripe_id"),
        partial_index("uq_subscriptions_active", "account_id", where="status = 'active'", unique=True),
        partial_index("ix_subscriptions_covered_until", "covered_until", where="status = 'active'"),
        Index("ix_subscriptions_account_id", "account_id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    source: Mapped[str] = mapped_column(String(20), default="local")
    stripe_id: Mapped[str | None] = mapped_column(String(255))
    tier: Mapped[str] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(String(20), default=SubscriptionStatus.ACTIVE)
    included: Mapped[Micros] = mapped_column(default=0)
    rollover_max: Mapped[Micros | None]
    anchor: Mapped[datetime] = mapped_column(UtcDateTime)
    ends_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    covered_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SignupClaim(Base):
    """One row per person (hash of the e-mail) or external id that ever had the sign-up credits or a free allowance."""

    __tablename__ = "signup_claims"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Role(enum.StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


class Membership(Base):
    __tablename__ = "memberships"
    __table_args__ = (
        UniqueConstraint("account_id", "user_id"),
        CheckConstraint("role IN ('owner','admin','member')", name="role"),
    )

    user_id: Mapped[Id] = mapped_column(ForeignKey("users.id"), primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    @property
    def is_owner(self) -> bool:
        return self.role == Role.OWNER

    @property
    def manages(self) -> bool:
        """Owners and admins act for the whole account, not only for themselves."""
        return self.role in (Role.OWNER, Role.ADMIN)
