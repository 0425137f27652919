"""Subscription schedules: phases with prices of their own, entered when their time comes."""

from sandbox import clock
from sandbox.billing import changes, starting
from sandbox.billing import subscriptions as life
from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.shapes import Obj, copied
from sandbox.world import World, is_over

KIND = "subscription_schedule"
# Parts of a phase that are null unless they are given.
UNSET = (
    *("application_fee_percent", "automatic_tax", "billing_cycle_anchor", "billing_thresholds", "collection_method"),
    *("default_payment_method", "default_tax_rates", "description", "invoice_settings", "on_behalf_of"),
    *("transfer_data", "trial", "trial_end"),
)


def of_subscription(world: World, subscription: Obj) -> Obj | None:
    schedule = world.find(KIND, subscription["schedule"])
    return schedule if schedule and not is_over(schedule) else None


def make(world: World, customer: str, phases: list[Obj], **values: object) -> Obj:
    settings: Obj = {
        "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}},
        "default_settings": {
            "application_fee_percent": None,
            "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
            "billing_cycle_anchor": "automatic",
            "billing_thresholds": None,
            "collection_method": "charge_automatically",
            "default_payment_method": None,
            "description": None,
            "invoice_settings": {"account_tax_ids": None, "days_until_due": None, "issuer": {"type": "self"}},
            "on_behalf_of": None,
            "transfer_data": None,
        },
        "end_behavior": "release",
        "pause_schedules": [],
        "status": "not_started",
    }
    return world.add(KIND, customer=customer, phases=phases, **(settings | values))


def phase(world: World, wanted: Tree, start: int, param: str) -> Obj:
    """As it is kept: prices looked up, its end worked out; without one it is a period of its price long."""
    items = [_item(world, one, f"{param}[items][{number}]") for number, one in enumerate(wanted["items"])]
    if not items:
        raise invalid("A phase must have at least one item.", f"{param}[items]")
    prices = [world.objects["price"][item["price"]] for item in items]
    life.check_prices(prices, f"{param}[items]")
    recurring = prices[0]["recurring"]
    duration = wanted.get("duration") or {name: recurring[name] for name in ("interval", "interval_count")}
    end = wanted.get("end_date") or clock.after(start, duration["interval"], duration.get("interval_count", 1))
    end = world.now() if end == "now" else end
    if end <= start:
        raise invalid("A phase must end after it starts.", f"{param}[end_date]")
    blank: Obj = dict.fromkeys(UNSET)
    blank |= {"add_invoice_items": [], "discounts": [], "metadata": {}, "proration_behavior": "create_prorations"}
    kept = {name: wanted[name] for name in blank if name in wanted}
    return blank | kept | {"currency": prices[0]["currency"], "items": items, "start_date": start, "end_date": end}


def _item(world: World, wanted: Tree, param: str) -> Obj:
    price = changes.price_of(world, wanted, param)
    metered = price["recurring"] and price["recurring"]["usage_type"] == "metered"
    item = {"price": price["id"], "plan": price["id"], "metadata": wanted.get("metadata", {})}
    return item | {
        "quantity": None if metered else wanted.get("quantity", 1),
        "billing_thresholds": None,
        "discounts": [],
        "tax_rates": [],
    }


def as_phase(world: World, subscription: Obj) -> Tree:
    """What the subscription is now, until its period ends."""
    items = life.items_of(world, subscription)
    kept = {name: subscription[name] for name in ("trial_end",) if subscription["status"] == "trialing"}
    return kept | {
        "items": [{"price": item["_price"], "quantity": item["quantity"] or 1} for item in items],
        "end_date": life.period_of(world, subscription)[1],
    }


def at_period_end(world: World, subscription: Obj, wanted: list[Tree]) -> Obj:
    """A schedule that makes these changes when the period ends, in place of one that there may be."""
    if running := of_subscription(world, subscription):
        release(world, running)
    start, end = life.period_of(world, subscription)
    first = phase(world, as_phase(world, subscription), start, "phases[0]")
    changed = {one["id"]: one for one in wanted if "id" in one}
    items = []
    for item in life.items_of(world, subscription):
        new = changed.get(item["id"], {})
        if not new.get("deleted"):
            items.append(
                {"price": new.get("price", item["_price"]), "quantity": new.get("quantity") or item["quantity"] or 1}
            )
    following = phase(world, {"items": items}, end, "phases[1]")
    schedule = make(
        world, subscription["customer"], [first, following], subscription=subscription["id"], status="active"
    )
    _mark(schedule, first)
    subscription["schedule"] = schedule["id"]
    emit(world, f"{KIND}.created", schedule)
    return schedule


def begin(world: World, schedule: Obj, customer: Obj) -> None:
    """The first phase of a schedule that makes its own subscription."""
    first = schedule["phases"][0]
    wanted = [_order_item(world, item) for item in first["items"]]
    values = {"metadata": dict(first["metadata"]), "schedule": schedule["id"]}
    subscription = starting.start(world, starting.Order(customer=customer, items=wanted, values=values))
    schedule.update(subscription=subscription["id"], status="active")
    _mark(schedule, first)
    emit(world, f"{KIND}.updated", schedule)


def _order_item(world: World, item: Obj) -> Obj:
    return {"price": world.objects["price"][item["price"]], "quantity": item["quantity"] or 1}


def _mark(schedule: Obj, now_in: Obj) -> None:
    schedule["current_phase"] = {"start_date": now_in["start_date"], "end_date": now_in["end_date"]}


def due(schedule: Obj) -> int:
    """When it has something to do next."""
    if schedule["status"] == "not_started":
        return int(schedule["phases"][0]["start_date"])
    return int(schedule["current_phase"]["end_date"])


def turn(world: World, schedule: Obj) -> None:
    """Its moment has come: begin, go on to the next phase, or end."""
    if schedule["status"] == "not_started":
        return begin(world, schedule, world.get("customer", schedule["customer"]))
    subscription = world.get("subscription", schedule["subscription"])
    moment = schedule["current_phase"]["end_date"]
    following = next((one for one in schedule["phases"] if one["start_date"] >= moment), None)
    if following is not None:
        return _enter(world, schedule, subscription, following)
    if schedule["end_behavior"] == "cancel":
        schedule.update(status="completed", completed_at=world.now(), current_phase=None)
        emit(world, f"{KIND}.completed", schedule)
        return life.end(world, subscription, None)
    return release(world, schedule)


def _enter(world: World, schedule: Obj, subscription: Obj, following: Obj) -> None:
    """At the end of a period the next one begins with the new prices; otherwise they are prorated."""
    _mark(schedule, following)
    if following["metadata"]:
        subscription["metadata"] = subscription["metadata"] | following["metadata"]
    wanted = exchange(world, subscription, following["items"])
    if following["start_date"] == life.period_of(world, subscription)[1]:
        changes.swap_at_period_end(world, subscription, wanted, following["billing_cycle_anchor"] == "phase_start")
        life.renew(world, subscription)
    else:
        changes.change_items(world, subscription, wanted, {"proration_behavior": following["proration_behavior"]})
        emit(world, "customer.subscription.updated", subscription)
    emit(world, f"{KIND}.updated", schedule)


def exchange(world: World, subscription: Obj, items: list[Obj]) -> list[Tree]:
    """The changes that make the subscription's items these; items keep their ids as far as possible."""
    present = life.items_of(world, subscription)
    by_price = {item["_price"]: item for item in present}
    spare = [item for item in present if item["_price"] not in {one["price"] for one in items}]
    wanted: list[Tree] = []
    for one in items:
        kept = by_price.get(one["price"]) or (spare.pop(0) if spare else None)
        quantity = {} if one["quantity"] is None else {"quantity": one["quantity"]}
        wanted.append(({"id": kept["id"]} if kept else {}) | {"price": one["price"]} | quantity)
    return wanted + [{"id": item["id"], "deleted": True} for item in spare]


def release(world: World, schedule: Obj) -> None:
    """The subscription goes on as it is, on its own."""
    subscription = world.find("subscription", schedule["subscription"])
    schedule.update(status="released", released_at=world.now(), current_phase=None)
    schedule.update(released_subscription=schedule["subscription"], subscription=None)
    if subscription:
        subscription["schedule"] = None
    emit(world, f"{KIND}.released", schedule)
    if subscription:
        emit(world, "customer.subscription.updated", subscription)


def cancel(world: World, schedule: Obj) -> None:
    schedule.update(status="canceled", canceled_at=world.now(), current_phase=None)
    emit(world, f"{KIND}.canceled", schedule)


def follow_end(world: World, subscription: Obj) -> None:
    """A subscription that ends takes its schedule with it."""
    schedule = of_subscription(world, subscription)
    if schedule:
        cancel(world, schedule)


life.ENDINGS.append(follow_end)


def replaced(world: World, schedule: Obj, wanted: list[Tree]) -> list[Obj]:
    """The phases of an update: what runs keeps its start, what is over stays as it was."""
    now = world.now()
    past = [copied(one) for one in schedule["phases"] if one["end_date"] <= now]
    phases: list[Obj] = []
    start = (schedule["current_phase"] or schedule["phases"][0])["start_date"]
    for number, one in enumerate(wanted):
        given = one.get("start_date", start)
        given = now if given == "now" else given
        if number and given != start:
            raise invalid("Phases must follow one another without gaps.", f"phases[{number}][start_date]")
        phases.append(phase(world, one, given, f"phases[{number}]"))
        start = phases[-1]["end_date"]
    starts = {one["start_date"] for one in phases}
    if schedule["current_phase"] and schedule["current_phase"]["start_date"] not in starts:
        raise invalid("The phase that runs must be among the phases, with its start_date.", "phases")
    return [one for one in past if one["start_date"] not in starts] + phases
