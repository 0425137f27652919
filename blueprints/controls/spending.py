"""The parts of the caps page that are about money: overage and auto top-up."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

from flask_wtf import FlaskForm
from werkzeug.datastructures import MultiDict

import money
from amounts import to_credits
from blueprints.controls.forms import OverageForm, TopUpForm
from models.account import Account
from services import agreed, catalog, offers, overages, top_up_status
from services.stripe import subscriptions

Form = TypeVar("Form", OverageForm, TopUpForm)
Sent = MultiDict[str, str]


def overage_form(sent: Sent | None, account_id: str, **values: Any) -> OverageForm:
    """In the currency of the account's invoices."""
    paid, prices = subscriptions.of(account_id), catalog.current().overage_prices
    currency = paid.currency if paid is not None else prices[0].currency if prices else None
    return _made(OverageForm(formdata=sent, **values), currency)


def top_up_form(sent: Sent | None, **values: Any) -> TopUpForm:
    return _made(TopUpForm(formdata=sent, **values), _top_up_currency())


def _made(form: Form, currency: str | None) -> Form:
    form.currency = currency or catalog.current().currency or form.currency
    return form


def _top_up_currency() -> str | None:
    prices = [one for one in catalog.current().credit_prices if one.price]
    return prices[0].currency if prices else None


def checked(query: Sent, account_id: str) -> FlaskForm | None:
    """The form that `check` names, as far as it was typed; nothing is sent with it, so it needs no token."""
    named, bare = query.get("check"), {"csrf": False}
    form: FlaskForm
    if named == "overage":
        form = overage_form(query, account_id, meta=bare)
    elif named == "top-up":
        form = top_up_form(query, meta=bare)
    else:
        return None
    form.validate()
    return form


def context(account: Account, sent: Mapping[str, FlaskForm]) -> dict[str, Any]:
    """What the page's template needs; `sent` are forms to show as they were sent."""
    own, terms = agreed.of(account.controls), account.overage_terms
    return {
        "overage": own.overage,
        "overage_used": to_credits(account.overage),
        "overage_cost": overages.parse(terms).amount(account.overage) if terms else 0,
        "overage_form": sent.get("OverageForm") or _with_cap(account.id, own.overage.cap_amount),
        "sells_overage": bool(catalog.current().overage_prices) or terms is not None,
        "top_up": top_up_status.of(account),
        "top_up_form": sent.get("TopUpForm") or _with_top_up(own.auto_top_up),
        "is_configured": offers.payments_enabled(),
    }


def _with_cap(account_id: str, cap: int | None) -> OverageForm:
    form = overage_form(None, account_id)
    form.cap_amount.data = None if cap is None else money.plain(cap, form.currency)
    return form


def _with_top_up(wanted: agreed.AutoTopUp) -> TopUpForm:
    form = top_up_form(None)
    form.below.data = _plain(wanted.below)
    form.credits.data = _plain(wanted.credits)
    form.monthly_ceiling.data = (
        None if wanted.monthly_ceiling is None else money.plain(wanted.monthly_ceiling, form.currency)
    )
    return form


def _plain(micros: int | None) -> str | None:
    return None if micros is None else f"{Decimal(to_credits(micros)):f}"
