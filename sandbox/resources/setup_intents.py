"""Setup intents: saving a card without a payment."""

from sandbox import methods, setups
from sandbox.errors import invalid
from sandbox.params import Tree
from sandbox.routing import lists, only, retrieves, route, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World


@route("POST", "/v1/setup_intents", "SetupIntentCreateParams")
def create(world: World, params: Tree) -> Obj:
    if "customer" in params:
        world.ref("customer", params["customer"], "customer")
    intent = setups.create(world, params.get("customer"), **only(params, ("description",)))
    intent["usage"] = params.get("usage", "off_session")
    intent["metadata"] = merge_metadata({}, params.get("metadata", {}))
    if "payment_method" in params:
        method = methods.resolve(world, params["payment_method"], "payment_method")
        intent.update(payment_method=method["id"], status="requires_confirmation")
    if params.get("confirm"):
        _confirm(world, intent, params)
    return shown(world, intent, params)


@route("POST", "/v1/setup_intents/{}", "SetupIntentUpdateParams")
def update(world: World, params: Tree, intent_id: str) -> Obj:
    intent = world.get("setup_intent", intent_id)
    intent.update(only(params, ("description", "customer")))
    if "metadata" in params:
        intent["metadata"] = merge_metadata(intent["metadata"], params["metadata"])
    return shown(world, intent, params)


@route("POST", "/v1/setup_intents/{}/confirm", "SetupIntentConfirmParams")
def confirm(world: World, params: Tree, intent_id: str) -> Obj:
    intent = world.get("setup_intent", intent_id)
    _confirm(world, intent, params)
    return shown(world, intent, params)


def _confirm(world: World, intent: Obj, params: Tree) -> None:
    wanted = params.get("payment_method") or intent["payment_method"]
    if intent["status"] in ("succeeded", "canceled"):
        raise invalid(f"You cannot confirm this SetupIntent because its status is {intent['status']}.")
    if not wanted:
        raise invalid("You cannot confirm this SetupIntent because it's missing a payment method.", "payment_method")
    setups.confirm(world, intent, methods.resolve(world, wanted, "payment_method"))
    setups.raise_if_declined(intent)


@route("POST", "/v1/setup_intents/{}/cancel", "SetupIntentCancelParams")
def cancel(world: World, params: Tree, intent_id: str) -> Obj:
    intent = world.get("setup_intent", intent_id)
    if intent["status"] in ("succeeded", "canceled"):
        raise invalid(f"You cannot cancel this SetupIntent because its status is {intent['status']}.")
    setups.cancel(world, intent, params.get("cancellation_reason"))
    return shown(world, intent, params)


retrieves("/v1/setup_intents", "SetupIntentRetrieveParams", "setup_intent")
lists("/v1/setup_intents", "SetupIntentListParams", "setup_intent")
