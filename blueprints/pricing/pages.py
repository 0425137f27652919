"""The pricing page: plans, credits and what is free, for visitors and members."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from flask import Blueprint, render_template, request
from flask_login import current_user

import amounts
from amounts import to_credits
from blueprints.auth import guard
from errors import ValidationError
from models.account import Account
from services import catalog, offers
from services.catalog import CreditPrice
from services.stripe import billing, orders

blueprint = Blueprint("pricing_pages", __name__)

_USUAL_UNITS = 100


@dataclass(frozen=True)
class Quote:
    """So many credits, as `typed`, and what they cost; or what is wrong with that many."""

    typed: str
    offer: CreditPrice | None = None
    credits: int | Decimal = 0
    total: int = 0
    problem: str | None = None


@blueprint.get("/pricing")
@guard.public
def index() -> str:
    terms = catalog.current()
    interval = request.args.get("interval")
    interval = interval if interval in offers.INTERVALS else offers.INTERVALS[0]
    account = guard.account_or_none() if current_user.is_authenticated else None
    prices = [price for price in terms.credit_prices if price.price]
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
        quote=_quote(prices, request.args.get("credits")),
        packs=[(price, to_credits(price.credits), orders.total(price, 1)) for price in prices if price.credits],
        to_credits=to_credits,
        signing_up=_signing_up,
    )


def _own(account: Account | None) -> Any:
    """The account's subscription at Stripe; None without."""
    return billing.overview(account).subscription if account is not None else None


def _signing_up(onward: str) -> str:
    """The query of the sign-up page that leads on to a path of this site."""
    return f"?next={quote(onward, safe='/')}"


def _quote(prices: list[CreditPrice], typed: str | None) -> Quote | None:
    """None where credits are not sold by number."""
    by_unit = [price for price in prices if price.credits is None]
    if not by_unit:
        return None
    wanted = typed if typed is not None else str(to_credits(_usual(by_unit[0])))
    try:
        order = orders.find(credits=amounts.to_micros(amounts.parse(wanted)))
    except ValidationError as error:
        messages: dict[str, list[str]] = error.extra["errors"]
        return Quote(wanted, problem=next(iter(messages.values()))[0])
    except ValueError as error:
        return Quote(wanted, problem=str(error))
    price = next(price for price in prices if price.price == order.price)
    return Quote(wanted, price, to_credits(order.credits), orders.total(price, order.quantity or 1))


def _usual(price: CreditPrice) -> int:
    """A first proposal: the least there is, or a hundred units where there is no such limit."""
    step = price.credits_per_unit
    if price.min_credits is not None:
        return max(1, -(-price.min_credits // step)) * step
    most = price.max_credits // step if price.max_credits is not None else _USUAL_UNITS
    return max(1, min(_USUAL_UNITS, most)) * step
