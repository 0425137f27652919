"""The books of one account while its row is locked: what it has, every way to change it, and the pending writes.

A `Book` works in memory. `services.credits` loads books (one round trip), and writes what they collected (one more).
Amounts are micro-credits; `change` is signed.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, NamedTuple

import ids
from amounts import EXACT, MAX_BALANCE
from errors import ValidationError
from models.account import Account, AccountStatus, Subscription
from models.credit import CapCounter, Hold, HoldState, Kind, LedgerEntry, Lot, Reason
from models.token import Token
from models.usage import RecentUsage, UsageRecord
from rows import Rows
from services import agreed, overages, waterfall
from services.agreed import Controls
from services.catalog import FREE, Catalog

ACCOUNTS = Rows(Account)
LOTS = Rows(Lot)
ENTRIES = Rows(LedgerEntry)
HOLDS = Rows(Hold)
COUNTERS = Rows(CapCounter)
RECORDS = Rows(UsageRecord)
TOKENS = Rows(Token)
RECENT = Rows(RecentUsage)
SUBSCRIPTIONS = Rows(Subscription)

_NO_COST = Decimal(0)
Cause = tuple[str, str]
"""Type and id of what caused an entry."""
Place = tuple[str, str, str, datetime]
"""Scope, key, window and start of a cap counter."""
TERMS = ("subscription_id", "plan", "period_start", "period_end", "rates", "requests_per_minute")
"""What of an account's row changes with its plan and with each period, but not by spending."""
_terms_of = attrgetter(*TERMS)


TOP_UPS = {Reason.PURCHASE, Reason.GRANT, Reason.SIGNUP}


class Level(NamedTuple):
    """How full the account is. `allowance` is the first lot of the running allowance, `used` what was used of it.

    `top_up` is the last one; `remaining` is in all lots; `overage` is what the period used beyond them.
    """

    allowance: str | None
    included: int
    used: int
    remaining: int
    top_up: int
    overage: int


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


class Book:
    """One account under its lock. Public attributes are rows; the lists of pending writes are private to `credits`."""

    def __init__(self, account: Account, now: datetime, catalog: Catalog) -> None:
        self.account = account
        self.now = now
        self.catalog = catalog
        self.lots: dict[str, Lot] = {}
        self.holds: dict[str, Hold] = {}
        self.records: dict[str, UsageRecord] = {}
        """Records found or made in this transaction, by idempotency key."""
        self.counters: dict[Place, CapCounter] = {}
        """What was read of the cap counters."""
        self.counted: set[tuple[str, str]] = set()
        """The scopes and keys whose counters were read; others must not be counted."""
        self.totals = dict.fromkeys([kind.value for kind in Kind], 0)
        """Credits in all lots of each kind, in the order of the kinds."""
        self.new_lots: list[Lot] = []
        self.changed_lots: dict[str, Lot] = {}
        self.turned_lots: set[str] = set()
        """Those of them that were used up, or have something again."""
        self.new_entries: list[LedgerEntry] = []
        self.new_records: list[UsageRecord] = []
        self.new_holds: list[Hold] = []
        self.changed_holds: dict[str, Hold] = {}
        self.changed_records: dict[str, UsageRecord] = {}
        self.changed_counters: dict[tuple[str, str, str], CapCounter] = {}
        self.added_usage: dict[tuple[Any, ...], RecentUsage] = {}
        self._terms = _terms_of(account)
        self._hour = _hour_of(now)
        self.account_changed = False
        self.overage_changed = False
        self.added_overage = 0
        self.first_overage = 0
        """The number of the first record that added some."""
        self.topped_up = False
        self._order: list[Lot] | None = None
        self.before: Level | None = None
        """How full it was when it was read; None for an account that is just being made."""

    def add_loaded_lot(self, lot: Lot) -> Lot:
        """Take in a lot read from the database. Exhausted lots are read only where they are needed."""
        if lot.id not in self.lots:
            self.lots[lot.id] = lot
            self.totals[lot.kind] += lot.remaining
            self._order = None
        return self.lots[lot.id]

    # What there is

    @property
    def terms_changed(self) -> bool:
        return bool(_terms_of(self.account) != self._terms)

    def level(self) -> Level:
        """How full it is now. Exhausted lots of the running allowance are always read."""
        first, included, left = None, 0, 0
        for lot in self.lots.values():
            if lot.current and lot.kind == Kind.ALLOWANCE:
                first = lot.id if first is None else min(first, lot.id)
                included += lot.issued - lot.removed
                left += lot.remaining
        return Level(first, included, included - left, self.remaining, self.account.topped_up, self.account.overage)

    @property
    def remaining(self) -> int:
        """Credits in all lots, holds ignored. Correct once `expire_due` has run."""
        return sum(self.totals.values())

    def held(self, *, without: str | None = None, token_id: str | None = None, subject: str | None = None) -> int:
        """Credits in open holds that have not passed their expiry."""
        if not self.holds:
            return 0
        return sum(
            hold.amount
            for hold in self.holds.values()
            if hold.state == HoldState.OPEN
            and hold.expires_at > self.now
            and hold.id != without
            and (token_id is None or hold.token_id == token_id)
            and (subject is None or hold.subject == subject)
        )

    @property
    def available(self) -> int:
        return max(0, self.remaining - self.held())

    @property
    def overage_limit(self) -> int:
        """The overage that is agreed for the running period."""
        return overages.limit(self.account.overage_terms, self.controls.overage)

    @property
    def headroom(self) -> int:
        """What of it is left. Nobody may run up more while a payment is past due."""
        if self.account.overage_terms is None or self.account.status != AccountStatus.ACTIVE:
            return 0
        return max(0, self.overage_limit - self.account.overage)

    def spending_order(self) -> list[Lot]:
        if self._order is None:
            self._order = waterfall.in_order(lot for lot in self.lots.values() if lot.remaining)
        return self._order

    # Every change of a lot goes through here

    def post(self, lot: Lot, change: int, reason: Reason, cause: Cause, at: datetime | None = None) -> None:
        """Change one lot by one ledger entry. The database refuses what would make a lot negative."""
        if not change:
            return
        lot.remaining += change
        was_open, lot.open = lot.open, lot.remaining > 0
        if was_open != lot.open:
            self._order = None
            self.turned_lots.add(lot.id)
        self.totals[lot.kind] += change
        allowance, purchased, granted = self.totals.values()
        remaining = allowance + purchased + granted
        if remaining > MAX_BALANCE:
            raise ValidationError({"credits": ["The account's balance would pass the largest that can be kept."]})
        self.changed_lots[lot.id] = lot
        self.new_entries.append(
            ENTRIES.make(
                account_id=self.account.id,
                seq=self.next_seq(),
                lot_id=lot.id,
                kind=lot.kind,
                change=change,
                reason=reason.value,
                cause_type=cause[0],
                cause_id=cause[1],
                lot_remaining=lot.remaining,
                allowance_after=allowance,
                purchased_after=purchased,
                granted_after=granted,
                balance_after=remaining,
                created_at=at or self.now,
            )
        )

    def next_seq(self) -> int:
        self.account.seq += 1
        self.account_changed = True
        return self.account.seq

    def issue(
        self,
        kind: Kind,
        amount: int,
        reason: Reason,
        cause: Cause,
        *,
        expires_at: datetime | None = None,
        source_key: str | None = None,
        subscription_id: str | None = None,
        period_start: datetime | None = None,
        note: str | None = None,
    ) -> Lot:
        """A new lot of `amount` (above zero) with its first entry."""
        lot = LOTS.make(
            id=ids.new("lot"),
            account_id=self.account.id,
            kind=kind.value,
            issued=amount,
            remaining=0,
            removed=0,
            open=False,
            current=kind is Kind.ALLOWANCE,
            expires_at=expires_at,
            created_at=self.now,
            subscription_id=subscription_id,
            period_start=period_start,
            note=note,
            source_key=source_key,
        )
        self.lots[lot.id] = lot
        self.new_lots.append(lot)
        self.post(lot, amount, reason, cause)
        free = reason is Reason.ALLOWANCE and self.account.plan == FREE and not self.totals[Kind.PURCHASED]
        if reason in TOP_UPS or free:
            self.account.topped_up, self.account.topped_up_lot = amount, lot.id
            self.topped_up = True
        return lot

    def take_back(self, lot: Lot, amount: int, reason: Reason, cause: Cause, at: datetime | None = None) -> None:
        """Remove credits that were not spent (expiry, reset, plan change, refund)."""
        lot.removed += amount
        self.post(lot, -amount, reason, cause, at)

    def put_back(self, lot: Lot, amount: int, reason: Reason, cause: Cause) -> None:
        """Return what was taken back."""
        lot.removed -= amount
        self.post(lot, amount, reason, cause)

    def draw(self, amount: int, reason: Reason, cause: Cause) -> dict[str, int]:
        """Take `amount` along the waterfall; what each kind gave, in their order."""
        parts = dict.fromkeys(self.totals, 0)
        for lot, part in waterfall.draws(self.spending_order(), amount):
            self.post(lot, -part, reason, cause)
            parts[lot.kind] += part
        return parts

    def expire_due(self) -> int:
        """Write the expiries that are due, each dated when it fell; how many lots that were."""
        due = [lot for lot in self.lots.values() if lot.remaining and lot.expires_at and lot.expires_at <= self.now]
        for lot in sorted(due, key=lambda lot: (lot.expires_at, lot.id)):
            self.take_back(lot, lot.remaining, Reason.EXPIRY, ("lot", lot.id), lot.expires_at)
        return len(due)

    def give_back(self, lot: Lot, amount: int, reason: Reason, cause: Cause) -> None:
        """Return spent credits to their lot; if it has expired meanwhile, they expire again at once.

        An allowance that a reset or another plan has replaced ended then, whatever its date says.
        """
        if not amount:
            return
        self.post(lot, amount, reason, cause)
        replaced = lot.kind == Kind.ALLOWANCE and not lot.current
        if replaced or (lot.expires_at and lot.expires_at <= self.now):
            self.take_back(lot, amount, Reason.EXPIRY, ("lot", lot.id))

    def return_taken(self, lot: Lot, amount: int, reason: Reason, cause: Cause) -> None:
        """Undo a taking back; what has expired meanwhile expires at once."""
        lot.removed -= amount
        self.give_back(lot, amount, reason, cause)

    def add_debt(self, amount: int) -> None:
        """Raise (or lower) what the account owes for credits that were spent before their money went back."""
        if amount:
            self.account.debt += amount
            self.account_changed = True
            if self.account.debt > MAX_BALANCE:
                raise ValidationError({"credits": ["The debt would pass the largest total that can be kept."]})

    def add_overage(self, amount: int, seq: int) -> None:
        """Count what a record, numbered `seq`, used beyond all lots; it goes on the bill of the running period."""
        if amount:
            self.first_overage = self.first_overage or seq
            self.added_overage += amount
            self.set_overage(self.account.overage + amount)

    def set_overage(self, amount: int) -> None:
        """What the running period used beyond all lots."""
        self.account.overage = amount
        self.account_changed = self.overage_changed = True

    def set_overage_terms(self, terms: str | None) -> None:
        """On what terms it may (JSON), or None."""
        if self.account.overage_terms != terms:
            self.account.overage_terms = terms
            self.account_changed = self.overage_changed = True

    def add_unfunded(self, amount: int) -> None:
        """Raise (or lower) what no lot has covered yet."""
        if amount:
            self.account.unfunded += amount
            self.account_changed = True
            if self.account.unfunded > MAX_BALANCE:
                raise ValidationError({"credits": ["Unfunded usage would pass the largest total that can be kept."]})

    def count_usage(self, record: UsageRecord, sign: int = 1) -> None:
        """Add a record to the sums of its hour; with sign -1 take it out again."""
        hour = self._hour if record.occurred_at is self.now else _hour_of(record.occurred_at)
        labels = (record.operation or "", record.llm_model or "", record.source or "", record.subject or "")
        row = self.added_usage.get((hour, *labels))
        if row is None:
            operation, llm_model, source, subject = labels
            row = self.added_usage[hour, *labels] = RECENT.make(
                account_id=self.account.id,
                hour=hour,
                operation=operation,
                llm_model=llm_model,
                source=source,
                subject=subject,
                records=0,
                charged=0,
                cost=_NO_COST,
            )
        row.records += sign
        row.charged += sign * record.charged
        if record.actual_cost is not None:
            row.cost = EXACT.fma(sign, record.actual_cost, row.cost)

    # Caps

    @property
    def controls(self) -> Controls:
        return agreed.of(self.account.controls)

    def counter(self, scope: str, key: str, window: str) -> CapCounter:
        """The running window's counter, whether or not it has counted anything yet."""
        if (scope, key) not in self.counted:
            raise RuntimeError(f"the counters of {scope} {key!r} were not read")
        start = agreed.day_of(self.now) if window == agreed.DAY else self.account.period_start
        place = (scope, key, window, start)
        if place not in self.counters:
            self.counters[place] = COUNTERS.make(
                account_id=self.account.id, scope=scope, key=key, window=window, starts_at=start, used=0
            )
        return self.counters[place]
