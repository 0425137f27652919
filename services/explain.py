"""Why a usage record cost what it cost, what paid it, and what became of it since."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_05UP, ROUND_CEILING, ROUND_HALF_UP, Context, Decimal
from typing import Any

from sqlalchemy import Connection

import database
from amounts import to_credits
from errors import NotFound
from models.credit import Hold, LedgerEntry, Reason
from models.usage import UsageRecord
from rows import run
from services import catalog, ledger, rates, records
from services.books import ENTRIES, HOLDS, LOTS, RECORDS
from services.rates import Rate

_WIDE = Context(prec=250, rounding=ROUND_05UP)
_MILLIONTH = Decimal(1).scaleb(-6)
_SHOWN = 12
"""Decimals of a quotient that does not end; more where the parts before it have more."""


def explain(record_id: str, own_account: str | None) -> dict[str, Any]:
    """The record's whole story, for its own account or (None) the operator. Raises NotFound.

    `parts` add up to `sum`, `lots` with overage and unfunded to the charge, and what was before less what the lots
    gave is what was after.
    """
    with database.snapshot() as conn:
        found = run(conn, [RECORDS.select(conn, "id IN ?", [record_id])])[0]
        if not found or own_account not in (None, found[0].account_id):
            raise NotFound("No such usage record.")
        record: UsageRecord = found[0]
        drawn, later = _own_entries(conn, record), _later_entries(conn, record)
        lots = {lot.id: lot for lot in run(conn, [LOTS.select(conn, "id IN ?", [e.lot_id for e in drawn])])[0]}
        holds = run(conn, [HOLDS.select(conn, "id IN ?", [record.hold_id])])[0] if record.hold_id else []
    hold = holds[0] if holds else None
    before = _before(record, hold)
    rate = rates.parse_rate("", record.rate) if record.rate is not None else None
    return {
        "id": record.id,
        "account": record.account_id,
        "record": records.detail(record),
        "request": _request(record),
        "catalog_version": record.catalog_version,
        "rate": _rate(record, rate),
        "pricing": _pricing(record, rate, hold),
        "rule": _rule(record, hold, before),
        "lots": [_drawn(entry, lots[entry.lot_id].expires_at) for entry in drawn],
        "overage": to_credits(record.overage),
        "unfunded": to_credits(record.unfunded),
        "balance_before": {name: to_credits(amount) for name, amount in before.items()},
        "balance_after": records.answer(record)["balance"],
        "later": [ledger.render(entry) for entry in later],
    }


# Entries


def _own_entries(conn: Connection, record: UsageRecord) -> list[LedgerEntry]:
    last = record.seq + record.entries
    where = "account_id IN ? AND seq > ? AND seq <= ? ORDER BY seq"
    return run(conn, [ENTRIES.select(conn, where, [record.account_id], record.seq, last)])[0]


def _later_entries(conn: Connection, record: UsageRecord) -> list[LedgerEntry]:
    """What settled it, what its void gave back, and what of that had expired meanwhile."""
    caused = run(conn, [ENTRIES.select(conn, "cause_id IN ? AND reason IN ('settle','void')", [record.id])])[0]
    given = {entry.seq: entry.lot_id for entry in caused if entry.reason == Reason.VOID}
    gone: list[LedgerEntry] = []
    if given:
        where = "account_id IN ? AND seq > ? AND seq <= ? AND reason = 'expiry' AND created_at = ?"
        near = [record.account_id], min(given), max(given) + 1, record.voided_at
        after = run(conn, [ENTRIES.select(conn, where, *near)])[0]
        gone = [entry for entry in after if given.get(entry.seq - 1) == entry.lot_id]
    return sorted(caused + gone, key=lambda entry: entry.seq)


def _drawn(entry: LedgerEntry, expires_at: Any) -> dict[str, Any]:
    return {
        "lot": entry.lot_id,
        "kind": entry.kind,
        "credits": to_credits(-entry.change),
        "remaining_before": to_credits(entry.lot_remaining - entry.change),
        "remaining_after": to_credits(entry.lot_remaining),
        "expires_at": expires_at,
        "entry": ledger.entry_id(entry),
    }


# What was asked, and its price


def _request(record: UsageRecord) -> dict[str, Any]:
    shown = records.detail(record)
    names = (
        "operation quantity llm_provider llm_model prompt_tokens completion_tokens total_tokens actual_cost success "
        "retry source subject properties enforce idempotency_key hold"
    )
    explicit = None if record.explicit_credits is None else to_credits(record.explicit_credits)
    occurred = {"occurred_at": record.occurred_at if record.occurred_given else None}
    return {"credits": explicit} | {name: shown[name] for name in names.split()} | occurred


def _rate(record: UsageRecord, rate: Rate | None) -> dict[str, Any] | None:
    """The rate in its written form, and whether it was the catalog's or the account's own."""
    if rate is None:
        return None
    listed = catalog.of_version(record.catalog_version).rate(rate.op, rate.model)
    return {
        "text": rate.text,
        "operation": rate.op,
        "model": rate.model,
        "source": "catalog" if listed is not None and listed.text == rate.text else "account",
    }


def _pricing(record: UsageRecord, rate: Rate | None, hold: Hold | None) -> dict[str, Any]:
    """Priced by its rate, by the credits it named, or (a capture that took just what was held) by its hold."""
    by_hold = hold is not None and record.explicit_credits == hold.amount
    priced = to_credits(record.priced)
    working: dict[str, Any] = {"parts": [], "sum": priced, "round": "none", "rounded": priced}
    if rate is not None:
        working = _working(record, rate)
    return {
        "basis": "rate" if rate is not None else "hold" if by_hold else "credits",
        **working,
        "minimum": _number(rate.minimum) if rate else None,
        "maximum": _number(rate.maximum) if rate else None,
        "priced": priced,
        "charged": to_credits(record.charged),
        "free_because": _free_because(record, rate),
    }


def _working(record: UsageRecord, rate: Rate) -> dict[str, Any]:
    return working(
        rate,
        {
            "quantity": Decimal(record.quantity).scaleb(-6),
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
            "actual_cost": record.actual_cost,
        },
        catalog.of_version(record.catalog_version).credit_value,
    )


def working(rate: Rate, given: Mapping[str, Decimal | int | None], credit_value: Decimal | None) -> dict[str, Any]:
    """The arithmetic of a price: each part is amount × price ÷ per, and their sum is rounded once."""
    asked = (
        ("quantity", rate.per_unit, Decimal(1)),
        ("prompt_tokens", rate.prompt_per_1k, Decimal(1000)),
        ("completion_tokens", rate.completion_per_1k, Decimal(1000)),
        ("actual_cost", rate.cost_multiplier, credit_value),
    )
    parts: list[dict[str, Any]] = []
    total = Decimal(0)
    for name, price, per in asked:
        amount = given[name]
        if price is None or amount is None or not per:
            continue
        worth = _WIDE.divide(_WIDE.multiply(Decimal(amount), price), per)
        if name == "actual_cost":
            worth = _cut(worth, _decimals(total))
        total = _WIDE.add(total, worth)
        values = {"amount": Decimal(amount), "price": price, "per": per, "credits": worth}
        parts.append({"input": name} | {key: _number(value) for key, value in values.items()})
    if rate.round == "up":
        rounded = total.to_integral_value(ROUND_CEILING)
    else:
        rounded = total.quantize(_MILLIONTH, ROUND_HALF_UP, _WIDE)
    return {"parts": parts, "sum": _number(total), "round": rate.round, "rounded": _number(rounded)}


def _cut(quotient: Decimal, decimals: int) -> Decimal:
    """Without the digits of a quotient that does not end, so that the sum's rounding does not notice.

    The last digit lies behind the `decimals` of what it is added to, and ROUND_05UP never makes it 0 or 5.
    """
    places = max(_SHOWN, decimals + 1)
    return quotient.quantize(Decimal(1).scaleb(-places), context=_WIDE) if _decimals(quotient) > places else quotient


def _decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def _number(value: Decimal | None) -> int | Decimal | None:
    if value is None:
        return None
    return int(value) if value == value.to_integral_value() else value.normalize(_WIDE)


def _free_because(record: UsageRecord, rate: Rate | None) -> list[str]:
    """The markers for which work that has a price was not charged."""
    if record.charged == record.priced:
        return []
    failed = not record.success and not (rate is not None and rate.bill_failed)
    retried = record.retry and not (rate is not None and rate.bill_retry)
    return [name for name, counts in (("failed", failed), ("retry", retried)) if counts]


# What allowed it


def _before(record: UsageRecord, hold: Hold | None) -> dict[str, int]:
    """The balance just before: what the lots gave is put back, and an open hold still held."""
    kinds = {
        "allowance": record.allowance_after + record.allowance,
        "purchased": record.purchased_after + record.purchased,
        "granted": record.granted_after + record.granted,
    }
    captured = hold.amount if hold is not None and hold.expires_at > record.recorded_at else 0
    held = record.held_after + captured
    return {"available": max(0, sum(kinds.values()) - held), **kinds, "held": held}


def _rule(record: UsageRecord, hold: Hold | None, before: Mapping[str, int]) -> dict[str, str]:
    """The rule under which it was recorded, as a word and as sentences."""
    needed, available = to_credits(record.charged), to_credits(before["available"])
    if not record.charged:
        name, reason = "nothing_to_pay", "There was nothing to pay, so no credits were needed."
    elif hold is not None and hold.expires_at > record.recorded_at:
        name = "hold"
        reason = f"It captured a hold of {to_credits(hold.amount):,} credits; finished work is never refused."
        if record.charged > hold.amount:
            reason += " What came on top of the hold was taken from credits that no other hold had set aside."
    elif hold is not None:
        name = "expired_hold"
        reason = "Its hold had expired, so it was recorded as work that is already done, which is never refused."
    elif not record.enforce:
        name = "not_enforced"
        reason = "It was sent with enforce=false: work that is already done is recorded in any case."
    elif record.overage:
        name = "overage"
        reason = f"It needed {needed:,} credits, {available:,} were available, and the agreed overage had room."
    else:
        name = "available"
        reason = f"It needed {needed:,} credits and {available:,} were available."
    if record.unfunded:
        reason += f" No credits were left for {to_credits(record.unfunded):,} of it: they are kept as unfunded."
    return {"name": name, "reason": reason}
