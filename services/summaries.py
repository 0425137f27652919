"""Usage over time: buckets of credits, records and cost, grouped by one label."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from dateutil.relativedelta import relativedelta
from sqlalchemy import BigInteger, Connection, func, select, type_coerce

import database
from amounts import EXACT, to_credits
from errors import ValidationError
from models.usage import RecentUsage, SubjectHour, UsageHour, UsageRecord

MAX_BUCKETS = 1000
_RECORD_LABELS: dict[str, Any] = {
    "operation": UsageRecord.operation,
    "model": UsageRecord.llm_model,
    "subject": UsageRecord.subject,
    "source": UsageRecord.source,
}
_HOUR_LABELS = {"operation": "operation", "model": "llm_model", "source": "source"}
"""Columns of the kept sums, whatever the subject."""
GROUPS = tuple(_RECORD_LABELS)
_STEPS = {
    "hour": relativedelta(hours=1),
    "day": relativedelta(days=1),
    "week": relativedelta(weeks=1),
    "month": relativedelta(months=1),
}
INTERVALS = tuple(_STEPS)
_HOUR, _MICROSECOND = timedelta(hours=1), timedelta(microseconds=1)
_MICROSECONDS = {"hour": 3_600_000_000, "day": 86_400_000_000}


def buckets(start: datetime, end: datetime, interval: str) -> list[tuple[datetime, datetime]]:
    """The half-open UTC buckets that cover `[start, end)`, weeks from Monday, the outer ones clipped.

    Raises ValidationError for an empty range or more than 1,000 buckets.
    """
    if start >= end:
        raise ValidationError({"to": ["Must be after from."]})
    edges = [start]
    for edge in _edges(start, interval):
        if edge >= end:
            break
        edges.append(edge)
        if len(edges) > MAX_BUCKETS:
            raise ValidationError({"interval": [f"More than {MAX_BUCKETS} buckets; take a longer interval."]})
    edges.append(end)
    return list(pairwise(edges))


def _edges(start: datetime, interval: str) -> Iterator[datetime]:
    floor = start.replace(minute=0, second=0, microsecond=0)
    if interval != "hour":
        floor = floor.replace(hour=0)
    if interval == "week":
        floor -= timedelta(days=floor.weekday())
    if interval == "month":
        floor = floor.replace(day=1)
    count = 0
    while True:
        count += 1
        try:
            yield floor + _STEPS[interval] * count
        except (OverflowError, ValueError):  # past the year 9999
            return


def summary(account_id: str, start: datetime, end: datetime, interval: str, by: str) -> dict[str, Any]:
    """GET /usage/summary. Voided records do not count; `cost` is the sum of `actual_cost`."""
    ranges = buckets(start, end, interval)
    data: list[dict[str, Any]] = [
        {"start": low, "credits": 0, "records": 0, "cost": Decimal(0), "groups": {}} for low, _ in ranges
    ]
    total: dict[str, Any] = {"credits": 0, "records": 0, "cost": Decimal(0), "groups": {}}
    starts = [low for low, _ in ranges]
    with database.snapshot() as conn:
        for part in _parts(conn, account_id, start, end, by, "hour" if interval == "hour" else "day"):
            for bucket in (data[bisect_right(starts, part.start) - 1], total):
                bucket["credits"] += part.charged
                bucket["records"] += part.records
                bucket["cost"] = EXACT.add(bucket["cost"], part.cost)
                bucket["groups"][part.label] = bucket["groups"].get(part.label, 0) + part.charged
    for bucket in (*data, total):
        bucket["credits"] = to_credits(bucket["credits"])
        bucket["groups"] = {label: to_credits(amount) for label, amount in sorted(bucket["groups"].items())}
    return {"interval": interval, "from": start, "to": end, "by": by, "data": data, "total": total}


@dataclass(frozen=True, slots=True)
class _Part:
    """A sum that lies in one bucket: `start` does. No label is the empty string."""

    start: datetime
    label: str
    charged: int
    records: int
    cost: Decimal

    def plus(self, other: _Part) -> _Part:
        """Both of them, with the label and the start of this one."""
        return _Part(
            self.start,
            self.label,
            self.charged + other.charged,
            self.records + other.records,
            EXACT.add(self.cost, other.cost),
        )


def _parts(conn: Connection, account_id: str, start: datetime, end: datetime, by: str, step: str) -> Iterator[_Part]:
    """The sums of `[start, end)`: whole hours are kept as sums, of the hours at the edges the records are read."""
    first = min(_whole_hour(start + _HOUR - _MICROSECOND), end)
    last = max(first, _whole_hour(end))
    if start < first:
        yield from _of_records(conn, account_id, start, first, by)
    if first < last:
        yield from _of_hours(conn, account_id, first, last, by, step)
    if last < end:
        yield from _of_records(conn, account_id, last, end, by)


def _whole_hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _of_records(conn: Connection, account_id: str, start: datetime, end: datetime, by: str) -> Iterator[_Part]:
    """Sums of less than an hour, straight from the records."""
    label = _RECORD_LABELS[by]
    sums = (func.sum(UsageRecord.charged), func.count(), _cost(UsageRecord.actual_cost))
    query = select(label, *sums).where(
        UsageRecord.account_id == account_id,
        UsageRecord.occurred_at >= start,
        UsageRecord.occurred_at < end,
        UsageRecord.voided_at.is_(None),
    )
    for name, charged, records, cost in conn.execute(query.group_by(label)):
        yield _Part(start, name or "", int(charged), records, Decimal(cost or 0))


def _of_hours(conn: Connection, account_id: str, start: datetime, end: datetime, by: str, step: str) -> Iterator[_Part]:
    """Sums per `step` and label over whole hours: of those that are over, with what is not yet added to them."""

    def kept(table: Any, label: str | None) -> list[_Part]:
        return _of_kept(conn, table, label, account_id, start, end, step)

    if by == "subject":
        subjects = kept(SubjectHour, "subject")
        # Records without a subject are what the sums by subject leave of all.
        over = kept(UsageHour, None) + subjects + [_taken_from_the_rest(part) for part in subjects]
    else:
        over = kept(UsageHour, _HOUR_LABELS[by])
    yield from _together(over + kept(RecentUsage, _HOUR_LABELS.get(by, "subject")), step)


def _taken_from_the_rest(part: _Part) -> _Part:
    return _Part(part.start, "", -part.charged, -part.records, EXACT.minus(part.cost))


def _together(parts: list[_Part], step: str) -> Iterator[_Part]:
    """One part for each step and label of which records are left."""
    found: dict[tuple[datetime, str], _Part] = {}
    for part in parts:
        key = (part.start if step == "hour" else part.start.replace(hour=0), part.label)
        so_far = found.get(key)
        found[key] = part if so_far is None else so_far.plus(part)
    return (part for part in found.values() if part.records)


def _of_kept(
    conn: Connection, kept: Any, label: str | None, account_id: str, start: datetime, end: datetime, step: str
) -> list[_Part]:
    """Kept sums added up per step and label; label None adds up all."""
    if database.is_sqlite():
        unit: Any = type_coerce(kept.hour, BigInteger).op("/")(_MICROSECONDS[step])
    else:
        unit = func.date_trunc(step, kept.hour)
    labels = [] if label is None else [getattr(kept, label)]
    sums = (func.min(kept.hour), func.sum(kept.charged), func.sum(kept.records), _cost(kept.cost))
    query = select(*sums, *labels).where(kept.account_id == account_id, kept.hour >= start, kept.hour < end)
    return [
        _Part(low, name[0] if name else "", int(charged), int(records), Decimal(cost or 0))
        for low, charged, records, cost, *name in conn.execute(query.group_by(unit, *labels))
    ]


def _cost(column: Any) -> Any:
    return func.decimal_sum(column) if database.is_sqlite() else func.sum(column)
