"""Who may see a page. Every page says so with one of these decorators; `check` stops a start without."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast
from urllib.parse import quote

from flask import Flask, current_app, flash, g, redirect, request, session, url_for
from flask_login import current_user, login_user
from werkzeug.wrappers import Response

from errors import Forbidden
from extensions import login_manager
from models.account import Account, Membership
from models.user import User
from services import accounts, people

View = TypeVar("View", bound=Callable[..., Any])
_ACCOUNT = "account"


def public(view: View) -> View:
    """Anybody may see it."""
    view.access = "public"  # type: ignore[attr-defined]
    return view


def login_required(view: View) -> View:
    """Anybody who is logged in."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not current_user.is_authenticated:
            return _to_login()
        return view(*args, **kwargs)

    guarded.access = "login"  # type: ignore[attr-defined]
    return cast(View, guarded)


def member_required(view: View) -> View:
    """Whoever belongs to an account; the page is about `current_account()`."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not current_user.is_authenticated:
            return _to_login()
        current_membership()
        return view(*args, **kwargs)

    guarded.access = "member"  # type: ignore[attr-defined]
    return cast(View, guarded)


def manager_required(view: View) -> View:
    """Owners and admins of the account; the page is about `current_account()`."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not current_user.is_authenticated:
            return _to_login()
        if not current_membership().manages:
            raise Forbidden("Only the account's owners and admins can do that.")
        return view(*args, **kwargs)

    guarded.access = "manager"  # type: ignore[attr-defined]
    return cast(View, guarded)


def operator_required(view: View) -> View:
    """Operators only."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not current_user.is_authenticated:
            return _to_login()
        if not current_user.is_operator:
            raise Forbidden("This page is for operators.")
        return view(*args, **kwargs)

    guarded.access = "operator"  # type: ignore[attr-defined]
    return cast(View, guarded)


def _to_login() -> Response:
    if request.method != "GET":
        return redirect(url_for("auth_pages.login"))
    flash("Log in to see this page.")
    wanted = request.full_path if request.query_string else request.path
    return redirect(f"{url_for('auth_pages.login')}?next={quote(wanted, safe='/')}")


def start_session(user: User) -> None:
    """Log the user in with a session that holds nothing from before, but the account they look at."""
    mine = current_user.is_authenticated and current_user.id == user.id
    chosen = session.get(_ACCOUNT) if mine else None
    session.clear()
    session.permanent = True
    login_user(user)
    if chosen is not None:
        session[_ACCOUNT] = chosen


def choose_account(account_id: str) -> None:
    """From now on the session's pages are about this account, as long as the user belongs to it."""
    session[_ACCOUNT] = account_id
    g.pop("membership", None)
    g.pop("account", None)


# The account a page is about


def account_or_none() -> Account | None:
    """The account that the user looks at now; None for nobody and for a person without one."""
    membership = _membership()
    if membership is None:
        return None
    if "account" not in g:
        g.account = accounts.get(membership.account_id)
    return cast(Account, g.account)


def current_account() -> Account:
    """Raises Forbidden for a person without an account."""
    current_membership()
    account = account_or_none()
    assert account is not None
    return account


def current_membership() -> Membership:
    """Raises Forbidden for a person without an account."""
    membership = _membership()
    if membership is None:
        raise Forbidden("You belong to no account now. Ask for an invitation, or open an account of your own.")
    return membership


def _membership() -> Membership | None:
    """Read for each request, so that a removed person loses access at once."""
    if not current_user.is_authenticated:
        return None
    if "membership" not in g:
        g.membership = accounts.membership(current_user.id, session.get(_ACCOUNT))
    return cast("Membership | None", g.membership)


# Start


def _load(remembered: str) -> User | None:
    user_id, _, version = remembered.partition(".")
    return people.get(user_id, int(version)) if version.isdecimal() else None


def register(app: Flask) -> None:
    """Let Flask-Login find the user of a session."""
    login_manager.user_loader(_load)


def check(app: Flask) -> None:
    """Raise RuntimeError when a route is neither an API operation (which carries its scope) nor a guarded page."""
    with app.app_context():
        for endpoint, view in current_app.view_functions.items():
            if endpoint.endswith("static") or hasattr(view, "operation") or hasattr(view, "access"):
                continue
            raise RuntimeError(f"the route {endpoint} does not say who may use it")
