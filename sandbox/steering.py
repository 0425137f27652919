"""The controls of the sandbox itself, under /_sandbox: JSON in and out, no key. sandbox.control calls them."""

from dataclasses import asdict
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from sandbox import checkout, clock, disputes, faults, methods, payments, setups
from sandbox.api import world
from sandbox.billing import agenda
from sandbox.cards import CARDS
from sandbox.errors import ApiError, invalid
from sandbox.resources.refunds import fail
from sandbox.resources.webhooks import make_endpoint
from sandbox.shapes import PREFIXES, Obj
from sandbox.views import render
from sandbox.world import Settings, World

blueprint = Blueprint("steering", __name__, url_prefix="/_sandbox")


@blueprint.errorhandler(ApiError)
def refused(refusal: ApiError) -> ResponseReturnValue:
    return jsonify(refusal.body()), refusal.status


def _body() -> dict[str, Any]:
    given = request.get_json(silent=True)
    if not isinstance(given, dict):
        raise invalid("A JSON object is expected.")
    return given


# Time
@blueprint.get("/clock")
def show_clock() -> ResponseReturnValue:
    return jsonify(_clock(world()))


def _clock(here: World) -> Obj:
    return {"now": clock.iso(here.now()), "stands": here.clock.stands}


@blueprint.post("/clock")
def set_clock() -> ResponseReturnValue:
    here = world()
    with here.lock:
        here.clock.set(clock.parse(str(_body().get("to"))))
        return jsonify(_clock(here))


@blueprint.post("/advance")
def advance() -> ResponseReturnValue:
    """To a moment not before now."""
    here, body = world(), _body()
    until = clock.parse(str(body.get("to")))
    if until < here.now():
        raise invalid(f"It is {clock.iso(here.now())} already; the clock is never moved back on this way.", "to")
    seconds = body.get("drain_seconds", 60.0) if body.get("wait", True) else 0.0
    return jsonify(_clock(here) | {"steps": agenda.advance(here, until, seconds)})


@blueprint.get("/agenda")
def show_agenda() -> ResponseReturnValue:
    here = world()
    with here.lock:
        return jsonify({"planned": agenda.describe(here)})


# State
@blueprint.post("/reset")
def reset() -> ResponseReturnValue:
    here = world()
    with here.lock:
        here.reset()
    return jsonify({})


@blueprint.get("/objects")
def dump() -> ResponseReturnValue:
    here = world()
    with here.lock:
        return jsonify({kind: _all(here, kind) for kind in PREFIXES})


@blueprint.get("/objects/<kind>")
def dump_kind(kind: str) -> ResponseReturnValue:
    here = world()
    if kind not in PREFIXES:
        raise invalid(f"No such kind: {kind}. There are {', '.join(PREFIXES)}.")
    with here.lock:
        return jsonify({"data": _all(here, kind)})


def _all(here: World, kind: str) -> list[Obj]:
    return [render(here, obj) for obj in here.objects[kind].values()]


@blueprint.post("/settings")
def settings() -> ResponseReturnValue:
    here = world()
    with here.lock:
        try:
            here.settings = Settings(**(asdict(here.settings) | _body()))
        except TypeError as error:
            raise invalid(f"No such setting: {error}") from error
        return jsonify(asdict(here.settings))


@blueprint.get("/cards")
def cards() -> ResponseReturnValue:
    return jsonify({"data": [{"number": card.number, "title": card.title} for card in CARDS]})


# Webhooks
@blueprint.post("/webhooks")
def add_webhook() -> ResponseReturnValue:
    here, body = world(), _body()
    with here.lock:
        endpoint = make_endpoint(here, str(body["url"]), body.get("events") or ["*"], body.get("secret"))
        return jsonify(render(here, endpoint) | {"secret": endpoint["secret"]})


@blueprint.post("/modes")
def modes() -> ResponseReturnValue:
    try:
        return jsonify(world().courier.configure(**_body()))
    except TypeError as error:
        raise invalid(f"No such mode: {error}") from error


@blueprint.get("/deliveries")
def deliveries() -> ResponseReturnValue:
    state, after = request.args.get("state"), request.args.get("after", 0, int)
    return jsonify({"data": world().courier.summaries(state, after)})


@blueprint.post("/deliveries/release")
def release() -> ResponseReturnValue:
    body = _body()
    states = tuple(body.get("states") or ("held", "failed"))
    return jsonify({"released": world().courier.release(states, body.get("duplicate", False), body.get("ids"))})


@blueprint.post("/deliveries/drain")
def drain() -> ResponseReturnValue:
    body = _body()
    return jsonify({"drained": world().courier.drain(body.get("seconds", 30.0), body.get("retries", False))})


# Faults
@blueprint.post("/faults")
def order_fault() -> ResponseReturnValue:
    here = world()
    with here.lock:
        return jsonify(faults.order(here, _body()))


@blueprint.delete("/faults")
def clear_faults() -> ResponseReturnValue:
    here = world()
    with here.lock:
        here.faults.clear()
    return jsonify({})


# People and banks
@blueprint.post("/checkout/<session_id>/pay")
def pay_checkout(session_id: str) -> ResponseReturnValue:
    """As on the page, and then the bank's question if `authenticate` answers it."""
    here, body = world(), _body()
    with here.lock:
        session = here.get("checkout.session", session_id)
        outcome = checkout.submit(here, session, body.get("card"), body.get("email"), body.get("name"))
        asked = here.find("payment_intent", session["_intent"]) or here.find("setup_intent", session["_setup"])
        if "authenticate" in body and asked and asked["status"] == "requires_action":
            _authenticate(here, asked, bool(body["authenticate"]))
            outcome = checkout.where_next(here, session)
        shown = {name: session[name] for name in ("status", "payment_status")}
        return jsonify(shown | {"url": outcome.url, "message": outcome.message})


@blueprint.post("/authenticate/<intent_id>")
def authenticate(intent_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        intent = here.find("payment_intent", intent_id) or here.get("setup_intent", intent_id)
        if intent["status"] != "requires_action":
            raise invalid(f"Nobody asks: the status is {intent['status']}.")
        _authenticate(here, intent, bool(_body().get("agreed", True)))
        return jsonify(render(here, intent))


def _authenticate(here: World, intent: Obj, agreed: bool) -> None:
    act = payments.authenticate if intent["object"] == "payment_intent" else setups.authenticate
    act(here, intent, agreed)


@blueprint.post("/customers/<customer_id>/card")
def use_card(customer_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        customer = here.get("customer", customer_id)
        method = methods.make(here, str(_body().get("card")), "card")
        methods.attach(here, method, customer)
        methods.make_default(here, method, customer)
        return jsonify(render(here, method))


@blueprint.post("/refunds/<refund_id>/fail")
def fail_refund(refund_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        refund = here.get("refund", refund_id)
        fail(here, refund)
        return jsonify(render(here, refund))


@blueprint.post("/debits")
def settle_debits() -> ResponseReturnValue:
    here, body = world(), _body()
    outcome = body.get("outcome")
    if outcome not in (None, "succeed", "fail"):
        raise invalid("outcome must be one of succeed, fail", "outcome")
    with here.lock:
        waiting = [one for one in here.all("payment_intent") if one["status"] == "processing"]
        chosen = [one for one in waiting if body.get("intent") in (None, one["id"])]
        for intent in chosen:
            payments.settle(here, intent, outcome)
        return jsonify({"settled": len(chosen)})


@blueprint.post("/charges/<charge_id>/dispute")
def open_dispute(charge_id: str) -> ResponseReturnValue:
    """Of a charge, or of the charge of a payment intent."""
    here, body = world(), _body()
    with here.lock:
        intent, status = here.find("payment_intent", charge_id), str(body.get("status", "needs_response"))
        charge = here.get("charge", intent["latest_charge"] if intent else charge_id)
        dispute = disputes.open_dispute(here, charge, body.get("amount"), status, str(body.get("reason", "fraudulent")))
        return jsonify(render(here, dispute))


@blueprint.post("/disputes/<dispute_id>/close")
def close_dispute(dispute_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        dispute = disputes.close_dispute(here, here.get("dispute", dispute_id), str(_body().get("status")))
        return jsonify(render(here, dispute))


@blueprint.post("/disputes/<dispute_id>/escalate")
def escalate_dispute(dispute_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        dispute = here.get("dispute", dispute_id)
        disputes.escalate(here, dispute)
        return jsonify(render(here, dispute))
