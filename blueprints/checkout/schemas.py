"""Requests of the buying API."""

from __future__ import annotations

from typing import Any, ClassVar

from blueprints.fields import AccountRef, Choice, Credits, QueryInteger, ReturnPath, StrictSchema, Text
from services.stripe import orders, returns


class AccountSchema(StrictSchema):
    account = AccountRef()


class CheckoutSchema(StrictSchema):
    needs_any = ("price", "tier", "credits")
    excludes: ClassVar = {
        "price": ("tier", "interval"),
        "tier": ("price", "credits"),
        "credits": ("tier", "interval"),
    }

    account = AccountRef()
    price = Text(high=255)
    tier = Text(high=100)
    interval = Choice("month", "year")
    credits = Credits(positive=True)
    success_path = ReturnPath()
    cancel_path = ReturnPath()

    def judge(self, loaded: dict[str, Any]) -> None:
        orders.check(*(loaded.get(name) for name in ("price", "tier", "interval", "credits")))
        for name in ("success_path", "cancel_path"):
            returns.check(name, loaded.get(name))


class PortalSchema(StrictSchema):
    account = AccountRef()
    return_path = ReturnPath()

    def judge(self, loaded: dict[str, Any]) -> None:
        returns.check("return_path", loaded.get("return_path"))


class PurchaseListQuery(StrictSchema):
    account = AccountRef()
    limit = QueryInteger(low=1, high=200, load_default=50)
    cursor = Text(high=500)
