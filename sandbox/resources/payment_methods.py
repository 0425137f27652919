"""Payment methods, from Stripe's test cards only."""

from sandbox import methods
from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, only, retrieves, route, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World


@route("POST", "/v1/payment_methods", "PaymentMethodCreateParams")
def create(world: World, params: Tree) -> Obj:
    kind = params.get("type", "card")
    if kind not in ("card", "us_bank_account"):
        raise invalid(f"The sandbox has cards and us_bank_account, not {kind}.", "type")
    details = params.get(kind)
    if not isinstance(details, dict):
        raise invalid(f"Missing required param: {kind}.", kind, "parameter_missing")
    number = details.get("number") or details.get("account_number", "")
    if token := details.get("token"):
        number = {"tok_visa": "4242424242424242", "tok_mastercard": "5555555555554444"}.get(token, "")
    method = methods.make(world, number, f"{kind}[number]")
    method["billing_details"].update(only(params.get("billing_details", {}), methods.NO_DETAILS))
    method["metadata"] = merge_metadata({}, params.get("metadata", {}))
    return shown(world, method, params)


@route("POST", "/v1/payment_methods/{}", "PaymentMethodUpdateParams")
def update(world: World, params: Tree, method_id: str) -> Obj:
    method = world.get("payment_method", method_id)
    details = params.get("billing_details") or {}
    method["billing_details"].update(only(details, methods.NO_DETAILS))
    if "metadata" in params:
        method["metadata"] = merge_metadata(method["metadata"], params["metadata"])
    method.update(only(params, ("allow_redisplay",)))
    if method["type"] == "card":  # a card that was renewed by its bank
        method["card"].update(only(params.get("card", {}), ("exp_month", "exp_year")))
    emit(world, "payment_method.updated", method)
    return shown(world, method, params)


@route("POST", "/v1/payment_methods/{}/attach", "PaymentMethodAttachParams")
def attach(world: World, params: Tree, method_id: str) -> Obj:
    if "customer" not in params:
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    method = methods.resolve(world, method_id, "payment_method")
    methods.attach(world, method, world.ref("customer", params["customer"], "customer"))
    return shown(world, method, params)


@route("POST", "/v1/payment_methods/{}/detach", "PaymentMethodDetachParams")
def detach(world: World, params: Tree, method_id: str) -> Obj:
    method = world.get("payment_method", method_id)
    methods.detach(world, method)
    return shown(world, method, params)


retrieves("/v1/payment_methods", "PaymentMethodRetrieveParams", "payment_method")
lists("/v1/payment_methods", "PaymentMethodListParams", "payment_method")
