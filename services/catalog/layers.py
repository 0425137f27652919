"""Product settings that stand on several objects, laid over each other: what comes first wins, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.catalog.reader import MAX_KEYS
from services.catalog.terms import Finding
from services.catalog.vocabulary import PRODUCT
from services.rates import PREFIX, parse_rate

LOCAL = "[local]"
"""The name findings give the file's table of settings that are never sent to Stripe."""

Layer = tuple[str, Mapping[str, Any]]
"""A product's id and its metadata. The file's own (`PRODUCT`, `LOCAL`) fill gaps, silently."""

_FILE = (PRODUCT, LOCAL)


def merged(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, str], list[Finding]]:
    """The settings in force, the object that each key comes from, and the contradictions between Stripe's objects."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    findings: list[Finding] = []
    rated: set[tuple[str, str | None]] = set()
    for object_id, metadata in layers:
        for key, value in metadata.items():
            if key not in values:
                if object_id in _FILE and _rate_of(key, value) in rated:
                    continue
                values[key], origins[key] = value, object_id
            elif values[key] != value and object_id not in _FILE:
                message = (
                    f"{key} = {str(value)[:60]!r} contradicts {origins[key]}, whose {str(values[key])[:60]!r} counts"
                )
                findings.append(Finding(object_id, message, "set it on one of the two products, or alike on both"))
        if object_id not in _FILE and len(metadata) > MAX_KEYS:
            message, cure = f"{len(metadata)} metadata keys", f"Stripe takes at most {MAX_KEYS} per object"
            findings.append(Finding(object_id, message, cure))
        rated |= {rate for key, value in metadata.items() if (rate := _rate_of(key, value)) is not None}
    return values, origins, findings


def _rate_of(key: str, value: Any) -> tuple[str, str | None] | None:
    """What a rate's key is for, by whatever name; None for other keys and for mistakes."""
    if not key.startswith(PREFIX):
        return None
    try:
        rate = parse_rate(key, value)
    except (ValueError, TypeError, AttributeError):
        return None
    return rate.op, rate.model
