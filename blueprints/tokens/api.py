"""The API of access tokens: needs the scope `tokens`, or a service token with `admin`."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from amounts import to_credits
from blueprints.tokens import schemas
from blueprints.wire import answer, decode_cursor, encode_cursor, endpoint, page
from models.token import Token
from models.types import from_microseconds, to_microseconds
from services import accounts, tokens
from services.tokens import Caller

blueprint = Blueprint("tokens_api", __name__, url_prefix="/api/v1/tokens")


def render(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "account": token.account_id,
        "name": token.name,
        "scopes": token.scope_list,
        "cap": None if token.cap is None else to_credits(token.cap),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
    }


@endpoint(
    blueprint,
    "GET",
    "",
    summary="The account's tokens, newest first",
    scope="tokens|admin",
    query=schemas.TokenListQuery(),
    answers={200: "TokenList"},
)
def listing(caller: Caller, query: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, query.get("account"))
    key = decode_cursor(query.get("cursor"), int, str)
    before = (from_microseconds(key[0]), key[1]) if key else None
    rows = tokens.listing(account_id, query["limit"] + 1, before)
    return page(rows, query["limit"], render, lambda row: encode_cursor(to_microseconds(row.created_at), row.id))


@endpoint(
    blueprint,
    "POST",
    "",
    summary="Create a token; it is shown this once",
    scope="tokens|admin",
    body=schemas.CreateSchema(),
    answers={201: "NewToken"},
    refuses=("account_closed",),
)
def create(caller: Caller, body: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, body.pop("account", None))
    token, secret = tokens.create(account_id=account_id, creator=caller, user_id=caller.user_id, **body)
    return answer(render(token) | {"token": secret}, 201)


@endpoint(
    blueprint,
    "DELETE",
    "/<token_id>",
    summary="Revoke a token at once",
    scope="tokens|admin",
    query=schemas.AccountQuery(),
    answers={204: ""},
)
def delete(caller: Caller, query: dict[str, Any], token_id: str) -> Response:
    own = caller.account_id if query.get("account") is None else accounts.locate(caller, query["account"])
    tokens.revoke(token_id, own)
    return Response(status=204)
