"""From single measurements to ratios, and from ratios to tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, Spread, spread
from benchmarks.rows import ROWS, Row
from benchmarks.targets import TARGETS, Target


@dataclass(frozen=True, slots=True)
class Observation:
    """One row, once: at `place` of its round."""

    round: int
    place: int
    row: Row
    figure: Figure


@dataclass(slots=True)
class Result:
    """All observations on one kind of database."""

    kind: str
    version: str
    observations: list[Observation] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    records: int = 0

    def of(self, name: str) -> list[Observation]:
        return [seen for seen in self.observations if seen.row.name == name]

    def ratio(self, name: str, base: str, measure: str = "per_second") -> Spread | None:
        """Row ÷ base, each time by the base measured nearest to it in the same round; None where one is missing."""
        values = []
        for seen in self.of(name):
            near = [other for other in self.of(base) if other.round == seen.round and other is not seen]
            if near:
                nearest = min(near, key=lambda other: abs(other.place - seen.place))
                values.append(getattr(seen.figure, measure) / getattr(nearest.figure, measure))
        return spread(values) if values else None

    def reached(self, target: Target) -> Spread | None:
        """What was measured for a target; None where it was not measured."""
        if self.kind not in target.kinds:
            return None
        if not target.base:
            value = self.memory.get(target.row)
            return spread([value]) if value is not None else None
        return self.ratio(target.row, target.base, target.measure)

    def median(self, name: str) -> dict[str, float]:
        """The median of each number of the row's figures."""
        seen = self.of(name)
        names = ("per_second", "p50", "p95", "p99", "generator", "group")
        values = {number: [getattr(one.figure, number) for one in seen] for number in names}
        return {number: spread(found).median for number, found in values.items() if None not in found}

    def shown(self) -> list[Row]:
        """The measured rows, in the order of their definition."""
        return [row for (kind, name), row in ROWS.items() if kind == self.kind and self.of(name)]


def _ratio(value: Spread | None) -> str:
    return f"{value.median:.2f}  ({value.low:.2f}-{value.high:.2f})" if value else ""


def _bound(target: Target, value: float) -> str:
    return f"{'≤' if target.lower_is_better else '≥'} {value:g}"


def _targets(result: Result) -> Table:
    table = Table(title=f"{result.version}: targets", title_justify="left")
    for heading in ("ratio", "measured (lowest-highest)", "floor", "target", ""):
        table.add_column(heading, no_wrap=heading != "ratio")
    for target in TARGETS:
        value = result.reached(target)
        if value is not None:
            measured = _ratio(value) if target.base else f"{value.median:g}"
            bounds = (_bound(target, target.floor), _bound(target, target.goal))
            table.add_row(target.title, measured, *bounds, target.verdict(value.median))
    return table


def _rows(result: Result) -> Table:
    table = Table(title=f"{result.version}: rows", title_justify="left")
    table.add_column("row", no_wrap=True)
    table.add_column("what", overflow="ellipsis", no_wrap=True)
    for heading in ("clients", "÷ bare", "÷ raw", "per second", "p50 ms", "p95 ms", "p99 ms", "group"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result.shown():
        numbers = result.median(row.name)
        to_bare = result.ratio(row.name, "bare") if row.on == "server" and row.unit == "calls" else None
        to_raw = result.ratio(row.name, row.floors.get(result.kind, ""))
        table.add_row(
            row.name,
            row.title,
            str(row.clients),
            f"{to_bare.median:.2f}" if to_bare else "",
            f"{to_raw.median:.2f}" if to_raw else "",
            f"{numbers['per_second']:,.0f} {row.unit}",
            *(f"{numbers[name]:.1f}" if name in numbers else "" for name in ("p50", "p95", "p99", "group")),
        )
    return table


def show(console: Console, results: list[Result]) -> None:
    """The tables, targets first."""
    for result in results:
        for make in (_targets, _rows):
            draw: Callable[[Result], Table] = make
            console.print(draw(result))
        console.print(f"Every answer was right; {result.records:,} records, every balance exact, ledger verified.\n")
    busiest = max((one.figure.generator for result in results for one in result.observations), default=0.0)
    console.print(f"The load generator used at most {busiest:.0%} of one core.")


def as_json(results: list[Result], about: dict[str, Any]) -> dict[str, Any]:
    """Everything, for a file."""
    return {**about, "databases": [_result_json(result) for result in results]}


def _result_json(result: Result) -> dict[str, Any]:
    targets = []
    for target in TARGETS:
        value = result.reached(target)
        if value is not None:
            verdict = target.verdict(value.median)
            targets.append({**asdict(target), "measured": asdict(value), "verdict": verdict})
    rows = [
        {"name": row.name, "title": row.title, "unit": row.unit, "clients": row.clients}
        | {"median": result.median(row.name)}
        | {"rounds": [asdict(seen.figure) for seen in result.of(row.name)]}
        for row in result.shown()
    ]
    return {"kind": result.kind, "version": result.version, "targets": targets, "rows": rows}
