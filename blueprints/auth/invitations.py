"""The page that an invitation's link opens. Looking at it uses nothing up: mail scanners open links too."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_login import current_user
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response

from blueprints.auth import forms, guard
from errors import ValidationError
from models.user import User
from services import invitations, people
from services.invitations import Offer

blueprint = Blueprint("invitation_pages", __name__)

Page = str | tuple[str, int] | Response


@blueprint.route("/invitations/<secret>", methods=["GET", "POST"])
@guard.public
def invitation(secret: str) -> Page:
    offer = invitations.opened(secret)
    form = _form(offer)
    if form.validate_on_submit():
        try:
            user = _joined(secret, offer, form)
        except ValidationError as error:
            offer = invitations.opened(secret)  # they may have signed up meanwhile
            form = _form(offer)
            forms.show(form, error)
            user = None
        if user is not None:
            guard.start_session(user)
            guard.choose_account(offer.account_id)
            flash(f"Welcome to {offer.account_name}.", "success")
            return redirect(url_for("usage_pages.index"))
    page = render_template("auth/invitation.html", offer=offer, form=form, here=_is_here(offer))
    return (page, 422) if form.errors else page


def _is_here(offer: Offer) -> bool:
    return bool(current_user.is_authenticated and current_user.email == offer.email)


def _form(offer: Offer) -> FlaskForm:
    if _is_here(offer):
        return forms.EmptyForm()
    return forms.JoinForm() if offer.is_known else forms.ResetForm()


def _joined(secret: str, offer: Offer, form: FlaskForm) -> User | None:
    """Who has joined; None, with the complaint on the form, for a wrong password."""
    if _is_here(offer):
        user = people.get(current_user.id, current_user.session_version)
    elif offer.is_known:
        user = people.log_in(offer.email, form.password.data, request.remote_addr or "")
        if user is None:
            form.password.errors = ["That is not the password of this address."]
    else:
        return invitations.accept_new(secret, form.password.data)[0]
    if user is not None:
        invitations.accept(secret, user)
    return user
