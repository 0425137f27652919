"""The life of a subscription: start, renewal, trial end, past due, end. Periods are kept on its items."""

from collections.abc import Callable, Iterable
from typing import Any

from sandbox import clock
from sandbox.billing import invoices, lines, usage
from sandbox.catalog import is_sold
from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.shapes import Obj
from sandbox.world import World, is_over

DAY = 86400
INCOMPLETE_SECONDS = 23 * 3600
# Called with a subscription that has just ended.
ENDINGS: list[Callable[[World, Obj], None]] = []


def items_of(world: World, subscription: Obj) -> list[Obj]:
    return [item for item_id in subscription["_items"] if (item := world.find("subscription_item", item_id))]


def period_of(world: World, subscription: Obj) -> lines.Period:
    item = items_of(world, subscription)[0]
    return item["current_period_start"], item["current_period_end"]


def cycle(world: World, items: Iterable[Obj]) -> tuple[str, int]:
    """Interval and count; all items of a subscription share one here."""
    found = {interval_of(world, item) for item in items}
    if len(found) != 1:
        raise invalid("The sandbox wants one billing interval for all items of a subscription.", "items")
    return found.pop()


def interval_of(world: World, item: Obj) -> tuple[str, int]:
    recurring = world.objects["price"][item["_price"]]["recurring"]
    return recurring["interval"], recurring["interval_count"]


def boundary_after(anchor: int, interval: tuple[str, int], moment: int) -> int:
    """The first end of a period later than `moment`; counted from the anchor, so month ends do not wander."""
    number = 0
    while (end := clock.after(anchor, interval[0], interval[1] * number)) <= moment:
        number += 1
    return end


def check_prices(prices: list[Obj], param: str) -> None:
    if any(price["type"] != "recurring" for price in prices):
        raise invalid("The price specified is set to `type=one_time` but this field only accepts recurring.", param)
    if not all(is_sold(price) for price in prices):
        raise invalid("The price specified is inactive. This field only accepts active prices.", param)
    if len({price["currency"] for price in prices}) != 1:
        raise invalid("All prices on a subscription must have the same currency.", param)
    if len({price["id"] for price in prices}) != len(prices):
        raise invalid("Cannot add multiple subscription items with the same price.", param)


def add_item(world: World, subscription: Obj, price: Obj, quantity: int, metadata: dict[str, str]) -> Obj:
    item = world.add(
        "subscription_item",
        subscription=subscription["id"],
        quantity=quantity,
        metadata=dict(metadata),
        discounts=[],
        tax_rates=[],
    )
    set_price(world, item, price)
    subscription["_items"].append(item["id"])
    return item


def set_price(world: World, item: Obj, price: Obj) -> None:
    """What is metered has no quantity, and counts from now on."""
    if item.get("_price") == price["id"]:
        return
    metered = price["recurring"] is not None and price["recurring"]["usage_type"] == "metered"
    item["_price"] = price["id"]
    item["quantity"] = None if metered else item["quantity"] or 1
    item["_counts_from"] = world.now()


def draft(world: World, subscription: Obj, reason: str, window: lines.Period) -> Obj:
    """A draft of this subscription; it becomes its latest invoice."""
    values: dict[str, Any] = {
        "parent": invoices.parent_of(subscription),
        "collection_method": subscription["collection_method"],
        "period_start": window[0],
        "period_end": window[1],
    }
    if subscription["days_until_due"]:
        values["due_date"] = world.now() + subscription["days_until_due"] * DAY
    customer = world.get("customer", subscription["customer"])
    invoice = invoices.make(world, customer, subscription["currency"], reason, **values)
    subscription["latest_invoice"] = invoice["id"]
    return invoice


def invoice_now(
    world: World,
    subscription: Obj,
    whole_period: bool,
    reason: str = "subscription_update",
    collect: bool = True,
    used: bool = False,
) -> Obj | None:
    """An invoice at once: of what is pending, of what was `used` so far, of the `whole_period` that begins now."""
    pending = invoices.pending_items(world, subscription["customer"], subscription["id"], subscription["currency"])
    own = [item for item in pending if item["_subscription"] == subscription["id"]]
    items = items_of(world, subscription)
    used = used and any(item["quantity"] is None for item in items)
    if not own and not whole_period and not used:
        return None
    invoice = draft(world, subscription, reason, (world.now(), world.now()))
    invoices.add_items(world, invoice, own)
    if used:
        usage.add_lines(world, invoice, subscription, items, (period_of(world, subscription)[0], world.now()))
    if whole_period:
        _add_period(world, invoice, subscription)
    invoices.announce(world, invoice, wait=False)
    invoices.finalize(world, invoice)
    if invoice["status"] == "open" and subscription["collection_method"] == "charge_automatically":
        if collect:
            invoices.collect(world, invoice)
        else:
            set_status(world, subscription, "past_due")
    return invoice


def _add_period(world: World, invoice: Obj, subscription: Obj) -> None:
    items = [item for item in items_of(world, subscription) if item["quantity"] is not None]
    invoice["_lines"].extend(lines.of_item(world, invoice["id"], item, subscription) for item in items)
    invoices.total(invoice)


def renew(world: World, subscription: Obj) -> None:
    """A period is over: end, or roll on and draft the next invoice."""
    old = period_of(world, subscription)
    if subscription["cancel_at_period_end"]:
        return finish(world, subscription)
    if subscription["status"] == "trialing" and not _leave_trial(world, subscription):
        return None
    items = items_of(world, subscription)
    following = boundary_after(subscription["billing_cycle_anchor"], cycle(world, items), old[1])
    for item in items:
        item.update(current_period_start=old[1], current_period_end=following)
    draft_renewal(world, subscription, old)
    return None


def finish(world: World, subscription: Obj) -> None:
    """End as planned, with a last invoice of what was used or is pending."""
    invoice_now(world, subscription, whole_period=False, reason="subscription_cycle", used=True)
    end(world, subscription, None)


def draft_renewal(world: World, subscription: Obj, old: lines.Period) -> Obj:
    """The renewal's draft with the new period and everything pending; an hour later it is finalized."""
    invoice = draft(world, subscription, "subscription_cycle", old)
    _add_period(world, invoice, subscription)
    usage.add_lines(world, invoice, subscription, items_of(world, subscription), old)
    pending = invoices.pending_items(world, subscription["customer"], subscription["id"], subscription["currency"])
    invoices.add_items(world, invoice, pending)
    pause = subscription["pause_collection"]
    if subscription["status"] == "unpaid" or (pause and pause["behavior"] == "keep_as_draft"):
        invoice["auto_advance"] = False
    emit(world, "customer.subscription.updated", subscription)
    invoices.announce(world, invoice, wait=True)
    if pause and pause["behavior"] != "keep_as_draft":
        invoices.finalize(world, invoice)
        if invoice["status"] == "open":
            (invoices.void if pause["behavior"] == "void" else invoices.mark_uncollectible)(world, invoice)
    return invoice


def _leave_trial(world: World, subscription: Obj) -> bool:
    """False when it goes no further, for want of a payment method."""
    customer = world.get("customer", subscription["customer"])
    missing = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    default = subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    if not default and missing == "cancel":
        end(world, subscription, None)
        return False
    if not default and missing == "pause":
        set_paused(world, subscription, "trial_end_without_payment_method")
        return False
    subscription["status"] = "active"
    return True


def set_paused(world: World, subscription: Obj, why: str) -> None:
    """`why`: pause_requested or trial_end_without_payment_method."""
    paused = {"subscription": {"type": why}, "transitioned_at": world.now(), "type": "subscription"}
    subscription.update(status="paused", status_details={"paused": paused})
    emit(world, "customer.subscription.updated", subscription)
    emit(world, "customer.subscription.paused", subscription)


def end(world: World, subscription: Obj, reason: str | None) -> None:
    """It is over, for good. Open invoices stay open but are not tried again."""
    subscription.update(status="canceled", ended_at=world.now())
    subscription["canceled_at"] = subscription["canceled_at"] or world.now()
    details = subscription["cancellation_details"]
    details["reason"] = reason or details["reason"]
    _stop_collection(world, subscription)
    emit(world, "customer.subscription.deleted", subscription)
    for follow in ENDINGS:
        follow(world, subscription)


def _stop_collection(world: World, subscription: Obj) -> None:
    for invoice in world.alive("invoice"):
        if invoices.subscription_of(invoice) == subscription["id"]:
            invoice.update(auto_advance=False, next_payment_attempt=None, automatically_finalizes_at=None)


def expire(world: World, subscription: Obj) -> None:
    """Nobody paid the first invoice within 23 hours."""
    subscription.update(status="incomplete_expired", ended_at=world.now())
    invoice = world.find("invoice", subscription["latest_invoice"])
    if invoice and invoice["status"] == "open":
        invoices.void(world, invoice)
    emit(world, "customer.subscription.updated", subscription)


def set_status(world: World, subscription: Obj, status: str) -> None:
    if subscription["status"] != status:
        subscription["status"] = status
        emit(world, "customer.subscription.updated", subscription)


def follow_invoice(world: World, invoice: Obj, news: str) -> None:
    """What became of its invoice decides the subscription's status."""
    subscription = world.find("subscription", invoices.subscription_of(invoice))
    if subscription is None or is_over(subscription) or subscription["status"] in ("trialing", "paused"):
        return
    latest = subscription["latest_invoice"] == invoice["id"]
    if news != "paid" and latest and (subscription["pending_update"] or subscription.get("_holding")):
        return  # the change waits for its payment, the subscription does not
    if news in ("paid", "processing") and latest:
        _save_method(world, subscription, invoice)
        set_status(world, subscription, "active")
    elif news == "overdue" and subscription["status"] == "active":
        set_status(world, subscription, "past_due")
    elif news in ("failed", "action") and subscription["status"] in ("active", "past_due"):
        _fall_behind(world, subscription, invoice)


def _fall_behind(world: World, subscription: Obj, invoice: Obj) -> None:
    """Past due; after the last attempt what the settings say."""
    exhausted = invoice["attempt_count"] > len(world.settings.retry_days) and not invoice["next_payment_attempt"]
    if not exhausted:
        return set_status(world, subscription, "past_due")
    if world.settings.after_retries == "cancel":
        return end(world, subscription, "payment_failed")
    return set_status(world, subscription, world.settings.after_retries)


def _save_method(world: World, subscription: Obj, invoice: Obj) -> None:
    intent = invoices.intent_of(world, invoice)
    keep = subscription["payment_settings"]["save_default_payment_method"] == "on_subscription"
    if intent and intent["payment_method"] and keep and not subscription["default_payment_method"]:
        subscription["default_payment_method"] = intent["payment_method"]


invoices.FOLLOWERS.append(follow_invoice)
