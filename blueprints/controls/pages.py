"""The pages of alerts and of caps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_login import current_user
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response

import clock
from amounts import to_credits
from blueprints.auth import guard
from blueprints.controls import spending
from blueprints.controls.forms import CapForm, OverageForm, ThresholdsForm, TopUpForm
from errors import Forbidden, OverageUnavailable, StripeNotConfigured, ValidationError
from services import accounts, agreed, alerts, catalog, controls
from services.agreed import Cap

blueprint = Blueprint("controls_pages", __name__)

Page = str | tuple[str, int] | Response
_LIMIT = 100


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
    """With `check` the form it names is looked at as it was typed so far, and nothing is changed."""
    return show(spending.checked(request.args, guard.current_account().id))


def show(*forms: FlaskForm | None) -> str:
    """The page, with the forms that were sent in place of fresh ones."""
    account = accounts.get(guard.current_account().id)
    sent = {type(form).__name__: form for form in forms if form is not None}
    told = ", ".join(str(number) for number in controls.thresholds(agreed.of(account.controls)))
    return render_template(
        "controls/controls.html",
        account=account,
        caps=[(cap, to_credits(cap.credits), used) for cap, used in controls.used(account.id)],
        cap_form=sent.get("CapForm") or CapForm(formdata=None),
        thresholds_form=sent.get("ThresholdsForm") or ThresholdsForm(formdata=None, thresholds=told),
        credit_name=catalog.current().credit_name,
        to_credits=to_credits,
        **spending.context(account, sent),
    )


@blueprint.post("/controls/caps")
@guard.manager_required
def add_cap() -> Page:
    form = CapForm()
    if not form.validate_on_submit():
        return show(form), 422
    cap = form.cap | {"locked": bool(form.locked.data) if current_user.is_operator else None}

    def added(caps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in caps if _place(one) != _place(cap)] + [cap]

    return _change_caps(added, "The cap holds from now on.", form)


@blueprint.post("/controls/caps/remove")
@guard.manager_required
def remove_cap() -> Page:
    form = CapForm()
    place = _sent_place(form)
    return _change_caps(lambda caps: [one for one in caps if _place(one) != place], "The cap is gone.", form)


@blueprint.post("/controls/caps/lock")
@guard.operator_required
def lock_cap() -> Page:
    """Lock a cap of the account that the operator looks at, or leave it to the account again."""
    form = CapForm()
    place, locked = _sent_place(form), "locked" in request.form

    def changed(caps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one | {"locked": locked} if _place(one) == place else one for one in caps]

    return _change_caps(changed, "The cap is locked." if locked else "The account can change the cap again.", form)


def _sent_place(form: CapForm) -> tuple[Any, ...]:
    return form.scope.data, form.key.data or None, form.window.data


def _place(cap: dict[str, Any]) -> tuple[Any, ...]:
    return cap["scope"], cap["key"], cap["window"]


def _change_caps(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], done: str, form: CapForm) -> Page:
    """What the operator locked stays where the account changes its own: it is not among the caps that are sent."""
    account_id, by_operator = guard.current_account().id, bool(current_user.is_operator)
    present = agreed.of(accounts.get(account_id).controls).caps
    fields = [_fields(cap, by_operator) for cap in present if by_operator or not cap.locked]
    try:
        controls.put(account_id, {"caps": change(fields)}, by_operator=by_operator)
    except ValidationError as error:
        field = form.key if any(path.endswith("key") for path in error.extra["errors"]) else form.credits
        field.errors = [message for messages in error.extra["errors"].values() for message in messages]
        return show(form), 422
    except Forbidden:
        form.credits.errors = ["There is a cap for this that the operator has locked."]
        return show(form), 422
    flash(done, "success")
    return redirect(url_for("controls_pages.controls_page"))


def _fields(cap: Cap, by_operator: bool) -> dict[str, Any]:
    locked = cap.locked if by_operator else None
    return {"scope": cap.scope, "key": cap.key, "window": cap.window, "credits": cap.credits, "locked": locked}


@blueprint.post("/controls/thresholds")
@guard.manager_required
def set_thresholds() -> Page:
    form = ThresholdsForm()
    if not form.validate_on_submit():
        return show(form), 422
    controls.put(guard.current_account().id, {"alert_thresholds": form.numbers}, by_operator=False)
    flash("Alerts are set.", "success")
    return redirect(url_for("controls_pages.controls_page"))


# What is bought beyond the plan


@blueprint.post("/controls/overage")
@guard.manager_required
def set_overage() -> Page:
    return _agree("overage", spending.overage_form(request.form, guard.current_account().id))


@blueprint.post("/controls/top-up")
@guard.manager_required
def set_top_up() -> Page:
    return _agree("auto_top_up", spending.top_up_form(request.form))


def _agree(name: str, form: OverageForm | TopUpForm) -> Page:
    """Turn it on as the form says, or off with what was agreed last."""
    account = accounts.get(guard.current_account().id)
    off = "off" in request.form
    if off:
        kept = asdict(getattr(agreed.of(account.controls), name))
        wanted = {field: kept[field] for field in kept if field != "terms"} | {"enabled": False}
    elif form.validate_on_submit():
        wanted = form.wanted | {"enabled": True}
    else:
        return show(form), 422
    try:
        controls.put(account.id, {name: wanted}, by_operator=False)
    except (OverageUnavailable, StripeNotConfigured) as error:
        form.problem = error.detail
        return show(form), 422
    flash("It is turned off." if off else "That is agreed from now on.", "success")
    return redirect(url_for("controls_pages.controls_page"))
