"""Customers and the payment methods that are theirs."""

from sandbox import methods
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, only, page, retrieves, route, searches, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World, is_over

FIELDS = ("address", "business_name", "description", "email", "individual_name", "name", "phone", "shipping")
MORE = ("preferred_locales", "tax_exempt", "balance", "invoice_prefix", "next_invoice_sequence")


@route("POST", "/v1/customers", "CustomerCreateParams")
def create(world: World, params: Tree) -> Obj:
    return shown(world, make_customer(world, params), params)


def make_customer(world: World, params: Tree) -> Obj:
    customer = world.add(
        "customer",
        balance=0,
        delinquent=False,
        invoice_prefix=world.word("prefix", 8).upper(),
        invoice_settings={
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        next_invoice_sequence=1,
        preferred_locales=[],
        tax_exempt="none",
        metadata=merge_metadata({}, params.get("metadata", {})),
    )
    for absent in ("business_name", "individual_name", "customer_account"):
        if absent not in params:
            customer.pop(absent)
    customer.update(only(params, FIELDS + MORE))
    if "payment_method" in params:
        method = methods.resolve(world, params["payment_method"], "payment_method")
        methods.attach(world, method, customer)
    _invoice_settings(world, customer, params)
    emit(world, "customer.created", customer)
    return customer


def _invoice_settings(world: World, customer: Obj, params: Tree) -> None:
    given = params.get("invoice_settings", {})
    if default := given.get("default_payment_method"):
        param = "invoice_settings[default_payment_method]"
        method = methods.attached(world, default, customer["id"], param)
        given = given | {"default_payment_method": method["id"]}
    customer["invoice_settings"].update(only(given, given))


@route("POST", "/v1/customers/{}", "CustomerUpdateParams")
def update(world: World, params: Tree, customer_id: str) -> Obj:
    customer = world.get("customer", customer_id)
    customer.update(only(params, FIELDS + MORE))
    _invoice_settings(world, customer, params)
    if "metadata" in params:
        customer["metadata"] = merge_metadata(customer["metadata"], params["metadata"])
    emit(world, "customer.updated", customer)
    return shown(world, customer, params)


@route("DELETE", "/v1/customers/{}", "CustomerDeleteParams")
def delete(world: World, params: Tree, customer_id: str) -> Obj:
    """Its subscriptions end at once."""
    from sandbox.billing.subscriptions import end

    customer = world.get("customer", customer_id)
    for subscription in world.all("subscription"):
        if subscription["customer"] == customer_id and not is_over(subscription):
            end(world, subscription, "cancellation_requested")
    emit(world, "customer.deleted", customer)
    return world.delete(customer)


@route("GET", "/v1/customers/{}/payment_methods", "CustomerPaymentMethodListParams")
def list_methods(world: World, params: Tree, customer_id: str) -> Obj:
    world.get("customer", customer_id)
    found = [
        one
        for one in world.all("payment_method")
        if one["customer"] == customer_id and params.get("type", one["type"]) == one["type"]
    ]
    return page(world, found[::-1], f"/v1/customers/{customer_id}/payment_methods", params)


@route("GET", "/v1/customers/{}/payment_methods/{}", "CustomerPaymentMethodRetrieveParams")
def retrieve_method(world: World, params: Tree, customer_id: str, method_id: str) -> Obj:
    world.get("customer", customer_id)
    method = world.get("payment_method", method_id)
    if method["customer"] != customer_id:
        method = world.get("payment_method", "")
    return shown(world, method, params)


retrieves("/v1/customers", "CustomerRetrieveParams", "customer")
lists("/v1/customers", "CustomerListParams", "customer")
searches("/v1/customers", "CustomerSearchParams", "customer")
