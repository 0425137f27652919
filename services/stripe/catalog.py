"""The catalog as Stripe's products and prices tell it, kept as versions by services/catalog.

Ours is what hangs on an active product whose metadata has `product=<STRIPE_PRODUCT_TAG>`. What Stripe is silent about
comes from the catalog file, where there is one: its product settings, key by key, and plans without an amount, which
Stripe can not hold. Without a Stripe key the file is all there is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

import settings
from errors import StripeUnavailable
from services import catalog
from services.catalog import BrokenCatalog, Finding, Plan, Source, SyncResult
from services.catalog.layers import Layer
from services.catalog.prices import is_local, read_price
from services.catalog.versions import STRIPE
from services.stripe import gateway
from services.stripe.sync import Apply

Object = dict[str, Any]

_FIELDS = ("id", "currency", "unit_amount", "unit_amount_decimal", "billing_scheme")
_RECURRING = ("interval", "interval_count", "usage_type", "meter")
_TIER = ("up_to", "unit_amount", "unit_amount_decimal", "flat_amount", "flat_amount_decimal")
_TRANSFORM = ("divide_by", "round")


def sync() -> SyncResult:
    """Put in force what Stripe, or without a key the file, says now.

    Stripe out of reach and a broken file are recorded, never raised: the last good catalog stays in force.
    """
    if not gateway.is_configured():
        return catalog.sync()
    listing = catalog.begin()
    try:
        content = read()
    except StripeUnavailable as error:
        return catalog.failed(told(error), listing=listing)
    except BrokenCatalog as broken:
        return catalog.failed(str(broken.finding), (broken.finding,), listing)
    return catalog.take(STRIPE, content, listing)


def lint() -> list[Finding]:
    """Every mistake in the source as it is now, in force or not. Raises StripeUnavailable."""
    if not gateway.is_configured():
        return catalog.lint_file()
    try:
        content = read()
    except BrokenCatalog as broken:
        return [broken.finding]
    return catalog.lint_source(content)


def changed(found: Mapping[str, Any]) -> Apply | None:
    """What to write after an event about this product or price: all of the catalog, listed anew; None: not ours.

    Raises StripeUnavailable. An object is ours when it is tagged now, or was when the catalog was last read.
    """
    if not _is_ours(found):
        return None
    listing = catalog.begin()
    try:
        content = read()
    except BrokenCatalog as broken:
        message = str(broken.finding)
        return lambda session: catalog.fail_in(session, message, listing)

    def apply(session: Session) -> None:
        catalog.keep_in(session, STRIPE, content, listing)
        catalog.refresh()

    return apply


def terms_of(price: Mapping[str, Any]) -> Plan | None:
    """The plan that a price object of Stripe's stands for, archived or not, with its product expanded.

    None where the product is not ours, the price is no plan's, or its terms are mistaken.
    """
    product = price.get("product")
    if not isinstance(product, Mapping) or not is_tagged(product):
        return None
    read_terms = read_price({**shaped(price), "active": True}, str(price.get("id")), [])
    return read_terms if isinstance(read_terms, Plan) else None


def told(error: StripeUnavailable) -> str:
    """For operators: what kind of failure it was; the cause's own text may name people."""
    cause = error.__cause__
    status = getattr(cause, "http_status", None)
    kind = type(cause).__name__ if cause is not None else type(error).__name__
    cure = {401: "check STRIPE_SECRET_KEY", 403: "the key may not read products and prices"}.get(status or 0)
    return f"Stripe could not be asked: {kind}{f' ({status})' if status else ''}" + (f"; {cure}" if cure else "")


# Reading


def read() -> Source:
    """What Stripe and the file say now. Raises StripeUnavailable, BrokenCatalog."""
    return _with_file(read_stripe())


def read_stripe() -> Source:
    """What Stripe says now, the oldest prices first. Raises StripeUnavailable, StripeNotConfigured."""
    products = sorted((one for one in gateway.active_products() if is_tagged(one)), key=lambda one: str(one["id"]))
    prices, findings = [], []
    for price in gateway.active_prices():
        product = price.get("product")
        if not isinstance(product, Mapping) or not is_tagged(product):
            continue
        if product.get("active") is False:
            cure = f"archive the price too, or activate {product.get('id')}"
            findings.append(Finding(str(price["id"]), "its product is archived, so it is not on sale", cure))
        else:
            prices.append(price)
    if not products:
        message = f"no active product has metadata product={tag()}"
        findings.append(Finding("Stripe", message, "set it on yours, or send the file with `catalog push`"))
    # Oldest first (Stripe lists the newest first): of two prices that claim the same the one that was there stays.
    prices = prices[::-1]
    prices.sort(key=lambda price: int(price.get("created") or 0))
    layers: list[Layer] = [(str(one["id"]), dict(sorted((one.get("metadata") or {}).items()))) for one in products]
    return Source(layers, [shaped(price) for price in prices], findings)


def _with_file(content: Source) -> Source:
    """Beside Stripe's word, the file's settings and its plans without an amount of tiers that Stripe does not sell."""
    if not os.path.lexists(settings.current().catalog_file):
        return content
    file = catalog.read_file()
    sold = {price["metadata"].get("tier") for price in content.prices}
    local = [price for price in file.prices if is_local(price) and price["metadata"].get("tier") not in sold]
    stated = {key for _, metadata in content.layers for key in metadata}
    gaps = [
        (name, {key: value for key, value in metadata.items() if key not in stated}) for name, metadata in file.layers
    ]
    layers = [*content.layers, *((name, metadata) for name, metadata in gaps if metadata)]
    return Source(layers, [*content.prices, *local], [*content.findings, *file.findings])


def shaped(price: Mapping[str, Any]) -> Object:
    """A price object cut down to what decides about its terms, so that other edits make no new version."""
    kept: Object = {name: price[name] for name in _FIELDS if price.get(name) is not None}
    recurring, transform = price.get("recurring"), price.get("transform_quantity")
    if isinstance(recurring, Mapping):
        kept["recurring"] = _chosen(recurring, _RECURRING)
    if isinstance(transform, Mapping):
        kept["transform_quantity"] = _chosen(transform, _TRANSFORM)
    if price.get("tiers"):
        kept["tiers"] = [_chosen(tier, _TIER) for tier in price["tiers"]]
        kept["tiers_mode"] = price.get("tiers_mode")
    kept["metadata"] = dict(sorted((price.get("metadata") or {}).items()))
    return kept


def _chosen(value: Mapping[str, Any], names: tuple[str, ...]) -> Object:
    return {name: value[name] for name in names if value.get(name) is not None}


# Whose it is


def tag() -> str:
    return settings.current().stripe_product_tag


def is_tagged(product: Mapping[str, Any]) -> bool:
    return (product.get("metadata") or {}).get("product") == tag()


def _is_ours(found: Mapping[str, Any]) -> bool:
    object_id = str(found.get("id"))
    if found.get("object") == "product":
        return is_tagged(found) or object_id in catalog.known_ids()
    product = found.get("product")
    product_id = str(product.get("id")) if isinstance(product, Mapping) else str(product)
    if not catalog.known_ids().isdisjoint({object_id, product_id}):
        return True
    return any(one["id"] == product_id and is_tagged(one) for one in gateway.active_products())
