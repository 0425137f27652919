"""Billing portal: its configurations and sessions. The pages are in sandbox.pages."""

from sandbox.errors import invalid
from sandbox.params import Tree
from sandbox.routing import lists, only, retrieves, route, shown
from sandbox.shapes import Obj, copied, merge_metadata
from sandbox.world import World

FEATURES: Obj = {
    "customer_update": {"allowed_updates": [], "enabled": False},
    "invoice_history": {"enabled": False},
    "payment_method_update": {"enabled": False, "payment_method_configuration": None},
    "subscription_cancel": {
        "cancellation_reason": {"enabled": False, "options": []},
        "enabled": False,
        "mode": "at_period_end",
        "proration_behavior": "none",
    },
    "subscription_pause": {"duration": None, "enabled": False},
    "subscription_update": {
        "billing_cycle_anchor": None,
        "default_allowed_updates": [],
        "enabled": False,
        "products": [],
        "proration_behavior": "none",
        "schedule_at_period_end": {"conditions": []},
        "trial_update_behavior": "end_trial",
    },
}


@route("POST", "/v1/billing_portal/configurations", "billing_portal.ConfigurationCreateParams")
def create_configuration(world: World, params: Tree) -> Obj:
    configuration = make_configuration(world, params["features"], is_default=False)
    _change(configuration, params)
    return shown(world, configuration, params)


def make_configuration(world: World, features: Tree, is_default: bool) -> Obj:
    return world.add(
        "billing_portal.configuration",
        active=True,
        business_profile={"headline": None, "privacy_policy_url": None, "terms_of_service_url": None},
        features=_merged(FEATURES, features),
        is_default=is_default,
        login_page={"enabled": False, "url": None},
        updated=world.now(),
    )


def _merged(base: Obj, given: Tree) -> Obj:
    features: Obj = copied(base)
    for name, values in given.items():
        features[name].update(values)
    return features


def _change(configuration: Obj, params: Tree) -> None:
    configuration.update(only(params, ("active", "default_return_url", "name")))
    profile = params.get("business_profile", {})
    configuration["business_profile"].update(only(profile, profile))
    if "metadata" in params:
        configuration["metadata"] = merge_metadata(configuration["metadata"], params["metadata"])


@route("POST", "/v1/billing_portal/configurations/{}", "billing_portal.ConfigurationUpdateParams")
def update_configuration(world: World, params: Tree, configuration_id: str) -> Obj:
    configuration = world.get("billing_portal.configuration", configuration_id)
    configuration["features"] = _merged(configuration["features"], params.get("features", {}))
    configuration["updated"] = world.now()
    _change(configuration, params)
    return shown(world, configuration, params)


@route("POST", "/v1/billing_portal/sessions", "billing_portal.SessionCreateParams")
def create_session(world: World, params: Tree) -> Obj:
    if "customer" not in params:
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    customer = world.ref("customer", params["customer"], "customer")
    if wanted := params.get("configuration"):
        configuration = world.ref("billing_portal.configuration", wanted, "configuration")
    else:
        configuration = default_configuration(world)
    session = world.add(
        "billing_portal.session",
        configuration=configuration["id"],
        customer=customer["id"],
        return_url=params.get("return_url", configuration["default_return_url"]),
        locale=params.get("locale"),
        flow=_flow(world, params["flow_data"], customer) if "flow_data" in params else None,
    )
    session["url"] = f"{world.address}/p/session/{session['id']}"
    return shown(world, session, params)


def _flow(world: World, given: Tree, customer: Obj) -> Obj:
    """One thing to do, and where to go when it is done."""
    kind = given["type"]
    details = given.get(kind)
    if kind != "payment_method_update":
        if not details:
            raise invalid(f"Missing required param: flow_data[{kind}].", f"flow_data[{kind}]", "parameter_missing")
        param = f"flow_data[{kind}][subscription]"
        if world.ref("subscription", details["subscription"], param)["customer"] != customer["id"]:
            raise invalid("The subscription belongs to another customer.", param)
    after = {"hosted_confirmation": None, "redirect": None, "type": "portal_homepage"}
    kinds = dict.fromkeys(("subscription_cancel", "subscription_update", "subscription_update_confirm"))
    flow = {"type": kind, "after_completion": after | given.get("after_completion", {})} | kinds
    if details:
        flow[kind] = {"discounts": None} | details if kind == "subscription_update_confirm" else details
    return flow


def default_configuration(world: World) -> Obj:
    """As if somebody had saved the dashboard's default settings once."""
    for configuration in world.all("billing_portal.configuration"):
        if configuration["is_default"]:
            return configuration
    features = {
        "invoice_history": {"enabled": True},
        "payment_method_update": {"enabled": True},
        "subscription_cancel": {"enabled": True},
    }
    return make_configuration(world, features, is_default=True)


KIND, PATH = "billing_portal.configuration", "/v1/billing_portal/configurations"
retrieves(PATH, "billing_portal.ConfigurationRetrieveParams", KIND)
lists(PATH, "billing_portal.ConfigurationListParams", KIND)
