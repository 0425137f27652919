"""The life of an invoice: draft, an hour later finalized, paid at once or tried again for two weeks."""

from collections.abc import Callable, Iterable
from typing import Any

from sandbox import methods, payments
from sandbox.billing import lines
from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.shapes import Obj
from sandbox.world import World

DAY = 86400
# A renewal's draft waits this long for the endpoints to take `invoice.created`.
PATIENCE = 72 * 3600
# Called with an invoice that is about to be finalized: usage is counted for the last time.
BEFORE_FINALIZING: list[Callable[[World, Obj], None]] = []
# Called with the invoice and its news: paid, failed, action (its customer has to do something), processing, overdue.
FOLLOWERS: list[Callable[[World, Obj, str], None]] = []


def make(world: World, customer: Obj, currency: str, reason: str, **values: Any) -> Obj:
    """A draft without lines; nobody is told yet, see `announce`."""
    settings: Obj = {
        "amount_overpaid": 0,
        "amount_shipping": 0,
        "account_country": "US",
        "account_name": "Sandbox",
        "attempt_count": 0,
        "attempted": False,
        "automatic_tax": dict.fromkeys(("disabled_reason", "liability", "provider", "status")) | {"enabled": False},
        "auto_advance": True,
        "collection_method": "charge_automatically",
        "customer_tax_ids": [],
        "default_tax_rates": [],
        "discounts": [],
        "issuer": {"type": "self"},
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_start": world.now(),
        "period_end": world.now(),
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": 0,
        "status": "draft",
        "status_transitions": dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")),
        "total_discount_amounts": [],
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
    }
    person = {f"customer_{name}": customer[name] for name in ("address", "email", "name", "phone", "shipping")}
    invoice = world.add("invoice", customer=customer["id"], currency=currency, billing_reason=reason, _lines=[])
    invoice.update(settings | person | {"customer_tax_exempt": customer["tax_exempt"]} | values)
    total(invoice)
    return invoice


def subscription_of(invoice: Obj) -> str | None:
    parent = invoice["parent"]
    return parent["subscription_details"]["subscription"] if parent else None


def parent_of(subscription: Obj) -> Obj:
    details = {"metadata": dict(subscription["metadata"]), "subscription": subscription["id"]}
    return {"quote_details": None, "subscription_details": details, "type": "subscription_details"}


def total(invoice: Obj) -> None:
    """Add the lines up; what the customer's balance takes is settled when it is finalized."""
    amount = sum(line["amount"] for line in invoice["_lines"])
    for name in ("subtotal", "subtotal_excluding_tax", "total", "total_excluding_tax"):
        invoice[name] = amount
    due = max(0, amount)
    invoice.update(amount_due=due, amount_paid=0, amount_remaining=due)


def pending_items(world: World, customer: str, subscription: str | None, currency: str) -> list[Obj]:
    """Items that wait for the next invoice: of this subscription, or of none."""
    return [
        item
        for item in world.all("invoiceitem")
        if item["customer"] == customer
        and item["invoice"] is None
        and item["currency"] == currency
        and item["_subscription"] in (None, subscription)
    ]


def add_items(world: World, invoice: Obj, items: Iterable[Obj]) -> None:
    for item in items:
        item["invoice"] = invoice["id"]
        invoice["_lines"].append(lines.of_invoice_item(world, invoice["id"], item))
    total(invoice)


def announce(world: World, invoice: Obj, wait: bool) -> None:
    """Tell of the draft. `wait`: it is finalized by the clock, an hour from now."""
    if wait and invoice["auto_advance"]:
        invoice["automatically_finalizes_at"] = world.now() + world.settings.draft_seconds
    emit(world, "invoice.created", invoice)


def advance(world: World, invoice: Obj) -> None:
    """The clock has come to a draft: finalize it, unless an endpoint has not taken `invoice.created` yet."""
    refused = world.courier.refused("invoice.created", invoice["id"])
    if refused and world.now() < invoice["created"] + PATIENCE:
        invoice["automatically_finalizes_at"] = world.now() + world.settings.draft_seconds
        return
    finalize(world, invoice)
    if invoice["status"] == "open" and invoice["collection_method"] == "charge_automatically":
        collect(world, invoice, automatic=True)


def finalize(world: World, invoice: Obj) -> None:
    """Number it and fix its lines; one with nothing to pay is paid by that."""
    if invoice["status"] != "draft":
        raise invalid("This invoice is already finalized, you can't re-finalize a non-draft invoice.")
    for prepare in BEFORE_FINALIZING:
        prepare(world, invoice)
    customer = world.get("customer", invoice["customer"])
    number = customer["next_invoice_sequence"]
    customer["next_invoice_sequence"] = number + 1
    invoice["number"] = invoice["number"] or f"{customer['invoice_prefix']}-{number:04d}"
    invoice.update(status="open", effective_at=world.now(), automatically_finalizes_at=None)
    invoice["status_transitions"]["finalized_at"] = world.now()
    page = f"{world.address}/i/{invoice['id']}"
    invoice.update(hosted_invoice_url=page, invoice_pdf=f"{page}/pdf")
    apply_balance(world, invoice, customer)
    if invoice["amount_due"]:
        _expect_payment(world, invoice)
    emit(world, "invoice.finalized", invoice)
    if invoice["collection_method"] == "send_invoice":
        emit(world, "invoice.sent", invoice)
    if not invoice["amount_due"]:
        paid(world, invoice)


def settle_with(world: World, invoice: Obj, intent: Obj) -> None:
    """Finalize an invoice of something already paid for."""
    invoice["_intent"] = intent["id"]
    finalize(world, invoice)
    follow_payment(world, intent)


def apply_balance(world: World, invoice: Obj, customer: Obj) -> None:
    """A credit on the customer pays first; an invoice below zero becomes such a credit."""
    balance = customer["balance"]
    due = max(0, invoice["total"] + balance) if balance < 0 or invoice["total"] < 0 else invoice["total"]
    customer["balance"] = balance + invoice["total"] - due
    invoice.update(starting_balance=balance, ending_balance=customer["balance"], amount_due=due, amount_remaining=due)
    if customer["balance"] != balance:
        emit(world, "customer.updated", customer)


def _expect_payment(world: World, invoice: Obj) -> None:
    intent = world.find("payment_intent", invoice.get("_intent")) or payments.create(
        world,
        invoice["amount_due"],
        invoice["currency"],
        invoice["customer"],
        description="Payment for Invoice",
        setup_future_usage="off_session" if invoice["parent"] else None,
    )
    payment = world.add(
        "invoice_payment",
        amount_requested=invoice["amount_due"],
        currency=invoice["currency"],
        invoice=invoice["id"],
        is_default=True,
        payment={"payment_intent": intent["id"], "type": "payment_intent"},
        status="open",
        status_transitions={"canceled_at": None, "paid_at": None},
    )
    invoice["_payment"] = intent["_invoice_payment"] = payment["id"]
    invoice["confirmation_secret"] = {"client_secret": intent["client_secret"], "type": "payment_intent"}


def payment_of(world: World, invoice: Obj) -> Obj | None:
    return world.find("invoice_payment", invoice.get("_payment"))


def intent_of(world: World, invoice: Obj) -> Obj | None:
    payment = payment_of(world, invoice)
    return world.find("payment_intent", payment["payment"]["payment_intent"]) if payment else None


def default_method(world: World, invoice: Obj) -> Obj | None:
    """In Stripe's order: of the invoice, of the subscription, of the customer."""
    customer = world.get("customer", invoice["customer"])
    subscription = world.find("subscription", subscription_of(invoice))
    of_subscription = subscription["default_payment_method"] if subscription else None
    return methods.paying(world, customer, invoice["default_payment_method"], of_subscription)


def collect(world: World, invoice: Obj, automatic: bool = False, method: Obj | None = None) -> str:
    """Try to have it paid: `paid`, `failed`, `action` or `processing`. Without any payment method it fails."""
    intent = intent_of(world, invoice)
    if intent is None or invoice["status"] not in ("open", "uncollectible"):
        return "paid"
    method = method or default_method(world, invoice)
    if automatic or not invoice["attempt_count"]:
        invoice["attempt_count"] += 1
    invoice.update(attempted=True, _automatic=automatic)
    if method is None:
        failed(world, invoice)
        return "failed"
    status = payments.confirm(world, intent, method, off_session=automatic)
    if status == "requires_action":
        return _needs_customer(world, invoice, automatic)
    if status == "processing":
        invoice["next_payment_attempt"] = None
        _tell(world, invoice, "processing")
        return "processing"
    return "paid" if status == "succeeded" else "failed"


def _needs_customer(world: World, invoice: Obj, automatic: bool) -> str:
    """Their bank asks. When nobody is there to answer this is a failure too, and tried again."""
    emit(world, "invoice.payment_action_required", invoice)
    if automatic:
        failed(world, invoice)
    else:
        _tell(world, invoice, "action")
    return "action"


def follow_payment(world: World, intent: Obj) -> None:
    """The intent's news are the invoice's."""
    payment = world.find("invoice_payment", intent.get("_invoice_payment"))
    if payment is None:
        return
    invoice = world.get("invoice", payment["invoice"])
    if intent["status"] == "succeeded" and invoice["status"] != "paid":
        payment.update(status="paid", amount_paid=intent["amount_received"])
        payment["status_transitions"]["paid_at"] = world.now()
        emit(world, "invoice_payment.paid", payment)
        paid(world, invoice)
    elif intent["status"] == "requires_payment_method":
        failed(world, invoice)


payments.FOLLOWERS.append(follow_payment)


def paid(world: World, invoice: Obj) -> None:
    amount = invoice["amount_due"]
    invoice.update(status="paid", amount_paid=amount, amount_remaining=0, attempted=True, next_payment_attempt=None)
    invoice.update(auto_advance=False)
    invoice["status_transitions"]["paid_at"] = world.now()
    emit(world, "invoice.paid", invoice)
    emit(world, "invoice.payment_succeeded", invoice)
    _tell(world, invoice, "paid")


def failed(world: World, invoice: Obj) -> None:
    """Plan the next attempt: days are counted from the first failure."""
    first = invoice.setdefault("_first_failure", world.now())
    days = world.settings.retry_days
    attempt = max(1, invoice["attempt_count"])
    again = first + days[attempt - 1] * DAY if attempt <= len(days) and invoice["auto_advance"] else None
    invoice["next_payment_attempt"] = again if invoice["billing_reason"] != "subscription_create" else None
    emit(world, "invoice.payment_failed", invoice)
    emit(world, "invoice.updated", invoice)
    _tell(world, invoice, "failed")


def overdue(world: World, invoice: Obj) -> None:
    """One that was sent was not paid in time."""
    invoice["_overdue"] = True
    emit(world, "invoice.overdue", invoice)
    _tell(world, invoice, "overdue")


def _tell(world: World, invoice: Obj, news: str) -> None:
    for follower in FOLLOWERS:
        follower(world, invoice, news)


def void(world: World, invoice: Obj) -> None:
    if invoice["status"] not in ("open", "uncollectible"):
        raise invalid(f"You can only pass in open or uncollectible invoices. This invoice is {invoice['status']}.")
    invoice.update(status="void", next_payment_attempt=None, auto_advance=False)
    invoice["status_transitions"]["voided_at"] = world.now()
    _release_intent(world, invoice)
    emit(world, "invoice.voided", invoice)


def mark_uncollectible(world: World, invoice: Obj) -> None:
    invoice.update(status="uncollectible", next_payment_attempt=None, auto_advance=False)
    invoice["status_transitions"]["marked_uncollectible_at"] = world.now()
    emit(world, "invoice.marked_uncollectible", invoice)


def _release_intent(world: World, invoice: Obj) -> None:
    intent = intent_of(world, invoice)
    if intent and intent["status"] in payments.PENDING:
        payments.cancel(world, intent, "void_invoice")


def pay_outside(world: World, invoice: Obj) -> None:
    """Settled in some other way (`paid_out_of_band`)."""
    _release_intent(world, invoice)
    paid(world, invoice)
    invoice["amount_paid"] = 0
