"""What Stripe would host: checkout, portal, invoices, the bank's question. Plain forms, no JavaScript."""

from flask import Flask, Response, render_template

from sandbox.cards import CARDS
from sandbox.clock import day, iso
from sandbox.errors import ApiError
from sandbox.money import shown
from sandbox.pages import banks, checkout, documents, home, portal, setup

# Styles are all that a page loads; forms may lead anywhere, since a paid session leads back to the shop.
POLICY = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'"


def register(app: Flask) -> None:
    """The pages' blueprints, and what their templates use."""
    for part in (home, checkout, banks, portal, documents, setup):
        app.register_blueprint(part.blueprint)
    app.jinja_env.filters.update(money=shown, iso=iso, day=day, card=spaced)
    app.jinja_env.globals["cards"] = CARDS
    app.register_error_handler(ApiError, _refused)
    app.after_request(_guard)


def spaced(number: str) -> str:
    """In fours, as on the card; account numbers as they are."""
    return " ".join(number[place : place + 4] for place in range(0, 16, 4)) if len(number) == 16 else number


def _refused(refusal: ApiError) -> tuple[str, int]:
    title = "Not found" if refusal.status == 404 else "That did not work"
    return render_template("message.html", title=title, text=refusal.message), refusal.status


def _guard(response: Response) -> Response:
    if response.mimetype == "text/html":
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Cache-Control"] = "no-store"
    return response
