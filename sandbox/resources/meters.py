"""Billing meters and the events that are counted."""

from decimal import Decimal, InvalidOperation

from sandbox.billing import usage
from sandbox.errors import ApiError, invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, only, refuse, retrieves, route, shown
from sandbox.shapes import Obj
from sandbox.world import World

DAY = 86400
OLDEST, NEWEST = 35 * DAY, 300
UNIQUE_SECONDS = DAY


@route("POST", "/v1/billing/meters", "billing.MeterCreateParams")
def create(world: World, params: Tree) -> Obj:
    name = params["event_name"]
    if any(one["event_name"] == name and one["status"] == "active" for one in world.all("billing.meter")):
        raise invalid(f"An active meter with the event name {name} exists already.", "event_name")
    mapping = {"event_payload_key": "stripe_customer_id", "type": "by_id"} | params.get("customer_mapping", {})
    meter = world.add(
        "billing.meter",
        customer_mapping=mapping,
        default_aggregation=params["default_aggregation"],
        status="active",
        status_transitions={"deactivated_at": None},
        updated=world.now(),
        value_settings={"event_payload_key": "value"} | params.get("value_settings", {}),
        **only(params, ("display_name", "event_name", "event_time_window")),
    )
    emit(world, "billing.meter.created", meter)
    return shown(world, meter, params)


@route("POST", "/v1/billing/meters/{}", "billing.MeterUpdateParams")
def update(world: World, params: Tree, meter_id: str) -> Obj:
    meter = world.get("billing.meter", meter_id)
    meter.update(only(params, ("display_name",)), updated=world.now())
    emit(world, "billing.meter.updated", meter)
    return shown(world, meter, params)


@route("POST", "/v1/billing/meters/{}/deactivate", "billing.MeterDeactivateParams")
def deactivate(world: World, params: Tree, meter_id: str) -> Obj:
    return _switch(world, params, meter_id, "inactive", "deactivated")


@route("POST", "/v1/billing/meters/{}/reactivate", "billing.MeterReactivateParams")
def reactivate(world: World, params: Tree, meter_id: str) -> Obj:
    return _switch(world, params, meter_id, "active", "reactivated")


def _switch(world: World, params: Tree, meter_id: str, status: str, news: str) -> Obj:
    meter = world.get("billing.meter", meter_id)
    meter.update(status=status, updated=world.now())
    meter["status_transitions"]["deactivated_at"] = world.now() if status == "inactive" else None
    emit(world, f"billing.meter.{news}", meter)
    return shown(world, meter, params)


@route("POST", "/v1/billing/meter_events", "billing.MeterEventCreateParams")
def record(world: World, params: Tree) -> Obj:
    """Taken at once; at Stripe some of these refusals come later, as reports. Unknown customers are not counted."""
    meter = _meter(world, params["event_name"])
    payload = params["payload"]
    moment = params.get("timestamp", world.now())
    if not world.now() - OLDEST <= moment <= world.now() + NEWEST:
        raise invalid("The timestamp must be within the past 35 days and up to 5 minutes in the future.", "timestamp")
    identifier = params.get("identifier") or world.word("meter_event", 32)
    if _known(world, identifier):
        raise invalid(f"An event already exists with identifier {identifier}.", "identifier", "duplicate_meter_event")
    notes = {
        "_customer": payload.get(meter["customer_mapping"]["event_payload_key"]),
        "_value": _value(meter, payload),
    }
    values = {"event_name": meter["event_name"], "identifier": identifier, "payload": payload, "timestamp": moment}
    event = world.add("billing.meter_event", id=identifier, **values, **notes)
    return shown(world, event, params)


def _meter(world: World, name: str) -> Obj:
    for meter in world.all("billing.meter"):
        if meter["event_name"] == name and meter["status"] == "active":
            return meter
    raise ApiError(f"No active meter found for event name {name}.", code="no_meter", param="event_name")


def _value(meter: Obj, payload: dict[str, str]) -> Decimal:
    if meter["default_aggregation"]["formula"] == "count":
        return Decimal(1)
    key = meter["value_settings"]["event_payload_key"]
    try:
        value = Decimal(payload.get(key, ""))
    except InvalidOperation:
        raise invalid(f"The payload needs a number under {key}.", "payload", "meter_event_invalid_value") from None
    if not value.is_finite():
        raise invalid(f"The payload needs a number under {key}.", "payload", "meter_event_invalid_value")
    return value


def _known(world: World, identifier: str) -> bool:
    before = world.objects["billing.meter_event"].get(identifier)
    return before is not None and world.now() - before["created"] < UNIQUE_SECONDS


@route("GET", "/v1/billing/meters/{}/event_summaries", "billing.MeterListEventSummariesParams")
def summaries(world: World, params: Tree, meter_id: str) -> Obj:
    """One for the whole span; grouping by hour or day is not imitated."""
    refuse(params, ("value_grouping_window",))
    meter = world.get("billing.meter", meter_id)
    begin, end = params["start_time"], params["end_time"]
    total = usage.used(world, meter, params["customer"], begin, end)
    summary = {
        "id": f"mtrusg_{begin}_{end}",
        "object": "billing.meter_event_summary",
        "aggregated_value": float(total),
        "start_time": begin,
        "end_time": end,
        "livemode": False,
        "meter": meter_id,
    }
    url = f"/v1/billing/meters/{meter_id}/event_summaries"
    return {"object": "list", "data": [summary], "has_more": False, "url": url}


retrieves("/v1/billing/meters", "billing.MeterRetrieveParams", "billing.meter")
lists("/v1/billing/meters", "billing.MeterListParams", "billing.meter")
