"""Where the operator's product is told what happened, and what came of it."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import StringField
from wtforms.validators import DataRequired, Length

import settings
from blueprints.auth import forms, guard
from errors import ValidationError
from models.outgoing import OutgoingEndpoint
from services import outgoing

blueprint = Blueprint("admin_outgoing", __name__, url_prefix="/admin/webhooks")


class EndpointForm(FlaskForm):
    url = StringField("Address", filters=[forms.strip], validators=[DataRequired(), Length(max=500)])


@blueprint.route("", methods=["GET", "POST"])
@guard.operator_required
def index() -> str | tuple[str, int]:
    form, made = EndpointForm(), None
    if form.validate_on_submit():
        try:
            made = outgoing.add(form.url.data or "")
        except ValidationError as error:
            form.url.errors = error.extra["errors"]["url"]
    page = _page(EndpointForm(formdata=None) if made else form, made)
    return (page, 422) if form.errors else page


def _page(form: EndpointForm, made: OutgoingEndpoint | None) -> str:
    return render_template(
        "admin/outgoing.html",
        form=form,
        made=made,
        endpoints=outgoing.endpoints(),
        log=outgoing.log(),
        events=outgoing.EVENTS,
        private=settings.current().webhook_private_networks,
    )


@blueprint.post("/<endpoint_id>/on")
@guard.operator_required
def switch_on(endpoint_id: str) -> Response:
    outgoing.switch(endpoint_id, on=True)
    return _back("Events go there again.")


@blueprint.post("/<endpoint_id>/off")
@guard.operator_required
def switch_off(endpoint_id: str) -> Response:
    outgoing.switch(endpoint_id, on=False)
    return _back("Nothing goes there any more.")


@blueprint.post("/<endpoint_id>/test")
@guard.operator_required
def test(endpoint_id: str) -> Response:
    outgoing.test(endpoint_id)
    return _back("A test is on its way; it shows in the log.")


@blueprint.post("/deliveries/<delivery_id>/again")
@guard.operator_required
def send_again(delivery_id: str) -> Response:
    outgoing.send_again(delivery_id)
    return _back("It is on its way again.")


def _back(told: str) -> Response:
    flash(told, "success")
    return redirect(url_for("admin_outgoing.index"), 303)
