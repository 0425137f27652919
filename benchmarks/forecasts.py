"""How far the forecast of a period lies from what was used in the end, beside a plain run rate.

`python -m benchmarks.forecasts`: generated histories of several kinds, always the same ones. On each day of their last
periods both say what the whole period will use; the error is the distance from the truth, as part of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from services import prediction

PERIOD = 30
HISTORIES = 30
"""Of each kind."""
ASKED = (3, 6, 9, 12, 15, 18, 21, 24, 27)
"""After so many days of the period."""
_DAYS = 4 * PERIOD
_UNIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Score:
    """Mean errors of one kind of history, as parts of what was used."""

    kind: str
    ours: float
    run_rate: float
    within: float
    """How often the truth lay in our range."""


def seasonal(dice: random.Random) -> list[int]:
    """A steady team that rests at weekends."""
    level, rest = dice.uniform(50, 500), dice.uniform(0.05, 0.5)
    return [int(level * (rest if day % 7 > 4 else 1) * dice.uniform(0.8, 1.2) * _UNIT) for day in range(_DAYS)]


def growing(dice: random.Random) -> list[int]:
    """A product that gains users: one to four percent more each day."""
    level, rate = dice.uniform(20, 100), dice.uniform(0.01, 0.04)
    return [int(level * (1 + rate) ** day * dice.uniform(0.7, 1.3) * _UNIT) for day in range(_DAYS)]


def bursty(dice: random.Random) -> list[int]:
    """Little on most days, ten to thirty times as much on some."""
    level = dice.uniform(10, 50)
    return [
        int(level * dice.uniform(0.5, 1.5) * (dice.uniform(10, 30) if dice.random() < 0.1 else 1) * _UNIT)
        for _ in range(_DAYS)
    ]


def sparse(dice: random.Random) -> list[int]:
    """Used one day in five."""
    return [int(dice.uniform(20, 200) * _UNIT) if dice.random() < 0.2 else 0 for _ in range(_DAYS)]


KINDS: dict[str, Callable[[random.Random], list[int]]] = {
    "seasonal": seasonal,
    "growing": growing,
    "bursty": bursty,
    "sparse": sparse,
}


def score(kind: str, histories: int = HISTORIES) -> Score:
    """Both forecasts over the last two periods of each history."""
    results = list(_results(kind, histories))
    count = len(results)
    return Score(
        kind,
        sum(result[0] for result in results) / count,
        sum(result[1] for result in results) / count,
        sum(result[2] for result in results) / count,
    )


def _results(kind: str, histories: int) -> Iterator[tuple[float, float, bool]]:
    for number in range(histories):
        days = KINDS[kind](random.Random(f"{kind} {number}"))
        for start in (_DAYS - 2 * PERIOD, _DAYS - PERIOD):
            truth = sum(days[start : start + PERIOD])
            if not truth:
                continue
            for passed in ASKED:
                used = sum(days[start : start + passed])
                seen = prediction.outlook(days[: start + passed], PERIOD - passed)
                rest = float(sum(seen.days))
                ours, rate = used + rest, used / passed * PERIOD
                apart = rest * float(seen.spread)
                yield abs(ours - truth) / truth, abs(rate - truth) / truth, ours - apart <= truth <= ours + apart


def main() -> int:
    """Print the table; 1 where a plain run rate would have done as well."""
    table = Table("History", "Forecast's error", "Run rate's error", "Truth within the range")
    scores = [score(kind) for kind in KINDS]
    for one in scores:
        table.add_row(one.kind, f"{one.ours:.1%}", f"{one.run_rate:.1%}", f"{one.within:.0%}")
    Console().print(table)
    return int(any(one.ours >= one.run_rate for one in scores))


if __name__ == "__main__":
    raise SystemExit(main())
