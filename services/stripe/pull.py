"""From Stripe to the catalog file: what is on sale there, written so that a push right after changes nothing.

Prices keep Stripe's own ids. What stood only in the file before is taken over: plans without an amount, which Stripe
can not hold, and settings, in the table `[local]`, which is never sent. Mistaken prices come along as comments.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import settings
from services import catalog
from services.catalog import BrokenCatalog, Finding, Source
from services.catalog.layers import merged
from services.catalog.prices import BOOKKEEPING, PRICE_KEYS, is_local, read_price
from services.catalog.vocabulary import PRODUCT_KEYS
from services.rates import PREFIX
from services.stripe import catalog as stripe_catalog

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_HEADER = """\
# The catalog as Stripe had it. While STRIPE_SECRET_KEY is set Stripe's word is above this file's: edit it there, or
# here and send it with `flask --app app catalog push`. docs/stripe.md explains the keys.
"""


def pull() -> tuple[Path, bool]:
    """Write the catalog file from Stripe; whether it differs from what was there, which is kept beside it as `.bak`.

    Raises StripeNotConfigured, StripeUnavailable, OSError.
    """
    path = settings.current().catalog_file
    text = written(stripe_catalog.read_stripe(), _before(path))
    with suppress(FileNotFoundError):
        old = path.read_bytes()
        if old == text.encode():
            return path, False
        _replace(path.with_name(f"{path.name}.bak"), old)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, text.encode())
    return path, True


def _before(path: Path) -> Source:
    if not os.path.lexists(path):
        return Source()
    try:
        return catalog.read_file()
    except BrokenCatalog:  # it is kept as it is, beside the new one
        return Source()


def _replace(path: Path, content: bytes) -> None:
    """All of it or nothing."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".catalog-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o644)
    os.replace(name, path)  # noqa: PTH105 - a path and a name


def written(there: Source, before: Source) -> str:
    """The file's text."""
    stated, _, _ = merged(there.layers)
    stood, _, _ = merged(before.layers)
    parts = [_HEADER, *_settings(stated, stood)]
    for price in there.prices:
        parts += _price(price)
    sold = {price["metadata"].get("tier") for price in there.prices}
    for price in before.prices:
        if is_local(price) and price["metadata"].get("tier") not in sold:
            parts += ["", "# A plan that Stripe can not hold.", "[[prices]]", *_lines(_flat(price))]
    return "\n".join(parts) + "\n"


def _settings(stated: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[str]:
    known = {key: value for key, value in stated.items() if key in PRODUCT_KEYS or key.startswith(PREFIX)}
    yield "[product]"
    yield from _lines(known)
    yield from _comments(
        "At Stripe, and no setting of Spillway's:",
        {key: value for key, value in stated.items() if key not in known and key != "product"},
    )
    local = {key: value for key, value in before.items() if key not in stated and key != "product"}
    if local:
        yield from (
            "",
            "# Settings that Stripe says nothing about. They count, and stay here.",
            "[local]",
            *_lines(local),
        )


def _price(price: Mapping[str, Any]) -> Iterator[str]:
    findings: list[Finding] = []
    usable = read_price(price, str(price["id"]), findings) is not None
    flat = _flat(price)
    unknown = {key: value for key, value in price["metadata"].items() if key not in (*PRICE_KEYS, *BOOKKEEPING)}
    yield ""
    if usable:
        yield "[[prices]]"
        yield from _lines(flat)
        yield from _comments("Metadata that mean nothing to Spillway:", unknown)
    else:
        yield from (f"# {_one_line(str(finding))}" for finding in findings)
        yield from (f"# {line}" for line in ("[[prices]]", *_lines(flat)))


def _flat(price: Mapping[str, Any]) -> dict[str, Any]:
    """A price object as a table of the file."""
    recurring = price.get("recurring") or {}
    flat: dict[str, Any] = {}
    metadata = {key: value for key, value in price["metadata"].items() if key in PRICE_KEYS}
    if price.get("id"):
        flat["id"] = price["id"]
    flat |= {key: metadata.pop(key) for key in ("price_type", "tier", "name") if key in metadata}
    if price.get("currency"):
        flat["currency"] = price["currency"]
    if price.get("tiers"):
        flat |= {
            "billing_scheme": "tiered",
            "tiers_mode": price.get("tiers_mode"),
            "tiers": list(map(_tier, price["tiers"])),
        }
    elif price.get("unit_amount") is not None:
        flat["unit_amount"] = price["unit_amount"]
    elif price.get("unit_amount_decimal") is not None:
        flat["unit_amount_decimal"] = price["unit_amount_decimal"]
    if price.get("transform_quantity"):
        flat["transform_quantity"] = price["transform_quantity"]
    if recurring.get("interval"):
        flat["interval"] = recurring["interval"]
    if recurring.get("interval_count") not in (None, 1):
        flat["interval_count"] = recurring["interval_count"]
    if recurring.get("usage_type") == "metered":
        flat |= {"usage_type": "metered", "meter": recurring.get("meter")}
    return {key: value for key, value in (flat | metadata).items() if value is not None}


def _tier(tier: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"up_to": "inf" if tier.get("up_to") in (None, "inf") else tier["up_to"]}
    for name in ("unit_amount", "flat_amount"):
        exact = f"{name}_decimal"
        if tier.get(name) is not None:
            told[name] = tier[name]
        elif tier.get(exact) is not None:
            told[exact] = tier[exact]
    return told


# TOML


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        yield f"{_key(key)} = {_value(value)}"


def _comments(why: str, table: Mapping[str, Any]) -> Iterator[str]:
    if table:
        yield f"# {why}"
        yield from (f"#   {line}" for line in _lines(table))


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_lines(value))} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    text = str(value)
    return text if text.isdecimal() and text == str(int(text)) and len(text) < 16 else _text(text)


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's too, but for one character that JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return " ".join(text.split())
