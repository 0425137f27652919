"""Payment intents and charges: an attempt, what the bank says, and what is settled days later."""

from collections.abc import Callable
from typing import Any

from sandbox import disputes
from sandbox.cards import Card
from sandbox.errors import declined
from sandbox.events import emit
from sandbox.methods import NO_DETAILS, card_of
from sandbox.shapes import Obj
from sandbox.views import render
from sandbox.world import World

# Called with the intent whenever a payment has succeeded or failed: invoices and Checkout live on that.
FOLLOWERS: list[Callable[[World, Obj], None]] = []
SHOWN_ON_CHARGE = frozenset(
    ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4", "bank_name", "account_type")
)
PENDING = ("requires_payment_method", "requires_confirmation", "requires_action")


def create(world: World, amount: int, currency: str, customer: str | None, **values: Any) -> Obj:
    """A payment intent that waits for a payment method. Its event is sent."""
    settings = {
        "amount_received": 0,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
        "capture_method": "automatic_async",
        "confirmation_method": "automatic",
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card", "us_bank_account"],
        "status": "requires_payment_method",
    }
    intent = world.add("payment_intent", amount=amount, currency=currency, customer=customer, **(settings | values))
    intent["client_secret"] = f"{intent['id']}_secret_{world.word('secret', 25)}"
    emit(world, "payment_intent.created", intent)
    return intent


def confirm(world: World, intent: Obj, method: Obj, off_session: bool = False) -> str:
    """Try to pay; the intent's new status. A decline is a status here, the API's callers make it an error."""
    card = card_of(method)
    intent.update(payment_method=method["id"], next_action=None, _off_session=off_session)
    if asks(card, method):
        return _ask(world, intent)
    return attempt(world, intent, method)


def asks(card: Card, method: Obj) -> bool:
    return card.charge == "authenticate" and not (card.asks_once and method.get("_authenticated"))


def _ask(world: World, intent: Obj) -> str:
    intent["status"] = "requires_action"
    url = f"{world.address}/authenticate/{intent['id']}"
    intent["next_action"] = {"type": "redirect_to_url", "redirect_to_url": {"return_url": None, "url": url}}
    emit(world, "payment_intent.requires_action", intent)
    return "requires_action"


def authenticate(world: World, intent: Obj, agreed: bool) -> str:
    """The customer answered their bank's question."""
    method = world.get("payment_method", intent["payment_method"])
    intent["next_action"] = None
    if agreed:
        method["_authenticated"] = True
        return attempt(world, intent, method)
    card = Card("", "", code="payment_intent_authentication_failure", decline_code=None, message=AUTHENTICATION_FAILED)
    return _fail(world, intent, method, card)


AUTHENTICATION_FAILED = "We are unable to authenticate your payment method. Please choose another and try again."


def attempt(world: World, intent: Obj, method: Obj) -> str:
    card = card_of(method)
    if card.is_bank:
        return _start_debit(world, intent, method)
    if card.charge == "decline":
        return _fail(world, intent, method, card)
    return _succeed(world, intent, method)


def _start_debit(world: World, intent: Obj, method: Obj) -> str:
    charge = _charge(world, intent, method, status="pending", paid=False)
    intent.update(status="processing", latest_charge=charge["id"])
    intent["_settles_at"] = world.now() + world.settings.bank_seconds
    emit(world, "charge.pending", charge)
    emit(world, "payment_intent.processing", intent)
    return "processing"


def settle(world: World, intent: Obj, outcome: str | None = None) -> None:
    """The bank's answer to a debit has come: what the account number says, or `succeed` or `fail`."""
    method = world.objects["payment_method"][intent["payment_method"]]
    card = card_of(method)
    if (outcome or {"settle": "succeed"}.get(card.charge)) == "succeed":
        _succeed(world, intent, method)
    else:
        _fail(world, intent, method, card)


def _succeed(world: World, intent: Obj, method: Obj) -> str:
    charge = _latest_pending(world, intent) or _charge(world, intent, method)
    charge.update(status="succeeded", paid=True, captured=True, amount_captured=intent["amount"])
    charge["outcome"] = _outcome("authorized", "Payment complete.")
    intent.update(status="succeeded", amount_received=intent["amount"], latest_charge=charge["id"])
    intent["last_payment_error"] = None
    emit(world, "charge.succeeded", charge)
    emit(world, "payment_intent.succeeded", intent)
    _tell(world, intent)
    if card_of(method).disputed:
        disputes.open_dispute(world, charge, None, "needs_response", "fraudulent")
    return "succeeded"


def _fail(world: World, intent: Obj, method: Obj, card: Card) -> str:
    charge = _latest_pending(world, intent) or _charge(world, intent, method)
    charge.update(status="failed", paid=False, failure_code=card.code, failure_message=card.message)
    charge["outcome"] = _outcome("issuer_declined", "The bank did not return any further details.") | {
        "network_status": "declined_by_network",
        "reason": card.decline_code,
    }
    intent.update(status="requires_payment_method", payment_method=None, latest_charge=charge["id"])
    intent["last_payment_error"] = {
        "type": "card_error",
        "charge": charge["id"],
        "code": card.code,
        "message": card.message,
        "payment_method": render(world, method),
    } | ({"decline_code": card.decline_code} if card.decline_code else {})
    emit(world, "charge.failed", charge)
    emit(world, "payment_intent.payment_failed", intent)
    _tell(world, intent)
    return "requires_payment_method"


def _tell(world: World, intent: Obj) -> None:
    for follower in FOLLOWERS:
        follower(world, intent)


def _latest_pending(world: World, intent: Obj) -> Obj | None:
    charge = world.find("charge", intent["latest_charge"])
    return charge if charge is not None and charge["status"] == "pending" else None


def _charge(world: World, intent: Obj, method: Obj, **values: Any) -> Obj:
    details: Obj = {"type": method["type"], method["type"]: _method_details(method)}
    charge = world.add(
        "charge",
        amount=intent["amount"],
        amount_captured=0,
        amount_refunded=0,
        billing_details=dict(NO_DETAILS),
        captured=False,
        currency=intent["currency"],
        customer=intent["customer"],
        description=intent["description"],
        disputed=False,
        fraud_details={},
        metadata=dict(intent["metadata"]),
        paid=False,
        payment_intent=intent["id"],
        payment_method=method["id"],
        payment_method_details=details,
        refunded=False,
        status="failed",
        calculated_statement_descriptor="SANDBOX",
    )
    charge["receipt_url"] = f"{world.address}/receipts/{charge['id']}"
    charge.update(values)
    return charge


def _method_details(method: Obj) -> Obj:
    own = method[method["type"]]
    return {name: own[name] for name in SHOWN_ON_CHARGE if name in own}


def _outcome(kind: str, message: str) -> Obj:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "approved_by_network",
        "reason": None,
        "risk_level": "normal",
        "risk_score": 20,
        "seller_message": message,
        "type": kind,
    }


def cancel(world: World, intent: Obj, reason: str | None) -> None:
    intent.update(status="canceled", canceled_at=world.now(), cancellation_reason=reason, next_action=None)
    emit(world, "payment_intent.canceled", intent)


def raise_if_declined(world: World, intent: Obj) -> None:
    """For calls whose caller wants a decline as an error: 402 with the intent in it."""
    error = intent["last_payment_error"]
    if intent["status"] == "requires_payment_method" and error:
        raise declined(
            error["message"],
            error["code"],
            error.get("decline_code"),
            charge=error["charge"],
            payment_intent=render(world, intent),
            payment_method=error["payment_method"],
        )
