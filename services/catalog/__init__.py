"""The catalog: plans, credit prices, rates and thresholds, read from one source and kept as versions.

`current()` is what the rest of Spillway asks. `sync()` takes the catalog file in, `take()` what another source said.
"""

from services.catalog.source import BrokenCatalog, Source
from services.catalog.store import (
    SyncResult,
    current,
    failed,
    lint_file,
    lint_kept,
    lint_source,
    of_version,
    read_file,
    refresh,
    sync,
    take,
)
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
from services.catalog.versions import State, begin, fail_in, keep, keep_in, known_ids, state
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
    "Source",
    "State",
    "SyncResult",
    "Transform",
    "begin",
    "current",
    "fail_in",
    "failed",
    "keep",
    "keep_in",
    "known_ids",
    "lint",
    "lint_file",
    "lint_kept",
    "lint_source",
    "of_version",
    "parse",
    "read_file",
    "refresh",
    "state",
    "sync",
    "take",
]
