"""What an account will use on the days to come, from what it used on the days gone by. Pure; in micro-credits.

Several simple rules each say what they would expect: averages over a week to eight weeks, with and without the
account's own rhythm of the week, and the growth of the last weeks. Each is tried on the account's own past, and those
that did well there count most. How wrong all together would have been there makes the range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

WINDOW = 84
"""Days of history that are looked at."""
_TRIED = 28
"""On so many of the last days each rule is tried."""
_AHEAD = 7
"""Each time it says what the next so many days will use together."""
_LENGTHS = (2, 4, _AHEAD)
_LEAST = 7
"""Days that a rule needs to be tried at all."""
_ONE, _ZERO = Decimal(1), Decimal(0)
_DAMPING = Decimal("0.7")
"""How much of a week's growth the following week is believed to have."""
_NEUTRAL = 3
"""So many weeks of the average are added to each day of the week before it is believed to be different."""

Days = Sequence[int]
Rule = Callable[[Days, int], list[Decimal]]
"""Of the days so far (oldest first) and a number: that many days to come."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The days to come, tomorrow first. `spread` is by what part of it a week may differ either way."""

    days: list[Decimal]
    spread: Decimal


def outlook(past: Days, count: int) -> Outlook:
    """What the next `count` days are expected to use; `past` are whole days, oldest first, at least one."""
    days = list(past[-WINDOW:])
    rules = _rules(len(days))
    trials = _trials(len(days))
    if not trials:
        expected = _mean(0)(days, count)
        return Outlook(expected, _spread_of(days))
    said = [[rule(days[:at], _AHEAD) for at in trials] for rule in rules]
    truth = [list(map(Decimal, days[at : at + _AHEAD])) for at in trials]
    weights = _weights([_sums(one) for one in said], _sums(truth))
    expected = _mixed([rule(days, count) for rule in rules], weights)
    together = _mixed([[sum(trial, _ZERO) for trial in one] for one in said], weights)
    return Outlook(expected, _spread(together, [sum(trial, _ZERO) for trial in truth]))


# Rules


def _rules(length: int) -> list[Rule]:
    rules = [_mean(window) for window in (7, 14, 28, 56) if window <= 7 or length > window // 2]
    if length >= 21:
        rules += [_weekly(_mean(28)), _weekly(_mean(56)), _growing, _weekly(_growing)]
    return rules


def _mean(window: int) -> Rule:
    """The average of the last `window` days (0: of all)."""

    def rule(days: Days, count: int) -> list[Decimal]:
        taken = days[-window:] if window else days
        return [_average(taken)] * count

    return rule


def _average(days: Days) -> Decimal:
    return Decimal(sum(days)) / len(days) if days else _ZERO


def _growing(days: Days, count: int) -> list[Decimal]:
    """The last two weeks, and their growth over the two before, which fades."""
    recent, earlier = _average(days[-14:]), _average(days[-28:-14])
    if len(days) < 21 or not earlier or not recent:
        return [recent] * count
    ratio = min(max(recent / earlier, Decimal("0.5")), Decimal(2))
    weekly = (ratio - 1) / 2  # it came about in two weeks
    expected, level, growth = [], recent * (1 + weekly / 2), weekly
    for day in range(count):
        if day % 7 == 0:
            level, growth = level * (1 + growth), growth * _DAMPING
        expected.append(level)
    return expected


def _weekly(rule: Rule) -> Rule:
    """The rule, shaped by how the days of the week differ."""

    def shaped(days: Days, count: int) -> list[Decimal]:
        factors = _factors(days)
        return [day * factors[position % 7] for position, day in enumerate(rule(days, count))]

    return shaped


def _factors(days: Days) -> list[Decimal]:
    """What part of an average day each of the next seven is, careful where few weeks are known."""
    weeks = [days[end - 7 : end] for end in range(len(days), 6, -7)][:8]
    average = _average([day for week in weeks for day in week])
    if not average:
        return [_ONE] * 7
    sums = [sum(week[position] for week in weeks) for position in range(7)]
    return [(total + _NEUTRAL * average) / ((len(weeks) + _NEUTRAL) * average) for total in sums]


# How well they did


def _trials(length: int) -> range:
    """After how many days each rule is asked what comes next."""
    return range(max(_LEAST, length - _TRIED - _AHEAD), length - _AHEAD + 1)


def _sums(trials: Sequence[Sequence[Decimal]]) -> list[Decimal]:
    """What is compared: each trial's first days together, and all of them, so that the order of days matters too."""
    return [sum(trial[:length], _ZERO) for trial in trials for length in _LENGTHS]


def _weights(told: Sequence[Sequence[Decimal]], truth: Sequence[Decimal]) -> list[Decimal]:
    """More for rules whose errors were small; all alike where none was wrong."""
    errors = [sum(((one - right) ** 2 for one, right in zip(said, truth, strict=True)), _ZERO) for said in told]
    least = min(errors)
    if not least:
        good = [_ONE if not error else _ZERO for error in errors]
        return [one / sum(good) for one in good]
    raw = [(least / error) ** 2 for error in errors]
    return [one / sum(raw) for one in raw]


def _mixed(told: Sequence[Sequence[Decimal]], weights: Sequence[Decimal]) -> list[Decimal]:
    return [
        sum((weight * one for weight, one in zip(weights, column, strict=True)), _ZERO)
        for column in zip(*told, strict=True)
    ]


def _spread(told: Sequence[Decimal], truth: Sequence[Decimal]) -> Decimal:
    """By what part of it four of five weeks differed from what was said at most; never more than all of it."""
    apart = sorted(abs(right - said) / said for said, right in zip(told, truth, strict=True) if said)
    return min(apart[len(apart) * 4 // 5], _ONE) if apart else _ZERO


def _spread_of(days: Days) -> Decimal:
    """With a week at most: how far single days lie from their average, less for their number."""
    average = _average(days)
    if not average:
        return _ZERO
    apart = sum(abs(day - average) for day in days) / (len(days) * average)
    return min(apart / Decimal(len(days)).sqrt(), _ONE)
