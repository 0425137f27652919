"""A small catalog and its customers, made through the API, and what tests do with them again and again."""

from __future__ import annotations

from typing import Any

import stripe

from sandbox.control import Sandbox
from sandbox.server import Running

SUCCESS = "http://shop.example/return?session={CHECKOUT_SESSION_ID}"


class Shop:
    def __init__(self, running: Running, client: stripe.StripeClient) -> None:
        self.api = client.v1
        self.control: Sandbox = running.control
        self.url = running.url

    def price(self, amount: int = 2900, every: str | None = "month", **params: Any) -> stripe.Price:
        if every:
            params["recurring"] = {"interval": every}
        params.setdefault("product_data", {"name": "Pro"})
        return self.api.prices.create({"currency": "usd", "unit_amount": amount, **params})

    def customer(self, card: str | None = "pm_card_visa", **params: Any) -> stripe.Customer:
        if card:
            params |= {"payment_method": card}
        customer = self.api.customers.create({"email": "alice@example.com", **params})
        if card:
            methods = self.api.customers.payment_methods.list(customer.id).data
            self.api.customers.update(customer.id, {"invoice_settings": {"default_payment_method": methods[0].id}})
        return customer

    def subscribe(self, price: stripe.Price | None = None, card: str | None = "pm_card_visa", **params: Any) -> Any:
        price = price or self.price()
        customer = self.customer(card)
        return self.api.subscriptions.create({"customer": customer.id, "items": [{"price": price.id}], **params})

    def checkout(self, price: stripe.Price, quantity: int = 1, **params: Any) -> stripe.checkout.Session:
        mode = "subscription" if price.recurring else "payment"
        lines = [{"price": price.id, "quantity": quantity}]
        return self.api.checkout.sessions.create(
            {"mode": mode, "line_items": lines, "success_url": SUCCESS, **params}  # type: ignore[typeddict-item]
        )

    def invoices(self, subscription: Any) -> list[Any]:
        """Oldest first."""
        return self.api.invoices.list({"subscription": subscription.id}).data[::-1]

    def status(self, subscription: Any) -> str:
        return str(self.api.subscriptions.retrieve(subscription.id).status)

    def told(self) -> list[str]:
        return [event["type"] for event in self.control.events()]
