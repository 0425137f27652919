"""The pricing page: plans, credits and what is free, for visitors and members."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Blueprint, render_template, request
from flask_login import current_user

from amounts import to_credits
from blueprints.auth import guard
from models.account import Account
from services import catalog, offers
from services.stripe import billing, quotes

blueprint = Blueprint("pricing_pages", __name__)


@blueprint.get("/pricing")
@guard.public
def index() -> str:
    terms = catalog.current()
    interval = request.args.get("interval")
    interval = interval if interval in offers.INTERVALS else offers.INTERVALS[0]
    account = guard.account_or_none() if current_user.is_authenticated else None
    return render_template(
        "pricing/index.html",
        terms=terms,
        interval=interval,
        has_choice=offers.has_choice(terms.plans),
        cards=offers.cards(interval),
        enabled=offers.payments_enabled(),
        account=account,
        manages=account is not None and guard.current_membership().manages,
        own=_own(account),
        quote=quotes.quote(request.args.get("credits")),
        packs=quotes.packs(),
        to_credits=to_credits,
        signing_up=_signing_up,
    )


def _own(account: Account | None) -> Any:
    """The account's subscription at Stripe; None without."""
    return billing.overview(account).subscription if account is not None else None


def _signing_up(onward: str) -> str:
    """The query of the sign-up page that leads on to a path of this site."""
    return f"?next={quote(onward, safe='/')}"
