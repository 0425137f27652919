"""What an invoice would be: played through in a copy of everything, so a preview can not differ from what comes."""

from sandbox import checkout
from sandbox.billing import changes, invoices, starting
from sandbox.billing import subscriptions as life
from sandbox.errors import ApiError, invalid
from sandbox.params import Tree
from sandbox.resources.invoice_items import make_item
from sandbox.routing import only, refuse
from sandbox.shapes import Obj
from sandbox.views import render, tree_of
from sandbox.world import World, is_over

CHANGES = ("items", "proration_behavior", "proration_date", "billing_cycle_anchor")
NOT_IMITATED = ("schedule", "schedule_details", "discounts", "customer_details")


def preview(world: World, params: Tree) -> Obj:
    refuse(params, NOT_IMITATED)
    details = params.get("subscription_details", {})
    subscription = world.ref("subscription", params["subscription"], "subscription") if "subscription" in params else {}
    other = world.scratch(params.get("customer") or subscription.get("customer", ""))
    if subscription:
        invoice = _of_subscription(other, params, details)
    elif details.get("items"):
        invoice = _of_new(other, params, details)
    else:
        raise invalid("Pass a `subscription`, or `customer` and `subscription_details[items]`.", "subscription")
    if params.get("preview_mode") == "recurring":
        invoice["_lines"] = [line for line in invoice["_lines"] if not _is_once(line)]
        invoices.total(invoice)
    return _shown(other, invoice, world.now(), params)


def _is_once(line: Obj) -> bool:
    """Made from an invoice item: prorations and single charges."""
    parent = line["parent"]
    return bool((parent["invoice_item_details"] or parent["subscription_item_details"])["invoice_item"])


def _of_subscription(other: World, params: Tree, details: Tree) -> Obj:
    subscription = other.ref("subscription", params["subscription"], "subscription")
    if is_over(subscription):
        raise _nothing()
    _add_items(other, subscription["customer"], subscription["id"], params)
    before = subscription["latest_invoice"]
    if details.get("cancel_now"):
        changes.cancel(
            other, subscription, {"invoice_now": True, "prorate": details.get("proration_behavior") != "none"}
        )
    else:
        _change(other, subscription, details)
    if subscription["latest_invoice"] == before:
        _renew(other, subscription)
    return other.get("invoice", subscription["latest_invoice"])


def _change(other: World, subscription: Obj, details: Tree) -> None:
    if "items" in details or changes.begins_anew(details):
        change = only(details, CHANGES) | {"payment_behavior": "allow_incomplete"}
        changes.change_items(other, subscription, details.get("items", []), change)
    if "trial_end" in details:
        changes.set_trial_end(other, subscription, details["trial_end"])
    changes.set_cancellation(other, subscription, details)


def _renew(other: World, subscription: Obj) -> None:
    """On to the end of the period."""
    if subscription["cancel_at_period_end"] or is_over(subscription):
        raise _nothing()
    before = subscription["latest_invoice"]
    other.clock.set(max(other.now(), life.period_of(other, subscription)[1]))
    subscription["pause_collection"] = None
    life.renew(other, subscription)
    if subscription["latest_invoice"] == before:
        raise _nothing()


def _nothing() -> ApiError:
    return ApiError("No upcoming invoices for customer.", status=404, code="invoice_upcoming_none")


def _of_new(other: World, params: Tree, details: Tree) -> Obj:
    if "customer" not in params:
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    customer = other.ref("customer", params["customer"], "customer")
    wanted = details["items"]
    order = starting.Order(
        customer=customer,
        items=[
            {
                "price": changes.price_of(other, one, f"subscription_details[items][{number}]"),
                "quantity": one.get("quantity", 1),
            }
            for number, one in enumerate(wanted)
        ],
        trial_end=checkout.trial_end(other, details) if details.get("trial_end") != "now" else None,
        behavior="default_incomplete",
    )
    subscription = starting.start(other, order)
    invoice = other.get("invoice", subscription["latest_invoice"])
    _add_items(other, customer["id"], None, params)
    pending = invoices.pending_items(other, customer["id"], None, invoice["currency"])
    invoices.add_items(other, invoice, pending)
    invoice.update(starting_balance=0, ending_balance=None)
    return invoice


def _add_items(other: World, customer: str, subscription: str | None, params: Tree) -> None:
    for one in params.get("invoice_items", []):
        refuse(one, ("invoiceitem", "discounts", "tax_rates"))
        item = dict(one)
        if "price" in item:
            item["pricing"] = {"price": item.pop("price")}
        if "unit_amount" in item:
            item["unit_amount_decimal"] = item.pop("unit_amount")
        make_item(other, customer, item | {"subscription": subscription})


def _shown(other: World, invoice: Obj, now: int, params: Tree) -> Obj:
    """As the draft it will be: nothing numbered, paid or tried."""
    if invoice["status"] == "draft":
        invoices.apply_balance(other, invoice, other.get("customer", invoice["customer"]))
    invoice.update(
        status="draft",
        number=None,
        created=now,
        attempt_count=0,
        attempted=False,
        amount_paid=0,
        amount_remaining=invoice["amount_due"],
        hosted_invoice_url=None,
        invoice_pdf=None,
        effective_at=None,
        automatically_finalizes_at=None,
        next_payment_attempt=None,
    )
    invoice["status_transitions"] = dict.fromkeys(invoice["status_transitions"])
    shown = render(other, invoice, tree_of(params.get("expand")))
    upcoming = "upcoming_" + invoice["id"]
    for line in shown["lines"]["data"]:
        line["invoice"] = upcoming
    return shown | {"id": upcoming}
