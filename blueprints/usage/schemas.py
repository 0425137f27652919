"""Requests of the spending API."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields

from blueprints.fields import (
    AccountRef,
    Choice,
    Cost,
    Credits,
    Key,
    Properties,
    Quantity,
    QueryInteger,
    StrictBoolean,
    StrictInteger,
    StrictSchema,
    Text,
    UtcTime,
)
from models.credit import HoldState
from services.summaries import GROUPS, INTERVALS

MAX_BATCH = 1000


class PricedSchema(StrictSchema):
    """What a price can be told from."""

    account = AccountRef(metadata={"description": "Needed with a service token: the account's id or external id."})
    credits = Credits(metadata={"description": "Credits to charge, with at most 6 decimals."})
    operation = Text(metadata={"description": "Priced by the catalog's rate, or a label when credits are given."})
    quantity = Quantity(load_default=1_000_000, metadata={"description": "Units of the operation."})
    llm_provider = Text()
    llm_model = Text()
    prompt_tokens = StrictInteger()
    completion_tokens = StrictInteger()
    total_tokens = StrictInteger()
    actual_cost = Cost(metadata={"description": "What the work cost you, in the major currency unit."})
    subject = Text(high=255, metadata={"description": "The end user on whose behalf the work was done."})

    needs_any: tuple[str, ...] = ("credits", "operation")
    nulls_are_absent = True

    def judge(self, loaded: dict[str, Any]) -> None:
        if self.needs_any and "credits" not in loaded and "operation" not in loaded:
            raise ValidationError("Give credits, or an operation that has a rate.", "credits")

    def finish(self, loaded: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Keep which fields were sent: some may be the operator's alone."""
        loaded["sent"] = data.keys()
        return loaded


class UsageSchema(PricedSchema):
    success = StrictBoolean(load_default=True)
    retry = StrictBoolean(load_default=False)
    source = Text()
    properties = Properties(load_default=None)
    occurred_at = UtcTime(metadata={"description": "At most 35 days ago and 5 minutes ahead; now by default."})
    enforce = StrictBoolean(
        load_default=True,
        metadata={"description": "false: the work is done already and is recorded in any case."},
    )
    idempotency_key = Key()


class CaptureSchema(UsageSchema):
    """Without credits and operation a capture takes the held amount."""

    needs_any = ()


class BatchSchema(StrictSchema):
    """The records are validated one by one, so that a bad one is refused alone."""

    account = AccountRef()
    records = fields.List(fields.Raw(allow_none=True), required=True)

    judges_text_of = "records"

    def judge(self, loaded: dict[str, Any]) -> None:
        if not 1 <= len(loaded["records"]) <= MAX_BATCH:
            raise ValidationError(f"Must have 1 to {MAX_BATCH} records.", "records")


class CheckSchema(PricedSchema):
    pass


class HoldSchema(PricedSchema):
    credits = Credits(positive=True)
    ttl_seconds = StrictInteger(low=1, high=86400, load_default=600)
    idempotency_key = Key()


class AccountBody(StrictSchema):
    """With an object's id in the path naming the account is optional; it must then be the object's."""

    account = AccountRef(metadata={"description": "The account's id or external id."})


class ExtendSchema(AccountBody):
    needs_any = ("ttl_seconds", "credits")

    ttl_seconds = StrictInteger(low=1, high=86400)
    credits = Credits(positive=True)

    def judge(self, loaded: dict[str, Any]) -> None:
        if not loaded.keys() - {"account"}:
            raise ValidationError("Give ttl_seconds, credits or both.", "ttl_seconds")


class VoidSchema(AccountBody):
    reason = Text(required=True, high=500)


class AccountQuery(StrictSchema):
    account = AccountRef()


class ListQuery(AccountQuery):
    limit = QueryInteger(low=1, high=200, load_default=50)
    cursor = Text(high=500)


class HoldListQuery(ListQuery):
    state = Choice(*(state.value for state in HoldState))


class RecordQuery(AccountQuery):
    """Which usage records."""

    start = UtcTime(data_key="from", dates=True)
    end = UtcTime(data_key="to", dates=True)
    operation = Text()
    model = Text()
    subject = Text(high=255)
    source = Text()


class RecordListQuery(RecordQuery, ListQuery):
    pass


class StatementQuery(AccountQuery):
    month = Text(
        low=7,
        high=7,
        pattern=r"(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])",
        metadata={"description": "A UTC calendar month such as 2026-11; the running one by default."},
    )


class SummaryQuery(AccountQuery):
    start = UtcTime(data_key="from", dates=True)
    end = UtcTime(data_key="to", dates=True)
    interval = Choice(*INTERVALS, load_default="day")
    by = Choice(*GROUPS, load_default="operation")
