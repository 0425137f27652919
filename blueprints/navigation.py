"""The main navigation: each page names itself here once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Flask, request, url_for
from flask_login import current_user

from blueprints.auth import guard
from models.account import Account
from models.alert import AlertKind
from services import alerts, members, offers
from services.catalog import FREE, Plan

_ENTRIES = (
    ("Usage", "usage_pages.index"),
    ("Ledger", "statement_pages.ledger_page"),
    ("Statement", "statement_pages.statement_page"),
    ("Alerts", "controls_pages.alerts_page"),
    ("Billing", "billing_pages.index"),
    ("Buy credits", "checkout_pages.buy"),
    ("Pricing", "pricing_pages.index"),
    ("Tokens", "tokens_pages.index"),
    ("Members", "members_pages.index"),
    ("Settings", "auth_pages.settings"),
)


_PUBLIC = (("Pricing", "pricing_pages.index"),)
_OPERATORS = (("Admin", "admin_pages.index"),)


def _context() -> dict[str, Any]:
    if not current_user.is_authenticated:
        return {"nav": _links(_PUBLIC), "nav_account": None, "nav_places": [], "nav_alerts": []}
    account = guard.account_or_none()
    entries = _ENTRIES if account is not None else (*_PUBLIC, _ENTRIES[-1])
    if current_user.is_operator:
        entries = (*entries, *_OPERATORS)
    return {
        "nav": _links(entries),
        "nav_account": account,
        "nav_places": members.places(current_user.id),
        "nav_alerts": _banner(account) if account is not None else [],
        "nav_manages": account is not None and guard.current_membership().manages,
    }


_CURES = {
    AlertKind.ALLOWANCE: ("See larger plans", "pricing_pages.index"),
    AlertKind.LOW_BALANCE: ("Get credits", "checkout_pages.buy"),
    AlertKind.CAP_REACHED: ("See caps", "controls_pages.controls_page"),
    AlertKind.SPIKE: ("See usage", "usage_pages.index"),
    AlertKind.PAYMENT_FAILED: ("See billing", "billing_pages.index"),
    AlertKind.OVERAGE: ("See the limit", "controls_pages.controls_page"),
    AlertKind.CARD_EXPIRING: ("See billing", "billing_pages.index"),
    AlertKind.PLAN_LAPSED: ("See billing", "billing_pages.index"),
    AlertKind.SUSPENDED: ("See billing", "billing_pages.index"),
    AlertKind.TOP_UP_ACTION: ("Confirm the payment", "billing_pages.index"),
    AlertKind.TOP_UP_FAILED: ("Look at the card on file", "billing_pages.index"),
    AlertKind.TOP_UP_CEILING: ("See auto top-up", "controls_pages.controls_page"),
    AlertKind.TOP_UP_OFF: ("See auto top-up", "controls_pages.controls_page"),
}
_UNPAID = (AlertKind.PAYMENT_FAILED, AlertKind.PLAN_LAPSED, AlertKind.SUSPENDED)
_SHOWN = 3


def _banner(account: Account) -> list[dict[str, Any]]:
    """What every page of the account tells first; what is over the limit of the banner is on its own page."""
    shown = alerts.for_banner(account.id)[:_SHOWN]
    return [
        {
            "id": alert.id,
            "message": alerts.message(alert),
            "label": "Pay now" if url and alert.kind in _UNPAID else label,
            "url": url or url_for(endpoint),
            "upgrade": _upgrade(account) if alert.kind == AlertKind.ALLOWANCE else None,
        }
        for alert in shown
        for label, endpoint in [_CURES[AlertKind(alert.kind)]]
        for url in [alerts.details(alert).get("url")]
    ]


def _upgrade(account: Account) -> Plan | None:
    """For who uses up the free plan: the cheapest that is sold, one click away."""
    if account.plan != FREE or account.is_closed or not offers.payments_enabled():
        return None
    return next((card.plan for card in offers.cards("month") if card.is_sold), None)


def _links(entries: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"label": label, "url": url_for(endpoint), "active": request.endpoint == endpoint}
        for label, endpoint in entries
    ]


def register(app: Flask) -> None:
    app.context_processor(_context)
