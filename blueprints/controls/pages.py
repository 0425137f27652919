"""The pages of alerts and of caps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, flash, redirect, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import Field, SelectField, StringField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import DataRequired, Length, Optional
from wtforms.validators import ValidationError as FieldError

import amounts
import clock
from amounts import to_credits
from blueprints.auth import forms, guard
from errors import Forbidden, ValidationError
from services import accounts, agreed, alerts, catalog, controls

blueprint = Blueprint("controls_pages", __name__)

Page = str | tuple[str, int] | Response
_LIMIT = 100


class CapForm(FlaskForm):
    scope = SelectField(
        "For",
        choices=[
            SelectChoice("account", "the whole account"),
            SelectChoice("token", "a token"),
            SelectChoice("subject", "a subject"),
        ],
    )
    key = StringField("Token id or subject", filters=[forms.strip], validators=[Optional(), Length(max=255)])
    window = SelectField("Per", choices=[SelectChoice("day", "day (UTC)"), SelectChoice("period", "period")])
    credits = StringField("Credits at most", filters=[forms.strip], validators=[DataRequired(), Length(max=30)])

    def validate_credits(self, field: Field) -> None:
        try:
            _micros(field.data)
        except ValueError as error:
            raise FieldError(str(error)) from None

    @property
    def cap(self) -> dict[str, Any]:
        return {
            "scope": self.scope.data,
            "key": (self.key.data or None) if self.scope.data != agreed.ACCOUNT else None,
            "window": self.window.data,
            "credits": _micros(self.credits.data),
            "locked": None,
        }


class ThresholdsForm(FlaskForm):
    thresholds = StringField("Percent of the allowance", filters=[forms.strip], validators=[Length(max=100)])

    def validate_thresholds(self, field: Field) -> None:
        try:
            self.numbers = [int(part) for part in (field.data or "").replace(" ", "").split(",") if part]
        except ValueError:
            self.numbers = [0]
        if not all(1 <= number <= 100 for number in self.numbers):
            raise FieldError("Numbers from 1 to 100 with commas between them, such as 70, 90, 100; empty for none.")


def _micros(typed: str) -> int:
    return amounts.to_micros(amounts.parse(typed))


@blueprint.get("/alerts")
@guard.member_required
def alerts_page() -> str:
    account = guard.current_account()
    rows, now = alerts.listing(account.id, _LIMIT, state="all"), clock.now()
    return render_template(
        "controls/alerts.html",
        rows=[alerts.render(alert, now) for alert in rows],
        manages=guard.current_membership().manages,
    )


@blueprint.post("/alerts/<alert_id>/dismiss")
@guard.manager_required
def dismiss(alert_id: str) -> Response:
    alerts.dismiss(alert_id, guard.current_account().id)
    return redirect(url_for("controls_pages.alerts_page"))


@blueprint.get("/controls")
@guard.manager_required
def controls_page() -> str:
    return _page()


def _page(cap_form: CapForm | None = None, thresholds_form: ThresholdsForm | None = None) -> str:
    account = accounts.get(guard.current_account().id)
    own = agreed.of(account.controls)
    told = ", ".join(str(number) for number in controls.thresholds(own))
    return render_template(
        "controls/controls.html",
        account=account,
        caps=[(cap, to_credits(cap.credits), used) for cap, used in controls.used(account.id)],
        cap_form=cap_form or CapForm(formdata=None),
        thresholds_form=thresholds_form or ThresholdsForm(formdata=None, thresholds=told),
        credit_name=catalog.current().credit_name,
        to_credits=to_credits,
    )


@blueprint.post("/controls/caps")
@guard.manager_required
def add_cap() -> Page:
    form = CapForm()
    if not form.validate_on_submit():
        return _page(cap_form=form), 422
    cap = form.cap

    def added(caps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in caps if _place(one) != _place(cap)] + [cap]

    return _change_caps(added, "The cap holds from now on.", form)


@blueprint.post("/controls/caps/remove")
@guard.manager_required
def remove_cap() -> Page:
    form = CapForm()
    place = (form.scope.data, form.key.data or None, form.window.data)
    return _change_caps(lambda caps: [one for one in caps if _place(one) != place], "The cap is gone.", form)


def _place(cap: dict[str, Any]) -> tuple[Any, ...]:
    return cap["scope"], cap["key"], cap["window"]


def _change_caps(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], done: str, form: CapForm) -> Page:
    """What the operator locked stays: it is not among the caps that are sent."""
    account_id = guard.current_account().id
    own = [cap for cap in agreed.of(accounts.get(account_id).controls).caps if not cap.locked]
    fields = [
        {"scope": cap.scope, "key": cap.key, "window": cap.window, "credits": cap.credits, "locked": None}
        for cap in own
    ]
    try:
        controls.put(account_id, {"caps": change(fields)}, by_operator=False)
    except ValidationError as error:
        field = form.key if any(path.endswith("key") for path in error.extra["errors"]) else form.credits
        field.errors = [message for messages in error.extra["errors"].values() for message in messages]
        return _page(cap_form=form), 422
    except Forbidden:
        form.credits.errors = ["There is a cap for this that the operator has locked."]
        return _page(cap_form=form), 422
    flash(done, "success")
    return redirect(url_for("controls_pages.controls_page"))


@blueprint.post("/controls/thresholds")
@guard.manager_required
def set_thresholds() -> Page:
    form = ThresholdsForm()
    if not form.validate_on_submit():
        return _page(thresholds_form=form), 422
    controls.put(guard.current_account().id, {"alert_thresholds": form.numbers}, by_operator=False)
    flash("Alerts are set.", "success")
    return redirect(url_for("controls_pages.controls_page"))
