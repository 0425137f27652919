"""Changing, cancelling and resuming the plan on pages: first what it costs, then a button."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from blueprints.auth import guard
from blueprints.checkout import leaving
from errors import NotFound, StripeUnavailable, ValidationError
from services import catalog
from services.catalog import Plan
from services.stripe import changes

blueprint = Blueprint("change_pages", __name__)
Page = str | tuple[str, int] | AnyResponse


@blueprint.get("/billing/change")
@guard.manager_required
def index() -> Page:
    return _page(_wanted(request.args.get("tier"), request.args.get("interval")))


def _wanted(tier: str | None, interval: str | None) -> Plan:
    plan = catalog.current().plan(tier or "", interval)
    if plan is None or plan.price is None or plan.interval is None:
        raise NotFound("No such plan is for sale.")
    return plan


def _page(plan: Plan, problem: str | None = None) -> Page:
    account = guard.current_account()
    preview = None
    if problem is None:
        try:
            preview = changes.preview(account.id, plan.tier, str(plan.interval))
        except StripeUnavailable:
            raise leaving.explained() from None
    page = render_template("checkout/change.html", account=account, plan=plan, preview=preview, problem=problem)
    return (page, 422) if problem else page


@blueprint.post("/billing/change")
@guard.manager_required
def change() -> Page:
    plan = _wanted(request.form.get("tier"), request.form.get("interval"))
    try:
        changed = changes.subscribe(guard.current_account().id, plan.tier, str(plan.interval))
    except ValidationError as error:
        return _page(plan, next(iter(error.extra["errors"].values()))[0])
    except StripeUnavailable:
        raise leaving.explained() from None
    if changed.action_url is not None:
        return leaving.to(changed.action_url)
    later = changed.effective == changes.PERIOD_END
    flash(f"{plan.name} begins when the period that is paid ends." if later else f"You are on {plan.name} now.")
    return redirect(url_for("billing_pages.index"), 303)


@blueprint.post("/billing/cancel")
@guard.manager_required
def cancel() -> AnyResponse:
    try:
        changes.cancel(guard.current_account().id)
    except StripeUnavailable:
        raise leaving.explained() from None
    flash("The plan ends with the period that is paid. Until then nothing changes.")
    return redirect(url_for("billing_pages.index"), 303)


@blueprint.post("/billing/resume")
@guard.manager_required
def resume() -> AnyResponse:
    try:
        changes.resume(guard.current_account().id)
    except StripeUnavailable:
        raise leaving.explained() from None
    flash("The plan goes on.")
    return redirect(url_for("billing_pages.index"), 303)
