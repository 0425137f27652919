"""The operator's API of accounts. Every route needs a service token with `admin`."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response

import clock
from blueprints.accounts import schemas
from blueprints.wire import answer, decode_cursor, encode_cursor, endpoint, page
from errors import Forbidden, ValidationError
from models.account import Account
from models.types import from_microseconds, to_microseconds
from services import accounts, grants
from services.stripe import subscriptions
from services.tokens import Caller

blueprint = Blueprint("accounts_api", __name__, url_prefix="/api/v1/accounts")


def render(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "external_id": account.external_id,
        "name": account.name,
        "email": account.email,
        "status": account.status,
        "plan": account.plan,
        "created_at": account.created_at,
    }


def _operator(caller: Caller) -> None:
    """An account token can not carry `admin`; this keeps it so even if one ever did."""
    if not caller.is_service:
        raise Forbidden("Only service tokens manage accounts.")


@endpoint(
    blueprint,
    "POST",
    "",
    summary="Create an account, or find it by its external id",
    scope="admin",
    body=schemas.CreateSchema(),
    answers={201: "Account", 200: "Account"},
)
def create(caller: Caller, body: dict[str, Any]) -> Response:
    _operator(caller)
    account, new = accounts.create_by_operator(body["external_id"], body["name"], body["email"])
    return answer(render(account), 201 if new else 200)


@endpoint(
    blueprint,
    "GET",
    "",
    summary="Accounts, newest first",
    scope="admin",
    query=schemas.AccountListQuery(),
    answers={200: "AccountList"},
)
def listing(caller: Caller, query: dict[str, Any]) -> Response:
    _operator(caller)
    key = decode_cursor(query.get("cursor"), int, str)
    before = (from_microseconds(key[0]), key[1]) if key else None
    rows = accounts.listing(query["limit"] + 1, before, query.get("search"))
    return page(rows, query["limit"], render, lambda row: encode_cursor(to_microseconds(row.created_at), row.id))


@endpoint(blueprint, "GET", "/<ref>", summary="One account", scope="admin", answers={200: "Account"})
def get(caller: Caller, ref: str) -> Response:
    _operator(caller)
    return answer(render(accounts.get(accounts.resolve(ref))))


@endpoint(
    blueprint,
    "PATCH",
    "/<ref>",
    summary="Change an account's name or e-mail",
    scope="admin",
    body=schemas.ChangeSchema(),
    answers={200: "Account"},
)
def change(caller: Caller, body: dict[str, Any], ref: str) -> Response:
    _operator(caller)
    return answer(render(accounts.change(accounts.resolve(ref), body)))


@endpoint(
    blueprint,
    "POST",
    "/<ref>/grants",
    summary="Give credits",
    scope="admin",
    body=schemas.GrantSchema(),
    answers={201: "Grant", 200: "Grant"},
    keyed=True,
    refuses=("account_closed",),
)
def grant(caller: Caller, body: dict[str, Any], ref: str) -> Response:
    _operator(caller)
    key = body.pop("idempotency_key")
    amount = body.pop("credits")
    value, replayed = grants.grant(accounts.resolve(ref), amount=amount, key=key, **body)
    return answer(value, 201, replayed=replayed)


@endpoint(
    blueprint,
    "POST",
    "/<ref>/plan",
    summary="Put the account on a local plan, at once",
    scope="admin",
    body=schemas.PlanSchema(),
    answers={200: "Balance"},
    refuses=("account_closed",),
)
def set_plan(caller: Caller, body: dict[str, Any], ref: str) -> Response:
    _operator(caller)
    if body["ends_at"] is not None and body["ends_at"] <= clock.now():
        raise ValidationError({"ends_at": ["Must be in the future."]})
    balance = accounts.set_plan(
        accounts.resolve(ref),
        tier=body["tier"],
        included=body["included_credits"],
        rates=json.dumps(body["rates"], sort_keys=True) if body["rates"] else None,
        ends_at=body["ends_at"],
    )
    return answer(balance)


@endpoint(
    blueprint,
    "POST",
    "/<ref>/reset-limit",
    summary="Replace the running allowance by a full one",
    scope="admin",
    body=schemas.ReasonSchema(),
    answers={200: "Balance"},
    refuses=("no_allowance", "account_closed"),
)
def reset_limit(caller: Caller, body: dict[str, Any], ref: str) -> Response:
    _operator(caller)
    return answer(grants.reset_limit(accounts.resolve(ref), body["reason"]))


@endpoint(
    blueprint,
    "POST",
    "/<ref>/suspend",
    summary="Refuse usage until restored",
    scope="admin",
    body=schemas.ReasonSchema(),
    answers={200: "Account"},
    refuses=("account_closed",),
)
def suspend(caller: Caller, body: dict[str, Any], ref: str) -> Response:
    _operator(caller)
    return answer(render(accounts.suspend(accounts.resolve(ref), body["reason"])))


@endpoint(
    blueprint,
    "POST",
    "/<ref>/restore",
    summary="End a suspension",
    scope="admin",
    body=schemas.ReasonSchema(),
    answers={200: "Account"},
    refuses=("account_closed",),
)
def restore(caller: Caller, body: dict[str, Any], ref: str) -> Response:
    _operator(caller)
    return answer(render(accounts.restore(accounts.resolve(ref), body["reason"])))


@endpoint(
    blueprint,
    "POST",
    "/<ref>/close",
    summary="Close the account for good; its ledger stays",
    scope="admin",
    body=schemas.ReasonSchema(),
    answers={200: "Account"},
)
def close(caller: Caller, body: dict[str, Any], ref: str) -> Response:
    _operator(caller)
    closed = accounts.close(accounts.resolve(ref), body["reason"])
    subscriptions.cancel_all(closed.id)
    return answer(render(closed))
