"""What is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.stores import KINDS

CLIENTS = 32
BATCH_CLIENTS = 8
PAGE_CLIENTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`on` is who answers: the server, the one with `full` books, a bare one, or the database itself (`raw`).

    `who` says which accounts: all, one that is hot, those with old records, or
    those of them whose owner is logged in (`reader`). `load` names the requests
    (`benchmarks.requests.KINDS`) or the raw script; `size` is how many of the row's unit one call does. `floors`
    names, by kind of database, the raw row that no server could pass.
    """

    name: str
    title: str
    load: str
    on: str = "server"
    unit: str = "calls"
    clients: int = CLIENTS
    who: str = "all"
    size: int = 1
    kinds: tuple[str, ...] = KINDS
    floors: Mapping[str, str] = field(default_factory=dict)
    background: bool = False
    quick: bool = True


_PG = ("postgresql",)
_LITE = ("sqlite",)
_ROWS: tuple[Row, ...] = (
    Row(name="bare", title="bare Flask endpoint, same gunicorn settings", load="bare", on="bare"),
    Row(name="bare-sync", title="bare Flask endpoint, sync workers", load="bare", on="bare-sync"),
    Row(name="healthz", title="GET /healthz", load="healthz"),
    Row(
        name="single-many",
        title="POST /usage, all accounts",
        load="usage",
        floors=dict.fromkeys(KINDS, "raw-single"),
    ),
    Row(
        name="single-hot",
        title="POST /usage, one hot account",
        load="usage",
        who="hot",
        floors={"sqlite": "raw-single", "postgresql": "raw-single-hot"},
    ),
    Row(
        name="single-one",
        title="POST /usage, one client",
        load="usage",
        who="hot",
        clients=1,
        floors={"sqlite": "raw-single", "postgresql": "raw-single-one"},
    ),
    Row(
        name="jobs",
        title="POST /usage, all accounts, beside running jobs",
        load="usage",
        background=True,
        quick=False,
    ),
    Row(
        name="batch-100",
        title="POST /usage/batch of 100",
        load="batch",
        unit="records",
        clients=BATCH_CLIENTS,
        size=100,
        floors=dict.fromkeys(KINDS, "raw-batch"),
    ),
    Row(
        name="batch-1000",
        title="POST /usage/batch of 1,000",
        load="batch",
        unit="records",
        clients=BATCH_CLIENTS,
        size=1000,
        floors=dict.fromkeys(KINDS, "raw-batch"),
    ),
    Row(name="balance", title="GET /balance", load="balance"),
    Row(name="check", title="POST /check", load="check"),
    Row(name="summary", title="GET /usage/summary, 5,000 old records", load="summary", who="old", quick=False),
    Row(name="statement", title="GET /statement, 5,000 old records", load="statement", who="old"),
    Row(
        name="page", title="GET /usage in a browser, 5,000 old records", load="page", who="reader", clients=PAGE_CLIENTS
    ),
    Row(
        name="raw-single",
        title="raw: entry + update + commit, all accounts",
        load="one-trip-many",
        on="raw",
        unit="commits",
        kinds=_PG,
    ),
    Row(
        name="raw-single-hot",
        title="raw: entry + update + commit, one hot account",
        load="one-trip-hot",
        on="raw",
        unit="commits",
        kinds=_PG,
    ),
    Row(
        name="raw-single-one",
        title="raw: entry + update + commit, one connection",
        load="one-trip-hot",
        on="raw",
        unit="commits",
        clients=1,
        kinds=_PG,
    ),
    Row(
        name="raw-steps",
        title="raw: seven round trips, all accounts",
        load="steps-many",
        on="raw",
        unit="commits",
        kinds=_PG,
        quick=False,
    ),
    Row(
        name="raw-steps-hot",
        title="raw: seven round trips, one hot account",
        load="steps-hot",
        on="raw",
        unit="commits",
        kinds=_PG,
        quick=False,
    ),
    Row(
        name="raw-single",
        title="raw: entry + update + commit",
        load="deducts",
        on="raw",
        unit="commits",
        clients=1,
        kinds=_LITE,
    ),
    Row(
        name="raw-10",
        title="raw: 10 × (entry + update) a commit",
        load="deducts",
        on="raw",
        unit="deducts",
        clients=1,
        size=10,
        kinds=_LITE,
        quick=False,
    ),
    Row(
        name="raw-100",
        title="raw: 100 × (entry + update) a commit",
        load="deducts",
        on="raw",
        unit="deducts",
        clients=1,
        size=100,
        kinds=_LITE,
        quick=False,
    ),
    Row(
        name="raw-batch",
        title="raw: 100 records with their entries in one statement",
        load="rows",
        on="raw",
        unit="records",
        clients=BATCH_CLIENTS,
        size=100,
        kinds=_PG,
    ),
    Row(
        name="raw-batch",
        title="raw: 100 records with their entries and one update a commit",
        load="rows",
        on="raw",
        unit="records",
        clients=1,
        size=100,
        kinds=_LITE,
    ),
)
_ROWS += tuple(
    replace(row, name=f"full-{row.name}", title=f"{row.title.split(', 5,')[0]}, full books", on="full", floors={})
    for row in _ROWS
    if row.name in ("single-many", "single-hot", "batch-100", "balance", "check", "summary", "statement", "page")
)
ROWS: dict[tuple[str, str], Row] = {(kind, row.name): row for row in _ROWS for kind in row.kinds}
"""By kind of database and name."""
NAMES = tuple(dict.fromkeys(row.name for row in _ROWS))
