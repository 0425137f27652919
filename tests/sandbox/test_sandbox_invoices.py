"""Invoices made by hand: items, lines, finalizing, paying, voiding, and their documents."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest
import stripe

from tests.sandbox.shop import Shop


def draft(shop: Shop, customer: Any, *amounts: int, **params: Any) -> stripe.Invoice:
    invoice = shop.api.invoices.create({"customer": customer.id, "currency": "usd", **params})
    for amount in amounts:
        shop.api.invoice_items.create(
            {"customer": customer.id, "invoice": invoice.id, "amount": amount, "currency": "usd"}
        )
    return shop.api.invoices.retrieve(invoice.id)


def test_item_from_a_price(shop: Shop) -> None:
    customer, price = shop.customer(), shop.price(30, every=None)
    invoice = draft(shop, customer)
    item = shop.api.invoice_items.create(
        {"customer": customer.id, "invoice": invoice.id, "pricing": {"price": price.id}, "quantity": 7}
    )
    assert (item.amount, item.pricing.price_details.price) == (210, price.id)
    line = shop.api.invoices.retrieve(invoice.id)["lines"].data[0]
    assert (line.pricing.price_details.price, line.quantity, line.amount) == (price.id, 7, 210)
    assert line.parent.invoice_item_details.invoice_item == item.id
    with pytest.raises(stripe.InvalidRequestError, match="recurring"):
        shop.api.invoice_items.create({"customer": customer.id, "pricing": {"price": shop.price().id}})


def test_finalized_paid_and_numbered(shop: Shop) -> None:
    customer = shop.customer()
    invoice = draft(shop, customer, 500, 250)
    assert (invoice.status, invoice.total, invoice.auto_advance, invoice.number) == ("draft", 750, False, None)
    done = shop.api.invoices.finalize_invoice(invoice.id)
    assert (done.status, done.number) == ("open", f"{customer.invoice_prefix}-0001")
    paid = shop.api.invoices.pay(invoice.id, {"expand": ["payments"]})
    assert (paid.status, paid.amount_paid, paid.amount_remaining) == ("paid", 750, 0)
    assert paid.payments.data[0].status == "paid"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.api.invoices.pay(invoice.id)
    assert refused.value.code == "invoice_already_paid"
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.invoices.finalize_invoice(invoice.id)


def test_draft_that_advances_on_its_own(shop: Shop) -> None:
    invoice = draft(shop, shop.customer(), 500, auto_advance=True)
    shop.control.advance(hours=1)
    assert shop.api.invoices.retrieve(invoice.id).status == "paid"


def test_standalone_invoices_leave_pending_items_out(shop: Shop) -> None:
    customer = shop.customer()
    shop.api.invoice_items.create({"customer": customer.id, "amount": 300, "currency": "usd"})
    assert draft(shop, customer).total == 0
    assert draft(shop, customer, pending_invoice_items_behavior="include").total == 300


def test_pending_item_of_a_subscription_rides_with_its_renewal(shop: Shop) -> None:
    subscription = shop.subscribe()
    item = shop.api.invoice_items.create(
        {"customer": subscription.customer, "subscription": subscription.id, "amount": 300, "currency": "usd"}
    )
    shop.control.advance(days=29)
    bill = shop.invoices(subscription)[-1]
    assert bill.total == 3200
    assert shop.api.invoice_items.retrieve(item.id).invoice == bill.id


def test_items_are_changed_and_taken_back_while_they_wait(shop: Shop) -> None:
    customer = shop.customer()
    item = shop.api.invoice_items.create({"customer": customer.id, "amount": 300, "currency": "usd"})
    assert shop.api.invoice_items.update(item.id, {"amount": 400}).amount == 400
    assert shop.api.invoice_items.delete(item.id).deleted
    invoice = draft(shop, customer, 100, 200)
    listed = shop.api.invoice_items.list({"invoice": invoice.id}).data
    shop.api.invoice_items.delete(listed[0].id)
    assert shop.api.invoices.retrieve(invoice.id).total == 100
    shop.api.invoices.finalize_invoice(invoice.id)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.api.invoice_items.create({"customer": customer.id, "invoice": invoice.id, "amount": 1, "currency": "usd"})
    assert refused.value.code == "invoice_not_editable"


def test_lines_are_added(shop: Shop) -> None:
    invoice = draft(shop, shop.customer())
    shop.api.invoices.add_lines(invoice.id, {"lines": [{"amount": 100, "description": "A"}, {"amount": 23}]})
    again = shop.api.invoices.retrieve(invoice.id)
    assert (again.total, again["lines"].data[0].description) == (123, "A")
    assert [line.amount for line in shop.api.invoices.line_items.list(invoice.id).data] == [100, 23]


def test_more_lines_than_are_embedded(shop: Shop) -> None:
    invoice = draft(shop, shop.customer())
    for _ in range(3):
        shop.api.invoices.add_lines(invoice.id, {"lines": [{"amount": 1} for _ in range(5)]})
    again = shop.api.invoices.retrieve(invoice.id)
    assert (len(again["lines"].data), again["lines"].has_more) == (10, True)
    assert len(list(again["lines"].auto_paging_iter())) == 15


def test_declined_and_asked(shop: Shop) -> None:
    bad = shop.customer("pm_card_chargeCustomerFail")
    invoice = draft(shop, bad, 500)
    with pytest.raises(stripe.CardError) as declined:
        shop.api.invoices.pay(invoice.id)
    assert declined.value.code == "card_declined"
    asks = draft(shop, shop.customer("pm_card_authenticationRequired"), 500)
    with pytest.raises(stripe.CardError) as declined:
        shop.api.invoices.pay(asks.id)
    assert declined.value.code == "invoice_payment_intent_requires_action"
    none = draft(shop, shop.customer(card=None), 500)
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.invoices.pay(none.id)


def test_voided_and_written_off(shop: Shop) -> None:
    first, second = draft(shop, shop.customer(), 500), draft(shop, shop.customer(), 500)
    for invoice in (first, second):
        shop.api.invoices.finalize_invoice(invoice.id)
    voided = shop.api.invoices.void_invoice(first.id, {"expand": ["payments.data.payment.payment_intent"]})
    assert voided.status == "void"
    assert voided.payments.data[0].payment.payment_intent.status == "canceled"
    assert shop.api.invoices.mark_uncollectible(second.id).status == "uncollectible"
    assert shop.api.invoices.pay(second.id).status == "paid"
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.invoices.void_invoice(second.id)


def test_only_drafts_are_deleted_or_changed(shop: Shop) -> None:
    invoice = draft(shop, shop.customer(), 500)
    shop.api.invoices.update(
        invoice.id, {"metadata": {"a": "b"}, "collection_method": "send_invoice", "due_date": 2**31}
    )
    shop.api.invoices.finalize_invoice(invoice.id)
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.invoices.update(invoice.id, {"due_date": 2**31})
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.invoices.delete(invoice.id)
    other = draft(shop, shop.customer())
    assert shop.api.invoices.delete(other.id).deleted
    assert [one.id for one in shop.api.invoices.list({"status": "open"}).data] == [invoice.id]


def test_nothing_to_pay_is_paid(shop: Shop) -> None:
    invoice = draft(shop, shop.customer(card=None))
    assert shop.api.invoices.finalize_invoice(invoice.id).status == "paid"


def test_credit_on_the_customer_pays_first(shop: Shop) -> None:
    customer = shop.customer()
    shop.api.customers.update(customer.id, {"balance": -200})
    invoice = shop.api.invoices.pay(draft(shop, customer, 500).id)
    assert (invoice.amount_due, invoice.starting_balance, invoice.ending_balance) == (300, -200, 0)


def test_documents(shop: Shop) -> None:
    subscription = shop.subscribe()
    invoice = shop.invoices(subscription)[0]
    with urllib.request.urlopen(invoice.hosted_invoice_url) as page:
        text = page.read().decode()
    assert invoice.number in text
    assert "$29.00" in text
    with urllib.request.urlopen(invoice.invoice_pdf) as document:
        assert document.headers["Content-Type"] == "application/pdf"
        content = document.read()
    assert content.startswith(b"%PDF-1.4")
    table = int(content.split(b"startxref\n")[1].split(b"\n")[0])
    assert content[table : table + 4] == b"xref"
    charge = shop.api.charges.list().data[0]
    with urllib.request.urlopen(charge.receipt_url) as page:
        assert "4242" in page.read().decode()
