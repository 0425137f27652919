"""A person's accounts: which one the pages are about, opening one more, closing one."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from blueprints.auth import forms, guard
from blueprints.auth.pages import local_path
from errors import Forbidden, NotFound
from services import accounts, members
from services.stripe import subscriptions

blueprint = Blueprint("account_pages", __name__)

Page = str | tuple[str, int] | Response


@blueprint.post("/accounts/switch")
@guard.login_required
def switch() -> Page:
    wanted = request.form.get("account", "")
    place = next((place for place in members.places(current_user.id) if place.account_id == wanted), None)
    if place is None:
        raise NotFound("You belong to no such account.")
    guard.choose_account(place.account_id)
    flash(f"You now look at {place.name}.")
    return redirect(local_path(request.form.get("next")) or url_for("usage_pages.index"))


@blueprint.route("/accounts/new", methods=["GET", "POST"])
@guard.login_required
def new() -> Page:
    form = forms.AccountForm()
    if not form.validate_on_submit():
        page = render_template("auth/new_account.html", form=form)
        return (page, 422) if form.errors else page
    account = accounts.open_account(current_user, form.name.data)
    guard.choose_account(account.id)
    flash("Your new account is ready.", "success")
    return redirect(url_for("usage_pages.index"))


@blueprint.route("/settings/close", methods=["GET", "POST"])
@guard.member_required
def close() -> Page:
    if not guard.current_membership().is_owner:
        raise Forbidden("Only an owner can close the account.")
    account = guard.current_account()
    form = forms.CloseForm()
    if form.validate_on_submit():
        if request.form.get("account", account.id) != account.id:
            flash("You have switched to another account meanwhile, so nothing was done.", "error")
            return redirect(url_for("auth_pages.settings"))
        if " ".join(form.name.data.split()) == " ".join(account.name.split()):
            accounts.close(account.id, f"Closed by its owner {current_user.email}.", by=current_user.id)
            subscriptions.cancel_all(account.id)
            flash("The account is closed. Its pages stay readable.", "success")
            return redirect(url_for("auth_pages.settings"))
        form.name.errors = ["That is not the account's name."]
    page = render_template("auth/close.html", form=form, account=account)
    return (page, 422) if form.errors else page
