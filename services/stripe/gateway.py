"""The only door to Stripe: plain dicts in and out, one pinned API version, our own idempotency keys.

Every call may raise `StripeUnavailable` (nobody answered, or not now), its child `StripeRefused` (the request can not
be carried out; `code` and `param` are Stripe's) or `CardDeclined`. Never call any of this while a row is locked: an
answer may take half a minute. Amounts of Stripe's `*_decimal` fields come as text.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import stripe
from flask import current_app

import database
import settings
from errors import CardDeclined, SpillwayError, StripeNotConfigured, StripeRefused, StripeUnavailable

_log = logging.getLogger("spillway.stripe")
API_VERSION = stripe.api_version
"""What webhook endpoints must be registered with, so that events have the shapes this package reads."""
TIMEOUT = (3.05, 15)
"""Seconds to connect, and to wait for the answer; each of at most three tries."""
RETRIES = 2
TOLERANCE = 300
"""Seconds that a webhook's timestamp may be off, either way."""

Params = Mapping[str, Any]
Object = dict[str, Any]

stripe.enable_telemetry = False
logging.getLogger("stripe").setLevel(logging.WARNING)  # below that it repeats messages that name people and cards


class BadEvent(SpillwayError):
    """A webhook that is not Stripe's, or not now's, or not readable."""

    status, code, title = 400, "bad_request", "The event's signature or body is not valid"


def is_configured() -> bool:
    return settings.current().stripe_secret_key is not None


def is_live() -> bool:
    """Whether the key moves real money; events of the other mode are none of ours."""
    return (settings.current().stripe_secret_key or "").startswith(("sk_live_", "rk_live_"))


# The catalog


def active_prices() -> Iterator[Object]:
    """Every active price of the Stripe account, ours or not, with its product."""
    return _all(_v1().prices.list, {"active": True, "limit": 100, "expand": ["data.product", "data.tiers"]})


def active_products() -> Iterator[Object]:
    return _all(_v1().products.list, {"active": True, "limit": 100})


def products() -> Iterator[Object]:
    """Archived ones too."""
    return _all(_v1().products.list, {"limit": 100})


def prices_of(product_id: str) -> Iterator[Object]:
    """Every price of the product, archived ones too."""
    return _all(_v1().prices.list, {"product": product_id, "limit": 100, "expand": ["data.tiers"]})


def meters() -> Iterator[Object]:
    return _all(_v1().billing.meters.list, {"status": "active", "limit": 100})


def meter(meter_id: str) -> Object:
    return _ask(_v1().billing.meters.retrieve, meter_id)


def record_usage(params: Params, key: str) -> Object:
    """Tell a meter what was used; it takes whole numbers. An `identifier` it has seen is refused."""
    return _ask(_v1().billing.meter_events.create, params=params, key=key)


def create_meter(params: Params, key: str) -> Object:
    return _ask(_v1().billing.meters.create, params=params, key=key)


def price(price_id: str) -> Object:
    return _ask(_v1().prices.retrieve, price_id, params={"expand": ["product", "tiers"]})


def create_product(params: Params, key: str) -> Object:
    return _ask(_v1().products.create, params=params, key=key)


def update_product(product_id: str, params: Params, key: str) -> Object:
    return _ask(_v1().products.update, product_id, params=params, key=key)


def create_price(params: Params, key: str) -> Object:
    return _ask(_v1().prices.create, params=params, key=key)


def update_price(price_id: str, params: Params, key: str) -> Object:
    return _ask(_v1().prices.update, price_id, params=params, key=key)


# Customers and their cards


def create_customer(params: Params, key: str) -> Object:
    return _ask(_v1().customers.create, params=params, key=key)


def customer(customer_id: str) -> Object:
    """Also a deleted one: then `deleted` is true and little else is there."""
    return _ask(_v1().customers.retrieve, customer_id, params={"expand": ["invoice_settings.default_payment_method"]})


def update_customer(customer_id: str, params: Params, key: str) -> Object:
    return _ask(_v1().customers.update, customer_id, params=params, key=key)


def create_setup_intent(params: Params, key: str) -> Object:
    return _ask(_v1().setup_intents.create, params=params, key=key)


def setup_intent(intent_id: str) -> Object:
    return _ask(_v1().setup_intents.retrieve, intent_id, params={"expand": ["payment_method"]})


def payment_method(method_id: str) -> Object:
    """Also a detached one: its `customer` is null then."""
    return _ask(_v1().payment_methods.retrieve, method_id)


def create_portal_session(params: Params, key: str) -> Object:
    return _ask(_v1().billing_portal.sessions.create, params=params, key=key)


# Buying


def create_session(params: Params, key: str) -> Object:
    return _ask(_v1().checkout.sessions.create, params=params, key=key)


def session(session_id: str) -> Object:
    """A Checkout Session with what was bought (`line_items`, up to a hundred) and its payment intent's id."""
    return _ask(_v1().checkout.sessions.retrieve, session_id, params={"expand": ["line_items.data.price.product"]})


def session_lines(session_id: str) -> Iterator[Object]:
    """Every line of a session, where they are more than come with it."""
    listed = functools.partial(_v1().checkout.sessions.line_items.list, session_id)
    return _all(listed, {"limit": 100, "expand": ["data.price.product"]})


def payment_intent(intent_id: str) -> Object:
    return _ask(_v1().payment_intents.retrieve, intent_id)


def sessions(params: Params) -> Iterator[Object]:
    return _all(_v1().checkout.sessions.list, params)


def subscription(subscription_id: str) -> Object:
    """With its customer, its items' prices and their products."""
    params = {"expand": ["customer", "items.data.price.product"]}
    return _ask(_v1().subscriptions.retrieve, subscription_id, params=params)


def subscriptions(params: Params) -> Iterator[Object]:
    return _all(_v1().subscriptions.list, params)


def create_subscription(params: Params, key: str) -> Object:
    return _ask(_v1().subscriptions.create, params=params, key=key)


def resume_subscription(subscription_id: str, params: Params, key: str) -> Object:
    """Of one whose status is paused."""
    return _ask(_v1().subscriptions.resume, subscription_id, params=params, key=key)


def schedule(schedule_id: str) -> Object:
    return _ask(_v1().subscription_schedules.retrieve, schedule_id)


def create_schedule(params: Params, key: str) -> Object:
    return _ask(_v1().subscription_schedules.create, params=params, key=key)


def update_schedule(schedule_id: str, params: Params, key: str) -> Object:
    return _ask(_v1().subscription_schedules.update, schedule_id, params=params, key=key)


def release_schedule(schedule_id: str, key: str) -> Object:
    """The subscription goes on as it is, without what was planned for it."""
    return _ask(_v1().subscription_schedules.release, schedule_id, params={}, key=key)


def preview_invoice(params: Params) -> Object:
    """What would be invoiced. Nothing is changed by asking."""
    return _ask(_v1().invoices.create_preview, params=params)


def payment_methods(customer_id: str) -> Iterator[Object]:
    return _all(_v1().customers.payment_methods.list, {"limit": 10}, customer_id)


def update_subscription(subscription_id: str, params: Params, key: str) -> Object:
    return _ask(_v1().subscriptions.update, subscription_id, params=params, key=key)


def cancel_subscription(subscription_id: str, params: Params, key: str) -> Object:
    """At once. Stripe's DELETE knows no idempotency keys; a second one is refused with `resource_missing`."""
    return _ask(_v1().subscriptions.cancel, subscription_id, params=params)


def invoice(invoice_id: str) -> Object:
    return _ask(_v1().invoices.retrieve, invoice_id, params={"expand": ["payments"]})


def invoice_items(params: Params) -> Iterator[Object]:
    return _all(_v1().invoice_items.list, params)


def invoices(params: Params) -> Iterator[Object]:
    return _all(_v1().invoices.list, params)


def create_invoice(params: Params, key: str) -> Object:
    """A draft."""
    return _ask(_v1().invoices.create, params=params, key=key)


def create_invoice_item(params: Params, key: str) -> Object:
    """On a draft (`invoice`); an invoice that is finalized refuses it."""
    return _ask(_v1().invoice_items.create, params=params, key=key)


def finalize_invoice(invoice_id: str, params: Params, key: str) -> Object:
    return _ask(_v1().invoices.finalize_invoice, invoice_id, params=params, key=key)


def pay_invoice(invoice_id: str, params: Params, key: str) -> Object:
    """Raises CardDeclined also where the customer's bank wants to ask them."""
    return _ask(_v1().invoices.pay, invoice_id, params=params, key=key)


def void_invoice(invoice_id: str, key: str) -> Object:
    return _ask(_v1().invoices.void_invoice, invoice_id, key=key)


def delete_invoice(invoice_id: str) -> Object:
    """A draft. Stripe's DELETE knows no idempotency keys; a second one is refused with `resource_missing`."""
    return _ask(_v1().invoices.delete, invoice_id)


# Money that goes back


def charge(charge_id: str) -> Object:
    return _ask(_v1().charges.retrieve, charge_id)


def charges(params: Params) -> Iterator[Object]:
    return _all(_v1().charges.list, params)


def refunds(params: Params) -> Iterator[Object]:
    return _all(_v1().refunds.list, params)


def disputes(params: Params) -> Iterator[Object]:
    return _all(_v1().disputes.list, params)


def invoice_payments(params: Params) -> Iterator[Object]:
    """How one finds a payment intent's invoice: the intent itself does not name it."""
    return _all(_v1().invoice_payments.list, params)


# Events


def event(payload: bytes, signature: str | None) -> Object:
    """The event of a webhook, its signature, age and text checked. Raises BadEvent; NotFound is the caller's."""
    secret = settings.current().stripe_webhook_secret
    if not secret or not signature:
        raise BadEvent()
    try:
        text = payload.decode()
        stripe.WebhookSignature.verify_header(text, signature, secret, TOLERANCE)
        _refuse_future(signature)
        found = json.loads(text)
    except (
        stripe.SignatureVerificationError,
        ValueError,
        RecursionError,
    ):  # not UTF-8, not JSON, or too deep
        raise BadEvent() from None
    if not isinstance(found, dict):
        raise BadEvent()
    return found


def _refuse_future(signature: str) -> None:
    """The package checks only that a timestamp is not too old."""
    stamps = [part[2:] for part in signature.split(",") if part.startswith("t=")]
    if not stamps or int(stamps[0]) > time.time() + TOLERANCE:
        raise ValueError("a timestamp from the future")


def retrieve_event(event_id: str) -> Object:
    return _ask(_v1().events.retrieve, event_id)


def events(params: Params) -> Iterator[Object]:
    return _all(_v1().events.list, params)


# How calls are made


def _v1() -> Any:
    """The API of this app's client; one per process. Raises StripeNotConfigured, and RuntimeError under a lock: whoever
    waits for that must not wait for Stripe.
    """
    if database.is_writing():
        raise RuntimeError("a call to Stripe inside a write transaction")
    known: dict[str, Any] = current_app.extensions
    if "stripe" not in known:
        known["stripe"] = _client()
    return known["stripe"].v1


def _client() -> stripe.StripeClient:
    env = settings.current()
    if env.stripe_secret_key is None:
        raise StripeNotConfigured()
    base: Any = {"api": env.stripe_api_base, "meter_events": env.stripe_api_base} if env.stripe_api_base else None
    return stripe.StripeClient(
        env.stripe_secret_key,
        stripe_version=API_VERSION,
        base_addresses=base,
        max_network_retries=RETRIES,
        http_client=stripe.RequestsClient(timeout=TIMEOUT),
    )


def _ask(method: Callable[..., Any], *ids: str, params: Params | None = None, key: str | None = None) -> Object:
    """One call. `key` makes it safe to repeat: derive it from what the business does, not from the try."""
    params = params or {}
    _refuse_none(params)
    try:
        answer = method(*ids, params=params, options={"idempotency_key": key} if key else {})
    except stripe.StripeError as error:
        raise _translated(error) from error
    return _plain(answer)


def _all(method: Callable[..., Any], params: Params, *ids: str) -> Iterator[Object]:
    """Every object of a listing, page by page."""
    _refuse_none(params)
    try:
        for found in method(*ids, params=params).auto_paging_iter():
            yield _plain(found)
    except stripe.StripeError as error:
        raise _translated(error) from error


def _plain(answer: Any) -> Object:
    if not isinstance(answer, stripe.StripeObject):  # HTTP 200 with another body than an object
        raise StripeUnavailable()
    plain: Object = answer.to_dict(for_json=True)
    return plain


def _refuse_none(params: Any) -> None:
    """The package drops a None in silence; as a filter that would widen the answer to the whole Stripe account."""
    values = params.values() if isinstance(params, Mapping) else params if isinstance(params, list | tuple) else ()
    for value in values:
        if value is None:
            raise TypeError("None among the parameters of a call to Stripe")
        _refuse_none(value)


def _translated(error: stripe.StripeError) -> SpillwayError:
    """Ours for theirs. Their message may name a card or an e-mail: it is not logged, their request id is."""
    told = {"kind": type(error).__name__, "status": error.http_status, "request": error.request_id}
    if isinstance(error, stripe.CardError):
        return CardDeclined(error.user_message, decline_code=error.code)
    if isinstance(error, stripe.InvalidRequestError | stripe.IdempotencyError):
        param = getattr(error, "param", None)
        _log.error("stripe refused a request: %s %s %s", told, error.code, param)
        return StripeRefused(code=error.code, param=param)
    _log.warning("stripe can not be used: %s", told)
    return StripeUnavailable()
