"""On to a page of Stripe's."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Response, redirect, render_template
from werkzeug.wrappers import Response as AnyResponse

from blueprints import security
from errors import StripeUnavailable


def to(address: str) -> AnyResponse:
    """Go there. A browser follows a redirect after a form only to where the policy lets forms lead.

    A team may have given its Checkout a domain of its own: then a page leads on instead.
    """
    parts = urlsplit(address)
    if f"{parts.scheme}://{parts.netloc}" in security.payment_origins():
        return redirect(address, 303)
    page = Response(render_template("checkout/leaving.html", address=address))
    page.headers["Refresh"] = f"0; url={address}"
    return page


def explained() -> StripeUnavailable:
    """An outage, in words for somebody who wanted to pay."""
    return StripeUnavailable(
        "Nothing was bought and nothing was charged. Try again in a minute; your credits and your usage are not "
        "affected."
    )
