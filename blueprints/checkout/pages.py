"""Buying on pages: choose credits, go to Checkout, come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

import amounts
from amounts import to_credits
from blueprints.auth import guard
from blueprints.checkout import leaving
from errors import AlreadySubscribed, NotFound, StripeUnavailable, ValidationError
from models.account import Account
from models.stripe import Purchase
from services import accounts, balances, catalog
from services.catalog import CreditPrice
from services.stripe import billing, checkout, gateway, orders, returned, returns

blueprint = Blueprint("checkout_pages", __name__)

_USUAL_UNITS = 100
Page = str | tuple[str, int]


# Choosing


@dataclass(frozen=True)
class Choice:
    """What is asked for: `typed` as it was, then an offer of so many credits, or what is wrong with it."""

    typed: str
    offer: CreditPrice | None = None
    credits: int = 0
    total: int = 0
    problem: str | None = None


@blueprint.get("/buy")
@guard.member_required
def buy() -> Page:
    if "cancelled" in request.args:
        flash("Nothing was bought. What you had chosen is still here.")
    return _shop(request.args.get("credits"))


def _shop(typed: str | None, problem: str | None = None) -> Page:
    account = guard.current_account()
    offers = [offer for offer in catalog.current().credit_prices if offer.price]
    page = render_template(
        "checkout/buy.html",
        account=account,
        balance=balances.balance(account.id),
        credit_name=catalog.current().credit_name,
        is_configured=gateway.is_configured(),
        manages=guard.current_membership().manages,
        choice=_choice(offers, typed, problem),
        bounds=_bounds(offers),
        packs=[(offer, to_credits(offer.credits), orders.total(offer, 1)) for offer in offers if offer.credits],
        to_credits=to_credits,
    )
    return (page, 422) if problem else page


def _choice(offers: list[CreditPrice], typed: str | None, problem: str | None) -> Choice | None:
    """None where credits are sold in packs only, or not at all."""
    by_unit = [offer for offer in offers if offer.credits is None]
    if not by_unit:
        return None
    wanted = typed if typed is not None else str(to_credits(_usual(by_unit[0])))
    if problem is not None:
        return Choice(wanted, problem=problem)
    try:
        order = orders.find(credits=_micros(wanted))
    except ValidationError as error:
        return Choice(wanted, problem=_first(error))
    offer = next(offer for offer in offers if offer.price == order.price)
    return Choice(wanted, offer, order.credits, orders.total(offer, order.quantity or 1))


def _usual(offer: CreditPrice) -> int:
    """A first proposal: a hundred units, within the limits."""
    units = _USUAL_UNITS
    if offer.max_credits is not None:
        units = min(units, offer.max_credits // offer.credits_per_unit)
    if offer.min_credits is not None:
        units = max(units, -(-offer.min_credits // offer.credits_per_unit))
    return max(1, units) * offer.credits_per_unit


def _bounds(offers: list[CreditPrice]) -> dict[str, Any]:
    """The field's own limits, where there is one price by unit; several are judged by the server alone."""
    by_unit = [offer for offer in offers if offer.credits is None]
    if len(by_unit) != 1:
        return {"step": "any"}
    [offer] = by_unit
    step = offer.credits_per_unit
    bounds = {"step": step, "min": -(-(offer.min_credits or step) // step) * step}
    if offer.max_credits is not None:
        bounds["max"] = offer.max_credits // step * step
    return {name: to_credits(value) for name, value in bounds.items()}


def _micros(typed: str) -> int:
    """Raises ValidationError."""
    try:
        return amounts.to_micros(amounts.parse(typed))
    except ValueError as error:
        raise ValidationError({"credits": [str(error)]}) from None


def _first(error: ValidationError) -> str:
    """What a form says under its field."""
    messages: dict[str, list[str]] = error.extra["errors"]
    return next(iter(messages.values()))[0]


# Going


@blueprint.post("/billing/checkout")
@guard.manager_required
def start() -> AnyResponse | Page:
    """What every buying form is sent to: a `price`, a `tier` with its `interval`, or `credits`."""
    wanted = {name: request.form.get(name) or None for name in ("price", "tier", "interval")}
    typed = request.form.get("credits") or None
    try:
        amount = _micros(typed) if typed is not None else None
        started = checkout.start(guard.current_account().id, **wanted, credits=amount)
    except ValidationError as error:
        if "credits" not in error.extra["errors"]:
            raise
        return _shop(typed, _first(error))
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
