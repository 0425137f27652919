"""The billing page, the way to Stripe's portal, and the page that collects a card."""

from __future__ import annotations

import re
from urllib.parse import quote

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

import clock
import settings
from amounts import to_credits
from blueprints import security
from blueprints.auth import guard
from blueprints.checkout import leaving
from errors import StripeUnavailable
from services import catalog, dunning
from services.stripe import billing, cards, checkout, gateway

blueprint = Blueprint("billing_pages", __name__)

_INTENT = re.compile(r"seti_[A-Za-z0-9]{8,200}", re.ASCII)
_STRIPE_JS = {
    "script_src": "https://js.stripe.com",
    "frame_src": "https://js.stripe.com https://hooks.stripe.com",
    "connect_src": "https://api.stripe.com",
}


@blueprint.get("/billing")
@guard.member_required
def index() -> str:
    if "cancelled" in request.args:
        flash("Nothing was bought and nothing was changed.")
    account = guard.current_account()
    known = billing.overview(account)
    return render_template(
        "checkout/billing.html",
        account=account,
        known=known,
        price=billing.price_of(known.subscription) if known.subscription else None,
        steps=dunning.steps(known.subscription, clock.now(), catalog.current()) if known.subscription else None,
        credit_name=catalog.current().credit_name,
        is_configured=gateway.is_configured(),
        manages=guard.current_membership().manages,
        to_credits=to_credits,
    )


@blueprint.post("/billing/portal")
@guard.manager_required
def portal() -> AnyResponse:
    try:
        return leaving.to(checkout.portal(guard.current_account().id))
    except StripeUnavailable:
        raise leaving.explained() from None


# A card


@blueprint.get("/billing/card")
@guard.manager_required
def card() -> str | AnyResponse:
    """Why a card is wanted; and where the browser comes back to once it has been given."""
    intent_id = request.args.get("setup_intent", "")
    if _INTENT.fullmatch(intent_id):
        return _given(intent_id)
    account = guard.current_account()
    return render_template(
        "checkout/card.html",
        account=account,
        customer=billing.overview(account).customer,
        collecting=None,
        is_configured=gateway.is_configured(),
        has_page=_has_page(),
    )


def _given(intent_id: str) -> AnyResponse:
    try:
        saved = cards.finish(guard.current_account().id, intent_id)
    except StripeUnavailable:
        flash("The card is with Stripe and is shown here in a moment.")
    else:
        flash("The card is saved." if saved else "No card was saved. Try again, or try another one.")
    return redirect(url_for("billing_pages.index"), 303)


def _has_page() -> bool:
    """Whether a card can be given without the portal: Stripe.js needs a key, the sandbox has a page of its own."""
    env = settings.current()
    return env.stripe_publishable_key is not None or env.stripe_api_base is not None


@blueprint.post("/billing/card")
@guard.manager_required
def collect() -> AnyResponse:
    account = guard.current_account()
    try:
        checkout.may_buy(account.id)
        collecting = cards.collect(account.id)
    except StripeUnavailable:
        raise leaving.explained() from None
    onward = settings.current().public_url + url_for("billing_pages.card")
    base = settings.current().stripe_api_base
    if base is not None:
        secret, back = quote(collecting.client_secret, safe=""), quote(onward, safe="")
        return leaving.to(f"{base}/setup/{collecting.intent}?secret={secret}&return_url={back}")
    return _elements(collecting, onward)


def _elements(collecting: cards.Collecting, onward: str) -> Response:
    """Stripe's own fields, from Stripe's own host: the one page that loads anything from elsewhere."""
    page = render_template(
        "checkout/card.html",
        account=guard.current_account(),
        customer=None,
        collecting=collecting,
        onward=onward,
        is_configured=True,
        has_page=collecting.publishable_key is not None,
    )
    response = make_response(page)
    response.headers["Content-Security-Policy"] = security.policy(**_STRIPE_JS)
    return response
