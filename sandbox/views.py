"""An object as the API shows it: own fields, embedded lists, and what `expand` asks for."""

from collections.abc import Callable
from typing import Any

from sandbox import shapes
from sandbox.errors import invalid
from sandbox.shapes import Obj, copied, listed
from sandbox.world import World, is_over

Tree = dict[str, Any]
DEPTH = 4
EMBEDDED = 10


def tree_of(paths: list[str] | None) -> Tree:
    """`["data.product"]` → `{"data": {"product": {}}}`."""
    tree: Tree = {}
    for path in paths or []:
        parts = path.split(".")
        if len([part for part in parts if part != "data"]) > DEPTH:
            raise invalid(f"You cannot expand more than {DEPTH} levels of a property.", "expand")
        place = tree
        for part in parts:
            place = place.setdefault(part, {})
    return tree


def render(world: World, obj: Obj, tree: Tree | None = None) -> Obj:
    """A copy without the sandbox's own notes (names that begin with `_`)."""
    tree = tree or {}
    kind = obj.get("object", "")
    hidden = shapes.INCLUDABLE.get(kind, frozenset())
    shown = {
        name: copied(value)
        for name, value in obj.items()
        if not name.startswith("_") and (name not in hidden or name in tree)
    }
    if kind == "billing.meter_event":  # known by its identifier alone
        del shown["id"]
    if not obj.get("deleted"):
        for name, compute in COMPUTED.get(kind, {}).items():
            if name not in hidden or name in tree:
                shown[name] = compute(world, obj)
    for name, below in tree.items():
        _expand(world, shown, name, below)
    return shown


def _expand(world: World, shown: Obj, name: str, below: Tree) -> None:
    if name not in shown:
        raise invalid(f"This property cannot be expanded ({name}).", f"expand[{name}]")
    value = shown[name]
    if isinstance(value, str):
        kind = shapes.REFERENCES.get(name)
        if kind is None:
            raise invalid(f"This property cannot be expanded ({name}).", f"expand[{name}]")
        target = world.objects[kind].get(value)
        shown[name] = render(world, target, below) if target else value
    elif isinstance(value, dict):
        if below:
            shown[name] = _deeper(world, value, below)
    elif isinstance(value, list):
        shown[name] = [_deeper(world, part, below) for part in value]


def _deeper(world: World, value: Obj, below: Tree) -> Obj:
    """Embedded objects are rendered again from the original: what they hide by default may be asked for here."""
    kind = value.get("object", "")
    known = world.objects.get(kind, {}) if isinstance(kind, str) else {}  # an event's data has an object of its own
    if value.get("id") in known:
        return render(world, known[value["id"]], below)
    for name, more in below.items():
        _expand(world, value, name, more)
    return value


def _items(world: World, subscription: Obj) -> Obj:
    url = f"/v1/subscription_items?subscription={subscription['id']}"
    found = [world.find("subscription_item", item) for item in subscription["_items"]]
    return listed([render(world, item) for item in found if item], url)


def _price(world: World, item: Obj) -> Obj:
    return render(world, world.objects["price"][item["_price"]])


def _plan(world: World, item: Obj) -> Obj:
    """The old name of a recurring price; kept in the shape."""
    price = world.objects["price"][item["_price"]]
    recurring = price["recurring"]
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": False,
        "metadata": dict(price["metadata"]),
        "meter": recurring["meter"],
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": price["tiers_mode"],
        "transform_usage": copied(price["transform_quantity"]),
        "trial_period_days": recurring["trial_period_days"],
        "usage_type": recurring["usage_type"],
    }


def _lines(world: World, invoice: Obj) -> Obj:
    return listed(copied(invoice["_lines"]), f"/v1/invoices/{invoice['id']}/lines", EMBEDDED)


def _payments(world: World, invoice: Obj) -> Obj:
    payment = world.find("invoice_payment", invoice.get("_payment"))
    return listed([render(world, payment)] if payment else [], "/v1/invoice_payments")


def _session_lines(world: World, session: Obj) -> Obj:
    lines = [world.objects["item"][one] for one in session["_lines"]]
    url = f"/v1/checkout/sessions/{session['id']}/line_items"
    return listed([render(world, line) for line in lines], url, EMBEDDED)


def _refunds(world: World, charge: Obj) -> Obj:
    refunds = [render(world, one) for one in world.all("refund") if one["charge"] == charge["id"]]
    return listed(refunds[::-1], f"/v1/charges/{charge['id']}/refunds")


def _subscriptions(world: World, customer: Obj) -> Obj:
    found = [one for one in world.all("subscription") if one["customer"] == customer["id"]]
    live = [render(world, one) for one in found if not is_over(one)]
    return listed(live[::-1], f"/v1/customers/{customer['id']}/subscriptions")


COMPUTED: dict[str, dict[str, Callable[[World, Obj], Obj]]] = {
    "charge": {"refunds": _refunds},
    "checkout.session": {"line_items": _session_lines},
    "customer": {"subscriptions": _subscriptions},
    "invoice": {"lines": _lines, "payments": _payments},
    "item": {"price": _price},
    "subscription": {"items": _items},
    "subscription_item": {"price": _price, "plan": _plan},
}
