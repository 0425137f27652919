"""Stacked bars as plain SVG geometry. Pure: a summary in, rectangles out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

WIDE, NARROW, HEIGHT = 960, 340, 240
"""SVG units: one layout for a wide screen, one for a phone, so that texts keep their size."""
_LEFT, _BOTTOM, _TOP = 48, 28, 12
_WIDEST_BAR = 56
_SERIES = 8
"""Colours there are; further groups are shown together as "other"."""
_OTHER = "other"
_CEILINGS = (10, 12, 16, 20, 24, 28, 32, 40, 60, 80, 100)


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of one bucket's bar, in SVG units."""

    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """`ticks` are (y, label), `labels` (x, label), `legend` (series, name, total)."""

    width: int
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    labels: list[tuple[float, str]]
    legend: list[tuple[int, str, Any]]
    empty: bool


def layout(summary: dict[str, Any], unnamed: str = "no operation", width: int = WIDE) -> Chart:
    """Lay out the buckets of a usage summary."""
    names = _names(summary["total"]["groups"])
    peak = max((Decimal(bucket["credits"]) for bucket in summary["data"]), default=Decimal(0))
    top = _ceiling(peak)
    step = (width - _LEFT) / max(1, len(summary["data"]))
    bars, labels = [], []
    every = max(1, -(-len(summary["data"]) * 100 // width))
    for position, bucket in enumerate(summary["data"]):
        x = _LEFT + position * step
        bars += _stack(bucket, names, x, step, top, unnamed)
        if position % every == 0:
            labels.append((round(x + step / 2, 1), _label(bucket["start"], summary["interval"])))
    ticks = [(_y(top * part / 4, top), _short(top * part / 4)) for part in range(5)]
    legend = _legend(summary["total"]["groups"], names, unnamed)
    return Chart(width, bars, ticks, labels, legend, not peak)


def _names(groups: dict[str, Any]) -> dict[str, int]:
    """A colour for each group, the largest first."""
    ranked = sorted(groups, key=lambda name: (-Decimal(groups[name]), name))
    if len(ranked) <= _SERIES:
        return {name: position + 1 for position, name in enumerate(ranked)}
    return {name: min(position + 1, _SERIES) for position, name in enumerate(ranked)}


def _stack(
    bucket: dict[str, Any], names: dict[str, int], x: float, step: float, top: Decimal, unnamed: str
) -> list[Bar]:
    bars, base = [], Decimal(0)
    bar = min(step * 0.76, _WIDEST_BAR)
    for name in sorted(bucket["groups"], key=lambda name: (names[name], name)):
        amount = Decimal(bucket["groups"][name])
        if not amount:
            continue
        upper, lower = _y(base + amount, top), _y(base, top)
        when = bucket["start"].strftime("%Y-%m-%d %H:%M UTC")
        title = f"{when} · {name or unnamed}: {amount:,f}"
        bars.append(
            Bar(
                round(x + (step - bar) / 2, 2),
                upper,
                round(bar, 2),
                round(lower - upper, 2),
                names[name],
                title,
            )
        )
        base += amount
    return bars


def _y(amount: Decimal, top: Decimal) -> float:
    inner = HEIGHT - _BOTTOM - _TOP
    return round(float(_TOP + inner * (1 - amount / top)), 2)


def _ceiling(peak: Decimal) -> Decimal:
    """The next number at or above the peak whose quarters are short to read."""
    if not peak:
        return Decimal(4)
    power = Decimal(10) ** peak.adjusted()
    return next(power * factor / 10 for factor in _CEILINGS if power * factor >= peak * 10)


def _short(amount: Decimal) -> str:
    for unit, suffix in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if amount >= unit:
            return f"{(amount / unit).normalize():f}{suffix}"
    return f"{amount.normalize():f}" if amount else "0"


def _label(start: datetime, interval: str) -> str:
    return start.strftime({"hour": "%H:%M", "month": "%b %Y"}.get(interval, "%d %b"))


def _legend(groups: dict[str, Any], names: dict[str, int], unnamed: str) -> list[tuple[int, str, Any]]:
    totals: dict[int, tuple[str, Decimal]] = {}
    for name, series in names.items():
        amount = Decimal(groups[name])
        if series in totals:
            totals[series] = (_OTHER, totals[series][1] + amount)
        else:
            totals[series] = (name or unnamed, amount)
    return [(series, name, amount) for series, (name, amount) in sorted(totals.items())]
