"""Saving a payment method: the part of setup intents that Checkout, portal and the API share."""

from collections.abc import Callable
from typing import Any

from sandbox.errors import declined
from sandbox.events import emit
from sandbox.methods import attach, card_of
from sandbox.shapes import Obj
from sandbox.views import render
from sandbox.world import World

# Called with the intent when a payment method was saved: Checkout lives on that.
FOLLOWERS: list[Callable[[World, Obj], None]] = []


def create(world: World, customer: str | None, **values: Any) -> Obj:
    settings = {
        "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
        "payment_method_options": {"card": {"mandate_options": None, "request_three_d_secure": "automatic"}},
        "payment_method_types": ["card", "us_bank_account"],
        "status": "requires_payment_method",
        "usage": "off_session",
    }
    intent = world.add("setup_intent", customer=customer, **(settings | values))
    intent["client_secret"] = f"{intent['id']}_secret_{world.word('secret', 25)}"
    emit(world, "setup_intent.created", intent)
    return intent


def confirm(world: World, intent: Obj, method: Obj) -> str:
    card = card_of(method)
    intent.update(payment_method=method["id"], next_action=None)
    if card.setup == "authenticate":
        url = f"{world.address}/authenticate/{intent['id']}"
        intent["status"] = "requires_action"
        intent["next_action"] = {"type": "redirect_to_url", "redirect_to_url": {"return_url": None, "url": url}}
        emit(world, "setup_intent.requires_action", intent)
        return "requires_action"
    if card.setup == "decline":
        return _fail(world, intent, method, card.message, card.code, card.decline_code)
    return _succeed(world, intent, method)


def authenticate(world: World, intent: Obj, agreed: bool) -> str:
    method = world.get("payment_method", intent["payment_method"])
    intent["next_action"] = None
    if agreed:
        method["_authenticated"] = True
        return _succeed(world, intent, method)
    message = "We are unable to authenticate your payment method. Please choose another and try again."
    return _fail(world, intent, method, message, "setup_intent_authentication_failure", None)


def _succeed(world: World, intent: Obj, method: Obj) -> str:
    intent.update(status="succeeded", last_setup_error=None)
    if intent["customer"]:
        attach(world, method, world.get("customer", intent["customer"]))
    emit(world, "setup_intent.succeeded", intent)
    for follower in FOLLOWERS:
        follower(world, intent)
    return "succeeded"


def _fail(world: World, intent: Obj, method: Obj, message: str, code: str, decline_code: str | None) -> str:
    intent.update(status="requires_payment_method", payment_method=None)
    intent["last_setup_error"] = {
        "type": "card_error",
        "code": code,
        "message": message,
        "payment_method": render(world, method),
    } | ({"decline_code": decline_code} if decline_code else {})
    emit(world, "setup_intent.setup_failed", intent)
    return "requires_payment_method"


def raise_if_declined(intent: Obj) -> None:
    error = intent["last_setup_error"]
    if intent["status"] == "requires_payment_method" and error:
        raise declined(error["message"], error["code"], error.get("decline_code"), setup_intent={"id": intent["id"]})


def cancel(world: World, intent: Obj, reason: str | None) -> None:
    intent.update(status="canceled", cancellation_reason=reason, next_action=None)
    emit(world, "setup_intent.canceled", intent)
