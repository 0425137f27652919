"""The hosted checkout: what is bought, a card number, and buttons for everything else that can happen."""

from flask import Blueprint, redirect, render_template, request
from flask.typing import ResponseReturnValue

from sandbox import checkout, money
from sandbox.api import world
from sandbox.cards import BY_NUMBER
from sandbox.shapes import Obj
from sandbox.world import World

blueprint = Blueprint("checkout", __name__)
# What the form offers besides a card that pays: number → what the button says.
OTHERS = {
    "4000000000000002": "Card is declined",
    "4000000000009995": "Not enough money",
    "4000002760003184": "Bank asks (3-D Secure)",
    "4000000000000341": "Card fails later",
    "000123456789": "Bank debit, paid in some days",
    "000111111116": "Bank debit, fails in some days",
}


@blueprint.get("/c/pay/<session_id>")
def show(session_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        session = here.get("checkout.session", session_id)
        return _page(here, session, checkout.where_next(here, session).message)


@blueprint.post("/c/pay/<session_id>")
def pay(session_id: str) -> ResponseReturnValue:
    """The button pressed may name a card (`card`); otherwise the field does (`number`)."""
    here = world()
    with here.lock:
        session = here.get("checkout.session", session_id)
        number = request.form.get("card") or request.form.get("number")
        person = [request.form.get(name, "").strip() or None for name in ("email", "name")]
        outcome = checkout.submit(here, session, number, *person)
        if outcome.url:
            return redirect(outcome.url, 303)
        return _page(here, session, outcome.message)


def _page(here: World, session: Obj, message: str | None) -> str:
    if session["status"] != "open":
        done = session["status"] == "complete"
        title = "You're all done here" if done else "This page has expired"
        text = "This checkout was completed." if done else "Go back to the shop and begin again."
        onward = checkout.where_next(here, session).url or session["cancel_url"]
        return render_template("message.html", title=title, text=text, url=onward)
    bought = [here.objects["item"][line] for line in session["_lines"]]
    customer = here.find("customer", session["customer"]) or {}
    return render_template(
        "checkout.html",
        session=session,
        lines=[_line(here, line) for line in bought],
        email=customer.get("email") or session["customer_email"],
        number=request.form.get("number") or "4242424242424242",
        typed=request.form.get("email", ""),
        message=message,
        button=_button(session),
        others=[(number, text) for number, text in OTHERS.items() if number in BY_NUMBER],
        trial_end=checkout.trial_end(here, session["_subscription_data"]),
        asks_card=_asks_card(session),
        later=_later(here, bought),
    )


def _later(here: World, bought: list[Obj]) -> Obj:
    """What every period costs once a trial is over."""
    recurring = [(line, here.objects["price"][line["_price"]]) for line in bought]
    chosen = [(line, price) for line, price in recurring if price["recurring"] and line["quantity"] is not None]
    amount = sum(money.amount(price, line["quantity"]) for line, price in chosen)
    return {"amount": amount, "every": _every(chosen[0][1]["recurring"]) if chosen else ""}


def _line(here: World, line: Obj) -> Obj:
    recurring = here.objects["price"][line["_price"]]["recurring"]
    return {"line": line, "every": _every(recurring) if recurring else ""}


def _every(recurring: Obj) -> str:
    count, unit = recurring["interval_count"], recurring["interval"]
    return f"every {unit}" if count == 1 else f"every {count} {unit}s"


def _button(session: Obj) -> str:
    if session["mode"] == "setup":
        return "Save card"
    if session["_subscription_data"].get("trial_period_days") or session["_subscription_data"].get("trial_end"):
        return "Start trial"
    return "Subscribe" if session["mode"] == "subscription" else "Pay"


def _asks_card(session: Obj) -> bool:
    """Not where nothing is due today and a card was not asked for."""
    if session["mode"] == "setup" or session["amount_total"]:
        return True
    return bool(session["mode"] == "subscription" and session["payment_method_collection"] == "always")
