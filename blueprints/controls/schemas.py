"""Requests about caps, alerts and what is bought beyond the plan."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from blueprints.fields import AccountRef, Choice, Credits, ShortList, StrictBoolean, StrictInteger, StrictSchema, Text
from blueprints.usage.schemas import ListQuery
from services import agreed, alerts, controls


class CapSchema(StrictSchema):
    scope = Choice(*agreed.SCOPES, required=True, metadata={"description": "Whose spending it limits."})
    key = Text(
        high=255,
        allow_none=True,
        load_default=None,
        metadata={"description": "The token's id or the subject; without it the cap holds for each of them."},
    )
    window = Choice(*agreed.WINDOWS, required=True, metadata={"description": "UTC days, or the account's periods."})
    credits = Credits(required=True, metadata={"description": "How much may be charged in each window."})
    locked = StrictBoolean(load_default=None, metadata={"description": "Only the operator can change it."})


class OverageSchema(StrictSchema):
    enabled = StrictBoolean(required=True)
    cap_amount = StrictInteger(
        allow_none=True, load_default=None, metadata={"description": "At most so much per period, in minor units."}
    )


class AutoTopUpSchema(StrictSchema):
    enabled = StrictBoolean(required=True)
    below = Credits(allow_none=True, load_default=None, metadata={"description": "Buy when fewer are available."})
    credits = Credits(
        positive=True, allow_none=True, load_default=None, metadata={"description": "How many to buy each time."}
    )
    monthly_ceiling = StrictInteger(
        allow_none=True, load_default=None, metadata={"description": "At most so much a month, in minor units."}
    )


class ControlsSchema(StrictSchema):
    """What is not named stays as it is."""

    account = AccountRef()
    caps = ShortList(fields.Nested(CapSchema), most=controls.MOST_CAPS)
    alert_thresholds = ShortList(StrictInteger(low=1, high=100), most=20)
    overage = fields.Nested(OverageSchema)
    auto_top_up = fields.Nested(AutoTopUpSchema)

    def finish(self, loaded: dict[str, Any], _data: dict[str, Any]) -> dict[str, Any]:
        """An account that is not named is not there at all."""
        return {name: value for name, value in loaded.items() if value is not None}


class AlertListQuery(ListQuery):
    state = Choice(
        *alerts.STATES,
        load_default="open",
        metadata={"description": "`open`: all that were not dismissed; `standing`: those that are true now."},
    )
