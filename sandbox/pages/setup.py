"""Saving a card without Stripe.js: a page for a setup intent, led back to `return_url` as Stripe.js would.

`GET /setup/<setup intent>?secret=<client secret>&return_url=<address>`.
"""

import hmac

from flask import Blueprint, redirect, render_template, request
from flask.typing import ResponseReturnValue

from sandbox import methods, setups
from sandbox.api import world
from sandbox.errors import ApiError, missing
from sandbox.pages.banks import with_outcome
from sandbox.shapes import Obj
from sandbox.world import World

blueprint = Blueprint("setup", __name__)


@blueprint.get("/setup/<intent_id>")
def show(intent_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        intent = _intent(here, intent_id)
        if intent["status"] in ("succeeded", "canceled"):
            return redirect(_onward(intent), 303)
        error = intent["last_setup_error"]
        return render_template("setup.html", number="4242424242424242", message=error["message"] if error else None)


def _intent(here: World, intent_id: str) -> Obj:
    """Whoever knows the client secret may use it."""
    intent = here.get("setup_intent", intent_id)
    if not hmac.compare_digest(intent["client_secret"].encode(), request.values.get("secret", "").encode()):
        raise missing("setup_intent", intent_id, "secret", status=404)
    intent["_return_url"] = request.values.get("return_url") or intent.get("_return_url")
    return intent


@blueprint.post("/setup/<intent_id>")
def save(intent_id: str) -> ResponseReturnValue:
    here = world()
    number = request.form.get("card") or request.form.get("number", "")
    with here.lock:
        intent = _intent(here, intent_id)
        try:
            status = setups.confirm(here, intent, methods.make(here, number))
        except ApiError as refusal:
            return render_template("setup.html", number=number, message=refusal.message)
        if status == "requires_action":
            return redirect(intent["next_action"]["redirect_to_url"]["url"], 303)
        if status == "succeeded":
            return redirect(_onward(intent), 303)
        message = intent["last_setup_error"]["message"]
        return render_template("setup.html", number=number, message=message)


def _onward(intent: Obj) -> str:
    return with_outcome(intent["_return_url"] or "/", intent)
