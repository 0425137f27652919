"""What Stripe would host: checkout, portal, invoices, the bank's question. Plain forms, no JavaScript."""

from flask import Flask


def register(app: Flask) -> None:
    """The pages' blueprints."""
