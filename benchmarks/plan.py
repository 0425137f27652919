"""Which rows one round has, in which order, and what a run of them will take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.rows import ROWS, Row
from benchmarks.targets import TARGETS

_ROUND = """
    bare single-many single-hot bare-sync single-many single-one raw-single-one raw-single single-many jobs
    raw-single-hot single-hot raw-steps raw-steps-hot raw-10 raw-100 batch-100 raw-batch batch-1000
    bare balance check bare healthz summary statement page
"""
# What is divided by something is measured next to it.
_FULL_ROUND = """
    single-many full-single-many single-hot full-single-hot batch-100 full-batch-100
    balance full-balance check full-check summary full-summary statement full-statement page full-page
"""


def one_round(kind: str, names: Iterable[str] | None, *, quick: bool, full: bool) -> list[Row]:
    """The rows of one round for that kind of database: the chosen ones with what they are divided by."""
    rows = [row for (of, _), row in ROWS.items() if of == kind]
    wanted = set(names) if names is not None else {row.name for row in rows if row.quick or not quick}
    if not full:
        wanted -= {row.name for row in rows if row.on == "full"}
    bases = {target.base for target in TARGETS if target.row in wanted and kind in target.kinds}
    floors = {row.floors.get(kind, "") for row in rows if row.name in wanted}
    wanted |= bases | floors | {"bare"}
    if "jobs" in wanted:
        wanted.add("single-many")
    order = [*_ROUND.split(), *(_FULL_ROUND.split() if full else ())]
    return [ROWS[kind, name] for name in order if name in wanted and (kind, name) in ROWS]


def has_full(plans: Mapping[str, list[Row]]) -> bool:
    """Whether any of the rows needs the full books."""
    return any(row.on == "full" for rows in plans.values() for row in rows)


@dataclass(frozen=True, slots=True)
class Needs:
    """Minutes and GB, of filling the books in and of all."""

    filling: float
    minutes: float
    gigabytes: float


_FILL = {"sqlite": (0.6, 0.85), "postgresql": (1.0, 1.6)}
"""Minutes and GB for a million old records on two cores at 3 GHz with a solid-state disk."""
_BESIDE = 1.2
"""Seconds that one measurement takes beside its load: a process started, answers waited for."""
_SET_UP = {"sqlite": (0.5, 0.3), "postgresql": (0.7, 1.5)}
"""Minutes and GB of what does not depend on the old records."""
_SOAKED = 0.12
"""Million records that a minute of `single-many` makes at most."""


def needs(plans: Mapping[str, list[Row]], *, rounds: int, each: float, full: int, soak: float = 0.0) -> Needs:
    """Roughly; `each` is how many seconds the load of one measurement takes, `soak` the minutes on each database."""
    millions = full / 1e6 if has_full(plans) else 0.0
    filling = sum(_FILL[kind][0] for kind in plans) * millions
    measuring = rounds * sum(map(len, plans.values())) * (each + _BESIDE) / 60
    set_up = sum(_SET_UP[kind][0] for kind in plans)
    gigabytes = sum(_SET_UP[kind][1] + _FILL[kind][1] * (millions + _SOAKED * soak) for kind in plans)
    return Needs(filling, filling + measuring + set_up + soak * len(plans), gigabytes)
