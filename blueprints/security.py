"""What every answer tells the browser: load nothing from elsewhere, sniff nothing, frame nowhere, store nothing.

And what no browser sends to a page is refused before anything reads it.
"""

from __future__ import annotations

import re

from flask import Flask, Response, current_app, request

from errors import BadRequest, NotFound

_POLICY = (
    "default-src 'self'",
    "img-src 'self' data:",  # Bootstrap draws its check marks with data: images
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def _refuse_control_characters() -> None:
    """Text that PostgreSQL can not even compare with. Raises NotFound, BadRequest; the API judges its own requests."""
    if not hasattr(current_app.view_functions.get(request.endpoint or ""), "access"):
        return
    if any(_CONTROL.search(str(value)) for value in (request.view_args or {}).values()):
        raise NotFound()
    if request.mimetype in _FORMS and any(_CONTROL.search(value) for value in _texts()):
        raise BadRequest("The form holds characters that can not be kept.")


def _texts() -> list[str]:
    return [value for _, values in request.form.lists() for value in values]


def register(app: Flask) -> None:
    """Check what pages are sent, and set the headers on each answer; HSTS only where the site is reached by https."""
    app.before_request(_refuse_control_characters)
    secure = app.config["SESSION_COOKIE_SECURE"]

    @app.after_request
    def set_headers(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", "; ".join(_POLICY))
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "same-origin"
        headers["X-Frame-Options"] = "DENY"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        if secure:
            headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
        if not (request.endpoint or "").endswith("static"):
            headers.setdefault("Cache-Control", "no-store")
        return response
