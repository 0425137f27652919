"""The people of an account: who they are, what each may do, and how their access ends.

A member sees usage and has tokens of their own; an admin also manages people; only an owner gives or takes the
owner's role. Every change is decided under the account's row lock, so that two at once leave an owner behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

import clock
import database
from errors import AccountNotFound, Forbidden, LastOwner, NotFound
from extensions import db
from models.account import Account, Membership, Role
from models.invitation import OPEN, Invitation
from models.token import MEMBER_SCOPES, Token
from models.user import User
from services import tokens


@dataclass(frozen=True, slots=True)
class Member:
    """`tokens` counts the tokens they made in the account that still work."""

    user_id: str
    email: str
    role: Role
    since: datetime
    tokens: int


@dataclass(frozen=True, slots=True)
class Place:
    """One of the accounts that a person belongs to."""

    account_id: str
    name: str
    is_closed: bool
    role: Role


# Reading


def listing(account_id: str) -> list[Member]:
    """The account's people, longest there first."""
    good = (Token.revoked_at.is_(None), or_(Token.expires_at.is_(None), Token.expires_at > clock.now()))
    made = (
        select(Token.user_id, func.count().label("number"))
        .where(Token.account_id == account_id, *good)
        .group_by(Token.user_id)
        .subquery()
    )
    rows = db.session.execute(
        select(Membership, User.email, made.c.number)
        .join(User, User.id == Membership.user_id)
        .outerjoin(made, made.c.user_id == Membership.user_id)
        .where(Membership.account_id == account_id)
        .order_by(Membership.created_at, User.email)
    )
    return [Member(one.user_id, email, Role(one.role), one.created_at, number or 0) for one, email, number in rows]


def places(user_id: str) -> list[Place]:
    """The accounts that the person belongs to, by name."""
    rows = db.session.execute(
        select(Account, Membership.role)
        .join(Membership, Membership.account_id == Account.id)
        .where(Membership.user_id == user_id)
        .order_by(func.lower(Account.name), Account.id)
    )
    return [Place(account.id, account.name, account.is_closed, Role(role)) for account, role in rows]


# What each may do


def may_set(actor: Role | str, *roles: Role | str) -> bool:
    """Whether the actor's role is enough to give and take all of these roles."""
    return actor == Role.OWNER or (actor == Role.ADMIN and Role.OWNER not in roles)


def acting(session: Session, account_id: str, actor_id: str, *roles: Role | str) -> Membership:
    """Lock the account; the person who acts, as they are under the lock.

    Raises Forbidden unless they manage the account and may give and take `roles`; AccountNotFound.
    """
    if session.get(Account, account_id, with_for_update=True) is None:
        raise AccountNotFound()
    actor = session.get(Membership, (actor_id, account_id))
    if actor is None or not actor.manages:
        raise Forbidden("Only the account's owners and admins can do that.")
    _check_may_set(actor, *roles)
    return actor


def _check_may_set(actor: Membership, *roles: Role | str) -> None:
    if not may_set(actor.role, *roles):
        raise Forbidden("Only an owner can give or take the owner's role.")


def _member(session: Session, account_id: str, user_id: str) -> Membership:
    member = session.get(Membership, (user_id, account_id))
    if member is None:
        raise NotFound("No such member.")
    return member


# Changes


@database.retrying
def change_role(account_id: str, actor_id: str, user_id: str, role: Role) -> None:
    """Give the member another role; what the old one allowed ends with it: wider tokens, invitations they sent.

    Raises Forbidden, NotFound, LastOwner.
    """
    with database.transaction() as session:
        actor = acting(session, account_id, actor_id, role)
        member = _member(session, account_id, user_id)
        _check_may_set(actor, member.role)
        if role != Role.OWNER:
            _give_up_ownership(session, member)
        member.role = role.value
        if not member.manages:
            tokens.revoke_made_by(session, account_id, user_id, keep=MEMBER_SCOPES)
        _withdraw_sent(session, member)


@database.retrying
def remove(account_id: str, actor_id: str, user_id: str) -> None:
    """End the member's access at once. Raises Forbidden, NotFound, LastOwner."""
    with database.transaction() as session:
        actor = acting(session, account_id, actor_id)
        member = _member(session, account_id, user_id)
        _check_may_set(actor, member.role)
        _end(session, member)


@database.retrying
def leave(account_id: str, user_id: str) -> None:
    """Give up one's own access. Raises NotFound, LastOwner."""
    with database.transaction() as session:
        session.get(Account, account_id, with_for_update=True)
        _end(session, _member(session, account_id, user_id))


def _end(session: Session, member: Membership) -> None:
    """Whoever made a token has seen its secret, so their tokens end with their access."""
    _give_up_ownership(session, member)
    tokens.revoke_made_by(session, member.account_id, member.user_id)
    member.role = Role.MEMBER.value
    _withdraw_sent(session, member)
    session.delete(member)


def _give_up_ownership(session: Session, member: Membership) -> None:
    """Raises LastOwner. The account's e-mail stays an owner's."""
    if not member.is_owner:
        return
    others = (
        select(User.email)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.account_id == member.account_id, Membership.role == Role.OWNER)
        .where(Membership.user_id != member.user_id)
        .order_by(Membership.created_at, User.id)
    )
    heir = session.scalars(others).first()
    if heir is None:
        raise LastOwner("This is the account's last owner. Make somebody else an owner first.")
    account, person = session.get_one(Account, member.account_id), session.get_one(User, member.user_id)
    if account.email == person.email:
        account.email = heir


def _withdraw_sent(session: Session, member: Membership) -> None:
    """End the invitations that the member has sent and, with the role they have now, could not send."""
    sent = update(Invitation).where(
        Invitation.account_id == member.account_id, Invitation.invited_by == member.user_id, text(OPEN)
    )
    if member.manages:
        sent = sent.where(Invitation.role.not_in([role.value for role in Role if may_set(member.role, role)]))
    session.execute(sent.values(withdrawn_at=clock.now()))
