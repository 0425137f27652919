"""The controls API: what an account limits, and what it agreed to."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from blueprints.controls import schemas
from blueprints.usage.schemas import AccountQuery
from blueprints.wire import answer, endpoint
from services import accounts, controls
from services.tokens import Caller

blueprint = Blueprint("controls_api", __name__, url_prefix="/api/v1")


@endpoint(
    blueprint,
    "GET",
    "/controls",
    summary="Caps, alert thresholds, overage and auto top-up",
    scope="read",
    query=AccountQuery(),
    answers={200: "Controls"},
)
def get_controls(caller: Caller, query: dict[str, Any]) -> Response:
    return answer(controls.get(accounts.locate(caller, query.get("account"))))


@endpoint(
    blueprint,
    "PUT",
    "/controls",
    summary="Set those that are named; the others stay",
    scope="billing",
    body=schemas.ControlsSchema(),
    answers={200: "Controls"},
    refuses=("account_closed", "overage_unavailable", "stripe_not_configured"),
)
def put_controls(caller: Caller, body: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, body.pop("account", None))
    by_operator = caller.is_service and "admin" in caller.scopes
    return answer(controls.put(account_id, body, by_operator=by_operator))
