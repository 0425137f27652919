"""Accounts: making them, finding them, their plan and their state."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

import clock
import database
import ids
import settings
from errors import AccountClosed, AccountNotFound, Forbidden, ValidationError
from extensions import db
from models.account import Account, AccountStatus, Membership, Role, SignupClaim
from models.credit import HoldState, Kind, Reason
from models.invitation import OPEN, Invitation
from models.token import Token
from models.user import User
from services import balances, bills, catalog, credits, periods, plans, throttle
from services.books import Book
from services.throttle import Limit
from services.tokens import Caller

LOCAL_TIERS = (plans.FREE_TIER, "enterprise")
"""Tiers that exist without a price in the catalog."""


_OPENED = Limit("accounts-opened", 10, 3600)


EXTERNAL_ID = r"(?!acc_)[A-Za-z0-9._:@-]{1,128}"
"""The form of an operator's own id: never to be mistaken for one of ours."""


# Making


def checked_external_id(value: str) -> str:
    """Raises ValidationError."""
    if not re.fullmatch(EXTERNAL_ID, value, re.ASCII):
        raise ValidationError({"external_id": ["1 to 128 of A-Z a-z 0-9 . _ : @ -, not beginning with acc_."]})
    return value


def sign_up_account(session: Session, user: User, name: str) -> Account:
    """An account owned by `user`, on the free plan, in the session's transaction.

    The sign-up credits come at once unless SIGNUP_GRANT waits for the verified e-mail, and never a second time for
    one person; nor does the free plan's allowance.
    """
    free_claim = _claim("free", user.email)
    account = _make(session, name=name, email=user.email, external_id=None, free_claim=free_claim)
    session.add(Membership(user_id=user.id, account_id=account.id, role=Role.OWNER, created_at=account.created_at))
    if settings.current().signup_grant == "immediate" or user.email_verified_at is not None:
        grant_sign_up(session, account.id, [email_claim(user.email)])
    return account


def open_account(user: User, name: str) -> Account:
    """One more account of a person who has signed up before. Raises RateLimited."""
    throttle.attempt(_OPENED, user.id)
    catalog.current()  # before the transaction: on the very first use it writes one of its own
    return _open_account(user.id, name)


@database.retrying
def _open_account(user_id: str, name: str) -> Account:
    with database.transaction() as session:
        return sign_up_account(session, session.get_one(User, user_id), name)


def create_by_operator(external_id: str, name: str, email: str | None) -> tuple[Account, bool]:
    """The account with this external id, and whether it is new. Other fields are ignored when it exists."""
    existing = _by_external_id(external_id)
    if existing is not None:
        return existing, False
    email = _kept_email(email)
    try:
        return _create_by_operator(external_id, name, email), True
    except database.Duplicate:  # another request made it meanwhile
        existing = _by_external_id(external_id)
        assert existing is not None
        return existing, False


def _kept_email(email: str | None) -> str | None:
    return email.strip().lower() if email else None


@database.retrying
def _create_by_operator(external_id: str, name: str, email: str | None) -> Account:
    catalog.current()  # before the transaction: on the very first use it writes one of its own
    with database.transaction() as session:
        account = _make(session, name=name, email=email, external_id=external_id)
        claims = [f"external:{external_id}"] if len(external_id) <= 70 else [_claim("external", external_id)]
        if email:
            claims.append(email_claim(email))
        grant_sign_up(session, account.id, claims)
        return account


def _make(
    session: Session, *, name: str, email: str | None, external_id: str | None, free_claim: str | None = None
) -> Account:
    now = clock.now()
    start, end = periods.month_period(now, now)
    account = Account(
        id=ids.short("acc"),
        external_id=external_id,
        name=name,
        email=email,
        status=AccountStatus.ACTIVE.value,
        subscription_id="",
        plan=plans.FREE_TIER,
        period_start=start,
        period_end=end,
        created_at=now,
    )
    terms = catalog.current()
    session.add(account)
    session.flush()
    if free_claim is not None and not _stake(session, account.id, [free_claim]):
        account.free_allowance = False
        session.flush()
    conn = session.connection()
    book = _book(conn, account.id, terms)
    plans.start_plan(conn, book, plans.FREE_TIER, included=0, rollover_max=None, ends_at=None, first=True)
    credits.write_book(conn, book)
    session.refresh(account)
    return account


def _book(conn: Connection, account_id: str, terms: catalog.Catalog) -> Book:
    return credits.read(conn, [account_id], credits.Wanted(), terms, lock=True)[account_id]


def email_claim(email: str) -> str:
    """The claim of a person on the sign-up credits: a hash, so that it outlives the account without naming anyone."""
    return _claim("email", email.strip().lower())


def _claim(kind: str, value: str) -> str:
    return f"{kind}:{hashlib.sha256(value.encode()).hexdigest()}"


def grant_sign_up(session: Session, account_id: str, claims: list[str]) -> bool:
    """The sign-up credits, unless one of the claims had them before; in the session's transaction."""
    terms = catalog.current()
    if _stake(session, account_id, claims) < len(claims) or not terms.signup_credits:
        return False
    conn = session.connection()
    book = _book(conn, account_id, terms)
    book.issue(
        Kind.GRANTED,
        terms.signup_credits,
        Reason.SIGNUP,
        ("account", account_id),
        source_key=f"signup:{account_id}",
    )
    credits.write_book(conn, book)
    return True


def _stake(session: Session, account_id: str, claims: list[str]) -> int:
    """Keep the claims for the account; how many were nobody's before."""
    session.flush()
    conn = session.connection()
    insert = sqlite.insert if conn.dialect.name == "sqlite" else postgresql.insert
    now = clock.now()
    fresh = 0
    for claim in sorted(claims):
        statement = insert(SignupClaim).values(key=claim, account_id=account_id, created_at=now)
        fresh += len(conn.execute(statement.on_conflict_do_nothing().returning(SignupClaim.key)).all())
    return fresh


@database.retrying
def grant_verified(user_id: str) -> bool:
    """The sign-up credits of a user whose e-mail is verified now, on the first account they opened and own.

    An account they were invited into gets none, so that owners can not collect them by inviting.
    """
    invited = select(Invitation.account_id).where(Invitation.accepted_by == user_id)
    with database.transaction() as session:
        user = session.get_one(User, user_id)
        owned = session.scalars(
            select(Membership)
            .where(Membership.user_id == user_id, Membership.role == Role.OWNER)
            .where(Membership.account_id.not_in(invited))
            .order_by(Membership.created_at, Membership.account_id)
        ).first()
        if owned is None or user.email_verified_at is None:
            return False
        return grant_sign_up(session, owned.account_id, [email_claim(user.email)])


# Finding


def _by_external_id(external_id: str) -> Account | None:
    return db.session.scalars(select(Account).where(Account.external_id == external_id)).first()


def resolve(ref: str) -> str:
    """The id of the account that `ref` (its id or external id) names. Raises AccountNotFound.

    Neither id ever changes, so each process remembers what it has found; it never remembers an absence.
    """
    known = database.memory("accounts")
    if ref not in known:
        found = db.session.get(Account, ref) if ref.startswith("acc_") else _by_external_id(ref)
        if found is None:
            raise AccountNotFound()
        known[ref] = found.id
    account_id: str = known[ref]
    return account_id


def account_for(own_account: str | None, ref: str | None) -> str:
    """The account a request is about: a token's own, or (own None: a service token) the one that `ref` names.

    Raises Forbidden when an account token names another account, existing or not; ValidationError when a service
    token names none; AccountNotFound.
    """
    if own_account is None:
        if ref is None:
            raise ValidationError({"account": ["A service token must name the account."]})
        return resolve(ref)
    if ref is None or ref == own_account:
        return own_account
    try:
        if resolve(ref) == own_account:
            return own_account
    except AccountNotFound:
        pass
    raise Forbidden("The token belongs to another account.")


def locate(caller: Caller, ref: str | None) -> str:
    """`account_for` of an authenticated caller."""
    return account_for(caller.account_id, ref)


def get(account_id: str) -> Account:
    """Raises AccountNotFound."""
    account = db.session.get(Account, account_id)
    if account is None:
        raise AccountNotFound()
    return account


def membership(user_id: str, account_id: str | None) -> Membership | None:
    """The user's place in the account, else in the first one they joined; None for a person without any."""
    mine = db.session.scalars(
        select(Membership).where(Membership.user_id == user_id).order_by(Membership.created_at, Membership.account_id)
    ).all()
    found = next((one for one in mine if one.account_id == account_id), mine[0] if mine else None)
    if found is not None:
        db.session.expunge(found)  # what the request was let in by stays readable when they are removed meanwhile
    return found


def listing(limit: int, before: tuple[datetime, str] | None = None, search: str | None = None) -> list[Account]:
    """Accounts, newest first, older than the (created_at, id) `before`."""
    query = select(Account).order_by(Account.created_at.desc(), Account.id.desc()).limit(limit)
    if before is not None:
        moment, account_id = before
        query = query.where(
            or_(Account.created_at < moment, (Account.created_at == moment) & (Account.id < account_id))
        )
    if search:
        pattern = f"%{search.replace('%', '').replace('_', '')}%"
        query = query.where(
            or_(Account.name.ilike(pattern), Account.external_id.ilike(pattern), Account.email.ilike(pattern))
        )
    return list(db.session.scalars(query))


@database.retrying
def change(account_id: str, values: Mapping[str, Any]) -> Account:
    """Set `name` and `email`. Raises AccountNotFound."""
    with database.transaction() as session:
        account = session.get(Account, account_id)
        if account is None:
            raise AccountNotFound()
        if "name" in values:
            account.name = values["name"]
        if "email" in values:
            account.email = _kept_email(values["email"])
        return account


# Plans and states


@database.retrying
def set_plan(
    account_id: str,
    *,
    tier: str,
    included: int | None = None,
    rates: str | None = None,
    ends_at: datetime | None = None,
) -> dict[str, Any]:
    """Put the account on a local plan at once, with its allowance; the balance afterwards.

    `included` (micro-credits per month) and `rates` (JSON) are custom terms; without them the catalog's plan counts.
    Raises ValidationError for an unknown tier, AccountClosed, AccountNotFound.
    """
    plan = catalog.current().plan(tier)
    if plan is None and tier not in LOCAL_TIERS and included is None:
        raise ValidationError({"tier": ["No such plan in the catalog; a custom one needs included_credits."]})
    if tier == plans.FREE_TIER and included is not None:
        raise ValidationError({"included_credits": ["The free plan's allowance is the catalog's."]})
    if included is None:
        included = plan.included_credits if plan is not None else 0
    with credits.locked([account_id]) as books:
        book = books[account_id]
        if book.account.is_closed:
            raise AccountClosed()
        if ends_at is not None and ends_at <= book.now:
            raise ValidationError({"ends_at": ["Must be in the future."]})
        plans.start_plan(
            books.conn,
            book,
            tier,
            included=included,
            rollover_max=plan.rollover_max if plan is not None else None,
            ends_at=ends_at,
            rates=rates,
        )
    return balances.balance(account_id)


def suspend(account_id: str, reason: str) -> Account:
    """Refuse usage and holds until restored. Raises AccountClosed."""
    return _set_status(account_id, AccountStatus.SUSPENDED, reason)


def restore(account_id: str, reason: str) -> Account:
    """Back to active. Raises AccountClosed."""
    return _set_status(account_id, AccountStatus.ACTIVE, reason)


@database.retrying
def close(account_id: str, reason: str, *, by: str | None = None) -> Account:
    """End the account for good. Harmless when closed already.

    Its tokens are revoked, open holds come free and invitations end; its ledger stays. `by` is the person who asks,
    who must be an owner. Raises Forbidden, AccountNotFound.
    """
    with credits.locked([account_id]) as books:
        book, conn = books[account_id], books.conn
        if by is not None:
            _require_owner(conn, account_id, by)
        for hold in book.holds.values():
            if hold.state == HoldState.OPEN:
                hold.state, hold.closed_at = HoldState.RELEASED.value, book.now
                book.changed_holds[hold.id] = hold
        if not book.account.is_closed:
            closed = update(Account).where(Account.id == account_id)
            conn.execute(closed.values(status=AccountStatus.CLOSED.value, status_reason=reason))
            bills.close(conn, book)
        revoked = update(Token).where(Token.account_id == account_id, Token.revoked_at.is_(None))
        conn.execute(revoked.values(revoked_at=book.now))
        unanswered = update(Invitation).where(Invitation.account_id == account_id, text(OPEN))
        conn.execute(unanswered.values(withdrawn_at=book.now))
    return get(account_id)


def _require_owner(conn: Connection, account_id: str, user_id: str) -> None:
    place = (Membership.account_id == account_id, Membership.user_id == user_id, Membership.role == Role.OWNER)
    if conn.execute(select(Membership.role).where(*place)).first() is None:
        raise Forbidden("Only an owner can close the account.")


@database.retrying
def _set_status(account_id: str, status: AccountStatus, reason: str) -> Account:
    with database.transaction() as session:
        account = session.get(Account, account_id, with_for_update=True)
        if account is None:
            raise AccountNotFound()
        if account.is_closed:
            raise AccountClosed()
        account.status = status.value
        account.status_reason = reason
        return account
