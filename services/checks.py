"""Asking before doing: what an account has, and whether a piece of work would be accepted."""

from __future__ import annotations

from typing import Any

from amounts import to_credits
from errors import SpillwayError
from services import accounts, balances, tokens, usage
from services.credits import Spender, Wanted
from services.tokens import Caller, Presented
from services.usage import UsageRequest


def balance(presented: Presented, account_ref: str | None) -> dict[str, Any]:
    """GET /balance. Raises what refuses the token, Forbidden, AccountNotFound."""
    _, sight = _see(presented, account_ref)
    return balances.render_balance(sight)


def check(presented: Presented, account_ref: str | None, request: UsageRequest) -> dict[str, Any]:
    """Whether the usage would be accepted now, why not, and what would cure it. Writes nothing.

    Raises UnknownOperation or ValidationError where no amount can be told, and as `balance`.
    """
    caller, sight = _see(presented, account_ref, request.subject)
    book = sight.book
    charge = usage.price(book, request)
    refusal: SpillwayError | None = None
    try:
        usage.check_status(book, enforce=True)
        usage.fund(book, charge.charged, caller, request.subject, enforce=True)
    except SpillwayError as error:
        refusal = error
    return {
        "allowed": refusal is None,
        "code": refusal.code if refusal else None,
        "required": to_credits(charge.charged),
        "available": to_credits(book.available),
        "cure": list(_CURES[refusal.code]) if refusal else [],
    }


def _see(presented: Presented, account_ref: str | None, subject: str | None = None) -> tuple[Caller, balances.Sight]:
    """The account, and the token judged by the same moment's row."""
    identity = tokens.known(presented)
    try:
        account_id = accounts.account_for(identity.account_id, account_ref)
    except SpillwayError:
        tokens.authenticate(presented, "read")
        raise
    spender = Spender(account_id, presented.token_id, identity.cap is not None, subject)
    sight = balances.current(account_id, Wanted(token_ids={presented.token_id}, spenders=[spender]))
    row = sight.tokens.get(presented.token_id)
    caller = tokens.check(row, presented, "read", sight.book.now)
    tokens.note_use(row, sight.book.now)
    return caller, sight


_CURES = {
    "insufficient_credits": ("buy_credits", "upgrade"),
    "payment_past_due": ("pay_invoice", "buy_credits"),
    "cap_reached": ("raise_cap",),
    "account_suspended": ("pay_invoice", "contact_operator"),
    "account_closed": ("contact_operator",),
}
