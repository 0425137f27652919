"""Starting, changing, cancelling and resuming a subscription from our side.

More is taken at once and charged in proportion; less waits for the end of what is paid, as a phase of a schedule at
Stripe. What became of it is read back through the subscription's sync, like any change made elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select

import ids
from errors import NotFound, StripeRefused, ValidationError
from extensions import db
from models.stripe import StripeStatus, StripeSubscription
from services import catalog
from services.catalog import Plan
from services.stripe import checkout, customers, gateway, subscriptions, sync
from services.stripe.catalog import terms_of
from services.stripe.gateway import Object
from services.stripe.sync import moment

NOW, PERIOD_END = "now", "period_end"
_METERED = "metered"


@dataclass(frozen=True, slots=True)
class Changed:
    """What a subscription is after a request. `action_url`: where its customer has to agree to the payment."""

    status: str
    tier: str
    interval: str
    effective: str
    action_url: str | None = None


def subscribe(account_id: str, tier: str, interval: str) -> Changed:
    """Start the plan with the card on file, or change the running subscription to it.

    Raises StripeNotConfigured, AccountClosed, StripeUnavailable, CardDeclined, and ValidationError for a plan that is
    not sold or, at `payment_method`, where there is no card.
    """
    checkout.may_buy(account_id)
    plan = _plan(tier, interval)
    running = _running(account_id)
    if running is not None and running["status"] == StripeStatus.INCOMPLETE:
        if _item(running)["price"]["id"] == plan.price:
            return _changed(running, plan, NOW)
        gateway.cancel_subscription(str(running["id"]), {}, f"replace-{running['id']}")
        sync.run(subscriptions.prepare(str(running["id"])))
        running = None
    return _start(account_id, plan) if running is None else _change(account_id, running, plan)


def preview(account_id: str, tier: str, interval: str) -> dict[str, Any]:
    """What `subscribe` would charge, and when: the lines of the next invoice, amounts in minor units.

    Raises as `subscribe` does.
    """
    checkout.may_buy(account_id)
    plan = _plan(tier, interval)
    running = _running(account_id)
    effective = NOW if running is None else _effective(running, plan)
    details: dict[str, Any] = {"items": [_line(plan)]}
    if running is not None:
        details["items"] = [{"id": _item(running)["id"], **_line(plan)}]
        details["proration_behavior"] = "always_invoice" if effective == NOW else "none"

    def ask(customer_id: str) -> Object:
        params = {"customer": customer_id, "subscription_details": details}
        return gateway.preview_invoice(params | ({"subscription": running["id"]} if running is not None else {}))

    found = customers.for_customer(account_id, ask)
    return {
        "tier": plan.tier,
        "interval": plan.interval,
        "effective": effective,
        "effective_at": None if running is None or effective == NOW else moment(_item(running)["current_period_end"]),
        "currency": found["currency"],
        "amount_due": found["amount_due"],
        "lines": [_shown(line) for line in found["lines"]["data"]],
    }


def cancel(account_id: str) -> Changed:
    """Let the subscription end with what is paid. Raises NotFound where there is none to cancel."""
    running = _required(account_id)
    _drop_schedule(running)
    _update(running, {"cancel_at_period_end": True})
    return _now_is(str(running["id"]), PERIOD_END)


def resume(account_id: str) -> Changed:
    """Go on with a subscription that was to end, or was paused. Raises NotFound where there is none."""
    running = _required(account_id)
    if running["status"] == StripeStatus.PAUSED:
        params = {"billing_cycle_anchor": {"type": "unchanged"}}
        gateway.resume_subscription(str(running["id"]), params, _anew("resume"))
    elif running.get("cancel_at_period_end"):
        _update(running, {"cancel_at_period_end": False})
    elif running.get("cancel_at"):
        _update(running, {"cancel_at": ""})
    elif running.get("pause_collection"):
        _update(running, {"pause_collection": ""})
    return _now_is(str(running["id"]), NOW)


# What there is


def _plan(tier: str, interval: str) -> Plan:
    plan = catalog.current().plan(tier, interval)
    if plan is None or plan.price is None:
        raise ValidationError({"tier": ["No such plan is for sale."]})
    return plan


def _running(account_id: str) -> Object | None:
    """The account's subscription as Stripe shows it now, unless it is over."""
    kept = subscriptions.of(account_id)
    if kept is None or kept.is_over:
        return None
    found = gateway.subscription(kept.id)
    return None if found["status"] in ("canceled", "incomplete_expired") else found


def _required(account_id: str) -> Object:
    checkout.may_buy(account_id)
    running = _running(account_id)
    if running is None:
        raise NotFound("The account has no subscription.")
    return running


def _item(found: Object) -> Object:
    """The item that is the plan: the one the mirror knows, else the first."""
    kept = db.session.get(StripeSubscription, found["id"])
    items: list[Object] = found["items"]["data"]
    return next((item for item in items if kept is not None and item["id"] == kept.item_id), items[0])


def _line(plan: Plan) -> Object:
    """What Stripe meters has no quantity."""
    return {"price": plan.price} if plan.price_type == _METERED else {"price": plan.price, "quantity": 1}


def _anew(verb: str) -> str:
    """A key for what sets a state and may be wished again later: it covers the tries of this one wish alone."""
    return ids.new(verb)


# Starting


def _start(account_id: str, plan: Plan) -> Changed:
    def create(customer_id: str) -> Object:
        method = _method(account_id, customer_id)
        params = {
            "customer": customer_id,
            "items": [_line(plan)],
            "default_payment_method": method,
            "metadata": customers.tags(account_id),
            "payment_behavior": "allow_incomplete",
            "billing_mode": {"type": "flexible"},
            "expand": ["items.data.price.product"],
        }
        number = db.session.scalar(
            select(func.count()).select_from(StripeSubscription).where(StripeSubscription.account_id == account_id)
        )
        return gateway.create_subscription(params, f"subscribe-{account_id}-{number}-{plan.price}-{method}")

    found = customers.for_customer(account_id, create)
    sync.run(subscriptions.prepare(str(found["id"])))
    return _changed(found, plan, NOW)


def _method(account_id: str, customer_id: str) -> str:
    """The card on file: the customer's own, else one that was kept when they bought something."""
    kept = customers.of_account(account_id)
    if kept is not None and kept.payment_method:
        return kept.payment_method
    default = (gateway.customer(customer_id).get("invoice_settings") or {}).get("default_payment_method")
    if isinstance(default, dict):
        return str(default["id"])
    for found in gateway.payment_methods(customer_id):
        return str(found["id"])
    raise ValidationError({"payment_method": ["There is no card on file yet."]})


# Changing


def _change(account_id: str, running: Object, plan: Plan) -> Changed:
    if _item(running)["price"]["id"] == plan.price:
        _drop_schedule(running)  # what was planned instead is not wanted any more
        return _now_is(str(running["id"]), NOW)
    if _effective(running, plan) == PERIOD_END:
        _plan_phase(account_id, running, plan)
        return _changed(_synced(str(running["id"])), plan, PERIOD_END)
    _drop_schedule(running)
    if running.get("cancel_at_period_end"):
        _update(running, {"cancel_at_period_end": False})
    item = _item(running)
    params = {
        "items": [{"id": item["id"], **_line(plan)}],
        "proration_behavior": "always_invoice",
        "payment_behavior": "pending_if_incomplete",  # more is there once it is paid
        "expand": ["items.data.price.product"],
    }
    key = f"change-{running['id']}-{item['price']['id']}-{plan.price}-{_id(running.get('latest_invoice'))}"
    found = _update(running, params, key)
    _synced(str(running["id"]))
    return _changed(found, plan, NOW)


def _effective(running: Object, plan: Plan) -> str:
    """More at once, less at the end of what is paid. The same plan for a longer time is more."""
    price = _item(running)["price"]
    current = terms_of(price)
    if current is None:
        return NOW
    if current.tier == plan.tier:
        return NOW if _months(plan) > _months(current) else PERIOD_END
    return (
        NOW if (_monthly(plan), plan.included_credits) > (_monthly(current), current.included_credits) else PERIOD_END
    )


def _months(plan: Plan) -> int:
    return plan.interval_count * (12 if plan.interval == "year" else 1)


def _monthly(plan: Plan) -> Decimal:
    """The fixed fee of a month; what is metered has none."""
    if plan.price_type == _METERED:
        return Decimal(0)
    return Decimal(plan.unit_amount_decimal or plan.amount or 0) / _months(plan)


def _plan_phase(account_id: str, running: Object, plan: Plan) -> None:
    """The new price from the end of the period on: a schedule with the phase that runs and the one that follows."""
    item = _item(running)
    if running.get("cancel_at_period_end"):
        _update(running, {"cancel_at_period_end": False})
    planned = _id(running.get("schedule"))
    if planned is None:
        params = {"from_subscription": running["id"]}
        planned = str(gateway.create_schedule(params, _anew("schedule"))["id"])
    found = gateway.schedule(planned)
    current = found["phases"][0]
    phases = [
        {
            "items": [{"price": item["price"]["id"], "quantity": item.get("quantity") or 1}],
            "start_date": current["start_date"],
            "end_date": item["current_period_end"],
            "proration_behavior": "none",
        },
        {
            "items": [_line(plan)],
            "duration": {"interval": plan.interval, "interval_count": plan.interval_count},
            "metadata": customers.tags(account_id),
            "proration_behavior": "none",
        },
    ]
    if item["price"].get("recurring", {}).get("usage_type") == _METERED:
        del phases[0]["items"][0]["quantity"]
    params = {"phases": phases, "end_behavior": "release", "proration_behavior": "none"}
    gateway.update_schedule(planned, params, _anew("phase"))


def _drop_schedule(running: Object) -> None:
    planned = _id(running.get("schedule"))
    if planned is not None:
        try:
            gateway.release_schedule(planned, f"release-{planned}")
        except StripeRefused as refusal:  # it is over already
            if refusal.stripe_code not in (None, "resource_missing"):
                raise


def _update(running: Object, params: dict[str, Any], key: str | None = None) -> Object:
    return gateway.update_subscription(str(running["id"]), params, key or _anew("set"))


# What became of it


def _synced(subscription_id: str) -> Object:
    found = gateway.subscription(subscription_id)
    sync.run(subscriptions.prepare(subscription_id))
    return found


def _now_is(subscription_id: str, effective: str) -> Changed:
    found = _synced(subscription_id)
    kept = db.session.get(StripeSubscription, subscription_id)
    price = _item(found)["price"]
    tier = kept.tier if kept is not None else str((price.get("metadata") or {}).get("tier"))
    return Changed(found["status"], tier, str(price["recurring"]["interval"]), effective)


def _changed(found: Object, plan: Plan, effective: str) -> Changed:
    """`action_url` where Stripe waits for the customer: for the first payment, or the one of a change."""
    waits = found["status"] == StripeStatus.INCOMPLETE or found.get("pending_update")
    url = None
    if waits:
        invoice_id = _id(found.get("latest_invoice"))
        url = gateway.invoice(invoice_id).get("hosted_invoice_url") if invoice_id else None
    return Changed(found["status"], plan.tier, str(plan.interval), effective, url)


def _shown(line: Object) -> dict[str, Any]:
    details = (line.get("parent") or {}).get("subscription_item_details") or {}
    return {
        "description": line.get("description"),
        "amount": line["amount"],
        "proration": bool(details.get("proration")),
        "period": {"start": moment(line["period"]["start"]), "end": moment(line["period"]["end"])},
    }


def _id(value: object) -> str | None:
    """Of an object that came as its id, or expanded."""
    found = value.get("id") if isinstance(value, dict) else value
    return str(found) if found else None
