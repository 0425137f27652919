"""Which rows one round has, in which order."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.rows import ROWS, Row
from benchmarks.targets import TARGETS

_ROUND = """
    bare single-many single-hot bare-sync single-many single-one raw-single-one raw-single single-many jobs
    raw-single-hot single-hot raw-steps raw-steps-hot raw-10 raw-100 batch-100 raw-batch batch-1000
    bare balance check bare healthz summary
"""
# What is divided by something is measured next to it.
_FULL_ROUND = """
    single-many full-single-many single-hot full-single-hot batch-100 full-batch-100
    balance full-balance check full-check summary full-summary
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
