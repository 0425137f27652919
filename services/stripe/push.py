"""From the catalog file to Stripe: what has to change there, and changing it.

A price of the file is found again by its id, which is Stripe's own after a pull, or by the metadata key `file_id`. An
amount can not be edited at Stripe: a new price is made, then the old one is archived. Nothing is ever deleted, and
only objects that hang on a product with our tag are looked at. Each step may be repeated, so a push that was
interrupted goes on when it is run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import settings
from services import catalog
from services.catalog import BrokenCatalog, Finding, Source
from services.catalog.layers import merged
from services.catalog.prices import BOOKKEEPING, FILE_ID, PRICE_KEYS, is_local
from services.catalog.vocabulary import PRODUCT_KEYS
from services.rates import PREFIX
from services.stripe import gateway, wanted
from services.stripe.catalog import is_tagged, tag
from services.stripe.wanted import Wanted

Object = dict[str, Any]
Metadata = Mapping[str, Any]


class Mistaken(Exception):
    """The file has mistakes, and a mistaken catalog is not sent to Stripe."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("the catalog file has mistakes")
        self.findings = findings


@dataclass(frozen=True)
class Step:
    """One change: its line in the diff, and what makes it."""

    line: str
    make: Callable[[], None]


@dataclass
class Plan:
    """What has to change, in order. `notes` are about what is left alone."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Stripe:
    """What is ours there: products by id, and all their prices."""

    products: dict[str, Object]
    prices: list[Object]


def plan() -> Plan:
    """Compare the file with Stripe. Raises Mistaken, StripeNotConfigured, StripeUnavailable."""
    there = _ours()
    file = _file()
    made = Plan()
    prices = [wanted.of(price, number) for number, price in enumerate(file.prices, start=1) if not is_local(price)]
    unnamed = [one.finding for one in prices if one.finding is not None]
    if unnamed:
        raise Mistaken(unnamed)
    _plan_products(made, there, file, prices)
    _plan_settings(made, there, file.product)
    kept: set[str] = set()
    archived: list[Step] = []
    for one in prices:
        kept |= _plan_price(made, archived, there, one)
    made.steps += archived  # last: until then the old price is on sale
    for price in there.prices:
        if price["active"] and price["id"] not in kept and there.products[price["product"]]["active"]:
            made.notes.append(f"  price {price['id']} is not in the file and stays on sale: {wanted.told(price)}")
    return made


def carry_out(planned: Plan) -> Iterator[Step]:
    """Make each change, and say so. Raises StripeUnavailable; what was made until then stays made."""
    for step in planned.steps:
        step.make()
        yield step


def _file() -> Source:
    path = settings.current().catalog_file
    if not os.path.lexists(path):  # nobody's samples are put on sale at Stripe by mistake
        cure = "write it; services/catalog/default.toml is an example"
        raise Mistaken([Finding(str(path), "there is no catalog file to send", cure)])
    try:
        file = catalog.read_file()
    except BrokenCatalog as broken:
        raise Mistaken([broken.finding]) from None
    findings = catalog.lint_source(file)
    if findings:
        raise Mistaken(findings)
    return file


def _ours() -> _Stripe:
    products = {str(one["id"]): one for one in gateway.products() if is_tagged(one)}
    return _Stripe(products, [price for product_id in sorted(products) for price in gateway.prices_of(product_id)])


# Products


def _plan_products(made: Plan, there: _Stripe, file: Source, prices: Sequence[Wanted]) -> None:
    """Each price's product: the one that has its kind of prices already, else one of a name of ours."""
    needed: dict[str, str] = {}
    for one in prices:
        one.product = _product_of(there, one)
        needed.setdefault(one.product, one.product_name or wanted.credit_name(file.product))
    if not needed and not any(one["active"] for one in there.products.values()):
        needed[_own_id("credits")] = wanted.credit_name(file.product)
    for product_id, name in sorted(needed.items()):
        known = there.products.get(product_id)
        if known is None:
            params = {"id": product_id, "name": name, "metadata": {"product": tag()}}
            there.products[product_id] = {**params, "active": True}
            made.steps.append(Step(f"+ product {product_id}: {name}", _maker(gateway.create_product, params)))
        elif not known["active"]:
            change = _changer(gateway.update_product, product_id, {"active": True})
            made.steps.append(Step(f"~ product {product_id}: back on sale", change))
            known["active"] = True
        elif product_id.startswith(_own_id("")) and known["name"] != name:  # customers read it at Checkout
            change = _changer(gateway.update_product, product_id, {"name": name})
            made.steps.append(Step(f"~ product {product_id}: name = {known['name']!r} -> {name!r}", change))


def _product_of(there: _Stripe, one: Wanted) -> str:
    for price in there.prices:
        if wanted.kind(price) == one.kind and there.products[price["product"]]["active"]:
            return str(price["product"])
    return _own_id(f"plan_{_slug(one.tier)}" if one.tier else "credits")


def _own_id(name: str) -> str:
    return f"{_slug(tag())}_{name}"


def _slug(name: str) -> str:
    """Letters and digits; what had to be changed gets a mark that keeps it apart from others."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return plain if plain == name else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _plan_settings(made: Plan, there: _Stripe, stated: Metadata) -> None:
    """The file's settings, each where it stands already; new ones on the product whose word counts most."""
    active = [one for one in there.products.values() if one["active"]]
    products = sorted(active, key=lambda one: str(one["id"]))
    standing, origins, _ = merged([(str(one["id"]), one["metadata"]) for one in products])
    changes: dict[str, dict[str, str]] = {}
    for key, value in stated.items():
        if key != "product" and standing.get(key) != value:
            changes.setdefault(origins.get(key, str(products[0]["id"])), {})[key] = value
    for one in products:
        for key in one["metadata"]:
            if key not in stated and (key in PRODUCT_KEYS or key.startswith(PREFIX)):
                changes.setdefault(str(one["id"]), {})[key] = ""
    for product_id, metadata in changes.items():
        line = f"~ product {product_id}: {_difference(there.products[product_id]['metadata'], metadata)}"
        made.steps.append(Step(line, _changer(gateway.update_product, product_id, {"metadata": metadata})))


# Prices


def _plan_price(made: Plan, archived: list[Step], there: _Stripe, one: Wanted) -> set[str]:
    """The steps for one price of the file; the ids of all prices that were ever it."""
    known = [price for price in there.prices if one.name in (price["id"], price["metadata"].get(FILE_ID))]
    known = known or [price for price in there.prices if price["active"] and one.claims(price)][-1:]
    fitting = [price for price in known if one.fits(price)]
    # One that is on sale before others, then the newest: Stripe lists it first.
    chosen = next((price for price in fitting if price["active"]), fitting[0] if fitting else None)
    if one.active and chosen is None:
        _plan_new(made, one, known)
    elif one.active and chosen is not None:
        _plan_update(made, one, chosen)
    for price in known:
        if price["active"] and not (one.active and price is chosen):
            line = f"- price {price['id']} ({one.name}) is archived: {wanted.told(price)}"
            archived.append(Step(line, _changer(gateway.update_price, price["id"], {"active": False})))
    return {str(price["id"]) for price in known}


def _plan_new(made: Plan, one: Wanted, before: Sequence[Object]) -> None:
    params = {**one.params(), "product": one.product, "metadata": {**one.metadata, FILE_ID: one.name}}
    made.steps.append(Step(f"+ price {one.name}: {wanted.told(one.price)}", _price_maker(one, params, before)))


def _price_maker(one: Wanted, params: Object, before: Sequence[Object]) -> Callable[[], None]:
    """The key tells two prices of the same terms apart when others came between them."""

    def make() -> None:
        if one.needs_meter:
            params["recurring"] = {**params["recurring"], "meter": _meter()}
        gateway.create_price(params, _key("price", params, [price["id"] for price in before]))

    return make


def _plan_update(made: Plan, one: Wanted, price: Object) -> None:
    there: Metadata = price["metadata"]
    desired = one.metadata if one.name == price["id"] else {**one.metadata, FILE_ID: one.name}
    changes = {key: value for key, value in desired.items() if there.get(key) != value}
    changes |= {key: "" for key in there if key in PRICE_KEYS and key not in desired and key not in BOOKKEEPING}
    params: Object = {"metadata": changes} if changes else {}
    told = [_difference(there, changes)] if changes else []
    if not price["active"]:
        params["active"] = True
        told.insert(0, "back on sale")
    if params:
        line = f"~ price {price['id']} ({one.name}): {'; '.join(told)}"
        made.steps.append(Step(line, _changer(gateway.update_price, price["id"], params)))


def _meter() -> str:
    """The one meter that counts credits for our prices; made when there is none."""
    name = f"{tag()}_credits"
    for meter in gateway.meters():
        if meter["event_name"] == name:
            return str(meter["id"])
    params = {"display_name": name, "event_name": name, "default_aggregation": {"formula": "sum"}}
    return str(gateway.create_meter(params, _key("meter", params))["id"])


# Changing


def _maker(create: Callable[[Object, str], Object], params: Object) -> Callable[[], None]:
    def make() -> None:
        create(params, _key("make", params))

    return make


def _changer(update: Callable[[str, Object, str], Object], object_id: str, params: Object) -> Callable[[], None]:
    """Setting a value twice is harmless, and setting it back and again must not be taken for a repetition."""

    def make() -> None:
        update(object_id, params, f"push:{uuid.uuid4().hex}")

    return make


def _key(*parts: Any) -> str:
    told = json.dumps(parts, sort_keys=True, default=str)
    return f"push:{hashlib.sha256(told.encode()).hexdigest()}"


def _difference(before: Metadata, changes: Metadata) -> str:
    return ", ".join(
        f"{key} = {before[key]!r} -> {value!r}"
        if key in before and value
        else f"{key} = {value!r}"
        if value
        else f"{key} = {before[key]!r} -> unset"
        for key, value in sorted(changes.items())
    )
