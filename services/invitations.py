"""Invitations by e-mail: a link that works once, for the address it was sent to.

Nothing that is answered to whoever invites depends on whether the invited address is somebody's here; the one
exception are people they can see anyway, the account's own.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select, text
from sqlalchemy.orm import Session

import clock
import database
import ids
import settings
from errors import AccountClosed, Forbidden, NotFound, ValidationError
from extensions import db
from models.account import Account, Membership, Role
from models.invitation import OPEN, Invitation
from models.user import User
from services import accounts, mailer, members, passwords, people, throttle
from services.throttle import Limit

LIFETIME = timedelta(days=7)

_ACCOUNT = Limit("invite-account", 50, 86400)
_AGAIN = Limit("invite-again", 5, 3600)
_ADDRESS = Limit("invite-address", 20, 86400)
"""Of all accounts together: nobody's mailbox is filled through us."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a link is good for. `is_known`: the address is somebody's who has a password here."""

    account_id: str
    account_name: str
    email: str
    role: str
    invited_by: str
    is_known: bool


# Sending


def invite(account_id: str, actor_id: str, email: str, role: Role) -> None:
    """Mail the address a link to join with the role.

    Raises ValidationError, also for a member and for an address with an open invitation; Forbidden, AccountClosed,
    RateLimited.
    """
    email = people.normalized(email)
    _count(account_id, email)
    _invite(account_id, actor_id, email, role, secrets.token_urlsafe(32))
    mailer.deliver_now()


def _count(account_id: str, email: str) -> None:
    throttle.attempt(_ACCOUNT, account_id)
    throttle.attempt(_AGAIN, account_id, email)
    throttle.attempt(_ADDRESS, email)


@database.retrying
def _invite(account_id: str, actor_id: str, email: str, role: Role, secret: str) -> None:
    with database.transaction() as session:
        members.acting(session, account_id, actor_id, role)
        _check_can_join(session, account_id, email)
        now = clock.now()
        invitation = Invitation(
            id=ids.short("inv"),
            account_id=account_id,
            email=email,
            role=role.value,
            secret_hash=_digest(secret),
            invited_by=actor_id,
            sent_at=now,
            expires_at=now + LIFETIME,
            created_at=now,
        )
        session.add(invitation)
        _queue(session, invitation, secret)


def _check_can_join(session: Session, account_id: str, email: str) -> None:
    if session.get_one(Account, account_id).is_closed:
        raise AccountClosed()
    here = select(Membership).join(User, User.id == Membership.user_id)
    if session.scalars(here.where(Membership.account_id == account_id, User.email == email)).first() is not None:
        raise ValidationError({"email": [f"{email} is a member already."]})
    waiting = select(Invitation).where(Invitation.account_id == account_id, Invitation.email == email, text(OPEN))
    if session.scalars(waiting).first() is not None:
        raise ValidationError({"email": [f"{email} is invited already. Send the invitation again, or withdraw it."]})


def send_again(account_id: str, actor_id: str, invitation_id: str) -> None:
    """Mail a new link; the one before stops working. Raises NotFound, Forbidden, AccountClosed, RateLimited."""
    invitation = db.session.get(Invitation, invitation_id)
    if invitation is None or invitation.account_id != account_id:
        raise _no_such()
    _count(account_id, invitation.email)
    _send_again(account_id, actor_id, invitation_id, secrets.token_urlsafe(32))
    mailer.deliver_now()


@database.retrying
def _send_again(account_id: str, actor_id: str, invitation_id: str, secret: str) -> None:
    with database.transaction() as session:
        invitation = _open(session, account_id, actor_id, invitation_id)
        if session.get_one(Account, account_id).is_closed:
            raise AccountClosed()
        invitation.secret_hash, invitation.invited_by = _digest(secret), actor_id
        invitation.sent_at = clock.now()
        invitation.expires_at = invitation.sent_at + LIFETIME
        _queue(session, invitation, secret)


@database.retrying
def withdraw(account_id: str, actor_id: str, invitation_id: str) -> None:
    """The link stops working at once. Raises NotFound, Forbidden."""
    with database.transaction() as session:
        _open(session, account_id, actor_id, invitation_id).withdrawn_at = clock.now()


def _open(session: Session, account_id: str, actor_id: str, invitation_id: str) -> Invitation:
    """The account's open invitation, under the account's lock, for somebody who could send it themselves."""
    members.acting(session, account_id, actor_id)
    invitation = session.get(Invitation, invitation_id)
    if invitation is None or invitation.account_id != account_id or not invitation.is_open:
        raise _no_such()
    members.acting(session, account_id, actor_id, invitation.role)
    return invitation


def _no_such() -> NotFound:
    return NotFound("No such invitation. It may have been accepted or withdrawn meanwhile.")


def waiting(account_id: str) -> list[Invitation]:
    """The account's open invitations, newest first; the link of some may have expired."""
    mine = select(Invitation).where(Invitation.account_id == account_id, text(OPEN))
    return list(db.session.scalars(mine.order_by(Invitation.sent_at.desc(), Invitation.id)))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _queue(session: Session, invitation: Invitation, secret: str) -> None:
    account, sender = session.get_one(Account, invitation.account_id), session.get_one(User, invitation.invited_by)
    name = " ".join(account.name.split())  # one line: it goes into the mail's head
    role = _WITH_ARTICLE[Role(invitation.role)]
    mailer.queue(
        session,
        to=invitation.email,
        kind="invitation",
        subject=f"Join {name}",
        text=f"{sender.email} invites you to join the account “{name}” on Spillway as {role}.\n"
        "To join, open this link within seven days. It works once.\n\n"
        f"{settings.current().public_url}/invitations/{secret}\n\n"
        "If you do not know what this is about, delete this mail: nothing happens without you.\n",
    )


_WITH_ARTICLE = {Role.OWNER: "an owner", Role.ADMIN: "an admin", Role.MEMBER: "a member"}


# Joining


def opened(secret: str) -> Offer:
    """What the link is good for. Raises NotFound, one answer for every link that is not good now."""
    found = db.session.execute(
        select(Invitation, Account, User.email)
        .join(Account, Account.id == Invitation.account_id)
        .join(User, User.id == Invitation.invited_by)
        .where(Invitation.secret_hash == _digest(secret))
    ).first()
    if found is None:
        raise _not_good()
    invitation, account, sender = found
    if not invitation.works(clock.now()) or account.is_closed:
        raise _not_good()
    known = db.session.scalars(select(User.id).where(User.email == invitation.email)).first() is not None
    return Offer(account.id, account.name, invitation.email, invitation.role, sender, known)


def _not_good() -> NotFound:
    return NotFound("This invitation was used or withdrawn, or has expired. Ask for a new one.")


def accept(secret: str, user: User) -> str:
    """Join as somebody who is here already; the account's id. The link also proves their address.

    Raises NotFound, Forbidden for an invitation to another address.
    """
    account_id = _accept(secret, user.id)
    accounts.grant_verified(user.id)
    return account_id


@database.retrying
def _accept(secret: str, user_id: str) -> str:
    with database.transaction() as session:
        invitation = _good(session, secret)
        person = session.get_one(User, user_id)
        if person.email != invitation.email:
            raise Forbidden("This invitation is for another address.")
        person.email_verified_at = person.email_verified_at or clock.now()
        _join(session, invitation, person)
        return invitation.account_id


def accept_new(secret: str, password: str) -> tuple[User, str]:
    """Join as a new person with this password and no other account; the person and the account's id.

    Raises NotFound, ValidationError.
    """
    people.check_password(password, opened(secret).email)
    try:
        return _accept_new(secret, passwords.hashed(password))
    except database.Duplicate:
        raise _has_password() from None


def _has_password() -> ValidationError:
    return ValidationError({"password": ["Somebody signed up with this address meanwhile: enter that password."]})


@database.retrying
def _accept_new(secret: str, password_hash: str) -> tuple[User, str]:
    with database.transaction() as session:
        invitation = _good(session, secret)
        if session.scalars(select(User.id).where(User.email == invitation.email)).first() is not None:
            raise _has_password()
        person = people.invited(session, invitation.email, password_hash)
        _join(session, invitation, person)
        return person, invitation.account_id


def _good(session: Session, secret: str) -> Invitation:
    """The invitation under its account's lock: of two who open the link at once, one gets it."""
    mine = select(Invitation).where(Invitation.secret_hash == _digest(secret))
    found = session.scalars(mine).first()
    if found is None:
        raise _not_good()
    account = session.get_one(Account, found.account_id, with_for_update=True)
    invitation = session.scalars(mine, execution_options={"populate_existing": True}).first()
    if invitation is None or not invitation.works(clock.now()) or account.is_closed:
        raise _not_good()
    return invitation


def _join(session: Session, invitation: Invitation, person: User) -> None:
    """A member, who came in another way meanwhile, keeps the role they have."""
    now = clock.now()
    invitation.accepted_at, invitation.accepted_by = now, person.id
    if session.get(Membership, (person.id, invitation.account_id)) is None:
        place = Membership(user_id=person.id, account_id=invitation.account_id, role=invitation.role, created_at=now)
        session.add(place)
