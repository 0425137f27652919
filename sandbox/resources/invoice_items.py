"""Invoice items (single amounts that wait for an invoice, or belong to a draft) and invoice payments."""

from decimal import Decimal

from sandbox import money
from sandbox.billing import invoices, lines
from sandbox.catalog import make_inline
from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, only, refuse, retrieves, route, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World

NOT_IMITATED = ("discounts", "tax_rates", "quantity_decimal")


@route("POST", "/v1/invoiceitems", "InvoiceItemCreateParams")
def create(world: World, params: Tree) -> Obj:
    if "customer" not in params:
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    world.ref("customer", params["customer"], "customer")
    if subscription := params.get("subscription"):
        _own(world.ref("subscription", subscription, "subscription"), params)
    draft = world.ref("invoice", params["invoice"], "invoice") if "invoice" in params else None
    if draft:
        _own(draft, params)
        _refuse_final(draft)
    item = make_item(world, params["customer"], params)
    if draft:
        if item["currency"] != draft["currency"]:
            raise invalid(f"The invoice is in {draft['currency']}, not {item['currency']}.", "currency")
        invoices.add_items(world, draft, [item])
    emit(world, "invoiceitem.created", item)
    return shown(world, item, params)


def _own(obj: Obj, params: Tree) -> None:
    if obj["customer"] != params["customer"]:
        raise invalid(f"This {obj['object']} belongs to another customer.", "customer")


def _refuse_final(invoice: Obj) -> None:
    if invoice["status"] != "draft":
        raise invalid("This invoice is no longer editable.", "invoice", "invoice_not_editable")


def make_item(world: World, customer: str, params: Tree) -> Obj:
    """From a price and a quantity, a unit amount and a quantity, or an amount."""
    refuse(params, NOT_IMITATED)
    price = _price(world, params)
    quantity = params.get("quantity", 1)
    if price:
        amount, currency = money.amount(price, quantity), price["currency"]
    else:
        amount, currency = _amount(params, quantity), _currency(world, customer, params)
    period = params.get("period", {"start": world.now(), "end": world.now()})
    item = lines.invoice_item(
        world,
        customer,
        amount,
        currency,
        (period["start"], period["end"]),
        price=price,
        quantity=quantity,
        subscription=params.get("subscription"),
        description=params.get("description") or (lines.describe(world, price, quantity) if price else None),
        metadata=merge_metadata({}, params.get("metadata", {})),
    )
    item.update(only(params, ("discountable",)))
    return item


def _price(world: World, params: Tree) -> Obj | None:
    if "price_data" in params:
        return make_inline(world, params["price_data"])
    wanted = params.get("pricing", {}).get("price")
    if wanted is None:
        return None
    price = world.ref("price", wanted, "pricing[price]")
    if price["type"] == "recurring":
        raise invalid("The price specified is set to `type=recurring` but this field only accepts one_time.", "pricing")
    return price


def _amount(params: Tree, quantity: int) -> int:
    if "unit_amount_decimal" in params:
        return money.rounded(Decimal(params["unit_amount_decimal"]) * quantity)
    if "amount" not in params:
        raise invalid("Pass `amount`, `unit_amount_decimal`, `pricing` or `price_data`.", "amount", "parameter_missing")
    return int(params["amount"])


def _currency(world: World, customer: str, params: Tree) -> str:
    known = params.get("currency") or world.get("customer", customer)["currency"]
    if not known:
        raise invalid("Missing required param: currency.", "currency", "parameter_missing")
    return str(known).lower()


@route("POST", "/v1/invoiceitems/{}", "InvoiceItemUpdateParams")
def update(world: World, params: Tree, item_id: str) -> Obj:
    """Amounts of those that wait; what stands on an invoice is changed there."""
    refuse(params, (*NOT_IMITATED, "pricing", "price_data"))
    item = world.get("invoiceitem", item_id)
    if item["invoice"]:
        raise invalid("This invoice item is on an invoice already.", "invoiceitem", "invoice_not_editable")
    item.update(only(params, ("amount", "description", "discountable", "period")))
    item["net_amount"] = item["amount"]
    if "metadata" in params:
        item["metadata"] = merge_metadata(item["metadata"], params["metadata"])
    return shown(world, item, params)


@route("DELETE", "/v1/invoiceitems/{}", "InvoiceItemDeleteParams")
def delete(world: World, params: Tree, item_id: str) -> Obj:
    item = world.get("invoiceitem", item_id)
    if item["invoice"]:
        draft = world.get("invoice", item["invoice"])
        _refuse_final(draft)
        draft["_lines"] = [line for line in draft["_lines"] if not _made_of(line, item_id)]
        invoices.total(draft)
    emit(world, "invoiceitem.deleted", item)
    return world.delete(item)


def _made_of(line: Obj, item_id: str) -> bool:
    parent = line["parent"]
    return bool((parent["invoice_item_details"] or parent["subscription_item_details"])["invoice_item"] == item_id)


retrieves("/v1/invoiceitems", "InvoiceItemRetrieveParams", "invoiceitem")
lists(
    "/v1/invoiceitems",
    "InvoiceItemListParams",
    "invoiceitem",
    pending=lambda item, wanted: (item["invoice"] is None) == wanted,
)
retrieves("/v1/invoice_payments", "InvoicePaymentRetrieveParams", "invoice_payment")
lists(
    "/v1/invoice_payments",
    "InvoicePaymentListParams",
    "invoice_payment",
    payment=lambda payment, wanted: all(payment["payment"].get(name) == value for name, value in wanted.items()),
)
