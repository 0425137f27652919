"""Signing up, logging in and out, passwords, verified e-mail, the set-up link, and a person's settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_login import current_user, logout_user
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response

import settings as app_settings
from blueprints.auth import forms, guard
from errors import Forbidden, NotFound, ValidationError
from services import accounts, people

blueprint = Blueprint("auth_pages", __name__)

Page = str | tuple[str, int] | Response
_LOCAL = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*", re.ASCII)


def local_path(value: str | None) -> str | None:
    """The value when it is a path of this site: nothing a browser could take for another host."""
    return value if value is not None and _LOCAL.fullmatch(value) else None


def _address() -> str:
    return request.remote_addr or ""


def _page(template: str, form: FlaskForm, **values: Any) -> Page:
    page = render_template(f"auth/{template}.html", form=form, **values)
    return (page, 422) if form.errors else page


def _tried(form: FlaskForm, work: Callable[[], Any]) -> Any:
    """What the work returns; None with the complaints on the form when the form or the work finds some."""
    if not form.validate_on_submit():
        return None
    try:
        return work()
    except ValidationError as error:
        forms.show(form, error)
        return None


def _account_name(form: forms.SignupForm) -> str:
    """Without a name the account is called after the person."""
    return form.account.data or form.email.data.strip().partition("@")[0]


@blueprint.route("/signup", methods=["GET", "POST"])
@guard.public
def signup() -> Page:
    if current_user.is_authenticated:
        return redirect(url_for("usage_pages.index"))
    form = forms.SignupForm()
    user = _tried(form, lambda: people.sign_up(form.email.data, form.password.data, _account_name(form), _address()))
    if user is None:
        return _page("signup", form)
    guard.start_session(user)
    if app_settings.current().signup_grant == "verified":
        flash("Welcome. Your free credits come as soon as you open the link we sent to your e-mail address.")
    else:
        flash("Welcome. Your account is ready.", "success")
    return redirect(local_path(request.args.get("next")) or url_for("usage_pages.index"))


@blueprint.route("/login", methods=["GET", "POST"])
@guard.public
def login() -> Page:
    following = local_path(request.args.get("next")) or url_for("usage_pages.index")
    if current_user.is_authenticated:
        return redirect(following)
    form = forms.LoginForm()
    if form.validate_on_submit():
        user = people.log_in(form.email.data, form.password.data, _address())
        if user is not None:
            guard.start_session(user)
            return redirect(following)
        form.password.errors = ["E-mail and password do not match."]
    return _page("login", form)


@blueprint.post("/logout")
@guard.public
def logout() -> Page:
    logout_user()
    flash("You are logged out.")
    return redirect(url_for("auth_pages.login"))


@blueprint.route("/password/forgot", methods=["GET", "POST"])
@guard.public
def forgot() -> Page:
    form = forms.ForgotForm()
    if not form.validate_on_submit():
        return _page("forgot", form)
    people.request_reset(form.email.data)
    flash("If somebody has that address here, a link to set a new password is on its way to it.")
    return redirect(url_for("auth_pages.login"))


@blueprint.route("/password/reset/<token>", methods=["GET", "POST"])
@guard.public
def reset(token: str) -> Page:
    owner = people.user_of_reset(token)
    if owner is None:
        raise NotFound("This link was used or has expired. Ask for a new one at “Forgot the password?”.")
    form = forms.ResetForm()
    user = _tried(form, lambda: people.reset(token, form.password.data))
    if user is None:
        return _page("reset", form, email=owner.email)
    guard.start_session(user)
    flash("Your new password is set. Sessions elsewhere have ended.", "success")
    return redirect(url_for("usage_pages.index"))


@blueprint.get("/verify/<token>")
@guard.public
def verify(token: str) -> Page:
    _, credited = people.verify_email(token)
    flash("Your e-mail address is confirmed." + (" Your free credits are here." if credited else ""), "success")
    return redirect(url_for("usage_pages.index"))


@blueprint.post("/verify/resend")
@guard.login_required
def resend() -> Page:
    people.send_verification(current_user)
    flash("The link is on its way.")
    return redirect(url_for("auth_pages.settings"))


@blueprint.route("/setup/<secret>", methods=["GET", "POST"])
@guard.public
def setup(secret: str) -> Page:
    people.check_setup(secret)
    form = forms.SignupForm()
    user = _tried(form, lambda: people.set_up(secret, form.email.data, form.password.data, _account_name(form)))
    if user is None:
        return _page("setup", form)
    guard.start_session(user)
    flash("Spillway is yours. Make a token, then send your first usage.", "success")
    return redirect(url_for("usage_pages.index"))


@blueprint.route("/settings", methods=["GET", "POST"])
@guard.login_required
def settings() -> Page:
    form = forms.PasswordForm()
    user = _tried(form, lambda: people.change_password(current_user, form.current.data, form.new.data))
    if user is not None:
        guard.start_session(user)
        flash("Your new password is set. Sessions elsewhere have ended.", "success")
        return redirect(url_for("auth_pages.settings"))
    return _page("settings", form, **_settings_page())


def _settings_page(account_form: forms.AccountForm | None = None) -> dict[str, Any]:
    account = guard.account_or_none()
    role = guard.current_membership().role if account is not None else None
    manages = account is not None and guard.current_membership().manages
    if account_form is None and account is not None:
        account_form = forms.AccountForm(formdata=None, name=account.name)
    return {"account": account, "role": role, "manages": manages, "account_form": account_form}


@blueprint.post("/settings/account")
@guard.member_required
def rename() -> Page:
    if not guard.current_membership().manages:
        raise Forbidden("Only the account's owners and admins can rename it.")
    form = forms.AccountForm()
    if not form.validate_on_submit():
        values = _settings_page(form)
        return render_template("auth/settings.html", form=forms.PasswordForm(formdata=None), **values), 422
    accounts.change(guard.current_account().id, {"name": form.name.data})
    flash("The account has its new name.", "success")
    return redirect(url_for("auth_pages.settings"))
