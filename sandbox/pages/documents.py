"""Invoices and receipts as their customers see them."""

from flask import Blueprint, Response, redirect, render_template, request
from flask.typing import ResponseReturnValue

from sandbox import methods
from sandbox.api import world
from sandbox.billing import invoices
from sandbox.clock import day
from sandbox.errors import ApiError
from sandbox.money import shown
from sandbox.pages.pdf import document
from sandbox.shapes import Obj
from sandbox.world import World

blueprint = Blueprint("documents", __name__)


@blueprint.get("/i/<invoice_id>")
def invoice(invoice_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        return _page(here, here.get("invoice", invoice_id))


def _page(here: World, found: Obj, message: str | None = None) -> str:
    intent = invoices.intent_of(here, found)
    error = (intent or {}).get("last_payment_error")
    if found["status"] == "open" and error and not message:
        message = f"The last attempt failed: {error['message']}"
    asks = bool(intent and intent["status"] == "requires_action")
    return render_template("invoice.html", invoice=found, message=message, asks=asks, intent=intent)


@blueprint.post("/i/<invoice_id>")
def pay(invoice_id: str) -> ResponseReturnValue:
    """The customer pays an open invoice with a card that is theirs from then on."""
    here = world()
    with here.lock:
        found = here.get("invoice", invoice_id)
        number = request.form.get("card") or request.form.get("number", "")
        try:
            method = methods.make(here, number)
            methods.attach(here, method, here.get("customer", found["customer"]))
            news = invoices.collect(here, found, method=method)
        except ApiError as refusal:
            return _page(here, found, refusal.message)
        if news == "action":
            intent = invoices.intent_of(here, found)
            assert intent is not None
            return redirect(intent["next_action"]["redirect_to_url"]["url"], 303)
        return redirect(f"/i/{invoice_id}", 303)


@blueprint.get("/i/<invoice_id>/pdf")
def pdf(invoice_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        found = here.get("invoice", invoice_id)
    currency = found["currency"]
    lines = [f"{line['description'] or 'Item'}    {shown(line['amount'], currency)}" for line in found["_lines"]]
    text = [
        f"Invoice {found['number'] or '(draft)'}",
        f"{found['account_name']} – a sandbox: no money moved",
        f"For {found['customer_name'] or found['customer_email'] or found['customer']}",
        f"Date {day(found['effective_at'] or found['created'])}, status {found['status']}",
        "",
        *lines,
        "",
        f"Total    {shown(found['total'], currency)}",
        f"Paid     {shown(found['amount_paid'], currency)}",
    ]
    headers = {"Content-Disposition": f'inline; filename="invoice-{found["number"] or "draft"}.pdf"'}
    return Response(document(text), mimetype="application/pdf", headers=headers)


@blueprint.get("/receipts/<charge_id>")
def receipt(charge_id: str) -> ResponseReturnValue:
    here = world()
    with here.lock:
        return render_template("receipt.html", charge=here.get("charge", charge_id))
