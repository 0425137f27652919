"""Metered prices: what was used in a period, and the lines it comes to."""

from decimal import Decimal

from sandbox import money
from sandbox.billing import invoices, lines
from sandbox.shapes import Obj
from sandbox.world import World


def used(world: World, meter: Obj, customer: str, begin: int, end: int) -> Decimal:
    """By the meter's own formula, of the events from `begin` until before `end`."""
    values = [
        event["_value"]
        for event in world.all("billing.meter_event")
        if event["event_name"] == meter["event_name"]
        and event["_customer"] == customer
        and begin <= event["timestamp"] < end
    ]
    formula = meter["default_aggregation"]["formula"]
    if formula == "count":
        return Decimal(len(values))
    return (values[-1] if values else Decimal(0)) if formula == "last" else sum(values, Decimal(0))


def cost(world: World, price_id: str, customer: str, begin: int, end: int) -> tuple[Obj, Decimal, int]:
    """The price, the units that were used, and what they come to."""
    price = world.objects["price"][price_id]
    meter = world.objects["billing.meter"][price["recurring"]["meter"]]
    units = used(world, meter, customer, begin, end)
    return price, units, money.amount(price, units)


def add_lines(world: World, invoice: Obj, subscription: Obj, items: list[Obj], period: lines.Period) -> None:
    """A line for each metered item; it is counted again when the invoice is finalized, for events that come late."""
    for item in items:
        if item["quantity"] is None:
            made = lines.of_item(world, invoice["id"], item | {"quantity": 0}, subscription)
            made["period"] = {"start": max(period[0], item["_counts_from"]), "end": period[1]}
            invoice["_lines"].append(made)
            invoice.setdefault("_usage", []).append(made["id"])
    count(world, invoice)


def count(world: World, invoice: Obj) -> None:
    counted = invoice.get("_usage", [])
    for line in invoice["_lines"]:
        if line["id"] not in counted:
            continue
        span = line["period"]["start"], line["period"]["end"]
        price, units, amount = cost(world, line["pricing"]["price_details"]["price"], invoice["customer"], *span)
        line.update(quantity=int(units), quantity_decimal=money.text(units), amount=amount, subtotal=amount)
        line["description"] = lines.describe(world, price, int(units))
    if counted:
        invoices.total(invoice)


invoices.BEFORE_FINALIZING.append(count)
