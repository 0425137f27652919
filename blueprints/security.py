"""What every answer tells the browser: load nothing from elsewhere, sniff nothing, frame nowhere, store nothing."""

from __future__ import annotations

from flask import Flask, Response, request

_POLICY = (
    "default-src 'self'",
    "img-src 'self' data:",  # Bootstrap draws its check marks with data: images
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
)


def register(app: Flask) -> None:
    """Set the headers on each answer; HSTS only where the site is reached by https."""
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
