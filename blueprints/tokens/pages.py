"""The page of access tokens. Members see and make their own; owners and admins see the account's."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from flask import Blueprint, flash, redirect, render_template, url_for
from flask_login import current_user
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import DateField, Field, SelectMultipleField, StringField, widgets
from wtforms.validators import DataRequired, Length, Optional
from wtforms.validators import ValidationError as FieldError

import amounts
import clock
import settings
from amounts import to_credits
from blueprints.auth import forms, guard
from models.token import MEMBER_SCOPES, Token
from services import tokens

blueprint = Blueprint("tokens_pages", __name__)

_ALL_SCOPES = ("read", "write", "billing", "tokens")
_LIMIT = 200


class TokenForm(FlaskForm):
    name = StringField("Name", filters=[forms.strip], validators=[DataRequired(), Length(max=100)])
    scopes = SelectMultipleField(
        "Scopes",
        choices=list(_ALL_SCOPES),
        default=list(MEMBER_SCOPES),
        option_widget=widgets.CheckboxInput(),
        widget=widgets.ListWidget(prefix_label=False),
        validators=[DataRequired("Choose at least one.")],
    )
    expires_on = DateField("Expires at the end of", validators=[Optional()])
    cap = StringField("Cap, credits per period", validators=[Optional(), Length(max=30)])

    def validate_expires_on(self, field: Field) -> None:
        if field.data is None:
            return  # it is no date, and that was said
        if field.data == date.max or _end_of(field.data) <= clock.now():
            raise FieldError("Choose today or a later day.")

    def validate_cap(self, field: Field) -> None:
        if field.errors:
            return
        try:
            _micros(field.data)
        except ValueError as error:
            raise FieldError(str(error)) from None


def _end_of(day: date) -> datetime:
    """The first moment after the day, in UTC."""
    return datetime.combine(day, time.min, UTC) + timedelta(days=1)


def _micros(typed: str) -> int:
    return amounts.to_micros(amounts.parse(typed))


@blueprint.route("/tokens", methods=["GET", "POST"])
@guard.member_required
def index() -> str | tuple[str, int]:
    form = TokenForm()
    manages = guard.current_membership().manages
    if not manages:
        form.scopes.choices = list(MEMBER_SCOPES)
    secret = _create(form) if form.validate_on_submit() else None
    account = guard.current_account()
    rows = tokens.listing(account.id, _LIMIT, user_id=None if manages else current_user.id)
    page = render_template(
        "tokens/index.html",
        form=TokenForm(formdata=None) if secret else form,
        rows=rows,
        states={row.id: _state(row) for row in rows},
        to_credits=to_credits,
        secret=secret,
        api=settings.current().public_url,
    )
    return (page, 422) if form.errors else page


def _create(form: TokenForm) -> str:
    """The new token's secret."""
    _, secret = tokens.create(
        account_id=guard.current_account().id,
        name=form.name.data,
        scopes=form.scopes.data,
        expires_at=_end_of(form.expires_on.data) if form.expires_on.data else None,
        cap=_micros(form.cap.data) if form.cap.data else None,
        user_id=current_user.id,
    )
    return secret


def _state(token: Token) -> str:
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is not None and token.expires_at <= clock.now():
        return "expired"
    return "active"


@blueprint.post("/tokens/<token_id>/revoke")
@guard.member_required
def revoke(token_id: str) -> Response:
    own = None if guard.current_membership().manages else current_user.id
    tokens.revoke(token_id, guard.current_account().id, user_id=own)
    flash("The token is revoked; it stopped working at once.")
    return redirect(url_for("tokens_pages.index"))
