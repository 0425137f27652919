"""People: how they come in, prove who they are, and become operators.

Links are signed with SECRET_KEY. A password link carries the user's session version, which every new password
raises: so it works once, and a new password ends all sessions.
"""

from __future__ import annotations

import hashlib
import secrets

import email_validator
from flask import current_app
from itsdangerous import BadData, URLSafeTimedSerializer
from sqlalchemy import Update, func, select, update
from sqlalchemy.orm import Session

import clock
import database
import ids
import settings
from errors import NotFound, ValidationError
from extensions import db
from models.user import SetupLink, User
from services import accounts, catalog, mailer, passwords, throttle
from services.throttle import Limit

# A team may well host its mail under .local or .test; whether mail arrives is what the verification mail finds out.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

SHORTEST_PASSWORD, LONGEST_PASSWORD = 8, 200
RESET_SECONDS = 3600
VERIFY_SECONDS = 7 * 86400

_LOGIN = Limit("login", 10, 900)
_LOGIN_EMAIL = Limit("login-email", 100, 900)
_LOGIN_ADDRESS = Limit("login-address", 300, 900)
_SIGNUP_ADDRESS = Limit("signup-address", 300, 3600)
_RESET_EMAIL = Limit("reset-email", 5, 3600)
_VERIFY = Limit("verify", 5, 3600)


def get(user_id: str, session_version: int) -> User | None:
    """The user of a session, unless the session was ended."""
    user = db.session.get(User, user_id)
    return user if user is not None and user.session_version == session_version else None


# Coming in


def sign_up(email: str, password: str, account_name: str, address: str) -> User:
    """A new person with an account of their own, free and without a card. `address` is where the request came from.

    Raises ValidationError, also when the e-mail is taken; RateLimited.
    """
    email = normalized(email)
    check_password(password, email)
    throttle.attempt(_SIGNUP_ADDRESS, address)
    password_hash = passwords.hashed(password)
    catalog.current()  # before the transaction: on the very first use it writes one of its own
    user = _sign_up(email, password_hash, account_name)
    mailer.deliver_now()
    return user


@database.retrying
def _sign_up(email: str, password_hash: str, account_name: str) -> User:
    try:
        with database.transaction() as session:
            user = _add(session, email, password_hash)
            accounts.sign_up_account(session, user, account_name)
            if settings.current().mail_url or settings.current().signup_grant == "verified":
                _queue_verification(session, user)
            return user
    except database.Duplicate:
        raise _taken() from None


def _taken() -> ValidationError:
    return ValidationError({"email": ["This address is in use. Log in, or reset the password."]})


def _add(session: Session, email: str, password_hash: str, *, operator: bool = False) -> User:
    user = User(
        id=ids.short("usr"),
        email=email,
        password_hash=password_hash,
        is_operator=operator,
        session_version=1,
        created_at=clock.now(),
    )
    session.add(user)
    session.flush()
    return user


def invited(session: Session, email: str, password_hash: str) -> User:
    """A new person without an account of their own, whose address a link that came by mail has proved.

    In the session's transaction.
    """
    user = _add(session, email, password_hash)
    user.email_verified_at = user.created_at
    return user


def log_in(email: str, password: str, address: str) -> User | None:
    """The user, or None: one answer, after the same work, for a wrong password and an unknown e-mail.

    Raises RateLimited after too many wrong tries.
    """
    email = _as_kept(email)
    for limit, parts in _login_limits(email, address):
        throttle.attempt(limit, *parts)
    user = db.session.scalars(select(User).where(User.email == email)).first()
    if not passwords.matches(user.password_hash if user else None, password) or user is None:
        return None
    for limit, parts in _login_limits(email, address):
        throttle.forgive(limit, *parts)
    outdated = passwords.is_outdated(user.password_hash)
    _note_login(user.id, passwords.hashed(password) if outdated else None)
    return user


def _login_limits(email: str, address: str) -> list[tuple[Limit, tuple[str, ...]]]:
    return [(_LOGIN, (email, address)), (_LOGIN_EMAIL, (email,)), (_LOGIN_ADDRESS, (address,))]


@database.retrying
def _note_login(user_id: str, new_hash: str | None) -> None:
    with database.transaction() as session:
        user = session.get_one(User, user_id)
        user.last_login_at = clock.now()
        user.password_hash = new_hash or user.password_hash


def normalized(email: str) -> str:
    """The e-mail as it is kept: trimmed and lower-cased. Raises ValidationError."""
    try:
        checked = email_validator.validate_email(email.strip(), check_deliverability=False, allow_smtputf8=False)
    except email_validator.EmailNotValidError:
        raise ValidationError({"email": ["Not an e-mail address."]}) from None
    return (checked.ascii_email or checked.normalized).lower()


def _as_kept(email: str) -> str:
    """As `normalized`, for those who only say who they are: what is no address is nobody's."""
    try:
        return normalized(email)
    except ValidationError:
        return email.strip().lower()


def check_password(password: str, email: str, field: str = "password") -> None:
    """Whether a new password will do. Raises ValidationError at `field`."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ValidationError({field: [f"{SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters."]})
    if password.strip().lower() == email:
        raise ValidationError({field: ["Not the e-mail address itself."]})


# Passwords


def change_password(user: User, current: str, new: str) -> User:
    """Set a new password; every other session ends. Raises ValidationError, RateLimited."""
    throttle.attempt(_LOGIN, user.email, "settings")
    if not passwords.matches(user.password_hash, current):
        raise ValidationError({"current": ["That is not your password."]})
    check_password(new, user.email, "new")
    throttle.forgive(_LOGIN, user.email, "settings")
    changed = _set_password(user.id, user.session_version, passwords.hashed(new))
    if changed is None:
        raise ValidationError({"current": ["The password was changed elsewhere. Log in again."]})
    return changed


def request_reset(email: str) -> None:
    """Mail a link to set a new password, when there is such a person; the caller can not tell. Raises RateLimited."""
    email = _as_kept(email)
    throttle.attempt(_RESET_EMAIL, email)
    user = db.session.scalars(select(User).where(User.email == email)).first()
    if user is not None:
        _queue_reset(user)
        mailer.deliver_now()


@database.retrying
def _queue_reset(user: User) -> None:
    with database.transaction() as session:
        mailer.queue(
            session,
            to=user.email,
            kind="password_reset",
            subject="Set a new password",
            text=f"To set a new password, open this link within an hour. It works once.\n\n{_reset_link(user)}\n\n"
            "If you did not ask for it, nothing has changed and you can delete this mail.\n",
        )


def _reset_link(user: User) -> str:
    token = _signer("password-reset").dumps([user.id, user.session_version])
    return f"{settings.current().public_url}/password/reset/{token}"


def user_of_reset(token: str) -> User | None:
    """Whose password the link may set; None when it is wrong, used or older than an hour."""
    try:
        user_id, version = _signer("password-reset").loads(token, max_age=RESET_SECONDS)
    except (BadData, ValueError, TypeError):
        return None
    return get(user_id, version)


def reset(token: str, password: str) -> User:
    """Set the password with a link; all sessions end. Raises ValidationError, NotFound for a link that is no good."""
    user = user_of_reset(token)
    if user is None:
        raise NotFound("This link was used or has expired. Ask for a new one.")
    check_password(password, user.email)
    changed = _set_password(user.id, user.session_version, passwords.hashed(password), proves_email=True)
    if changed is None:
        raise NotFound("This link was used or has expired. Ask for a new one.")
    accounts.grant_verified(changed.id)
    return changed


@database.retrying
def _set_password(user_id: str, version: int, password_hash: str, *, proves_email: bool = False) -> User | None:
    """None when somebody else set one meanwhile. A link that came by mail also proves the address."""
    with database.transaction() as session:
        values = {"password_hash": password_hash, "session_version": version + 1}
        mine = update(User).where(User.id == user_id, User.session_version == version).values(values)
        if not session.execute(mine).rowcount:  # type: ignore[attr-defined]
            return None
        user = session.get_one(User, user_id, populate_existing=True)
        if proves_email and user.email_verified_at is None:
            user.email_verified_at = clock.now()
        return user


# Verified addresses


def send_verification(user: User) -> None:
    """Mail the link again. Raises RateLimited."""
    throttle.attempt(_VERIFY, user.id)
    _send_verification(user)
    mailer.deliver_now()


@database.retrying
def _send_verification(user: User) -> None:
    with database.transaction() as session:
        _queue_verification(session, user)


def _queue_verification(session: Session, user: User) -> None:
    token = _signer("verify-email").dumps([user.id, user.email])
    mailer.queue(
        session,
        to=user.email,
        kind="verify_email",
        subject="Confirm your e-mail address",
        text="Please confirm that this address is yours. The link works for seven days.\n\n"
        f"{settings.current().public_url}/verify/{token}\n",
    )


def verify_email(token: str) -> tuple[User, bool]:
    """The address is proved; the user, and whether sign-up credits came with it.

    Raises NotFound for a wrong or expired link.
    """
    try:
        user_id, email = _signer("verify-email").loads(token, max_age=VERIFY_SECONDS)
    except (BadData, ValueError, TypeError):
        raise NotFound("This link has expired. Ask for a new one in the settings.") from None
    user = _mark_verified(user_id, email)
    return user, accounts.grant_verified(user.id)


@database.retrying
def _mark_verified(user_id: str, email: str) -> User:
    with database.transaction() as session:
        user = session.get(User, user_id)
        if user is None or user.email != email:
            raise NotFound("This link has expired. Ask for a new one in the settings.")
        user.email_verified_at = user.email_verified_at or clock.now()
        return user


def _signer(purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt=f"spillway-{purpose}")


# Operators


@database.retrying
def setup_link() -> str | None:
    """A one-time link that makes the first operator; None once there is one."""
    if _has_operator():
        return None
    secret = secrets.token_urlsafe(32)
    with database.transaction() as session:
        session.add(SetupLink(secret_hash=_digest(secret), created_at=clock.now()))
    return f"{settings.current().public_url}/setup/{secret}"


def _has_operator() -> bool:
    return bool(db.session.scalar(select(func.count()).select_from(User).where(User.is_operator)))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _open_links() -> Update:
    """Ends every open set-up link: the first operator, however made, is the last one that a link could make."""
    return update(SetupLink).where(SetupLink.used_at.is_(None)).values(used_at=clock.now())


def check_setup(secret: str) -> None:
    """Raises NotFound unless the link can still be used: once, and only while there is no operator."""
    link = db.session.get(SetupLink, _digest(secret))
    if link is None or link.used_at is not None or _has_operator():
        raise NotFound("This set-up link was used already, or is not one of ours. Log in instead.")


def set_up(secret: str, email: str, password: str, account_name: str) -> User:
    """The first operator, with an account and its sign-up credits. Raises NotFound, ValidationError."""
    check_setup(secret)
    email = normalized(email)
    check_password(password, email)
    password_hash = passwords.hashed(password)
    catalog.current()
    return _set_up(secret, email, password_hash, account_name)


@database.retrying
def _set_up(secret: str, email: str, password_hash: str, account_name: str) -> User:
    try:
        with database.transaction() as session:
            open_links = _open_links().where(SetupLink.secret_hash == _digest(secret))
            if not session.execute(open_links).rowcount:  # type: ignore[attr-defined]
                raise NotFound("This set-up link was used already.")
            session.execute(_open_links())
            user = _add(session, email, password_hash, operator=True)
            account = accounts.sign_up_account(session, user, account_name)
            accounts.grant_sign_up(session, account.id, [accounts.email_claim(email)])
            return user
    except database.Duplicate:
        raise _taken() from None


def add_operator(email: str) -> tuple[User, str | None]:
    """Make a person an operator; a new one comes with an account and a link to set a password, good for an hour.

    Raises ValidationError.
    """
    email = normalized(email)
    password_hash = passwords.unusable()
    catalog.current()
    try:
        user, is_new = _add_operator(email, password_hash)
    except database.Duplicate:  # they signed up meanwhile
        user, is_new = _add_operator(email, password_hash)
    return user, _reset_link(user) if is_new else None


@database.retrying
def _add_operator(email: str, password_hash: str) -> tuple[User, bool]:
    with database.transaction() as session:
        session.execute(_open_links())
        user = session.scalars(select(User).where(User.email == email)).first()
        if user is not None:
            user.is_operator = True
            return user, False
        user = _add(session, email, password_hash, operator=True)
        accounts.sign_up_account(session, user, email.partition("@")[0])
        return user, True
