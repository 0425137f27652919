"""The door to Stripe keeps its rules by itself."""

from __future__ import annotations

import pytest

import database
from services.stripe import gateway
from tests.buying.helpers import inside
from tests.stripe_world import StripeWorld


def test_stripe_is_never_asked_under_a_lock(stripe: StripeWorld) -> None:
    def ask() -> None:
        with database.transaction():
            gateway.customer("cus_any")

    with pytest.raises(RuntimeError, match="inside a write transaction"):
        inside(stripe, ask)


def test_no_parameter_is_none(stripe: StripeWorld) -> None:
    """The package would drop it, and a list without its filter shows the whole Stripe account."""
    for params in ({"customer": None}, {"created": {"gte": None}}, {"expand": [None]}):
        with pytest.raises(TypeError, match="None among the parameters"):
            inside(stripe, lambda params=params: list(gateway.invoices(params)))
