"""One price as the catalog file wants it at Stripe, and how it compares with a price object there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import money
from services.catalog import Finding
from services.catalog.prices import FILE_ID

Object = dict[str, Any]


@dataclass
class Wanted:
    """`name` is the id in the file, `price` its entry in the shape of Stripe's; `product` is found out later."""

    name: str
    price: Object
    product: str = ""
    finding: Finding | None = None

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.price["metadata"])

    @property
    def active(self) -> bool:
        return self.price.get("active") is not False

    @property
    def tier(self) -> str | None:
        found: str | None = self.price["metadata"].get("tier")
        return found

    @property
    def kind(self) -> str:
        return kind(self.price)

    @property
    def product_name(self) -> str | None:
        """What customers read on Stripe's pages; None for credits, which have a name of their own."""
        if self.tier is None:
            return None
        return self.price["metadata"].get("name") or self.tier.replace("_", " ").replace("-", " ").title()

    @property
    def needs_meter(self) -> bool:
        recurring = self.price.get("recurring") or {}
        return _is_metered(self.price) and not recurring.get("meter")

    def fits(self, price: Mapping[str, Any]) -> bool:
        """Whether the price there has all that can not be edited."""
        mine, theirs = _essence(self.price), _essence(price)
        if self.needs_meter:
            mine.pop("meter"), theirs.pop("meter")
        return mine == theirs

    def claims(self, price: Mapping[str, Any]) -> bool:
        """Whether a price there that the file does not name yet is plainly this one."""
        if price["metadata"].get(FILE_ID) or kind(price) != self.kind:
            return False
        mine, theirs = _essence(self.price), _essence(price)
        if self.tier is not None:
            return all(mine[name] == theirs[name] for name in ("interval", "interval_count"))
        return mine == theirs and self.price["metadata"].get("credits") == price["metadata"].get("credits")

    def params(self) -> Object:
        """What makes the price at Stripe, but for product and metadata."""
        price = self.price
        made: Object = {"currency": price["currency"].lower(), "nickname": self.name}
        for name in ("billing_scheme", "tiers_mode", "transform_quantity"):
            if price.get(name) is not None:
                made[name] = price[name]
        if price.get("tiers"):
            made |= {
                "billing_scheme": "tiered",
                "tiers_mode": "graduated",
                "tiers": [_tier(one) for one in price["tiers"]],
            }
        elif price.get("unit_amount") is not None:
            made["unit_amount"] = int(price["unit_amount"])
        else:
            made["unit_amount_decimal"] = str(price["unit_amount_decimal"])
        recurring = {name: value for name, value in (price.get("recurring") or {}).items() if value is not None}
        if _is_metered(price):
            recurring["usage_type"] = "metered"
        if recurring:
            made["recurring"] = recurring
        return made


def of(price: Mapping[str, Any], number: int) -> Wanted:
    """An entry of the file; without an id it could not be found again."""
    name = str(price.get("id") or "")
    finding = None if name else Finding(f"prices[{number}]", "it has no id", "give it one, so that it is found again")
    return Wanted(name, dict(price), finding=finding)


def kind(price: Mapping[str, Any]) -> str:
    """Which prices share a product: those of one tier, and all that sell credits."""
    tier = price["metadata"].get("tier")
    return f"plan {tier}" if tier else "credits"


def credit_name(settings: Mapping[str, Any]) -> str:
    name = str(settings.get("credit_name") or "credits")
    return name[:1].upper() + name[1:]


def told(price: Mapping[str, Any]) -> str:
    """`base team, $49.00 a month`, for the diff."""
    metadata, essence = price["metadata"], _essence(price)
    words = " ".join(filter(None, (metadata.get("price_type"), metadata.get("tier"))))
    if metadata.get("credits"):
        words += f" of {metadata['credits']}"
    amount = "tiers" if essence["amount"] is None else money.show(essence["amount"], essence["currency"])
    count = essence["interval_count"]
    every = f" every {count} {essence['interval']}s" if count != 1 else f" a {essence['interval']}"
    return f"{words}, {amount}{every if essence['interval'] else ''}"


def _is_metered(price: Mapping[str, Any]) -> bool:
    recurring = price.get("recurring") or {}
    return price["metadata"].get("price_type") == "metered" or recurring.get("usage_type") == "metered"


def _essence(price: Mapping[str, Any]) -> dict[str, Any]:
    """All that can not be edited, in one form for both sides."""
    recurring = price.get("recurring") or {}
    transform = price.get("transform_quantity") or {}
    return {
        "currency": str(price.get("currency") or "").lower(),
        "amount": _amount(price, "unit_amount"),
        "interval": recurring.get("interval"),
        "interval_count": int(recurring.get("interval_count") or 1),
        "metered": _is_metered(price),
        "meter": recurring.get("meter"),
        "transform": (int(transform["divide_by"]), transform["round"]) if transform else None,
        "tiers": [_tier_essence(tier) for tier in price.get("tiers") or ()],
    }


def _amount(price: Mapping[str, Any], name: str) -> Decimal | None:
    value = price.get(f"{name}_decimal")
    value = price.get(name) if value is None else value
    return None if value is None else Decimal(str(value))


def _tier_essence(tier: Mapping[str, Any]) -> tuple[str, Decimal, Decimal]:
    bound = tier.get("up_to")
    amounts = (_amount(tier, "unit_amount") or Decimal(0), _amount(tier, "flat_amount") or Decimal(0))
    return ("inf" if bound in (None, "inf") else str(int(bound)), *amounts)


def _tier(tier: Mapping[str, Any]) -> Object:
    made = {name: value for name, value in tier.items() if value is not None}
    return {**made, "up_to": "inf" if made.get("up_to") in (None, "inf") else int(made["up_to"])}
