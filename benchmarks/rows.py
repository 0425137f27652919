"""What is measured, in which order, and what the ratios are to reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.stores import KINDS

CLIENTS = 32
BATCH_CLIENTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`on` is who answers: the server, one of the bare ones, or the database itself (`raw`).

    `load` names the requests (`benchmarks.requests.KINDS`) or the raw script; `size` is how many of the row's unit one
    call does. `floors` names, by kind of database, the raw row that no server could pass.
    """

    name: str
    title: str
    load: str
    on: str = "server"
    unit: str = "calls"
    clients: int = CLIENTS
    hot: bool = False
    size: int = 1
    kinds: tuple[str, ...] = KINDS
    floors: Mapping[str, str] = field(default_factory=dict)
    background: bool = False
    quick: bool = True


_PG = ("postgresql",)
_LITE = ("sqlite",)
_ROWS = (
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
        hot=True,
        floors={"sqlite": "raw-single", "postgresql": "raw-single-hot"},
    ),
    Row(
        name="single-one",
        title="POST /usage, one client",
        load="usage",
        hot=True,
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
    Row(name="summary", title="GET /usage/summary", load="summary", quick=False),
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
ROWS: dict[tuple[str, str], Row] = {(kind, row.name): row for row in _ROWS for kind in row.kinds}
"""By kind of database and name."""
NAMES = tuple(dict.fromkeys(row.name for row in _ROWS))

_ROUND = """
    bare single-many single-hot bare-sync single-many single-one raw-single-one raw-single single-many jobs
    raw-single-hot single-hot raw-steps raw-steps-hot raw-10 raw-100 batch-100 raw-batch batch-1000
    bare balance check bare healthz summary
"""
# What is divided by something is measured next to it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`row` ÷ `base` in `measure` (`per_second` or `p99`): below `floor` is not good enough, `goal` is.

    Where lower is better the words turn round. `base` empty: the measured number itself.
    """

    title: str
    row: str
    base: str
    floor: float
    goal: float
    measure: str = "per_second"
    kinds: tuple[str, ...] = KINDS

    @property
    def lower_is_better(self) -> bool:
        return self.measure != "per_second"

    def verdict(self, value: float) -> str:
        sign = -1 if self.lower_is_better else 1
        if sign * value >= sign * self.goal:
            return "target reached"
        return "between floor and target" if sign * value >= sign * self.floor else "BELOW THE FLOOR"


TARGETS = (
    Target(title="single usage ÷ bare", row="single-many", base="bare", floor=0.30, goal=0.50, kinds=_PG),
    Target(title="single usage ÷ bare", row="single-many", base="bare", floor=0.45, goal=0.60, kinds=_LITE),
    Target(
        title="one hot account ÷ all accounts",
        row="single-hot",
        base="single-many",
        floor=0.8,
        goal=1.0,
        kinds=_PG,
    ),
    Target(
        title="p99 of single usage ÷ p99 of bare sync",
        row="single-many",
        base="bare-sync",
        floor=4,
        goal=2.5,
        measure="p99",
        kinds=_PG,
    ),
    Target(
        title="p99 of single usage ÷ p99 of bare sync",
        row="single-many",
        base="bare-sync",
        floor=3,
        goal=2,
        measure="p99",
        kinds=_LITE,
    ),
    Target(title="batch of 100 ÷ raw rows", row="batch-100", base="raw-batch", floor=0.25, goal=0.5, kinds=_PG),
    Target(title="batch of 100 ÷ raw rows", row="batch-100", base="raw-batch", floor=0.15, goal=0.4, kinds=_LITE),
    Target(title="GET /balance ÷ bare", row="balance", base="bare", floor=0.5, goal=0.7),
    Target(title="POST /check ÷ bare", row="check", base="bare", floor=0.5, goal=0.7),
    Target(title="MB of one idle worker", row="memory-idle", base="", floor=150, goal=110, measure="MB"),
    Target(title="MB of one worker under load", row="memory-load", base="", floor=250, goal=180, measure="MB"),
)


def plan(kind: str, names: Iterable[str] | None, *, quick: bool) -> list[Row]:
    """The rows of one round for that kind of database: the chosen ones with what they are divided by."""
    wanted = set(names) if names is not None else {row.name for row in _ROWS if row.quick or not quick}
    bases = {target.base for target in TARGETS if target.row in wanted and kind in target.kinds}
    floors = {row.floors.get(kind, "") for row in _ROWS if row.name in wanted}
    wanted |= bases | floors | {"bare"}
    if "jobs" in wanted:
        wanted.add("single-many")
    return [ROWS[kind, name] for name in _ROUND.split() if name in wanted and (kind, name) in ROWS]
