"""The subscription and the invoices of an account, as last told by Stripe."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from blueprints.fields import AccountRef, QueryInteger, StrictSchema, Text
from blueprints.wire import answer, decode_cursor, encode_cursor, endpoint, page
from models.stripe import StripeInvoice
from models.types import from_microseconds, to_microseconds
from services import accounts
from services.stripe import invoices, shown
from services.tokens import Caller

blueprint = Blueprint("subscription_api", __name__, url_prefix="/api/v1")


class SubscriptionQuery(StrictSchema):
    account = AccountRef()


class InvoiceListQuery(StrictSchema):
    account = AccountRef()
    limit = QueryInteger(low=1, high=200, load_default=50)
    cursor = Text(high=500)


@endpoint(
    blueprint,
    "GET",
    "/subscription",
    summary="The account's plan and its subscription",
    scope="read",
    query=SubscriptionQuery(),
    answers={200: "Subscription"},
)
def get_subscription(caller: Caller, query: dict[str, Any]) -> Response:
    return answer(shown.subscription(accounts.locate(caller, query.get("account"))))


@endpoint(
    blueprint,
    "GET",
    "/invoices",
    summary="The account's invoices, newest first, without drafts",
    scope="read",
    query=InvoiceListQuery(),
    answers={200: "InvoiceList"},
)
def get_invoices(caller: Caller, query: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, query.get("account"))
    key = decode_cursor(query.get("cursor"), int, str)
    before = (from_microseconds(key[0]), key[1]) if key else None
    rows = invoices.listing(account_id, query["limit"] + 1, before)
    return page(rows, query["limit"], shown.invoice, _cursor)


def _cursor(row: StripeInvoice) -> str:
    return encode_cursor(to_microseconds(row.created_at), row.id)
