"""Asking before doing: what an account has, and whether a piece of work would be accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import current_app

import database
from amounts import to_credits
from errors import AccountNotFound, SpillwayError
from services import accounts, balances, tokens, usage
from services.credits import Spender, Wanted
from services.merging import Merger
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
    database.forget_reads()
    spender = Spender(account_id, presented.token_id, identity.cap is not None, subject)
    sight = _merger()(spender)
    if sight is None:
        raise AccountNotFound()
    if not sight.is_complete:  # alone: whatever keeps this account from being brought up to date is nobody else's
        sight = balances.current(account_id, _wanted([spender]))
    row = sight.tokens.get(presented.token_id)
    caller = tokens.check(row, presented, "read", sight.book.now)
    tokens.note_use(row, sight.book.now)
    return caller, sight


def _merger() -> Merger[Spender, balances.Sight | None]:
    """The process's own, by which calls side by side look once for all of them; threads never wait for each other."""
    extensions = current_app.extensions
    if "sight_merger" not in extensions:
        made: Merger[Spender, balances.Sight | None] = Merger(_look, isolates=database.comes_from_one, leaders=1_000)
        extensions.setdefault("sight_merger", made)
    merger: Merger[Spender, balances.Sight | None] = extensions["sight_merger"]
    return merger


def _look(spenders: Sequence[Spender]) -> list[balances.Sight | None]:
    """What each of them sees, complete or not; None for an account that is not there."""
    seen = balances.look({spender.account_id for spender in spenders}, _wanted(spenders))
    return [seen.get(spender.account_id) for spender in spenders]


def _wanted(spenders: Sequence[Spender]) -> Wanted:
    return Wanted(token_ids={spender.token_id for spender in spenders if spender.token_id}, spenders=set(spenders))


_CURES = {
    "insufficient_credits": ("buy_credits", "upgrade"),
    "payment_past_due": ("pay_invoice", "buy_credits"),
    "cap_reached": ("raise_cap",),
    "account_suspended": ("pay_invoice", "contact_operator"),
    "account_closed": ("contact_operator",),
}
