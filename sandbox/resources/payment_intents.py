"""Payment intents over the API; automatic capture only."""

from sandbox import methods, payments
from sandbox.cards import BY_ID
from sandbox.errors import ApiError, invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, only, retrieves, route, searches, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.views import render
from sandbox.world import World

FIELDS = ("description", "receipt_email", "setup_future_usage", "statement_descriptor_suffix", "shipping")


@route("POST", "/v1/payment_intents", "PaymentIntentCreateParams")
def create(world: World, params: Tree) -> Obj:
    if params["amount"] < 1:
        raise invalid("This value must be greater than or equal to 1.", "amount", "parameter_invalid_integer")
    if params.get("capture_method") == "manual":
        raise invalid("The sandbox captures automatically only.", "capture_method")
    customer = params.get("customer")
    if customer:
        world.ref("customer", customer, "customer")
    intent = payments.create(world, params["amount"], params["currency"].lower(), customer, **only(params, FIELDS))
    intent["metadata"] = merge_metadata({}, params.get("metadata", {}))
    if "payment_method" in params:
        intent.update(payment_method=_method(world, intent, params)["id"], status="requires_confirmation")
    if params.get("confirm"):
        _confirm(world, intent, params)
    return shown(world, intent, params)


@route("POST", "/v1/payment_intents/{}", "PaymentIntentUpdateParams")
def update(world: World, params: Tree, intent_id: str) -> Obj:
    intent = world.get("payment_intent", intent_id)
    if "amount" in params and intent["status"] not in payments.PENDING:
        raise _unexpected(world, intent, "updated")
    intent.update(only(params, (*FIELDS, "amount", "customer")))
    if "payment_method" in params:
        intent.update(payment_method=_method(world, intent, params)["id"], status="requires_confirmation")
    if "metadata" in params:
        intent["metadata"] = merge_metadata(intent["metadata"], params["metadata"])
    return shown(world, intent, params)


@route("POST", "/v1/payment_intents/{}/confirm", "PaymentIntentConfirmParams")
def confirm(world: World, params: Tree, intent_id: str) -> Obj:
    intent = world.get("payment_intent", intent_id)
    if intent["status"] not in payments.PENDING:
        raise _unexpected(world, intent, "confirmed")
    _confirm(world, intent, params)
    return shown(world, intent, params)


def _confirm(world: World, intent: Obj, params: Tree) -> None:
    """A decline is 402; so is a question to the customer when they are not there (`off_session`)."""
    method = _method(world, intent, params)
    off_session = bool(params.get("off_session"))
    if off_session and payments.asks(methods.card_of(method), method):
        payments.confirm(world, intent, method, True)
        intent.update(status="requires_payment_method", next_action=None)
        intent["last_payment_error"] = {
            "type": "card_error",
            "charge": None,
            "code": "authentication_required",
            "decline_code": "authentication_required",
            "message": "Your card was declined. This transaction requires authentication.",
            "payment_method": render(world, method),
        }
        emit(world, "payment_intent.payment_failed", intent)
    else:
        payments.confirm(world, intent, method, off_session)
    payments.raise_if_declined(world, intent)
    if params.get("setup_future_usage", intent["setup_future_usage"]) and intent["customer"]:
        methods.attach(world, method, world.ref("customer", intent["customer"], "customer"))


def _method(world: World, intent: Obj, params: Tree) -> Obj:
    wanted = params.get("payment_method") or intent["payment_method"]
    if not wanted:
        raise invalid("You cannot confirm this PaymentIntent because it's missing a payment method.", "payment_method")
    method = methods.resolve(world, wanted, "payment_method")
    if wanted not in BY_ID and method["customer"] and method["customer"] != intent["customer"]:
        raise invalid("The PaymentMethod belongs to another Customer.", "payment_method")
    return method


@route("POST", "/v1/payment_intents/{}/cancel", "PaymentIntentCancelParams")
def cancel(world: World, params: Tree, intent_id: str) -> Obj:
    intent = world.get("payment_intent", intent_id)
    if intent["status"] not in payments.PENDING:
        raise _unexpected(world, intent, "canceled")
    payments.cancel(world, intent, params.get("cancellation_reason"))
    return shown(world, intent, params)


def _unexpected(world: World, intent: Obj, done: str) -> ApiError:
    return ApiError(
        f"This PaymentIntent could not be {done} because it has a status of {intent['status']}.",
        code="payment_intent_unexpected_state",
        extra={"payment_intent": render(world, intent)},
    )


retrieves("/v1/payment_intents", "PaymentIntentRetrieveParams", "payment_intent")
lists("/v1/payment_intents", "PaymentIntentListParams", "payment_intent")
searches("/v1/payment_intents", "PaymentIntentSearchParams", "payment_intent")
retrieves("/v1/charges", "ChargeRetrieveParams", "charge")
lists("/v1/charges", "ChargeListParams", "charge")
searches("/v1/charges", "ChargeSearchParams", "charge")
