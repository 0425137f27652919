"""The main navigation: each page names itself here once."""

from __future__ import annotations

from typing import Any

from flask import Flask, request, url_for
from flask_login import current_user

from blueprints.auth import guard

_ENTRIES = (
    ("Usage", "usage_pages.index"),
    ("Tokens", "tokens_pages.index"),
    ("Settings", "auth_pages.settings"),
)


def _context() -> dict[str, Any]:
    if not current_user.is_authenticated:
        return {"nav": [], "nav_account": ""}
    nav = [
        {"label": label, "url": url_for(endpoint), "active": request.endpoint == endpoint}
        for label, endpoint in _ENTRIES
    ]
    account = guard.account_or_none()
    return {"nav": nav, "nav_account": account.name if account is not None else current_user.email}


def register(app: Flask) -> None:
    app.context_processor(_context)
