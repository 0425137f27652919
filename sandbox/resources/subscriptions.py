"""Subscriptions over the API; their life is in sandbox.billing."""

from sandbox import checkout, methods
from sandbox.billing import changes, pauses, pending, schedules, starting
from sandbox.billing import subscriptions as life
from sandbox.errors import ApiError, invalid, missing
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import PAGING, in_range, only, page, refuse, retrieves, route, same, searches, shown
from sandbox.shapes import Obj, copied, merge_metadata
from sandbox.world import World, is_over

NOT_IMITATED = (
    "discounts",
    "default_tax_rates",
    "transfer_data",
    "application_fee_percent",
    "default_source",
    "backdate_start_date",
    "billing_cycle_anchor_config",
    "pending_invoice_item_interval",
    "billing_schedules",
    "billing_thresholds",
    "trial_from_plan",
    "on_behalf_of",
)
FIELDS = ("collection_method", "days_until_due", "description")
MERGED = ("payment_settings", "trial_settings", "invoice_settings", "automatic_tax")


@route("POST", "/v1/subscriptions", "SubscriptionCreateParams")
def create(world: World, params: Tree) -> Obj:
    refuse(params, NOT_IMITATED)
    if "customer" not in params:
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    customer = world.ref("customer", params["customer"], "customer")
    order = starting.Order(
        customer=customer,
        items=_items(world, params.get("items", []), "items"),
        extra_items=_items(world, params.get("add_invoice_items", []), "add_invoice_items"),
        values=_values(world, params, customer),
        trial_end=_trial_end(world, params),
        anchor=_anchor(params),
        prorate=params.get("proration_behavior") != "none",
        behavior=params.get("payment_behavior", "allow_incomplete"),
    )
    if not order.items:
        raise invalid("You must provide at least one item.", "items", "parameter_missing")
    order.method = methods.paying(world, customer, order.values.get("default_payment_method"))
    if order.method is None and order.behavior == "allow_incomplete" and not _needs_no_card(order):
        raise invalid(
            "This customer has no attached payment source or default payment method. Please consider adding a default "
            "payment method.",
            code="resource_missing",
        )
    subscription = starting.start(world, order)
    if "cancel_at_period_end" in params or "cancel_at" in params:
        changes.set_cancellation(world, subscription, params)
    return shown(world, subscription, params)


def _needs_no_card(order: starting.Order) -> bool:
    free = all(
        not item["price"]["unit_amount"] and item["price"]["billing_scheme"] == "per_unit" for item in order.items
    )
    return free or order.trial_end is not None or order.values.get("collection_method") == "send_invoice"


def _items(world: World, wanted: list[Tree], param: str) -> list[Obj]:
    for one in wanted:
        refuse(one, ("tax_rates", "discounts", "billing_thresholds"))
    return [
        {
            "price": changes.price_of(world, one, f"{param}[{number}]"),
            "quantity": one.get("quantity", 1),
            "metadata": merge_metadata({}, one.get("metadata", {})),
        }
        for number, one in enumerate(wanted)
    ]


def _values(world: World, params: Tree, customer: Obj) -> Obj:
    values = only(params, (*FIELDS, "billing_mode", "trial_settings"))
    values["metadata"] = merge_metadata({}, params.get("metadata", {}))
    if "payment_settings" in params:
        values["payment_settings"] = starting.PAYMENT_SETTINGS | params["payment_settings"]
    if default := params.get("default_payment_method"):
        values["default_payment_method"] = methods.attached(world, default, customer["id"], "default_payment_method")[
            "id"
        ]
    if values.get("collection_method") == "send_invoice" and "days_until_due" not in values:
        raise invalid("You must pass `days_until_due` with collection_method=send_invoice.", "days_until_due")
    return values


def _trial_end(world: World, params: Tree) -> int | None:
    wanted = params.get("trial_end")
    if wanted == "now":
        return None
    if isinstance(wanted, int) and wanted <= world.now():
        raise invalid("Invalid timestamp: must be an integer Unix timestamp in the future.", "trial_end")
    return checkout.trial_end(world, params)


def _anchor(params: Tree) -> int | None:
    wanted = params.get("billing_cycle_anchor")
    return wanted if isinstance(wanted, int) else None


@route("POST", "/v1/subscriptions/{}", "SubscriptionUpdateParams")
def update(world: World, params: Tree, subscription_id: str) -> Obj:
    refuse(params, (*NOT_IMITATED, "add_invoice_items"))
    subscription = world.get("subscription", subscription_id)
    _refuse_ended(subscription, params)
    _refuse_scheduled(world, subscription, params)
    before = copied(subscription)
    try:
        _update(world, subscription, params)
    except ApiError:
        subscription.update(before)
        raise
    emit(world, "customer.subscription.updated", subscription)
    return shown(world, subscription, params)


def _update(world: World, subscription: Obj, params: Tree) -> None:
    """A new card first: it may have to pay for the rest."""
    _change_fields(world, subscription, params)
    changes.set_cancellation(world, subscription, params)
    if "pause_collection" in params:
        pauses.set_collection(world, subscription, params["pause_collection"])
    if "items" in params or "billing_cycle_anchor" in params:
        pending.change(world, subscription, params.get("items", []), params)
    if "trial_end" in params:
        changes.set_trial_end(world, subscription, params["trial_end"])


def _refuse_scheduled(world: World, subscription: Obj, params: Tree) -> None:
    if {"cancel_at_period_end", "cancel_at"} & set(params) and schedules.of_subscription(world, subscription):
        raise invalid(
            f"The subscription is managed by the subscription schedule `{subscription['schedule']}`, and updating any "
            "cancelation behavior directly is not allowed. Please update the schedule instead."
        )


def _refuse_ended(subscription: Obj, params: Tree) -> None:
    allowed = {"metadata", "cancellation_details", "expand"}
    if is_over(subscription) and set(params) - allowed:
        raise invalid("A canceled subscription can only update its cancellation_details and metadata.")


def _change_fields(world: World, subscription: Obj, params: Tree) -> None:
    subscription.update(only(params, FIELDS))
    for name in MERGED:
        if name in params:
            subscription[name] = subscription[name] | params[name]
    if "metadata" in params:
        subscription["metadata"] = merge_metadata(subscription["metadata"], params["metadata"])
    if "cancellation_details" in params:
        subscription["cancellation_details"].update(params["cancellation_details"])
    if "default_payment_method" in params:
        wanted, owner = params["default_payment_method"], subscription["customer"]
        found = methods.attached(world, wanted, owner, "default_payment_method")["id"] if wanted else None
        subscription["default_payment_method"] = found


@route("DELETE", "/v1/subscriptions/{}", "SubscriptionCancelParams")
def cancel(world: World, params: Tree, subscription_id: str) -> Obj:
    subscription = world.get("subscription", subscription_id)
    if is_over(subscription):
        raise missing("subscription", subscription_id, "id", status=404)  # what is over is not found, as at Stripe
    changes.cancel(world, subscription, params)
    return shown(world, subscription, params)


@route("POST", "/v1/subscriptions/{}/resume", "SubscriptionResumeParams")
def resume(world: World, params: Tree, subscription_id: str) -> Obj:
    subscription = world.get("subscription", subscription_id)
    pauses.resume(world, subscription, params)
    return shown(world, subscription, params)


@route("POST", "/v1/subscriptions/{}/pause", "SubscriptionPauseParams")
def pause(world: World, params: Tree, subscription_id: str) -> Obj:
    subscription = world.get("subscription", subscription_id)
    pauses.pause(world, subscription, params)
    return shown(world, subscription, params)


@route("POST", "/v1/subscriptions/{}/migrate", "SubscriptionMigrateParams")
def migrate(world: World, params: Tree, subscription_id: str) -> Obj:
    """Noted; both billing modes come to the same here."""
    subscription = world.get("subscription", subscription_id)
    subscription["billing_mode"] = subscription["billing_mode"] | params["billing_mode"]
    emit(world, "customer.subscription.updated", subscription)
    return shown(world, subscription, params)


@route("GET", "/v1/subscriptions", "SubscriptionListParams")
def listing(world: World, params: Tree) -> Obj:
    """Without `status` the canceled ones are left out; `ended` is those that are over, `all` every one."""
    found = [one for one in world.all("subscription") if _matches(world, one, params)]
    return page(world, found[::-1], "/v1/subscriptions", params)


def _matches(world: World, subscription: Obj, params: Tree) -> bool:
    status, wanted = subscription["status"], params.get("status")
    groups = {None: status != "canceled", "all": True, "ended": is_over(subscription)}
    if not groups.get(wanted, status == wanted):
        return False
    items = life.items_of(world, subscription)
    for name, value in params.items():
        if name in PAGING or name == "status":
            continue
        if name in ("price", "plan"):
            fits = any(item["_price"] == value for item in items)
        elif name in ("current_period_start", "current_period_end"):
            fits = any(
                in_range(item[name], value if isinstance(value, dict) else {"gte": value, "lte": value})
                for item in items
            )
        else:
            fits = same(subscription[name], value)
        if not fits:
            return False
    return True


retrieves("/v1/subscriptions", "SubscriptionRetrieveParams", "subscription")
searches("/v1/subscriptions", "SubscriptionSearchParams", "subscription")


# Items one by one
@route("POST", "/v1/subscription_items", "SubscriptionItemCreateParams")
def create_item(world: World, params: Tree) -> Obj:
    refuse(params, ("tax_rates", "discounts", "billing_thresholds"))
    subscription = world.ref("subscription", params["subscription"], "subscription")
    _refuse_ended(subscription, params)
    known = {item["id"] for item in life.items_of(world, subscription)}
    pending.change(world, subscription, [only(params, ("price", "price_data", "quantity", "metadata"))], params)
    emit(world, "customer.subscription.updated", subscription)
    made = next(item for item in life.items_of(world, subscription) if item["id"] not in known)
    return shown(world, made, params)


@route("POST", "/v1/subscription_items/{}", "SubscriptionItemUpdateParams")
def update_item(world: World, params: Tree, item_id: str) -> Obj:
    refuse(params, ("tax_rates", "discounts", "billing_thresholds"))
    item = world.get("subscription_item", item_id)
    subscription = world.get("subscription", item["subscription"])
    wanted = {"id": item_id} | only(params, ("price", "price_data", "quantity", "metadata"))
    pending.change(world, subscription, [wanted], params)
    emit(world, "customer.subscription.updated", subscription)
    return shown(world, world.get("subscription_item", item_id), params)


@route("DELETE", "/v1/subscription_items/{}", "SubscriptionItemDeleteParams")
def delete_item(world: World, params: Tree, item_id: str) -> Obj:
    item = world.get("subscription_item", item_id)
    subscription = world.get("subscription", item["subscription"])
    pending.change(world, subscription, [{"id": item_id, "deleted": True}], params)
    emit(world, "customer.subscription.updated", subscription)
    return {"id": item_id, "object": "subscription_item", "deleted": True}


@route("GET", "/v1/subscription_items", "SubscriptionItemListParams")
def list_items(world: World, params: Tree) -> Obj:
    subscription = world.ref("subscription", params["subscription"], "subscription")
    return page(world, life.items_of(world, subscription), "/v1/subscription_items", params)


retrieves("/v1/subscription_items", "SubscriptionItemRetrieveParams", "subscription_item")
