"""What every answer tells the browser: load nothing from elsewhere, sniff nothing, frame nowhere, store nothing.

And what no browser sends to a page is refused before anything reads it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from flask import Flask, Request, current_app, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

import settings
from errors import BadRequest, NotFound
from website import Headers, Website, is_api

_POLICY = {
    "default-src": "'self'",
    "img-src": "'self' data:",  # Bootstrap draws its check marks with data: images
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
_PAYING = ("https://checkout.stripe.com", "https://billing.stripe.com")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def _refuse_control_characters() -> None:
    """Text that PostgreSQL can not even compare with. Raises NotFound, BadRequest."""
    if not hasattr(current_app.view_functions.get(request.endpoint or ""), "access"):
        return
    if any(_CONTROL.search(str(value)) for value in (request.view_args or {}).values()):
        raise NotFound()
    if request.mimetype in _FORMS and any(_CONTROL.search(value) for value in _texts()):
        raise BadRequest("The form holds characters that can not be kept.")


def _texts() -> list[str]:
    return [value for _, values in request.form.lists() for value in values]


class _PageSessions(SecureCookieSessionInterface):
    """The API knows tokens only: its requests have no session, whatever cookie they bring."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        return SecureCookieSession() if is_api(request) else super().open_session(app, request)


def payment_origins() -> tuple[str, ...]:
    """Where our forms may lead to be paid: Stripe's pages, or the sandbox's in their place."""
    env = settings.current()
    if env.stripe_secret_key is None:
        return ()
    if env.stripe_api_base is None:
        return _PAYING
    base = urlsplit(env.stripe_api_base)
    return (f"{base.scheme}://{base.netloc}",)


def policy(**more: str) -> str:
    """The Content-Security-Policy; `more` adds sources to a directive (`script_src="https://…"`) for one page.

    Browsers hold redirects after a form against `form-action` too.
    """
    parts = {**_POLICY, "form-action": " ".join((_POLICY["form-action"], *payment_origins()))}
    for name, sources in more.items():
        directive = name.replace("_", "-")
        parts[directive] = f"{parts.get(directive, parts['default-src'])} {sources}"
    return "; ".join(f"{name} {sources}" for name, sources in parts.items())


def register(app: Website) -> None:
    """Check what pages are sent, and set the headers on each answer; HSTS only where the site is reached by https."""
    app.before_request(_refuse_control_characters)
    app.session_interface = _PageSessions()
    fixed = [
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
        ("X-Frame-Options", "DENY"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
    ]
    if app.config["SESSION_COOKIE_SECURE"]:
        fixed.append(("Strict-Transport-Security", "max-age=31536000; includeSubDomains"))
    with app.app_context():
        everywhere = policy()

    def set_headers(request: Request, _status: int, headers: Headers) -> None:
        own = {name for name, _ in headers}
        headers.extend(fixed)
        if "Content-Security-Policy" not in own:
            headers.append(("Content-Security-Policy", everywhere))
        if "Cache-Control" not in own and not (request.endpoint or "").endswith("static"):
            headers.append(("Cache-Control", "no-store"))

    app.finishers.append(set_headers)
