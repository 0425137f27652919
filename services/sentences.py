"""Alerts about payments in one sentence each, from the numbers they were raised with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import money
from models.alert import AlertKind

Told = dict[str, Any]


def _price(told: Told) -> str:
    """` for $10.00`, or nothing where no price was found."""
    return f" for {money.show(told['amount'], told['currency'])}" if told["currency"] and told["amount"] else ""


def _topped_up(told: Told) -> str:
    return f"Auto top-up bought {told['credits']:,} credits{_price(told)}."


def _action(told: Told) -> str:
    return f"Auto top-up waits for you: your bank asks to confirm {told['credits']:,} credits{_price(told)}."


def _failed(told: Told) -> str:
    return f"Auto top-up could not buy {told['credits']:,} credits: {told['why']}. It will be tried again."


def _off(told: Told) -> str:
    return f"Auto top-up is turned off after {told['failures']} failures: {told['why']}."


def _ceiling(told: Told) -> str:
    if not told["currency"] or told["ceiling"] is None:
        return "Auto top-up rests until next month: its ceiling is reached."
    ceiling = money.show(told["ceiling"], told["currency"])
    return f"Auto top-up rests until next month: another one would pass its ceiling of {ceiling}."


OF: dict[str, Callable[[Told], str]] = {
    AlertKind.PAYMENT_FAILED: lambda _told: "A payment has failed.",
    AlertKind.TOPPED_UP: _topped_up,
    AlertKind.TOP_UP_ACTION: _action,
    AlertKind.TOP_UP_FAILED: _failed,
    AlertKind.TOP_UP_CEILING: _ceiling,
    AlertKind.TOP_UP_OFF: _off,
    AlertKind.PLAN_LAPSED: lambda _told: "A payment is overdue: the account is on the free plan until it is paid.",
    AlertKind.SUSPENDED: lambda _told: "A payment is long overdue: the account is suspended until it is paid.",
    AlertKind.RESTORED: lambda _told: "Nothing is unpaid any more: everything works as before.",
}
