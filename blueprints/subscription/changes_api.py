"""Starting, changing, cancelling and resuming the subscription, with the card on file."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from blueprints.fields import AccountRef, Choice, StrictSchema, Text
from blueprints.wire import answer, endpoint
from services import accounts
from services.stripe import changes
from services.stripe.changes import Changed
from services.tokens import Caller

blueprint = Blueprint("subscription_changes_api", __name__, url_prefix="/api/v1")

_PAYING = ("stripe_not_configured", "account_closed", "stripe_unavailable")


class AccountSchema(StrictSchema):
    account = AccountRef()


class WantedSchema(StrictSchema):
    account = AccountRef()
    tier = Text(high=100, required=True)
    interval = Choice("month", "year", load_default="month")


def _answer(changed: Changed) -> Response:
    return answer(
        {
            "status": changed.status,
            "tier": changed.tier,
            "interval": changed.interval,
            "effective": changed.effective,
            "action_url": changed.action_url,
        }
    )


@endpoint(
    blueprint,
    "POST",
    "/stripe/subscription",
    summary="Start a plan with the card on file, or change to it: more at once, less at the period's end",
    scope="billing",
    body=WantedSchema(),
    answers={200: "SubscriptionChange"},
    refuses=_PAYING,
)
def post_subscription(caller: Caller, body: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, body.get("account"))
    return _answer(changes.subscribe(account_id, body["tier"], body["interval"]))


@endpoint(
    blueprint,
    "GET",
    "/stripe/subscription/preview",
    summary="What starting or changing to a plan would charge, and when",
    scope="billing",
    query=WantedSchema(),
    answers={200: "SubscriptionPreview"},
    refuses=_PAYING,
)
def get_preview(caller: Caller, query: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, query.get("account"))
    return answer(changes.preview(account_id, query["tier"], query["interval"]))


@endpoint(
    blueprint,
    "DELETE",
    "/stripe/subscription",
    summary="Let the subscription end with the period that is paid",
    scope="billing",
    query=AccountSchema(),
    answers={200: "SubscriptionChange"},
    refuses=(*_PAYING, "not_found"),
)
def delete_subscription(caller: Caller, query: dict[str, Any]) -> Response:
    return _answer(changes.cancel(accounts.locate(caller, query.get("account"))))


@endpoint(
    blueprint,
    "POST",
    "/stripe/subscription/resume",
    summary="Go on with a subscription that was to end, or is paused",
    scope="billing",
    body=AccountSchema(),
    answers={200: "SubscriptionChange"},
    optional_body=True,
    refuses=(*_PAYING, "not_found"),
)
def post_resume(caller: Caller, body: dict[str, Any]) -> Response:
    return _answer(changes.resume(accounts.locate(caller, body.get("account"))))
