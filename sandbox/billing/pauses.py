"""Pausing: only the collection of money, or the subscription itself, and going on afterwards."""

from sandbox.billing import changes, invoices
from sandbox.billing import subscriptions as life
from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.shapes import Obj
from sandbox.world import World

PATIENCE = 23 * 3600
PAUSABLE = ("active", "trialing", "past_due", "unpaid")


def set_collection(world: World, subscription: Obj, wanted: Tree | str) -> None:
    """`pause_collection`: the status stays as it is, invoices are kept as drafts, voided or written off."""
    if not isinstance(wanted, dict):
        subscription["pause_collection"] = None
        return
    resumes_at = wanted.get("resumes_at")
    if resumes_at is not None and resumes_at <= world.now():
        raise invalid("resumes_at must be in the future.", "pause_collection[resumes_at]")
    subscription["pause_collection"] = {"behavior": wanted["behavior"], "resumes_at": resumes_at}


def pause(world: World, subscription: Obj, params: Tree) -> None:
    """No more periods and invoices. What is paid for and not used yet is credited, what was used is billed."""
    if subscription["status"] not in PAUSABLE:
        raise invalid(f"A subscription that is {subscription['status']} can not be paused.")
    if subscription["schedule"]:
        raise invalid("Subscriptions with schedules can not be paused.")
    bill = params.get("bill_for", {})
    since = bill.get("unused_time_from", {}).get("type", "now")
    used = bill.get("outstanding_usage_through", {}).get("type", "now") == "now"
    for item in life.items_of(world, subscription):
        if since != "none" and subscription["status"] != "trialing":
            moment = world.now() if since == "now" else item["current_period_start"]
            changes.credit_rest(world, subscription, item, moment)
        if used:
            changes.bill_item_usage(world, subscription, item)
    if params.get("invoicing_behavior") == "invoice":
        life.invoice_now(world, subscription, whole_period=False)
    life.set_paused(world, subscription, "pause_requested")


def resume(world: World, subscription: Obj, params: Tree) -> None:
    """A new period begins and is paid for; with the anchor `unchanged` the rest of the period it falls into."""
    if subscription["status"] != "paused":
        raise invalid("Only paused subscriptions can be resumed.")
    if subscription["collection_method"] != "charge_automatically":
        raise invalid("Only subscriptions that are charged automatically can be resumed.")
    waits = params.get("payment_behavior") == "resume_on_payment_success"
    if not waits:
        subscription["status"] = "active"
    if params.get("billing_cycle_anchor", {}).get("type") == "unchanged":
        behavior = params.get("proration_behavior", "create_prorations")
        changes.join_running_cycle(world, subscription, behavior, params.get("proration_date", world.now()))
        made = life.invoice_now(world, subscription, whole_period=False) if behavior == "always_invoice" else None
    else:
        changes.restart_cycle(world, subscription)
        made = life.invoice_now(world, subscription, whole_period=True)
    if waits and made is not None and made["status"] == "open":
        subscription["_resuming"] = {"invoice": made["id"], "until": world.now() + PATIENCE}
        emit(world, "customer.subscription.updated", subscription)
    else:
        _resumed(world, subscription)


def _resumed(world: World, subscription: Obj) -> None:
    subscription.pop("_resuming", None)
    subscription["status_details"] = None
    if subscription["status"] == "paused":
        subscription["status"] = "active"
    emit(world, "customer.subscription.updated", subscription)
    emit(world, "customer.subscription.resumed", subscription)


def follow_invoice(world: World, invoice: Obj, news: str) -> None:
    """The payment that a resumption waited for."""
    subscription = world.find("subscription", invoices.subscription_of(invoice))
    waiting = subscription.get("_resuming") if subscription else None
    if subscription and waiting and waiting["invoice"] == invoice["id"] and news == "paid":
        _resumed(world, subscription)


def give_up(world: World, subscription: Obj) -> None:
    """Nobody paid for the resumption: it stays paused."""
    waiting = subscription.pop("_resuming")
    invoice = world.get("invoice", waiting["invoice"])
    if invoice["status"] == "open":
        invoices.void(world, invoice)


invoices.FOLLOWERS.append(follow_invoice)
