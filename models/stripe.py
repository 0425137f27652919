"""What Spillway knows of Stripe: a mirror of what is ours there, purchases, and the inbox of events.

Rows of the mirror are written by syncs that re-fetched the object; `synced_at` says when. Amounts of money are integers
in minor units of the row's currency, credits are micro-credits.
"""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Micros, partial_index
from models.types import UtcDateTime

StripeId = String(255)


class StripeCustomer(Base):
    """An account's customer at Stripe: at most one that is not deleted. The card is the one invoices are paid with."""

    __tablename__ = "stripe_customers"
    __table_args__ = (
        partial_index("uq_stripe_customers_account", "account_id", where="deleted_at IS NULL", unique=True),
        Index("ix_stripe_customers_account_id", "account_id"),
    )

    id: Mapped[str] = mapped_column(StripeId, primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    payment_method: Mapped[str | None] = mapped_column(StripeId)
    card_brand: Mapped[str | None] = mapped_column(String(40))
    card_last4: Mapped[str | None] = mapped_column(String(4))
    card_exp_month: Mapped[int | None] = mapped_column(Integer)
    card_exp_year: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    synced_at: Mapped[datetime] = mapped_column(UtcDateTime)


class StripeStatus(enum.StrEnum):
    """A subscription's status in Stripe's words."""

    INCOMPLETE = "incomplete"
    INCOMPLETE_EXPIRED = "incomplete_expired"
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    UNPAID = "unpaid"
    CANCELED = "canceled"
    PAUSED = "paused"


OVER = (StripeStatus.CANCELED, StripeStatus.INCOMPLETE_EXPIRED)
"""Nothing follows these."""
IN_FORCE = (StripeStatus.TRIALING, StripeStatus.ACTIVE, StripeStatus.PAST_DUE)
"""The plan counts. In `past_due` it does while Stripe tries to collect."""


class StripeSubscription(Base):
    """A subscription as Stripe last showed it, with the terms that came with its price when it was subscribed to.

    `tier`, `included` (per month), `rollover_max` and `requests_per_minute` are kept from the day the price was taken:
    later edits of its metadata change nothing for this subscriber. `overage_terms` are those of a metered price
    (services/overages.py). `period_start`/`period_end` are the item's; `anchor`
    is the moment whose day of the month all its periods keep. `past_due_since` is when the payment of its oldest unpaid
    invoice first failed, after `failed_attempts`; null while all is paid.
    """

    __tablename__ = "stripe_subscriptions"
    __table_args__ = (
        CheckConstraint("included >= 0", name="included"),
        CheckConstraint("rollover_max IS NULL OR rollover_max >= 0", name="rollover_max"),
        Index("ix_stripe_subscriptions_account_id", "account_id", "created_at"),
        Index("ix_stripe_subscriptions_price_id", "price_id"),
        partial_index("ix_stripe_subscriptions_past_due", "account_id", where="past_due_since IS NOT NULL"),
    )

    id: Mapped[str] = mapped_column(StripeId, primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    customer_id: Mapped[str] = mapped_column(StripeId)
    item_id: Mapped[str | None] = mapped_column(StripeId)
    status: Mapped[str] = mapped_column(String(30))
    price_id: Mapped[str] = mapped_column(StripeId)
    price_type: Mapped[str] = mapped_column(String(20), default="base")
    tier: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(200))
    included: Mapped[Micros] = mapped_column(default=0)
    rollover_max: Mapped[Micros | None]
    requests_per_minute: Mapped[int | None] = mapped_column(Integer)
    overage_terms: Mapped[str | None] = mapped_column(Text)
    interval: Mapped[str] = mapped_column(String(10))
    interval_count: Mapped[int] = mapped_column(Integer, default=1)
    currency: Mapped[str] = mapped_column(String(3))
    unit_amount: Mapped[str | None] = mapped_column(String(40))
    quantity: Mapped[int | None] = mapped_column(BigInteger)
    anchor: Mapped[datetime] = mapped_column(UtcDateTime)
    period_start: Mapped[datetime] = mapped_column(UtcDateTime)
    period_end: Mapped[datetime] = mapped_column(UtcDateTime)
    trial_end: Mapped[datetime | None] = mapped_column(UtcDateTime)
    cancel_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    paused_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    latest_invoice: Mapped[str | None] = mapped_column(StripeId)
    past_due_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    failed_attempts: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    synced_at: Mapped[datetime] = mapped_column(UtcDateTime)

    @property
    def is_over(self) -> bool:
        return self.status in OVER


class StripeInvoice(Base):
    """An invoice of a customer of ours, for the pages; what it grants is decided elsewhere."""

    __tablename__ = "stripe_invoices"
    __table_args__ = (Index("ix_stripe_invoices_account_id", "account_id", "created_at"),)

    id: Mapped[str] = mapped_column(StripeId, primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    subscription_id: Mapped[str | None] = mapped_column(StripeId)
    number: Mapped[str | None] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(String(30))
    billing_reason: Mapped[str | None] = mapped_column(String(40))
    currency: Mapped[str] = mapped_column(String(3))
    total: Mapped[int] = mapped_column(BigInteger)
    amount_due: Mapped[int] = mapped_column(BigInteger)
    amount_paid: Mapped[int] = mapped_column(BigInteger)
    attempt_count: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    hosted_url: Mapped[str | None] = mapped_column(Text)
    pdf_url: Mapped[str | None] = mapped_column(Text)
    period_start: Mapped[datetime | None] = mapped_column(UtcDateTime)
    period_end: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    synced_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PurchaseStatus(enum.StrEnum):
    OPEN = "open"
    """The customer was sent to Checkout and has not paid."""
    PENDING = "pending"
    """They chose a way to pay that takes days."""
    PAID = "paid"
    FAILED = "failed"
    EXPIRED = "expired"


class Purchase(Base):
    """One Checkout Session of ours, or one invoice of an auto top-up, which has no session.

    `lot_id` is set with the lot it bought, in the same transaction.

    `mode` is `payment` (credits) or `subscription`. `credits` are what the customer was offered for the price.
    """

    __tablename__ = "purchases"
    __table_args__ = (
        CheckConstraint("status IN ('open','pending','paid','failed','expired')", name="status"),
        CheckConstraint("mode IN ('payment','subscription')", name="mode"),
        CheckConstraint("credits >= 0", name="credits"),
        CheckConstraint("lot_id IS NULL OR status = 'paid'", name="lot_paid"),
        CheckConstraint("session_id IS NOT NULL OR invoice_id IS NOT NULL", name="origin"),
        partial_index("uq_purchases_invoice_id", "invoice_id", where="session_id IS NULL", unique=True),
        UniqueConstraint("session_id"),
        UniqueConstraint("lot_id"),
        Index("ix_purchases_account_id", "account_id", "created_at", "id"),
        Index("ix_purchases_payment_intent", "payment_intent"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    session_id: Mapped[str | None] = mapped_column(StripeId)
    mode: Mapped[str] = mapped_column(String(20))
    status: Mapped[str] = mapped_column(String(20), default=PurchaseStatus.OPEN)
    price_id: Mapped[str | None] = mapped_column(StripeId)
    credits: Mapped[Micros] = mapped_column(default=0)
    currency: Mapped[str | None] = mapped_column(String(3))
    amount: Mapped[int | None] = mapped_column(BigInteger)
    payment_intent: Mapped[str | None] = mapped_column(StripeId)
    invoice_id: Mapped[str | None] = mapped_column(StripeId)
    subscription_id: Mapped[str | None] = mapped_column(StripeId)
    lot_id: Mapped[Id | None]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    paid_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class EventStatus(enum.StrEnum):
    PENDING = "pending"
    """Stored; its handler is running or has not run."""
    PROCESSED = "processed"
    IGNORED = "ignored"
    FAILED = "failed"
    """To be tried again at `next_attempt_at`."""
    DEAD = "dead"
    """Tried for the last time; only an operator's replay runs it again."""


UNHANDLED = "status IN ('pending','failed','dead')"
"""As the index of these few events says it."""


class WebhookEvent(Base):
    """The inbox: an event is stored before it is handled. Its effects and `processed_at` commit together."""

    __tablename__ = "webhook_events"
    __table_args__ = (
        CheckConstraint("status IN ('pending','processed','ignored','failed','dead')", name="status"),
        CheckConstraint("(status IN ('processed','ignored')) = (processed_at IS NOT NULL)", name="processed"),
        CheckConstraint("attempts >= 0", name="attempts"),
        partial_index("ix_webhook_events_due", "next_attempt_at", where=UNHANDLED),
        Index("ix_webhook_events_received_at", "received_at", "id"),
        Index("ix_webhook_events_object_id", "object_id"),
    )

    id: Mapped[str] = mapped_column(StripeId, primary_key=True)
    type: Mapped[str] = mapped_column(String(100))
    object_id: Mapped[str | None] = mapped_column(StripeId)
    payload: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(20), default=EventStatus.PENDING)
    attempts: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    processed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Reversal(Base):
    """What was taken back of one lot because money went back: by refunds, by disputes, or by both.

    `paid`, `refunded` and `disputed` are Stripe's totals of the lot's payment, `taken` the credits that go with what
    went back. Of those, `from_lot` were still in the lot, `absorbed` had left it unspent (they expired, say), and the
    rest was spent: that is debt, of which `debt` is still owed and the remainder was paid by later purchases.
    `synced_at` is real time: the moment Stripe was asked.
    """

    __tablename__ = "reversals"
    __table_args__ = (
        CheckConstraint("paid > 0", name="paid"),
        CheckConstraint("refunded >= 0 AND disputed >= 0", name="amounts"),
        CheckConstraint("from_lot >= 0 AND absorbed >= 0", name="parts"),
        CheckConstraint("debt >= 0 AND from_lot + absorbed + debt <= taken", name="debt"),
        partial_index("ix_reversals_owed", "account_id", where="debt > 0"),
    )

    lot_id: Mapped[Id] = mapped_column(ForeignKey("lots.id"), primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id"))
    payment_intent: Mapped[str] = mapped_column(StripeId)
    paid: Mapped[int] = mapped_column(BigInteger)
    refunded: Mapped[int] = mapped_column(BigInteger, default=0)
    disputed: Mapped[int] = mapped_column(BigInteger, default=0)
    taken: Mapped[Micros] = mapped_column(default=0)
    from_lot: Mapped[Micros] = mapped_column(default=0)
    absorbed: Mapped[Micros] = mapped_column(default=0)
    debt: Mapped[Micros] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    synced_at: Mapped[datetime] = mapped_column(UtcDateTime)
