"""Buying on pages: choose credits, go to Checkout, come back."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

from amounts import to_credits
from blueprints.auth import guard
from blueprints.checkout import leaving
from errors import AlreadySubscribed, NotFound, StripeUnavailable, ValidationError
from models.account import Account
from models.stripe import Purchase
from services import accounts, balances, catalog
from services.stripe import billing, checkout, gateway, quotes, returned, returns

blueprint = Blueprint("checkout_pages", __name__)

Page = str | tuple[str, int]


# Choosing


@blueprint.get("/buy")
@guard.member_required
def buy() -> Page:
    if "cancelled" in request.args:
        flash("Nothing was bought. What you had chosen is still here.")
    return _shop(request.args.get("credits"))


def _shop(typed: str | None, problem: str | None = None) -> Page:
    account = guard.current_account()
    page = render_template(
        "checkout/buy.html",
        account=account,
        balance=balances.balance(account.id),
        credit_name=catalog.current().credit_name,
        is_configured=gateway.is_configured(),
        manages=guard.current_membership().manages,
        choice=quotes.quote(typed, problem),
        bounds=quotes.bounds(),
        packs=quotes.packs(),
    )
    return (page, 422) if problem else page


# Going


@blueprint.post("/billing/checkout")
@guard.manager_required
def start() -> AnyResponse | Page:
    """What every buying form is sent to: a `price`, a `tier` with its `interval`, or `credits`."""
    wanted = {name: request.form.get(name) or None for name in ("price", "tier", "interval")}
    typed = request.form.get("credits") or None
    try:
        amount = quotes.micros(typed) if typed is not None else None
        started = checkout.start(guard.current_account().id, **wanted, credits=amount)
    except ValidationError as error:
        if "credits" not in error.extra["errors"]:
            raise
        return _shop(typed, quotes.told(error))
    except AlreadySubscribed:
        flash("This account has a subscription. Change it here rather than starting another.", "warning")
        return redirect(url_for("billing_pages.index"), 303)
    except StripeUnavailable:
        raise leaving.explained() from None
    return leaving.to(started.url)


# Coming back


@blueprint.get("/checkout/return")
@guard.public
def back() -> Response:
    """Fulfils the purchase for whoever asks; what it was is told to members of its account alone."""
    onward = request.args.get("to")
    onward = onward if onward and returns.is_allowed(onward) else None
    try:
        purchase = returned.fulfil(request.args.get("session_id", ""), request.remote_addr or "")
    except StripeUnavailable as error:
        return _later(error)
    if purchase is None:
        raise NotFound("No checkout of ours is known by this address.")
    account = _own_account(purchase)
    told = _told(purchase, account) if account is not None else {}
    page = render_template("checkout/return.html", status=purchase.status, account=account, onward=onward, **told)
    response = make_response(page)
    if onward and account is None and purchase.status == "paid":
        response.headers["Refresh"] = f"4; url={returns.absolute(onward)}"
    return response


def _later(error: StripeUnavailable) -> Response:
    response = make_response(render_template("checkout/later.html", again=request.full_path), 503)
    response.headers["Retry-After"] = str(error.retry_after)
    return response


def _own_account(purchase: Purchase) -> Account | None:
    """The purchase's account, for its members."""
    if not current_user.is_authenticated:
        return None
    place = accounts.membership(current_user.id, purchase.account_id)
    if place is None or place.account_id != purchase.account_id:
        return None
    return accounts.get(purchase.account_id)


def _told(purchase: Purchase, account: Account) -> dict[str, Any]:
    return {
        "purchase": purchase,
        "bought": to_credits(purchase.credits),
        "balance": balances.balance(account.id),
        "credit_name": catalog.current().credit_name,
        "invoice": billing.invoice_of(purchase),
        "plan_name": billing.plan_name(purchase),
    }
