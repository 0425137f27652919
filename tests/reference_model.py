"""A tiny model of one account, written from the API's arithmetic and nothing else. Micro-credits throughout.

It shares no code with the services: lists, loops and the rules in words.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass, field
from datetime import datetime

KINDS = ("allowance", "purchased", "granted")


def add_months(anchor: datetime, months: int) -> datetime:
    """The anchor's day, or the month's last where it is shorter."""
    index = anchor.year * 12 + anchor.month - 1 + months
    year, month = divmod(index, 12)
    day = min(anchor.day, calendar.monthrange(year, month + 1)[1])
    return anchor.replace(year=year, month=month + 1, day=day)


def period(anchor: datetime, now: datetime) -> tuple[datetime, datetime]:
    months = 0
    while add_months(anchor, months + 1) <= now:
        months += 1
    return add_months(anchor, months), add_months(anchor, months + 1)


@dataclass
class Lot:
    kind: str
    issued: int
    remaining: int
    expires: datetime | None
    number: int
    removed: int = 0
    current: bool = False


@dataclass
class Hold:
    amount: int
    expires: datetime
    subject: str | None = None
    state: str = "open"


@dataclass
class Record:
    charged: int
    draws: list[tuple[Lot, int]]
    parts: dict[str, int]
    overage: int
    unfunded: int
    subject: str | None
    recorded: datetime
    period: datetime
    resets: int
    epoch: int
    voided: bool = False


@dataclass
class Cap:
    """For one subject, for each (`key` None), or for the whole account."""

    scope: str
    key: str | None
    window: str
    credits: int


@dataclass
class Model:
    """One account. `entries` are the ledger's (reason, kind, change), oldest first.

    `agreed` is the overage that a period may have, `overage` what the running one has; `epoch` counts the periods.
    """

    created: datetime
    now: datetime
    anchor: datetime
    included: int = 0
    lots: list[Lot] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    entries: list[tuple[str, str, int]] = field(default_factory=list)
    caps: list[Cap] = field(default_factory=list)
    unfunded: int = 0
    agreed: int = 0
    overage: int = 0
    resets: int = 0
    epoch: int = 0
    start: datetime = field(init=False)
    end: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.start, self.end = period(self.anchor, self.now)

    # What is true now

    def order(self) -> list[Lot]:
        never = datetime.max.replace(tzinfo=self.now.tzinfo)
        live = [lot for lot in self.lots if lot.remaining]
        return sorted(live, key=lambda lot: (KINDS.index(lot.kind), lot.expires or never, lot.number))

    def remaining(self, kind: str | None = None) -> int:
        return sum(lot.remaining for lot in self.lots if kind in (None, lot.kind))

    def held(self, but: Hold | None = None) -> int:
        return sum(h.amount for h in self.holds if h.state == "open" and h.expires > self.now and h is not but)

    def available(self) -> int:
        return max(0, self.remaining() - self.held())

    def headroom(self, held: int, remaining: int) -> int:
        """What holds do not find in the lots they take from here."""
        return max(0, self.agreed - self.overage - max(0, held - remaining))

    def capped(self, amount: int, subject: str | None) -> bool:
        """Whether a cap forbids to charge so much for this subject."""
        for cap in self.caps:
            if cap.scope == "subject" and (subject is None or cap.key not in (None, subject)):
                continue
            counts = subject if cap.scope == "subject" else None
            if amount and self.counted(counts, cap.window) + amount > cap.credits:
                return True
        return False

    def counted(self, subject: str | None, window: str) -> int:
        """What was charged and is held now, for one subject or (None) for all."""
        total = 0
        for record in self.records:
            today = record.recorded.date() == self.now.date()
            this_period = (record.period, record.resets) == (self.start, self.resets)
            if (today if window == "day" else this_period) and subject in (None, record.subject):
                total += 0 if record.voided else record.charged
        holds = [h for h in self.holds if h.state == "open" and h.expires > self.now and subject in (None, h.subject)]
        return total + sum(hold.amount for hold in holds)

    def totals(self, kind: str) -> tuple[int, int, int]:
        """Included or total, used, remaining."""
        lots = [lot for lot in self.lots if lot.kind == kind and (kind != "allowance" or lot.current)]
        total = sum(lot.issued - lot.removed for lot in lots)
        remaining = sum(lot.remaining for lot in lots)
        return total, total - remaining, remaining

    # What time does

    def settle(self, now: datetime) -> None:
        self.now = now
        due = [lot for lot in self.lots if lot.remaining and lot.expires and lot.expires <= now]
        for lot in sorted(due, key=lambda lot: (lot.expires, lot.number)):
            self.remove(lot, "expiry")
        for hold in self.holds:
            if hold.state == "open" and hold.expires <= now:
                hold.state = "expired"
        if self.end <= now:
            self.start, self.end = period(self.anchor, now)
            self.begin()
            self.allow(self.included, "allowance")

    def begin(self) -> None:
        self.overage, self.epoch = 0, self.epoch + 1

    def allow(self, amount: int, reason: str) -> None:
        for lot in self.lots:
            lot.current = False
        if amount:
            self.issue("allowance", amount, self.end, reason).current = True

    # What people do

    def issue(self, kind: str, amount: int, expires: datetime | None, reason: str) -> Lot:
        lot = Lot(kind, amount, amount, expires, len(self.lots))
        self.lots.append(lot)
        self.entries.append((reason, kind, amount))
        return lot

    def remove(self, lot: Lot, reason: str) -> None:
        lot.removed += lot.remaining
        self.entries.append((reason, lot.kind, -lot.remaining))
        lot.remaining = 0

    def plan(self, included: int) -> None:
        for lot in self.order():
            if lot.current:
                self.remove(lot, "plan_change")
        self.included, self.anchor, self.agreed = included, self.now, 0
        self.begin()
        self.start, self.end = period(self.anchor, self.now)
        self.allow(included, "allowance")

    def reset(self) -> bool:
        if not self.included:
            return False
        for lot in self.order():
            if lot.current:
                self.remove(lot, "reset")
        self.allow(self.included, "reset")
        self.resets += 1
        return True

    def spend(self, amount: int, from_lots: int, overage: int, subject: str | None) -> Record:
        draws, left, parts = [], from_lots, dict.fromkeys(KINDS, 0)
        for lot in self.order():
            part = min(left, lot.remaining)
            if part:
                lot.remaining -= part
                left -= part
                parts[lot.kind] += part
                draws.append((lot, part))
                self.entries.append(("usage", lot.kind, -part))
        assert left == 0
        over = min(amount - from_lots, overage)
        left = amount - from_lots - over
        times = (self.now, self.start, self.resets, self.epoch)
        record = Record(amount, draws, parts, over, left, subject, *times)
        self.unfunded += record.unfunded
        self.overage += over
        self.records.append(record)
        return record

    def refusal(self, amount: int, subject: str | None) -> str | None:
        if self.capped(amount, subject):
            return "cap_reached"
        left = self.available() + self.headroom(self.held(), self.remaining())
        return "insufficient_credits" if amount > left else None

    def use(self, amount: int, enforce: bool, subject: str | None) -> Record | str:
        """The record, or the code of the refusal."""
        refusal = self.refusal(amount, subject) if enforce else None
        headroom = self.headroom(self.held(), self.remaining())
        return refusal or self.spend(amount, min(amount, self.available()), headroom, subject)

    def hold(self, amount: int, expires: datetime, subject: str | None) -> Hold | str:
        refusal = self.refusal(amount, subject)
        if refusal is not None:
            return refusal
        self.holds.append(Hold(amount, expires, subject))
        return self.holds[-1]

    def capture(self, hold: Hold, amount: int | None) -> Record | None:
        if hold.state not in ("open", "expired"):
            return None
        amount = hold.amount if amount is None else amount
        others = self.held(but=hold)
        if hold.state == "open":
            reserved = min(amount, hold.amount, self.remaining())
            beyond = min(max(0, amount - hold.amount), max(0, self.remaining() - reserved - others))
            from_lots = reserved + beyond
            headroom = self.headroom(others, self.remaining() - from_lots)
        else:
            from_lots = min(amount, max(0, self.remaining() - others))
            headroom = self.headroom(others, self.remaining())
        hold.state = "captured"
        return self.spend(amount, from_lots, headroom, hold.subject)

    def void(self, record: Record) -> bool:
        if record.voided:
            return False
        record.voided = True
        self.unfunded -= record.unfunded
        self.overage -= record.overage if record.epoch == self.epoch else 0
        for lot, part in record.draws:
            lot.remaining += part
            self.entries.append(("void", lot.kind, part))
            if (lot.expires and lot.expires <= self.now) or (lot.kind == "allowance" and not lot.current):
                lot.remaining -= part
                lot.removed += part
                self.entries.append(("expiry", lot.kind, -part))
        return True
