"""The catalog: plans, credit prices, rates and thresholds, read from one source and kept as versions.

`current()` is what the rest of Spillway asks; `sync()` takes the source in, `lint_current()`
finds its mistakes.
"""

from services.catalog.source import BrokenCatalog
from services.catalog.store import State, SyncResult, current, keep, lint_current, of_version, state, sync
from services.catalog.terms import (
    FREE,
    Catalog,
    CreditPrice,
    Defaults,
    Finding,
    OveragePrice,
    OverageTier,
    Plan,
    Transform,
)
from services.catalog.vocabulary import lint, parse

__all__ = [
    "FREE",
    "BrokenCatalog",
    "Catalog",
    "CreditPrice",
    "Defaults",
    "Finding",
    "OveragePrice",
    "OverageTier",
    "Plan",
    "State",
    "SyncResult",
    "Transform",
    "current",
    "keep",
    "lint",
    "lint_current",
    "of_version",
    "parse",
    "state",
    "sync",
]
