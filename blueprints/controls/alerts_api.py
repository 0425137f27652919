"""The alerts API."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

import clock
from blueprints.controls.schemas import AlertListQuery
from blueprints.usage.schemas import AccountBody
from blueprints.wire import answer, decode_cursor, encode_cursor, endpoint, page
from models.types import from_microseconds, to_microseconds
from services import accounts, alerts
from services.tokens import Caller

blueprint = Blueprint("alerts_api", __name__, url_prefix="/api/v1")


@endpoint(
    blueprint,
    "GET",
    "/alerts",
    summary="What the account was told, newest first",
    scope="read",
    query=AlertListQuery(),
    answers={200: "AlertList"},
)
def get_alerts(caller: Caller, query: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, query.get("account"))
    key = decode_cursor(query.get("cursor"), int, str)
    before = (from_microseconds(key[0]), key[1]) if key else None
    rows = alerts.listing(account_id, query["limit"] + 1, before, query["state"])
    now = clock.now()
    return page(
        rows,
        query["limit"],
        lambda alert: alerts.render(alert, now),
        lambda alert: encode_cursor(to_microseconds(alert.created_at), alert.id),
    )


@endpoint(
    blueprint,
    "POST",
    "/alerts/<alert_id>/dismiss",
    summary="Take an alert away",
    scope="billing",
    body=AccountBody(),
    optional_body=True,
    answers={200: "Alert"},
)
def dismiss_alert(caller: Caller, body: dict[str, Any], alert_id: str) -> Response:
    ref = body.get("account")
    own = caller.account_id if ref is None else accounts.locate(caller, ref)
    return answer(alerts.render(alerts.dismiss(alert_id, own), clock.now()))
