"""The spending order, pure and without I/O: allowance, then purchased, then granted; inside a kind the soonest
expiry first, then the oldest. Amounts are micro-credits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from models.credit import Kind, Lot

_KIND_ORDER = {kind: position for position, kind in enumerate(Kind)}
_NEVER = datetime.max.replace(tzinfo=UTC)


class Funding(NamedTuple):
    """How one charge is covered; the parts sum to the charge."""

    from_lots: int
    overage: int
    unfunded: int


def in_order(lots: Iterable[Lot]) -> list[Lot]:
    """The lots as they are spent."""
    return sorted(lots, key=lambda lot: (_KIND_ORDER[Kind(lot.kind)], lot.expires_at or _NEVER, lot.created_at, lot.id))


def draws(lots: Sequence[Lot], amount: int) -> list[tuple[Lot, int]]:
    """What to take from each of the ordered lots for `amount`. Raises ValueError when they hold less."""
    taken = []
    for lot in lots:
        if not amount:
            break
        part = min(lot.remaining, amount)
        if part:
            taken.append((lot, part))
            amount -= part
    if amount:
        raise ValueError("the lots do not cover the amount")
    return taken


def fund(amount: int, *, remaining: int, held: int, headroom: int, enforce: bool) -> Funding | None:
    """Cover a charge beside open holds of `held`; None when `enforce` and it can not be covered.

    A hold reserves an amount, not lots: whatever the holds do not find in `remaining`, they take from `headroom`
    (agreed overage that is left), so that both together are what a charge may use.
    """
    spendable = max(0, remaining - held)
    headroom = max(0, headroom - max(0, held - remaining))
    if enforce and amount > spendable + headroom:
        return None
    return _split(amount, spendable, headroom)


def fund_capture(amount: int, *, hold: int, remaining: int, other_holds: int, headroom: int) -> Funding:
    """Cover finished work that a hold was made for: never refused.

    Up to the hold's amount it draws what remains; beyond it at most what the other holds leave.
    """
    reserved = min(amount, hold, remaining)
    spare = max(0, remaining - reserved - other_holds)
    beyond = min(amount - min(amount, hold), spare)
    left = remaining - reserved - beyond
    return _split(amount, reserved + beyond, max(0, headroom - max(0, other_holds - left)))


def _split(amount: int, spendable: int, headroom: int) -> Funding:
    from_lots = min(amount, spendable)
    overage = min(amount - from_lots, headroom)
    return Funding(from_lots, overage, amount - from_lots - overage)
