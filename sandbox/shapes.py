"""The fields of every object, as the installed `stripe` package declares them."""

import copy
import functools
from typing import Any

import orjson
from stripe._object_classes import get_object_class

Obj = dict[str, Any]

# Only there when asked for through `expand`, or (the secret) in the answer to the creation.
INCLUDABLE: dict[str, frozenset[str]] = {
    "charge": frozenset({"refunds"}),
    "checkout.session": frozenset({"line_items"}),
    "customer": frozenset({"cash_balance", "invoice_credit_balance", "sources", "subscriptions", "tax", "tax_ids"}),
    "invoice": frozenset({"confirmation_secret", "payments"}),
    "price": frozenset({"currency_options", "tiers"}),
    "webhook_endpoint": frozenset({"secret"}),
}
# Which object an id under this name belongs to.
REFERENCES = {
    "charge": "charge",
    "configuration": "billing_portal.configuration",
    "customer": "customer",
    "default_payment_method": "payment_method",
    "default_price": "price",
    "invoice": "invoice",
    "latest_charge": "charge",
    "latest_invoice": "invoice",
    "payment_intent": "payment_intent",
    "payment_method": "payment_method",
    "pending_setup_intent": "setup_intent",
    "price": "price",
    "product": "product",
    "setup_intent": "setup_intent",
    "released_subscription": "subscription",
    "schedule": "subscription_schedule",
    "subscription": "subscription",
}
PREFIXES = {
    "billing.meter": "mtr",
    "billing.meter_event": "mtrevt",
    "billing_portal.configuration": "bpc",
    "billing_portal.session": "bps",
    "charge": "ch",
    "checkout.session": "cs_test",
    "customer": "cus",
    "dispute": "dp",
    "event": "evt",
    "invoice": "in",
    "invoice_payment": "inpay",
    "invoiceitem": "ii",
    "item": "li",
    "line_item": "il",
    "payment_intent": "pi",
    "payment_method": "pm",
    "price": "price",
    "product": "prod",
    "refund": "re",
    "setup_intent": "seti",
    "subscription": "sub",
    "subscription_item": "si",
    "subscription_schedule": "sub_sched",
    "webhook_endpoint": "we",
}


@functools.cache
def declared(kind: str) -> frozenset[str]:
    """Every field that the package's class for this object knows."""
    names = get_object_class("V1", kind).__annotations__
    return frozenset(name for name in names if not name.startswith("_") and name not in ("OBJECT_NAME", "deleted"))


def blank(kind: str) -> Obj:
    """All fields, null where nothing else is sure."""
    empty: Obj = dict.fromkeys(sorted(declared(kind) - {"object", "id"}))
    for name, value in (("livemode", False), ("metadata", {})):
        if name in empty:
            empty[name] = value
    if kind == "payment_method":  # it has a field for each of the sixty ways to pay, and shows its own only
        empty = {name: empty[name] for name in METHOD_FIELDS}
    return {"object": kind} | empty


METHOD_FIELDS = (
    "allow_redisplay",
    "billing_details",
    "created",
    "customer",
    "customer_account",
    "livemode",
    "metadata",
    "type",
)


def merge_metadata(old: dict[str, str] | None, new: dict[str, str] | str | None) -> dict[str, str]:
    """Stripe's rule: given keys are set, an empty value unsets its key, an empty string unsets all."""
    if not isinstance(new, dict):
        return {}
    return {key: text for key, text in ((old or {}) | new).items() if text != ""}


def listed(data: list[Obj], url: str, limit: int | None = None) -> Obj:
    shown = data if limit is None else data[:limit]
    return {"object": "list", "data": shown, "has_more": len(shown) < len(data), "url": url}


_SIMPLE = frozenset({str, int, bool, float, type(None)})


def copied(value: Any) -> Any:
    """All that is JSON in it anew, as `copy.deepcopy` would, many times as fast."""
    if type(value) is dict:
        return {name: part if type(part) in _SIMPLE else copied(part) for name, part in value.items()}
    if type(value) is list:
        return [part if type(part) in _SIMPLE else copied(part) for part in value]
    return value if type(value) in _SIMPLE else copy.deepcopy(value)


def to_json(body: Obj) -> str:
    """Indented, as Stripe's answers and events are."""
    return orjson.dumps(body, default=str, option=orjson.OPT_INDENT_2).decode()
