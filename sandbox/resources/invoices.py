"""Invoices over the API; their life is in sandbox.billing."""

from sandbox import methods
from sandbox.billing import invoices
from sandbox.billing.preview import preview
from sandbox.errors import ApiError, invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.resources.invoice_items import make_item
from sandbox.routing import lists, only, page, refuse, retrieves, route, searches, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World

DAY = 86400
FIELDS = ("auto_advance", "collection_method", "custom_fields", "description", "due_date", "footer", "number")
NOT_IMITATED = ("discounts", "default_tax_rates", "from_invoice", "shipping_cost", "transfer_data", "on_behalf_of")


@route("POST", "/v1/invoices", "InvoiceCreateParams")
def create(world: World, params: Tree) -> Obj:
    """A draft. Pending items stay out of it unless `pending_invoice_items_behavior` is `include`."""
    refuse(params, NOT_IMITATED)
    subscription = (
        world.ref("subscription", params["subscription"], "subscription") if "subscription" in params else None
    )
    owner = params.get("customer") or (subscription or {}).get("customer")
    if not owner:
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    customer = world.ref("customer", owner, "customer")
    currency = params.get("currency") or (subscription or customer)["currency"] or "usd"
    values: Obj = {"auto_advance": False} | only(params, FIELDS)
    values["metadata"] = merge_metadata({}, params.get("metadata", {}))
    if subscription:
        values["parent"] = invoices.parent_of(subscription)
    if default := params.get("default_payment_method"):
        values["default_payment_method"] = methods.attached(world, default, owner, "default_payment_method")["id"]
    if "days_until_due" in params:
        values["due_date"] = world.now() + DAY * params["days_until_due"]
    if values.get("collection_method") == "send_invoice" and "due_date" not in values:
        raise invalid("You must pass `days_until_due` or `due_date` with collection_method=send_invoice.", "due_date")
    invoice = invoices.make(world, customer, currency.lower(), "manual", **values)
    if params.get("pending_invoice_items_behavior") == "include" or subscription:
        pending = invoices.pending_items(world, owner, params.get("subscription"), invoice["currency"])
        invoices.add_items(world, invoice, pending)
    invoices.announce(world, invoice, wait=True)
    return shown(world, invoice, params)


@route("POST", "/v1/invoices/{}", "InvoiceUpdateParams")
def update(world: World, params: Tree, invoice_id: str) -> Obj:
    refuse(params, NOT_IMITATED)
    invoice = world.get("invoice", invoice_id)
    given = only(params, FIELDS)
    if invoice["status"] != "draft" and given.keys() - {"auto_advance", "description", "footer"}:
        raise invalid("Finalized invoices can't be updated in this way.", next(iter(given)), "invoice_not_editable")
    invoice.update(given)
    if given.get("auto_advance") and invoice["status"] == "draft" and not invoice["automatically_finalizes_at"]:
        invoice["automatically_finalizes_at"] = world.now() + world.settings.draft_seconds
    if default := params.get("default_payment_method"):
        found = methods.attached(world, default, invoice["customer"], "default_payment_method")
        invoice["default_payment_method"] = found["id"]
    if "metadata" in params:
        invoice["metadata"] = merge_metadata(invoice["metadata"], params["metadata"])
    emit(world, "invoice.updated", invoice)
    return shown(world, invoice, params)


@route("POST", "/v1/invoices/create_preview", "InvoiceCreatePreviewParams")
def create_preview(world: World, params: Tree) -> Obj:
    return preview(world, params)


@route("POST", "/v1/invoices/{}/finalize", "InvoiceFinalizeInvoiceParams")
def finalize(world: World, params: Tree, invoice_id: str) -> Obj:
    """With `auto_advance` it is charged an hour later, as at Stripe; here at once."""
    invoice = world.get("invoice", invoice_id)
    invoice.update(only(params, ("auto_advance",)))
    invoices.finalize(world, invoice)
    if invoice["auto_advance"] and invoice["status"] == "open":
        _collect(world, invoice)
    return shown(world, invoice, params)


def _collect(world: World, invoice: Obj) -> None:
    if invoice["collection_method"] == "charge_automatically":
        invoices.collect(world, invoice, automatic=True)


@route("POST", "/v1/invoices/{}/pay", "InvoicePayParams")
def pay(world: World, params: Tree, invoice_id: str) -> Obj:
    """A decline is 402; so is a bank that asks the customer."""
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] == "draft":
        invoices.finalize(world, invoice)
    elif invoice["status"] not in ("open", "uncollectible"):
        raise invalid(f"Invoice is already {invoice['status']}.", code="invoice_already_paid")
    if params.get("paid_out_of_band"):
        invoices.pay_outside(world, invoice)
    elif invoice["status"] != "paid":
        _pay(world, invoice, params)
    return shown(world, invoice, params)


def _pay(world: World, invoice: Obj, params: Tree) -> None:
    wanted = params.get("payment_method")
    method = methods.attached(world, wanted, invoice["customer"], "payment_method") if wanted else None
    if method is None and invoices.default_method(world, invoice) is None:
        raise invalid("There is no `default_payment_method` set on this Customer or Invoice.", code="resource_missing")
    news = invoices.collect(world, invoice, method=method)
    intent = invoices.intent_of(world, invoice)
    if news == "failed" and intent:
        error = intent["last_payment_error"]
        raise ApiError(error["message"], status=402, kind="card_error", code=error["code"], extra=_decline(error))
    if news == "action":
        message = "The payment needs further action by its customer, such as 3-D Secure."
        code = "invoice_payment_intent_requires_action"
        raise ApiError(message, status=402, kind="card_error", code=code)


def _decline(error: Obj) -> Obj:
    return {name: error[name] for name in ("decline_code", "charge", "payment_method") if name in error}


@route("POST", "/v1/invoices/{}/void", "InvoiceVoidInvoiceParams")
def void(world: World, params: Tree, invoice_id: str) -> Obj:
    invoice = world.get("invoice", invoice_id)
    invoices.void(world, invoice)
    return shown(world, invoice, params)


@route("POST", "/v1/invoices/{}/mark_uncollectible", "InvoiceMarkUncollectibleParams")
def mark_uncollectible(world: World, params: Tree, invoice_id: str) -> Obj:
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] != "open":
        raise invalid(f"You can only mark open invoices; this one is {invoice['status']}.")
    invoices.mark_uncollectible(world, invoice)
    return shown(world, invoice, params)


@route("POST", "/v1/invoices/{}/send", "InvoiceSendInvoiceParams")
def send(world: World, params: Tree, invoice_id: str) -> Obj:
    """Nothing is mailed; the event tells that it would have been."""
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] == "draft":
        invoices.finalize(world, invoice)
    emit(world, "invoice.sent", invoice)
    return shown(world, invoice, params)


@route("DELETE", "/v1/invoices/{}", "InvoiceDeleteParams")
def delete(world: World, params: Tree, invoice_id: str) -> Obj:
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] != "draft":
        raise invalid("You can only delete draft invoices.")
    for item in world.all("invoiceitem"):
        if item["invoice"] == invoice_id:
            item["invoice"] = None
    emit(world, "invoice.deleted", invoice)
    return world.delete(invoice)


@route("GET", "/v1/invoices/{}/lines", "InvoiceLineItemListParams")
def list_lines(world: World, params: Tree, invoice_id: str) -> Obj:
    return page(world, world.get("invoice", invoice_id)["_lines"], f"/v1/invoices/{invoice_id}/lines", params)


@route("POST", "/v1/invoices/{}/add_lines", "InvoiceAddLinesParams")
def add_lines(world: World, params: Tree, invoice_id: str) -> Obj:
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] != "draft":
        raise invalid("This invoice is no longer editable.", "invoice", "invoice_not_editable")
    for wanted in params["lines"]:
        refuse(wanted, ("discounts", "tax_rates", "tax_amounts"))
        if waiting := wanted.get("invoice_item"):
            item = world.ref("invoiceitem", waiting, "lines[invoice_item]")
        else:
            item = make_item(world, invoice["customer"], wanted | {"currency": invoice["currency"]})
        invoices.add_items(world, invoice, [item])
    if "invoice_metadata" in params:
        invoice["metadata"] = merge_metadata(invoice["metadata"], params["invoice_metadata"])
    emit(world, "invoice.updated", invoice)
    return shown(world, invoice, params)


retrieves("/v1/invoices", "InvoiceRetrieveParams", "invoice")
lists(
    "/v1/invoices",
    "InvoiceListParams",
    "invoice",
    subscription=lambda invoice, wanted: invoices.subscription_of(invoice) == wanted,
)
searches("/v1/invoices", "InvoiceSearchParams", "invoice")
