"""Requests of the token API."""

from __future__ import annotations

from marshmallow import fields
from marshmallow.validate import Length

from blueprints.fields import AccountRef, Choice, Credits, QueryInteger, StrictSchema, Text, UtcTime
from models.token import SCOPES


class CreateSchema(StrictSchema):
    account = AccountRef()
    name = Text(required=True, high=100)
    scopes = fields.List(Choice(*SCOPES[:-1]), required=True, validate=Length(min=1, error="Name at least one."))
    expires_at = UtcTime(load_default=None, allow_none=True)
    cap = Credits(load_default=None, allow_none=True, metadata={"description": "Credits per period."})


class TokenListQuery(StrictSchema):
    account = AccountRef()
    limit = QueryInteger(low=1, high=200, load_default=50)
    cursor = Text(high=500)


class AccountQuery(StrictSchema):
    account = AccountRef()
