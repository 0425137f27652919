"""What the ratios are to reach."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.stores import KINDS

_PG = ("postgresql",)
_LITE = ("sqlite",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`row` ÷ `base` in `measure` (a number of the figure): below `floor` is not good enough, `goal` is.

    Where lower is better the words turn round. `base` empty: a number of `Site.memory` itself.
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
    *(
        Target(title=f"{title}: full books ÷ empty", row=f"full-{row}", base=row, floor=0.85, goal=0.95)
        for row, title in {
            "single-many": "single usage",
            "single-hot": "single usage, hot account",
            "batch-100": "batch of 100",
            "balance": "GET /balance",
            "check": "POST /check",
        }.items()
    ),
    *(
        Target(
            title=f"time of {title}: full books ÷ 5,000 records",
            row=f"full-{row}",
            base=row,
            floor=2,
            goal=1.2,
            measure="p50",
        )
        for row, title in {"page": "the usage page", "summary": "a summary", "statement": "a statement"}.items()
    ),
    Target(title="MB of one idle worker", row="memory-idle", base="", floor=150, goal=110, measure="MB"),
    Target(title="MB of one worker under load", row="memory-load", base="", floor=250, goal=180, measure="MB"),
    Target(
        title="memory after --soak ÷ after its first tenth",
        row="memory-growth",
        base="",
        floor=1.1,
        goal=1.05,
        measure="times",
    ),
)
