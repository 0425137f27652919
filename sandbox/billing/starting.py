"""Starting a subscription: what it is to be, its first invoice, and whether that is paid."""

from dataclasses import dataclass, field

from sandbox import clock, money, setups
from sandbox.billing import invoices, lines
from sandbox.billing import subscriptions as life
from sandbox.errors import ApiError
from sandbox.events import emit
from sandbox.shapes import Obj
from sandbox.world import World

PAYMENT_SETTINGS: Obj = {
    "payment_method_options": None,
    "payment_method_types": None,
    "save_default_payment_method": "off",
}


@dataclass
class Order:
    """What a new subscription is to be."""

    customer: Obj
    items: list[Obj]  # {"price": price object, "quantity": int, "metadata": dict}
    values: Obj = field(default_factory=dict)
    trial_end: int | None = None
    anchor: int | None = None
    prorate: bool = True
    behavior: str = "allow_incomplete"
    extra_items: list[Obj] = field(default_factory=list)
    method: Obj | None = None


def start(world: World, order: Order) -> Obj:
    """A new subscription and its first invoice. ApiError 402 with `error_if_incomplete`, and then nothing has begun."""
    life.check_prices([item["price"] for item in order.items], "items")
    if order.behavior == "error_if_incomplete":
        _rehearse(world, order)
    now = world.now()
    trialing = order.trial_end is not None and order.trial_end > now
    anchor = (order.trial_end if trialing else order.anchor) or now
    subscription = _make(world, order, anchor, "trialing" if trialing else "incomplete")
    _add_items(world, subscription, order, anchor if anchor > now else None)
    customer = order.customer
    if not customer["currency"]:
        customer["currency"] = subscription["currency"]
    invoice = _first_invoice(world, subscription, order, trialing)
    emit(world, "customer.subscription.created", subscription)
    invoices.announce(world, invoice, wait=False)
    invoices.finalize(world, invoice)
    if invoice["status"] == "open" and order.behavior != "default_incomplete":
        invoices.collect(world, invoice, automatic=False, method=order.method)
    if invoice["status"] == "open" and invoice["collection_method"] == "send_invoice":
        life.set_status(world, subscription, "active")
    if trialing and order.behavior == "default_incomplete" and not subscription["default_payment_method"]:
        subscription["pending_setup_intent"] = setups.create(world, customer["id"])["id"]
    return subscription


def _rehearse(world: World, order: Order) -> None:
    """Would the first payment work? Tried in a copy."""
    copy = world.scratch(order.customer["id"])
    customer = copy.get("customer", order.customer["id"])
    method = copy.find("payment_method", order.method["id"]) if order.method else None
    values = {**order.__dict__, "customer": customer, "method": method, "behavior": "allow_incomplete"}
    subscription = start(copy, Order(**values))
    refuse_unpaid(copy, subscription)


def refuse_unpaid(world: World, subscription: Obj) -> None:
    invoice = world.find("invoice", subscription["latest_invoice"])
    intent = invoices.intent_of(world, invoice) if invoice and invoice["status"] == "open" else None
    if invoice and invoice["status"] == "open":
        error = (intent or {}).get("last_payment_error") or {
            "code": "subscription_payment_intent_requires_action",
            "message": "The payment needs the customer, or there is no payment method to charge.",
        }
        extra = {"decline_code": error["decline_code"]} if "decline_code" in error else {}
        raise ApiError(error["message"], status=402, kind="card_error", code=error["code"], extra=extra)


def _make(world: World, order: Order, anchor: int, status: str) -> Obj:
    now = world.now()
    settings: Obj = {
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": anchor,
        "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}},
        "cancel_at_period_end": False,
        "cancellation_details": {"comment": None, "feedback": None, "feedback_option": None, "reason": None},
        "collection_method": "charge_automatically",
        "currency": order.items[0]["price"]["currency"],
        "default_tax_rates": [],
        "discounts": [],
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "payment_settings": dict(PAYMENT_SETTINGS),
        "start_date": now,
        "status": status,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
    }
    if status == "trialing":
        settings |= {"trial_start": now, "trial_end": order.trial_end}
    subscription = world.add("subscription", customer=order.customer["id"], _items=[])
    subscription.update(settings | order.values)
    return subscription


def _add_items(world: World, subscription: Obj, order: Order, end: int | None) -> None:
    for wanted in order.items:
        life.add_item(world, subscription, wanted["price"], wanted["quantity"], wanted.get("metadata", {}))
    items = life.items_of(world, subscription)
    interval = life.cycle(world, items)
    end = end or life.boundary_after(subscription["billing_cycle_anchor"], interval, world.now())
    for item in items:
        item.update(current_period_start=world.now(), current_period_end=end)


def _first_invoice(world: World, subscription: Obj, order: Order, trialing: bool) -> Obj:
    invoice = life.draft(world, subscription, "subscription_create", (world.now(), world.now()))
    for item in life.items_of(world, subscription):
        if (made := _first_line(world, invoice, item, subscription, order, trialing)) is not None:
            invoice["_lines"].append(made)
    for extra in order.extra_items:
        price, quantity = extra["price"], extra["quantity"]
        moment = (world.now(), world.now())
        amount = money.amount(price, quantity)
        item = lines.invoice_item(
            world,
            order.customer["id"],
            amount,
            price["currency"],
            moment,
            price=price,
            quantity=quantity,
            subscription=subscription["id"],
            description=lines.describe(world, price, quantity),
        )
        invoices.add_items(world, invoice, [item])
    invoices.total(invoice)
    return invoice


def _first_line(world: World, invoice: Obj, item: Obj, subscription: Obj, order: Order, trialing: bool) -> Obj | None:
    if item["quantity"] is None:  # metered: paid for when it was used
        return None
    if trialing:
        return lines.of_item(world, invoice["id"], item, subscription, 0, trial=True)
    begin, end = item["current_period_start"], item["current_period_end"]
    interval = life.interval_of(world, item)
    whole = clock.after(end, interval[0], -interval[1])
    if order.anchor is None or order.anchor <= begin:
        return lines.of_item(world, invoice["id"], item, subscription)
    amount = money.amount(world.objects["price"][item["_price"]], item["quantity"]) if order.prorate else 0
    return lines.of_item(world, invoice["id"], item, subscription, round(amount * (end - begin) / (end - whole)))
