"""Invoice lines and invoice items in today's shape: the price under `pricing`, its origin under `parent`."""

from typing import Any

from sandbox import money
from sandbox.shapes import Obj
from sandbox.world import World

Period = tuple[int, int]


def _pricing(price: Obj) -> Obj:
    return {
        "price_details": {"price": price["id"], "product": price["product"]},
        "type": "price_details",
        "unit_amount_decimal": price["unit_amount_decimal"],
    }


def describe(world: World, price: Obj, quantity: int) -> str:
    name = world.objects["product"][price["product"]].get("name", price["product"])
    every = f" / {price['recurring']['interval']}" if price["recurring"] else ""
    return f"{quantity} × {name}{every}"


def line(world: World, invoice_id: str, amount: int, currency: str, period: Period, **values: Any) -> Obj:
    blank: Obj = {
        "id": world.new_id("line_item"),
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "description": None,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": {},
        "parent": None,
        "period": {"start": period[0], "end": period[1]},
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": 1,
        "quantity_decimal": "1",
        "subscription": None,
        "subtotal": amount,
        "taxes": [],
    }
    return blank | values


def of_item(
    world: World, invoice_id: str, item: Obj, subscription: Obj, amount: int | None = None, trial: bool = False
) -> Obj:
    """A period of a subscription item, at its price or (part of a period, or a trial) at the amount given."""
    price = world.objects["price"][item["_price"]]
    quantity = item["quantity"]
    parent = {
        "invoice_item_details": None,
        "subscription_item_details": {
            "invoice_item": None,
            "proration": amount is not None and not trial,
            "proration_details": {"credited_items": None},
            "subscription": subscription["id"],
            "subscription_item": item["id"],
        },
        "type": "subscription_item_details",
    }
    return line(
        world,
        invoice_id,
        money.amount(price, quantity) if amount is None else amount,
        price["currency"],
        (item["current_period_start"], item["current_period_end"]),
        description=describe(world, price, quantity),
        metadata=dict(subscription["metadata"]),
        parent=parent,
        pricing=_pricing(price),
        quantity=quantity,
        quantity_decimal=str(quantity),
        subscription=subscription["id"],
    )


def of_invoice_item(world: World, invoice_id: str, item: Obj) -> Obj:
    subscription = item["_subscription"]
    details = {
        "invoice_item": item["id"],
        "proration": item["proration"],
        "proration_details": {"credited_items": None},
        "subscription": subscription,
    }
    if item["proration"] and item.get("_subscription_item"):
        origin = details | {"subscription_item": item["_subscription_item"]}
        parent = {
            "invoice_item_details": None,
            "subscription_item_details": origin,
            "type": "subscription_item_details",
        }
    else:
        parent = {"invoice_item_details": details, "subscription_item_details": None, "type": "invoice_item_details"}
    return line(
        world,
        invoice_id,
        item["amount"],
        item["currency"],
        (item["period"]["start"], item["period"]["end"]),
        description=item["description"],
        discountable=item["discountable"],
        metadata=dict(item["metadata"]),
        parent=parent,
        pricing=item["pricing"],
        quantity=item["quantity"],
        quantity_decimal=item["quantity_decimal"],
        subscription=subscription,
    )


def invoice_item(world: World, customer: str, amount: int, currency: str, period: Period, **values: Any) -> Obj:
    """A pending item (or one of a draft, with `invoice`); `price` names what it sells."""
    price = values.pop("price", None)
    subscription = values.pop("subscription", None)
    quantity = values.pop("quantity", 1)
    parent = None
    if subscription:
        origin = {"subscription": subscription, "subscription_item": values.get("_subscription_item")}
        parent = {"subscription_details": origin, "type": "subscription_details"}
    item = world.add(
        "invoiceitem",
        amount=amount,
        currency=currency,
        customer=customer,
        date=world.now(),
        discountable=True,
        discounts=[],
        net_amount=amount,
        parent=parent,
        period={"start": period[0], "end": period[1]},
        pricing=_pricing(price) if price else None,
        proration=False,
        quantity=quantity,
        quantity_decimal=str(quantity),
        tax_rates=[],
        _subscription=subscription,
    )
    item.update(values)
    return item
