"""Requests of the account API."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields

from blueprints.fields import Credits, Key, QueryInteger, StrictSchema, Text, UtcTime
from services import rates
from services.accounts import EXTERNAL_ID

_EMAIL = r"[^@\s]+@[^@\s]+\.[^@\s]+"


class CreateSchema(StrictSchema):
    external_id = Text(required=True, high=128, pattern=EXTERNAL_ID, metadata={"description": "Your own id for it."})
    name = Text(required=True)
    email = Text(high=254, pattern=_EMAIL, load_default=None, allow_none=True)


class ChangeSchema(StrictSchema):
    name = Text()
    email = Text(high=254, pattern=_EMAIL, allow_none=True)


class AccountListQuery(StrictSchema):
    limit = QueryInteger(low=1, high=200, load_default=50)
    cursor = Text(high=500)
    search = Text()


class GrantSchema(StrictSchema):
    credits = Credits(required=True, positive=True)
    reason = Text(required=True, high=500)
    expires_at = UtcTime(load_default=None, allow_none=True)
    idempotency_key = Key()


class PlanSchema(StrictSchema):
    tier = Text(required=True, high=100)
    included_credits = Credits(load_default=None, allow_none=True)
    rates = fields.Dict(load_default=None, allow_none=True, metadata={"description": '`{"chat@model": "per_unit=1"}`'})
    ends_at = UtcTime(load_default=None, allow_none=True)

    def judge(self, loaded: dict[str, Any]) -> None:
        try:
            rates.parse_many(loaded.get("rates") or {})
        except ValueError as error:
            raise ValidationError(str(error), "rates") from None


class ReasonSchema(StrictSchema):
    reason = Text(required=True, high=500)
