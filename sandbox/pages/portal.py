"""The billing portal: change the card, cancel, take that back, switch plans, see invoices."""

from flask import Blueprint, redirect, render_template, request
from flask.typing import ResponseReturnValue

from sandbox import clock, methods, money
from sandbox.api import world
from sandbox.billing import changes, pending, schedules
from sandbox.billing import subscriptions as life
from sandbox.errors import ApiError, invalid
from sandbox.events import emit
from sandbox.shapes import Obj
from sandbox.world import World, is_over

blueprint = Blueprint("portal", __name__)


@blueprint.get("/p/session/<session_id>")
def show(session_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        return _page(here, here.get("billing_portal.session", session_id), request.args.get("done"))


@blueprint.post("/p/session/<session_id>")
def act(session_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        session = here.get("billing_portal.session", session_id)
        action = request.form.get("action", "")
        if action not in ACTIONS:
            raise invalid(f"No such action: {action}")
        feature, do = ACTIONS[action]
        if not _features(here, session)[feature]["enabled"]:
            raise invalid(f"The portal's configuration does not allow this: {feature}.")
        try:
            do(here, session)
        except ApiError as refusal:
            return _page(here, session, None, refusal.message)
        return redirect(_onward(session, action), 303)


def _onward(session: Obj, action: str) -> str:
    """A session made for one thing leads back when that is done."""
    after = (session["flow"] or {}).get("after_completion") or {}
    if after.get("redirect"):
        return str(after["redirect"]["return_url"])
    return f"/p/session/{session['id']}?done={action}"


def _features(here: World, session: Obj) -> Obj:
    features = here.get("billing_portal.configuration", session["configuration"])["features"]
    assert isinstance(features, dict)
    return features


def _card(here: World, session: Obj) -> None:
    customer = here.get("customer", session["customer"])
    method = methods.make(here, request.form.get("card") or request.form.get("number", ""))
    methods.attach(here, method, customer)
    methods.make_default(here, method, customer)


def _subscription(here: World, session: Obj) -> Obj:
    subscription = here.get("subscription", request.form.get("subscription", ""))
    if subscription["customer"] != session["customer"] or is_over(subscription):
        raise invalid("No such subscription.")
    return subscription


def _cancel(here: World, session: Obj) -> None:
    subscription = _subscription(here, session)
    if _features(here, session)["subscription_cancel"]["mode"] == "immediately":
        changes.cancel(here, subscription, {})
    else:
        changes.set_cancellation(here, subscription, {"cancel_at_period_end": True})
        emit(here, "customer.subscription.updated", subscription)


def _resume(here: World, session: Obj) -> None:
    subscription = _subscription(here, session)
    changes.set_cancellation(here, subscription, {"cancel_at_period_end": False})
    emit(here, "customer.subscription.updated", subscription)


def _switch(here: World, session: Obj) -> None:
    """To another of the configuration's prices, settled as the configuration says."""
    subscription = _subscription(here, session)
    wanted = request.form.get("price", "")
    if wanted not in _prices(here, session):
        raise invalid("This plan is not on offer.")
    item = life.items_of(here, subscription)[0]
    _change(here, session, subscription, [{"id": item["id"], "price": wanted}])


def _confirm(here: World, session: Obj) -> None:
    """What the session was made for (`subscription_update_confirm`)."""
    prepared = (session["flow"] or {}).get("subscription_update_confirm")
    if not prepared:
        raise invalid("There is nothing to confirm.")
    _change(here, session, here.get("subscription", prepared["subscription"]), prepared["items"])


def _change(here: World, session: Obj, subscription: Obj, wanted: list[Obj]) -> None:
    """At once, or at the end of the period where the configuration says so for what costs less or lasts shorter."""
    update = _features(here, session)["subscription_update"]
    if _waits(here, subscription, wanted, update["schedule_at_period_end"]["conditions"]):
        schedules.at_period_end(here, subscription, wanted)
    else:
        pending.change(here, subscription, wanted, {"proration_behavior": update["proration_behavior"]})
    emit(here, "customer.subscription.updated", subscription)


def _waits(here: World, subscription: Obj, wanted: list[Obj], conditions: list[Obj]) -> bool:
    kinds = {condition["type"] for condition in conditions or []}
    items = {item["id"]: item for item in life.items_of(here, subscription)}
    for one in wanted:
        old = items.get(one.get("id", ""))
        if old is None or "price" not in one:
            continue
        before, after = here.objects["price"][old["_price"]], here.ref("price", one["price"], "price")
        cheaper = money.amount(after, one.get("quantity") or 1) < money.amount(before, old["quantity"] or 1)
        lasts = [
            clock.after(0, price["recurring"]["interval"], price["recurring"]["interval_count"])
            for price in (before, after)
        ]
        if "shortening_interval" in kinds and lasts[1] < lasts[0]:
            return True
        if "decreasing_item_amount" in kinds and cheaper and lasts[0] == lasts[1]:
            return True
    return False


ACTIONS = {
    "card": ("payment_method_update", _card),
    "cancel": ("subscription_cancel", _cancel),
    "resume": ("subscription_cancel", _resume),
    "switch": ("subscription_update", _switch),
    "confirm": ("subscription_update", _confirm),
}


def _prices(here: World, session: Obj) -> list[str]:
    products = _features(here, session)["subscription_update"]["products"] or []
    return [price for product in products for price in product["prices"]]


def _page(here: World, session: Obj, done: str | None, message: str | None = None) -> str:
    customer = here.get("customer", session["customer"])
    running = [one for one in here.all("subscription") if one["customer"] == customer["id"]]
    listed = [one for one in here.all("invoice") if one["customer"] == customer["id"] and one["status"] != "draft"]
    return render_template(
        "portal.html",
        session=session,
        flow=session["flow"],
        features=_features(here, session),
        customer=customer,
        method=methods.usual(here, customer),
        subscriptions=[_shown(here, one) for one in running[::-1] if one["status"] != "incomplete_expired"],
        invoices=listed[::-1],
        choices=[_price(here, price) for price in _prices(here, session)],
        done=done,
        message=message,
    )


def _price(here: World, price_id: str) -> Obj:
    price = here.objects["price"][price_id]
    return {"price": price, "product": here.objects["product"][price["product"]]}


def _shown(here: World, subscription: Obj) -> Obj:
    items = life.items_of(here, subscription)
    schedule = schedules.of_subscription(here, subscription)
    later = schedule["phases"][-1]["items"] if schedule and len(schedule["phases"]) > 1 else []
    return {
        "subscription": subscription,
        "later": ", ".join(_price(here, item["price"])["product"]["name"] for item in later),
        "items": [_price(here, item["_price"]) | {"quantity": item["quantity"]} for item in items],
        "end": items[0]["current_period_end"],
        "over": is_over(subscription),
    }
