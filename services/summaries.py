"""Usage over time: buckets of credits, records and cost, grouped by one label."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from dateutil.relativedelta import relativedelta
from sqlalchemy import BigInteger, func, select, type_coerce

import database
from amounts import to_credits
from errors import ValidationError
from extensions import db
from models.usage import UsageRecord

MAX_BUCKETS = 1000
GROUPS = {
    "operation": UsageRecord.operation,
    "model": UsageRecord.llm_model,
    "subject": UsageRecord.subject,
    "source": UsageRecord.source,
}
_STEPS = {
    "hour": relativedelta(hours=1),
    "day": relativedelta(days=1),
    "week": relativedelta(weeks=1),
    "month": relativedelta(months=1),
}
INTERVALS = tuple(_STEPS)
_HOUR = 3_600_000_000
"""Microseconds."""


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
    position = 0
    for low, label, charged, records, cost in _hourly(account_id, start, end, by):
        while low >= ranges[position][1]:
            position += 1
        for bucket in (data[position], total):
            bucket["credits"] += charged
            bucket["records"] += records
            bucket["cost"] = database.EXACT.add(bucket["cost"], cost)
            bucket["groups"][label] = bucket["groups"].get(label, 0) + charged
    for bucket in (*data, total):
        bucket["credits"] = to_credits(bucket["credits"])
        bucket["groups"] = {label: to_credits(amount) for label, amount in sorted(bucket["groups"].items())}
    return {"interval": interval, "from": start, "to": end, "by": by, "data": data, "total": total}


def _hourly(
    account_id: str, start: datetime, end: datetime, by: str
) -> Iterator[tuple[datetime, str, int, int, Decimal]]:
    """Sums per hour and label, in the order of time: hours fit into every bucket but the clipped first one."""
    if database.is_sqlite():
        hour: Any = type_coerce(UsageRecord.occurred_at, BigInteger).op("/")(_HOUR)
        cost = func.decimal_sum(UsageRecord.actual_cost)
    else:
        hour = func.date_trunc("hour", UsageRecord.occurred_at)
        cost = func.sum(UsageRecord.actual_cost)
    group = GROUPS[by]
    query = (
        select(func.min(UsageRecord.occurred_at), group, func.sum(UsageRecord.charged), func.count(), cost)
        .where(
            UsageRecord.account_id == account_id,
            UsageRecord.occurred_at >= start,
            UsageRecord.occurred_at < end,
            UsageRecord.voided_at.is_(None),
        )
        .group_by(hour, group)
        .order_by(func.min(UsageRecord.occurred_at))
    )
    for low, label, charged, records, costs in db.session.execute(query):
        yield low, label or "", int(charged), records, Decimal(costs or 0)
