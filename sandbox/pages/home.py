"""The sandbox's own page: what time it is there, moving on, what is planned and what was told."""

from datetime import UTC, datetime

from flask import Blueprint, redirect, render_template, request
from flask.typing import ResponseReturnValue

from sandbox import clock, methods
from sandbox.api import world
from sandbox.billing import agenda
from sandbox.errors import ApiError, invalid

blueprint = Blueprint("home", __name__)
STEPS = {"hour": ("hour", 1), "day": ("day", 1), "week": ("week", 1), "month": ("month", 1)}
SHOWN = 20
DRAIN_SECONDS = 10.0


@blueprint.get("/")
def show() -> ResponseReturnValue:
    here = world()
    with here.lock:
        customers = list(here.all("customer"))[::-1]
        return render_template(
            "home.html",
            now=datetime.fromtimestamp(here.now(), UTC),
            planned=agenda.describe(here)[:SHOWN],
            deliveries=here.courier.summaries()[::-1][:SHOWN],
            endpoints=list(here.all("webhook_endpoint")),
            customers=[{"customer": one, "method": methods.usual(here, one)} for one in customers[:SHOWN]],
            sessions=[one for one in here.all("checkout.session") if one["status"] == "open"][::-1][:SHOWN],
            steps=STEPS,
        )


@blueprint.post("/move")
def move() -> ResponseReturnValue:
    """By a step, or to what is planned next."""
    here = world()
    wanted = request.form.get("by", "")
    if wanted == "next":
        planned = agenda.describe(here)
        until = clock.parse(str(planned[0]["at"])) if planned else here.now()
    elif wanted in STEPS:
        until = clock.after(here.now(), *STEPS[wanted])
    else:
        raise invalid("Move by an hour, a day, a week, a month, or to what is next.")
    agenda.advance(here, max(until, here.now()), DRAIN_SECONDS)
    return redirect("/", 303)


@blueprint.post("/customers/<customer_id>/card")
def card(customer_id: str) -> ResponseReturnValue:
    """Another card for a customer, such as one whose charges fail."""
    here = world()
    with here.lock:
        customer = here.get("customer", customer_id)
        method = methods.make(here, request.form.get("card", ""))
        try:
            methods.attach(here, method, customer)
        except ApiError as refusal:
            raise invalid(refusal.message) from None
        methods.make_default(here, method, customer)
    return redirect("/", 303)
