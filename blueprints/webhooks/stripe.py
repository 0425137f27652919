"""Where Stripe tells its events. Whoever calls is judged by the signature over the raw body, nothing else."""

from __future__ import annotations

from flask import Blueprint, Response, request

import settings
from blueprints import wire
from blueprints.auth import guard
from errors import NotFound
from services.stripe import inbox

blueprint = Blueprint("stripe_webhooks", __name__)


@blueprint.post("/webhooks/stripe")
@guard.public
def stripe() -> Response:
    """200 with what became of the event; 4xx before it is kept; 500 when it will be tried again."""
    if not settings.current().stripe_webhook_secret:
        raise NotFound()
    outcome = inbox.receive(wire.read_raw(wire.BODY_LIMIT), request.headers.get("Stripe-Signature"))
    return wire.answer({"status": outcome})
