"""What is on sale, for anybody."""

from __future__ import annotations

from flask import Blueprint, Response

from blueprints.auth import guard
from blueprints.wire import Operation, answer
from services import offers

blueprint = Blueprint("pricing_api", __name__, url_prefix="/api/v1")


@blueprint.get("/plans")
@guard.public
def get_plans() -> Response:
    return answer(offers.listing())


get_plans.operation = Operation(  # type: ignore[attr-defined]
    summary="What is on sale; needs no token", scope=None, public=True, answers={200: "Plans"}
)
