"""The buying API: customer, checkout, cards, portal, and what was bought."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from blueprints.checkout import schemas
from blueprints.wire import answer, decode_cursor, encode_cursor, endpoint, page
from models.stripe import Purchase
from models.types import from_microseconds, to_microseconds
from services import accounts
from services.stripe import cards, checkout, customers, purchases
from services.tokens import Caller

blueprint = Blueprint("checkout_api", __name__, url_prefix="/api/v1")

_PAYING = ("stripe_not_configured", "account_closed", "stripe_unavailable")


@endpoint(
    blueprint,
    "POST",
    "/stripe/customer",
    summary="The account's customer at Stripe, made once",
    scope="billing",
    body=schemas.AccountSchema(),
    answers={200: "Customer"},
    optional_body=True,
    refuses=_PAYING,
)
def post_customer(caller: Caller, body: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, body.get("account"))
    checkout.may_buy(account_id)
    return answer({"customer": customers.ensure(account_id)})


@endpoint(
    blueprint,
    "POST",
    "/stripe/checkout",
    summary="Send a customer to Stripe's Checkout for a plan, credits or a pack",
    scope="billing",
    body=schemas.CheckoutSchema(),
    answers={201: "Checkout"},
    refuses=(*_PAYING, "already_subscribed"),
)
def post_checkout(caller: Caller, body: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, body.pop("account", None))
    started = checkout.start(account_id, **body)
    return answer({"url": started.url, "session": started.session}, 201)


@endpoint(
    blueprint,
    "POST",
    "/stripe/setup-intent",
    summary="A SetupIntent, to collect a card with Stripe Elements",
    scope="billing",
    body=schemas.AccountSchema(),
    answers={200: "SetupIntent"},
    optional_body=True,
    refuses=_PAYING,
)
def post_setup_intent(caller: Caller, body: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, body.get("account"))
    checkout.may_buy(account_id)
    collected = cards.collect(account_id)
    return answer({"client_secret": collected.client_secret, "publishable_key": collected.publishable_key})


@endpoint(
    blueprint,
    "POST",
    "/stripe/portal",
    summary="Send a customer to Stripe's billing portal",
    scope="billing",
    body=schemas.PortalSchema(),
    answers={200: "Portal"},
    optional_body=True,
    refuses=_PAYING,
)
def post_portal(caller: Caller, body: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, body.pop("account", None))
    return answer({"url": checkout.portal(account_id, **body)})


def _cursor(purchase: Purchase) -> str:
    return encode_cursor(to_microseconds(purchase.created_at), purchase.id)


@endpoint(
    blueprint,
    "GET",
    "/purchases",
    summary="What was bought at Checkout, newest first",
    scope="read",
    query=schemas.PurchaseListQuery(),
    answers={200: "PurchaseList"},
)
def get_purchases(caller: Caller, query: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, query.get("account"))
    key = decode_cursor(query.get("cursor"), int, str)
    before = (from_microseconds(key[0]), key[1]) if key else None
    rows = purchases.listing(account_id, query["limit"] + 1, before)
    return page(rows, query["limit"], purchases.render, _cursor)
