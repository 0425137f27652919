"""What one measurement yields, and the statistics over several of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


class BenchmarkError(Exception):
    """Something was not as it must be, so the figures are worth nothing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row in one round. `per_second` counts the row's own unit; latencies are milliseconds of one call.

    `generator` is the part of one core that the load generator used: near 1 it would have measured itself. `group` is
    how many usage records the server decided in one transaction on average, where it decided any.
    """

    per_second: float
    p50: float
    p95: float
    p99: float
    calls: int
    generator: float = 0.0
    group: float | None = None


def percentile(ordered: Sequence[float], part: float) -> float:
    """Nearest rank of an ascending sequence that is not empty."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def figure(latencies: Sequence[float], seconds: float, units: int = 1, generator: float = 0.0) -> Figure:
    """From the latencies (seconds) of the calls that ended within `seconds`, each worth `units`.

    Raises BenchmarkError when no call ended in time.
    """
    if not latencies:
        raise BenchmarkError(f"not one call ended within {seconds} s")
    ordered = sorted(latencies)
    p50, p95, p99 = (round(percentile(ordered, part) * 1000, 3) for part in (0.50, 0.95, 0.99))
    rate = round(len(ordered) * units / seconds, 1)
    return Figure(rate, p50, p95, p99, len(ordered), round(generator, 3))


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, with the extremes."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), len(values))
