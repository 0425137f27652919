"""Access tokens: `spw_` + 16 characters that find the row + a secret of 256 random bits, kept only as its SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

import clock
import database
import ids
from errors import AccountClosed, Forbidden, MissingScope, NotFound, Unauthenticated, ValidationError
from extensions import db
from models.account import Account, Membership
from models.token import SCOPES, Token
from rows import glance
from services.books import TOKENS

_FORM = re.compile(r"spw_([0-9a-z]{16})([A-Za-z0-9_-]{43})", re.ASCII)
_LAST_USED_STEP = timedelta(minutes=1)


class Presented(NamedTuple):
    """What a request showed: which token it claims to be, and the SHA-256 of the secret it knows."""

    token_id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Identity:
    """The facts of a token that never change, so that a process may remember them."""

    digest: str
    account_id: str | None
    cap: int | None


@dataclass(frozen=True, slots=True)
class Caller:
    """A token that was good when it was read. `account_id` is None for a service token."""

    presented: Presented
    token_id: str
    account_id: str | None
    scopes: frozenset[str]
    user_id: str | None
    cap: int | None
    expires_at: datetime | None

    @property
    def is_service(self) -> bool:
        return self.account_id is None


def parse(authorization: str | None, api_key: str | None) -> Presented:
    """The token of the headers `Authorization: Bearer …` or `X-Api-Key`. Raises Unauthenticated."""
    shown = set()
    if authorization is not None:
        scheme, _, value = authorization.partition(" ")
        shown.add(value.strip() if scheme.lower() == "bearer" else "")
    if api_key is not None:
        shown.add(api_key.strip())
    match = _FORM.fullmatch(shown.pop()) if len(shown) == 1 else None
    if match is None:
        raise Unauthenticated()
    return Presented(f"tok_{match[1]}", hashlib.sha256(match[2].encode()).hexdigest())


def identity(token_id: str) -> Identity | None:
    """The token's fixed facts, remembered by the process; None for an unknown one, which is not."""
    known = database.memory("tokens")
    if token_id not in known:
        token = db.session.get(Token, token_id)
        if token is None:
            return None
        known[token_id] = Identity(token.digest, token.account_id, token.cap)
    found: Identity = known[token_id]
    return found


def known(presented: Presented) -> Identity:
    """The identity of the presented token, secret checked; whether it is still good is `check`'s to say.

    Raises Unauthenticated.
    """
    found = identity(presented.token_id)
    # Compare in any case, so that an unknown token takes the time of a known one.
    if not hmac.compare_digest(found.digest if found else "0" * 64, presented.digest) or found is None:
        raise Unauthenticated()
    return found


def check(row: Token | None, presented: Presented, scope: str | None, now: datetime) -> Caller:
    """Judge a token's row as it was just read. Raises Unauthenticated (one answer for every reason), MissingScope."""
    if row is None or not hmac.compare_digest(row.digest, presented.digest):
        raise Unauthenticated()
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        raise Unauthenticated()
    scopes = frozenset(row.scopes.split(","))
    caller = Caller(presented, row.id, row.account_id, scopes, row.user_id, row.cap, row.expires_at)
    if scope is not None:
        require_scope(caller, scope)
    return caller


def require_scope(caller: Caller, scope: str) -> None:
    """Judge one scope, or alternatives such as `tokens|admin`, of which `admin` counts only for service tokens.

    Raises MissingScope, which names the first.
    """
    wanted = scope.split("|")
    if not caller.scopes.intersection(wanted):
        raise MissingScope(f"The token needs the scope {wanted[0]!r}.", scope=wanted[0])


def authenticate(presented: Presented, scope: str | None) -> Caller:
    """Read the token once and judge it. Raises Unauthenticated, MissingScope."""
    found = glance(db.engine, [TOKENS.select(db.engine, "id IN ?", [presented.token_id])])[0]
    row, now = found[0] if found else None, clock.now()
    caller = check(row, presented, scope, now)
    note_use(row, now)
    return caller


def note_use(row: Token | None, now: datetime) -> None:
    """Keep when a token was last used, to the minute."""
    if row is not None and (row.last_used_at is None or now - row.last_used_at >= _LAST_USED_STEP):
        _touch(row.id, now)


@database.retrying
def _touch(token_id: str, now: datetime) -> None:
    with database.transaction() as session:
        session.execute(update(Token).where(Token.id == token_id).values(last_used_at=now))


@database.retrying
def create(
    *,
    account_id: str | None,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    cap: int | None = None,
    creator: Caller | None = None,
    user_id: str | None = None,
) -> tuple[Token, str]:
    """A new token and, this once, its secret form `spw_…`. `account_id` None makes a service token.

    A creating token can not hand out more than it has, and who was removed from the account creates none. Raises
    ValidationError, Forbidden, AccountClosed, Unauthenticated.
    """
    wanted = _checked_scopes(scopes, service=account_id is None)
    if expires_at is not None and expires_at <= clock.now():
        raise ValidationError({"expires_at": ["Must be in the future."]})
    if creator is not None and not (creator.is_service and "admin" in creator.scopes):
        _check_within(creator, wanted, expires_at, cap)
    token_id, secret = ids.short("tok"), secrets.token_urlsafe(32)
    with database.transaction() as session:
        # Under the account's lock: closing it or removing the person meanwhile would else miss this token.
        account = session.get(Account, account_id, with_for_update=True) if account_id is not None else None
        _check_still_may(session, account, creator, user_id)
        token = Token(
            id=token_id,
            account_id=account_id,
            user_id=user_id,
            name=name,
            digest=hashlib.sha256(secret.encode()).hexdigest(),
            scopes=",".join(wanted),
            cap=cap,
            created_at=clock.now(),
            expires_at=expires_at,
        )
        session.add(token)
    return token, f"spw_{token_id.removeprefix('tok_')}{secret}"


def _check_still_may(session: Session, account: Account | None, creator: Caller | None, user_id: str | None) -> None:
    """Judge again what may have changed since the request was let in."""
    if creator is not None:
        check(session.get(Token, creator.token_id), creator.presented, None, clock.now())
    if account is None:
        return
    if account.is_closed:
        raise AccountClosed()
    own = creator is None or not creator.is_service
    if own and user_id is not None and session.get(Membership, (user_id, account.id)) is None:
        raise Forbidden("You do not belong to the account any more.")


def _checked_scopes(scopes: Iterable[str], *, service: bool) -> list[str]:
    asked = set(scopes)
    allowed = SCOPES if service else SCOPES[:-1]
    if not asked or not asked <= set(allowed):
        raise ValidationError({"scopes": [f"Must be one or more of {', '.join(allowed)}."]})
    return [scope for scope in SCOPES if scope in asked]


def _check_within(creator: Caller, scopes: list[str], expires_at: datetime | None, cap: int | None) -> None:
    if not set(scopes) <= creator.scopes:
        raise Forbidden("A token can not create one with wider scopes than its own.")
    if creator.cap is not None and (cap is None or cap > creator.cap):
        raise Forbidden("A token can not create one with a larger cap than its own.")
    if creator.expires_at is not None and (expires_at is None or expires_at > creator.expires_at):
        raise Forbidden("A token can not create one that outlives it.")


@database.retrying
def revoke(token_id: str, own_account: str | None, user_id: str | None = None) -> None:
    """End the token at once; harmless when it has ended. `user_id` narrows to that person's own tokens.

    Raises NotFound for an unknown token and for another account's (own_account None: the operator's right to all).
    """
    with database.transaction() as session:
        token = session.get(Token, token_id)
        foreign = token is not None and own_account is not None and token.account_id != own_account
        if token is None or foreign or (user_id is not None and token.user_id != user_id):
            raise NotFound("No such token.")
        if token.revoked_at is None:
            token.revoked_at = clock.now()


def revoke_made_by(session: Session, account_id: str, user_id: str, keep: Iterable[str] = ()) -> None:
    """End the tokens that the person made in the account, in the session's transaction, under the account's lock.

    One that has no scope but those of `keep` stays.
    """
    good = select(Token).where(Token.account_id == account_id, Token.user_id == user_id, Token.revoked_at.is_(None))
    for token in session.scalars(good.order_by(Token.id)):
        if not set(token.scope_list).issubset(keep):
            token.revoked_at = clock.now()


def listing(
    account_id: str | None, limit: int, before: tuple[datetime, str] | None = None, user_id: str | None = None
) -> list[Token]:
    """The account's tokens (None: service tokens), newest first, older than the (created_at, id) `before`."""
    query = select(Token).where(Token.account_id == account_id if account_id else Token.account_id.is_(None))
    if user_id is not None:
        query = query.where(Token.user_id == user_id)
    if before is not None:
        moment, token_id = before
        query = query.where((Token.created_at < moment) | ((Token.created_at == moment) & (Token.id < token_id)))
    return list(db.session.scalars(query.order_by(Token.created_at.desc(), Token.id.desc()).limit(limit)))
