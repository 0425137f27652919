"""Subscription schedules over the API; what they do is in sandbox.billing."""

from sandbox.billing import changes, schedules
from sandbox.billing import subscriptions as life
from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, only, refuse, retrieves, route, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World, is_over

KIND = "subscription_schedule"
NOT_IMITATED = ("add_invoice_items", "discounts", "default_tax_rates", "transfer_data", "trial", "on_behalf_of")


@route("POST", "/v1/subscription_schedules", "SubscriptionScheduleCreateParams")
def create(world: World, params: Tree) -> Obj:
    """From a subscription as it is, or of phases that begin a new one."""
    schedule = _from_subscription(world, params) if "from_subscription" in params else _from_phases(world, params)
    schedule["metadata"] = merge_metadata({}, params.get("metadata", {}))
    emit(world, f"{KIND}.created", schedule)
    if schedule["status"] == "not_started" and schedules.due(schedule) <= world.now():
        schedules.begin(world, schedule, world.get("customer", schedule["customer"]))
    return shown(world, schedule, params)


def _from_subscription(world: World, params: Tree) -> Obj:
    refuse(params, ("phases", "customer", "start_date", "end_behavior"))
    subscription = world.ref("subscription", params["from_subscription"], "from_subscription")
    if is_over(subscription):
        raise invalid("You cannot migrate a subscription that is already canceled.", "from_subscription")
    if schedules.of_subscription(world, subscription):
        raise invalid(
            f"You cannot migrate a subscription that is already attached to a schedule: {subscription['schedule']}.",
            "from_subscription",
        )
    start = life.period_of(world, subscription)[0]
    first = schedules.phase(world, schedules.as_phase(world, subscription), start, "phases[0]")
    schedule = schedules.make(world, subscription["customer"], [first], subscription=subscription["id"])
    schedule.update(status="active", current_phase={name: first[name] for name in ("start_date", "end_date")})
    subscription["schedule"] = schedule["id"]
    emit(world, "customer.subscription.updated", subscription)
    return schedule


def _from_phases(world: World, params: Tree) -> Obj:
    if "customer" not in params or not params.get("phases"):
        raise invalid("Pass `from_subscription`, or `customer` and `phases`.", "customer", "parameter_missing")
    _check(params["phases"])
    customer = world.ref("customer", params["customer"], "customer")
    start = params.get("start_date", "now")
    start = world.now() if start == "now" else start
    phases = []
    for number, one in enumerate(params["phases"]):
        phases.append(schedules.phase(world, one, start, f"phases[{number}]"))
        start = phases[-1]["end_date"]
    values = {"end_behavior": _end_behavior(params)}
    return schedules.make(world, customer["id"], phases, **values)


def _check(phases: list[Tree]) -> None:
    for one in phases:
        refuse(one, NOT_IMITATED)


def _end_behavior(params: Tree) -> str:
    wanted = str(params.get("end_behavior", "release"))
    if wanted not in ("release", "cancel"):
        raise invalid("The sandbox ends schedules by `release` or `cancel`.", "end_behavior")
    return wanted


@route("POST", "/v1/subscription_schedules/{}", "SubscriptionScheduleUpdateParams")
def update(world: World, params: Tree, schedule_id: str) -> Obj:
    """New phases; if the one that runs gets other items, the subscription gets them at once."""
    schedule = _running(world, schedule_id)
    if "phases" in params:
        _check(params["phases"])
        schedule["phases"] = schedules.replaced(world, schedule, params["phases"])
        _apply(world, schedule, params.get("proration_behavior", "create_prorations"))
    if "end_behavior" in params:
        schedule["end_behavior"] = _end_behavior(params)
    if "metadata" in params:
        schedule["metadata"] = merge_metadata(schedule["metadata"], params["metadata"])
    emit(world, f"{KIND}.updated", schedule)
    return shown(world, schedule, params)


def _apply(world: World, schedule: Obj, proration: str) -> None:
    if not schedule["current_phase"]:
        return
    begun = schedule["current_phase"]["start_date"]
    current = next(one for one in schedule["phases"] if one["start_date"] == begun)
    schedule["current_phase"] = {name: current[name] for name in ("start_date", "end_date")}
    subscription = world.get("subscription", schedule["subscription"])
    have = {(item["_price"], item["quantity"]) for item in life.items_of(world, subscription)}
    if have != {(item["price"], item["quantity"]) for item in current["items"]}:
        wanted = schedules.exchange(world, subscription, current["items"])
        changes.change_items(world, subscription, wanted, {"proration_behavior": proration})
        emit(world, "customer.subscription.updated", subscription)


@route("POST", "/v1/subscription_schedules/{}/release", "SubscriptionScheduleReleaseParams")
def release(world: World, params: Tree, schedule_id: str) -> Obj:
    schedule = _running(world, schedule_id)
    schedules.release(world, schedule)
    return shown(world, schedule, params)


@route("POST", "/v1/subscription_schedules/{}/cancel", "SubscriptionScheduleCancelParams")
def cancel(world: World, params: Tree, schedule_id: str) -> Obj:
    """And its subscription with it."""
    schedule = _running(world, schedule_id)
    schedules.cancel(world, schedule)
    if subscription := world.find("subscription", schedule["subscription"]):
        changes.cancel(world, subscription, only(params, ("invoice_now", "prorate")))
    return shown(world, schedule, params)


def _running(world: World, schedule_id: str) -> Obj:
    schedule = world.get(KIND, schedule_id)
    if is_over(schedule):
        raise invalid(f"This schedule is over: its status is {schedule['status']}.")
    return schedule


retrieves("/v1/subscription_schedules", "SubscriptionScheduleRetrieveParams", KIND)
lists(
    "/v1/subscription_schedules",
    "SubscriptionScheduleListParams",
    KIND,
    scheduled=lambda schedule, wanted: (schedule["status"] == "not_started") == wanted,
)
