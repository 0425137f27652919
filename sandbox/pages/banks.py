"""3-D Secure: the customer's bank asks whether it is them."""

from flask import Blueprint, redirect, render_template, request
from flask.typing import ResponseReturnValue

from sandbox import payments, setups
from sandbox.api import world
from sandbox.checkout import where_next
from sandbox.shapes import Obj
from sandbox.world import World

blueprint = Blueprint("banks", __name__)


@blueprint.get("/authenticate/<intent_id>")
def ask(intent_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        intent = _intent(here, intent_id)
        if intent["status"] != "requires_action":
            return redirect(_back(here, intent), 303)
        return render_template("authenticate.html", intent=intent)


@blueprint.post("/authenticate/<intent_id>")
def answer(intent_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        intent = _intent(here, intent_id)
        if intent["status"] == "requires_action":
            act = payments.authenticate if intent["object"] == "payment_intent" else setups.authenticate
            act(here, intent, request.form.get("answer") == "agree")
        return redirect(_back(here, intent), 303)


def _intent(here: World, intent_id: str) -> Obj:
    return here.find("payment_intent", intent_id) or here.get("setup_intent", intent_id)


def _back(here: World, intent: Obj) -> str:
    """To where the customer came from: the checkout, the invoice, the portal, or the address the program gave."""
    if session := here.find("checkout.session", intent.get("_session")):
        return where_next(here, session).url or f"/c/pay/{session['id']}"
    if wanted := intent.get("_return_url"):
        return with_outcome(wanted, intent)
    payment = here.find("invoice_payment", intent.get("_invoice_payment"))
    return f"/i/{payment['invoice']}" if payment else "/"


def with_outcome(url: str, intent: Obj) -> str:
    """The address with what Stripe.js would add to it."""
    kind = intent["object"]
    done = "succeeded" if intent["status"] == "succeeded" else "failed"
    mark = "&" if "?" in url else "?"
    return f"{url}{mark}{kind}={intent['id']}&{kind}_client_secret={intent['client_secret']}&redirect_status={done}"
