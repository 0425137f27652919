"""Changing a running subscription: other items, prorations, another cycle, cancelling and taking that back."""

from sandbox import clock, money
from sandbox.billing import lines, usage
from sandbox.billing import subscriptions as life
from sandbox.catalog import make_inline
from sandbox.errors import ApiError, invalid
from sandbox.params import Tree
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World

PARTS = ("create_prorations", "always_invoice")


def change_items(world: World, subscription: Obj, wanted: list[Tree], params: Tree) -> None:
    """Apply `items`; what was paid for the old ones is credited and the rest of the period charged, if wanted."""
    before = copies(world, subscription)
    interval = life.cycle(world, before.values())
    try:
        items = _exchange(world, subscription, wanted)
        reset = life.cycle(world, items) != interval or begins_anew(params)
    except ApiError:
        put_back(world, subscription, before)
        raise
    trialing = subscription["status"] == "trialing"
    moment = params.get("proration_date", world.now())
    behavior = params.get("proration_behavior", "create_prorations")
    _fill_periods(before, items)
    _bill_usage(world, subscription, before, items)
    if behavior in PARTS and not trialing:
        _prorate(world, subscription, before, items, moment, credit_only=reset)
    if trialing:
        return
    if reset:
        restart_cycle(world, subscription)
    if reset or behavior == "always_invoice":
        collect = params.get("payment_behavior") != "default_incomplete"
        life.invoice_now(world, subscription, whole_period=reset, collect=collect)


def swap_at_period_end(world: World, subscription: Obj, wanted: list[Tree], anew: bool) -> None:
    """Other items from the end of the period on, which is now; another interval is counted from here."""
    before = copies(world, subscription)
    interval = life.cycle(world, before.values())
    items = _exchange(world, subscription, wanted)
    _fill_periods(before, items)
    _bill_usage(world, subscription, before, items)
    if anew or life.cycle(world, items) != interval:
        subscription["billing_cycle_anchor"] = life.period_of(world, subscription)[1]


def copies(world: World, subscription: Obj) -> dict[str, Obj]:
    """Its items as they are now, by id."""
    return {item["id"]: dict(item) for item in life.items_of(world, subscription)}


def put_back(world: World, subscription: Obj, wanted: dict[str, Obj]) -> None:
    """Make its items what they were, or were to be."""
    for item in life.items_of(world, subscription):
        if item["id"] not in wanted:
            world.delete(item)
    for item_id, values in wanted.items():
        world.objects["subscription_item"][item_id] = dict(values)


def begins_anew(params: Tree) -> bool:
    return bool(params.get("billing_cycle_anchor", {}).get("type") == "now")


def _exchange(world: World, subscription: Obj, wanted: list[Tree]) -> list[Obj]:
    for number, one in enumerate(wanted):
        _apply(world, subscription, one, f"items[{number}]")
    items = life.items_of(world, subscription)
    if not items:
        raise invalid("A subscription must have at least one item.", "items")
    prices = [world.objects["price"][item["_price"]] for item in items]
    life.check_prices(prices, "items")
    if prices[0]["currency"] != subscription["currency"]:
        raise invalid(f"The subscription is in {subscription['currency']}; its currency can not be changed.", "items")
    return items


def _apply(world: World, subscription: Obj, wanted: Tree, param: str) -> None:
    if "id" not in wanted:
        price = price_of(world, wanted, param)
        life.add_item(world, subscription, price, wanted.get("quantity", 1), wanted.get("metadata") or {})
        return
    item = world.ref("subscription_item", wanted["id"], f"{param}[id]")
    if item["subscription"] != subscription["id"]:
        raise invalid(f"No such subscription item: '{wanted['id']}'", f"{param}[id]", "resource_missing")
    if wanted.get("deleted"):
        world.delete(item)
        return
    if "price" in wanted or "price_data" in wanted:
        life.set_price(world, item, price_of(world, wanted, param))
    if "quantity" in wanted:
        if item["quantity"] is None:
            raise invalid("You can not set the quantity of a metered item.", f"{param}[quantity]")
        item["quantity"] = wanted["quantity"]
    if "metadata" in wanted:
        item["metadata"] = merge_metadata(item["metadata"], wanted["metadata"])


def price_of(world: World, wanted: Tree, param: str) -> Obj:
    """The price an item names, or a new one from its `price_data`."""
    if "price_data" in wanted:
        return make_inline(world, wanted["price_data"])
    if "price" not in wanted:
        raise invalid("You must pass a price.", f"{param}[price]", "parameter_missing")
    return world.ref("price", wanted["price"], f"{param}[price]")


def _fill_periods(before: dict[str, Obj], items: list[Obj]) -> None:
    """New items join the running period."""
    old = next(iter(before.values()))
    for item in items:
        if item["current_period_end"] is None:
            item.update({name: old[name] for name in ("current_period_start", "current_period_end")})


def _bill_usage(world: World, subscription: Obj, before: dict[str, Obj], items: list[Obj]) -> None:
    """What was used of a metered price that is given up is not forgotten."""
    kept = {(item["id"], item["_price"]) for item in items}
    for old in before.values():
        if (old["id"], old["_price"]) not in kept:
            bill_item_usage(world, subscription, old)


def bill_item_usage(world: World, subscription: Obj, item: Obj) -> None:
    """What was used of a metered item so far waits for the next invoice, and is counted anew from now on."""
    if item["quantity"] is not None:
        return
    begin = max(item["current_period_start"], item["_counts_from"])
    item["_counts_from"] = world.now()
    price, units, amount = usage.cost(world, item["_price"], subscription["customer"], begin, world.now())
    if units:
        lines.invoice_item(
            world,
            subscription["customer"],
            amount,
            price["currency"],
            (begin, world.now()),
            price=price,
            quantity=int(units),
            subscription=subscription["id"],
            description=lines.describe(world, price, int(units)),
            _subscription_item=item["id"],
        )


def _prorate(
    world: World, subscription: Obj, before: dict[str, Obj], items: list[Obj], moment: int, credit_only: bool
) -> None:
    now = {item["id"]: item for item in items}
    for item_id in [*before, *(key for key in now if key not in before)]:
        old, new = before.get(item_id), now.get(item_id)
        same = old and new and (old["_price"], old["quantity"]) == (new["_price"], new["quantity"])
        if same and not credit_only:
            continue
        if old:
            _part(world, subscription, old, moment, -1, "Unused time on")
        if new and not credit_only:
            _part(world, subscription, new, moment, 1, "Remaining time on")


def _part(world: World, subscription: Obj, item: Obj, moment: int, sign: int, words: str) -> None:
    """The share of the period after `moment`, to the second as Stripe counts."""
    price = world.objects["price"][item["_price"]]
    if item["quantity"] is None:
        return
    begin, finish = item["current_period_start"], item["current_period_end"]
    share = money.amount(price, item["quantity"]) * max(0, finish - moment) / (finish - begin)
    lines.invoice_item(
        world,
        subscription["customer"],
        sign * round(share),
        price["currency"],
        (moment, finish),
        price=price,
        quantity=item["quantity"],
        subscription=subscription["id"],
        description=f"{words} {lines.describe(world, price, item['quantity'])}",
        proration=True,
        _subscription_item=item["id"],
    )


def credit_rest(world: World, subscription: Obj, item: Obj, moment: int) -> None:
    """What is paid for and lies after the moment."""
    _part(world, subscription, item, moment, -1, "Unused time on")


def join_running_cycle(world: World, subscription: Obj, behavior: str, moment: int) -> None:
    """Into the period that now falls into, counted from the old anchor; its rest is charged if that is wanted."""
    items = life.items_of(world, subscription)
    interval = life.cycle(world, items)
    finish = life.boundary_after(subscription["billing_cycle_anchor"], interval, world.now())
    begin = clock.after(finish, interval[0], -interval[1])
    for item in items:
        item.update(current_period_start=begin, current_period_end=finish, _counts_from=world.now())
        if behavior in PARTS:
            _part(world, subscription, item, moment, 1, "Remaining time on")


def restart_cycle(world: World, subscription: Obj) -> None:
    """A new period begins now."""
    now = world.now()
    items = life.items_of(world, subscription)
    subscription["billing_cycle_anchor"] = now
    finish = life.boundary_after(now, life.cycle(world, items), now)
    for item in items:
        item.update(current_period_start=now, current_period_end=finish)


def set_trial_end(world: World, subscription: Obj, wanted: int | str) -> None:
    """`now` ends a trial; a later moment begins or prolongs one, and is the new anchor."""
    if wanted == "now":
        if subscription["status"] == "trialing":
            subscription.update(status="active", trial_end=world.now())
            restart_cycle(world, subscription)
            life.invoice_now(world, subscription, whole_period=True)
        return
    assert isinstance(wanted, int)
    if wanted <= world.now():
        raise invalid("The trial_end must be in the future.", "trial_end")
    subscription["trial_start"] = subscription["trial_start"] or world.now()
    subscription.update(status="trialing", trial_end=wanted, billing_cycle_anchor=wanted)
    for item in life.items_of(world, subscription):
        item["current_period_end"] = wanted


def set_cancellation(world: World, subscription: Obj, params: Tree) -> None:
    """`cancel_at_period_end` and `cancel_at`; either false or empty takes it back."""
    finish = life.period_of(world, subscription)[1]
    if "cancel_at_period_end" in params:
        planned = params["cancel_at_period_end"]
        subscription.update(cancel_at_period_end=planned, cancel_at=finish if planned else None)
    elif "cancel_at" in params:
        wanted = params["cancel_at"]
        moment = finish if isinstance(wanted, str) and wanted else wanted or None
        if moment is not None and moment <= world.now():
            raise invalid("cancel_at must be in the future.", "cancel_at")
        subscription.update(cancel_at=moment, cancel_at_period_end=False)
    else:
        return
    planned = subscription["cancel_at"] is not None
    subscription["canceled_at"] = world.now() if planned else None
    subscription["cancellation_details"]["reason"] = "cancellation_requested" if planned else None


def cancel(world: World, subscription: Obj, params: Tree) -> None:
    """At once, with a credit for the rest and a last invoice when asked for."""
    subscription["cancellation_details"].update(params.get("cancellation_details", {}))
    if params.get("prorate"):
        for item in life.items_of(world, subscription):
            credit_rest(world, subscription, item, world.now())
    if params.get("invoice_now"):
        life.invoice_now(world, subscription, whole_period=False, used=True)
    life.end(world, subscription, "cancellation_requested")
