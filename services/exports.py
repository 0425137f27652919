"""Usage records in bulk, for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select, tuple_

import database
from amounts import to_credits
from models.usage import UsageRecord
from services import records
from services.records import Filters

_PAGE = 1000
_AS_THEY_ARE = (
    "id",
    "occurred_at",
    "recorded_at",
    "operation",
    "source",
    "subject",
    "llm_provider",
    "llm_model",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "actual_cost",
)
_AMOUNTS = ("allowance", "purchased", "granted", "overage", "unfunded")
COLUMNS = (*_AS_THEY_ARE, "credits", *_AMOUNTS, "voided_at")


def usage(account_id: str, filters: Filters) -> Iterator[list[list[Any]]]:
    """Rows of COLUMNS, newest first, a thousand records at a time; between two pieces no connection is held."""
    table = UsageRecord.__table__.c
    columns = [table[name] for name in (*_AS_THEY_ARE, "charged", *_AMOUNTS, "voided_at", "seq")]
    order = tuple_(UsageRecord.occurred_at, UsageRecord.seq)
    query = records.filtered(select(*columns), account_id, filters)
    query = query.order_by(UsageRecord.occurred_at.desc(), UsageRecord.seq.desc()).limit(_PAGE)
    found: list[Any] = []
    while not found or len(found) == _PAGE:
        older = query.where(order < (found[-1].occurred_at, found[-1].seq)) if found else query
        with database.snapshot() as conn:
            found = list(conn.execute(older))
        if not found:
            return
        yield [_row(record) for record in found]


def _row(record: Any) -> list[Any]:
    amounts = [to_credits(getattr(record, name)) for name in ("charged", *_AMOUNTS)]
    return [*record[: len(_AS_THEY_ARE)], *amounts, record.voided_at]
