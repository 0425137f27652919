"""What `payment_behavior` makes of a change whose payment does not go through at once."""

from sandbox import payments
from sandbox.billing import changes, invoices, starting
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.shapes import Obj
from sandbox.world import World

PATIENCE = 23 * 3600
# The parts of a subscription that an unpaid change leaves as they were.
HELD = ("billing_cycle_anchor", "status", "trial_end")


def change(world: World, subscription: Obj, wanted: list[Tree], params: Tree) -> None:
    """Apply `items`. ApiError 402 with `error_if_incomplete`, and then nothing has changed."""
    behavior = params.get("payment_behavior", "allow_incomplete")
    if behavior == "error_if_incomplete":
        _rehearse(world, subscription, wanted, params)
    if behavior != "pending_if_incomplete":
        return changes.change_items(world, subscription, wanted, params)
    if not _would_be_paid(world, subscription, wanted, params):
        return _hold(world, subscription, wanted, params)
    return changes.change_items(world, subscription, wanted, params)


def _rehearse(world: World, subscription: Obj, wanted: list[Tree], params: Tree) -> None:
    other = world.scratch(subscription["customer"])
    twin = other.get("subscription", subscription["id"])
    changes.change_items(other, twin, wanted, params)
    if twin["latest_invoice"] != subscription["latest_invoice"]:
        starting.refuse_unpaid(other, twin)


def _would_be_paid(world: World, subscription: Obj, wanted: list[Tree], params: Tree) -> bool:
    other = world.scratch(subscription["customer"])
    twin = other.get("subscription", subscription["id"])
    changes.change_items(other, twin, wanted, params)
    invoice = other.find("invoice", twin["latest_invoice"])
    return invoice is None or invoice["id"] == subscription["latest_invoice"] or invoice["status"] == "paid"


def _hold(world: World, subscription: Obj, wanted: list[Tree], params: Tree) -> None:
    """The invoice stands, the change waits for it: 23 hours, then both are gone."""
    before = {name: subscription[name] for name in HELD}
    items = changes.copies(world, subscription)
    subscription["_holding"] = True
    changes.change_items(world, subscription, wanted, params)
    del subscription["_holding"]
    world.get("invoice", subscription["latest_invoice"]).update(auto_advance=False, next_payment_attempt=None)
    after = changes.copies(world, subscription)
    subscription["_pending"] = {"items": after, "anchor": subscription["billing_cycle_anchor"]}
    changes.put_back(world, subscription, items)
    subscription.update(before)
    subscription["pending_update"] = {
        "billing_cycle_anchor": None,
        "discount_source": None,
        "expires_at": world.now() + PATIENCE,
        "subscription_items": [_shown(item) for item in after.values()],
        "trial_end": None,
        "trial_from_plan": None,
    }


def _shown(item: Obj) -> Obj:
    return {"id": item["id"], "object": "subscription_item", "price": item["_price"], "quantity": item["quantity"]}


def follow_invoice(world: World, invoice: Obj, news: str) -> None:
    """Paid after all: the change comes into force."""
    subscription = world.find("subscription", invoices.subscription_of(invoice))
    if news != "paid" or subscription is None or not subscription["pending_update"]:
        return
    if subscription["latest_invoice"] != invoice["id"]:
        return
    waiting = subscription.pop("_pending")
    changes.put_back(world, subscription, waiting["items"])
    subscription.update(pending_update=None, billing_cycle_anchor=waiting["anchor"])
    emit(world, "customer.subscription.pending_update_applied", subscription)
    emit(world, "customer.subscription.updated", subscription)


def expire(world: World, subscription: Obj) -> None:
    subscription.pop("_pending")
    subscription["pending_update"] = None
    invoice = world.get("invoice", subscription["latest_invoice"])
    intent = invoices.intent_of(world, invoice)
    if invoice["status"] == "open" and (intent is None or intent["status"] in payments.PENDING):
        invoices.void(world, invoice)
    emit(world, "customer.subscription.pending_update_expired", subscription)


invoices.FOLLOWERS.append(follow_invoice)
