"""What the kill test's clients were told, held against the tables, which are read past the application."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, create_engine, text

from tests.kill_clients import Observed

KINDS = ("allowance", "purchased", "granted")


@dataclass
class Promises:
    """What the clients were told, by key."""

    answers: dict[str, str]
    """The one answer that every acknowledgement of a key gave."""
    refusals: int
    replays: int


def collect(seen: list[Observed]) -> Promises:
    """Fails when two acknowledgements of a key differ, or two say that they were the first."""
    told: dict[str, set[str]] = defaultdict(set)
    created: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    for key, status, answer in (entry for observed in seen for entry in observed.answers):
        statuses[status] += 1
        created[key] += status == 201
        if status in (200, 201):
            told[key].add(answer)
    _none([(key, *answers) for key, answers in told.items() if len(answers) > 1], "answered in two ways")
    _none([key for key, times in created.items() if times > 1], "answered 201 more than once")
    return Promises({key: only for key, (only,) in told.items()}, statuses[402], statuses[200])


def _none(wrong: Collection[object], what: str) -> None:
    assert not wrong, f"{len(wrong)} {what}: {sorted(wrong, key=str)[:5]}"


@dataclass
class Books:
    """Rows of the tables."""

    accounts: dict[str, str]
    """Name by id."""
    records: list[Row[Any]]
    holds: list[Row[Any]]
    lots: list[Row[Any]]
    entries: list[Row[Any]]


def read_books(database_url: str) -> Books:
    """Read everything, past the application."""
    engine = create_engine(database_url)
    try:
        with engine.connect() as conn:
            tables = {
                name: list(conn.execute(text(f"SELECT * FROM {name}")))
                for name in ("accounts", "usage_records", "holds", "lots", "ledger_entries")
            }
    finally:
        engine.dispose()
    return Books(
        {account.id: account.name for account in tables["accounts"]},
        tables["usage_records"],
        tables["holds"],
        tables["lots"],
        tables["ledger_entries"],
    )


def check_records(books: Books, promises: Promises) -> None:
    """Each acknowledged key has one row with what was promised; what was refused, or never asked for, has none."""
    _check_family("usage", books.records, promises)
    _check_family("holds", books.holds, promises)
    _check_family("grants", [lot for lot in books.lots if lot.idempotency_key], promises)
    for record in books.records:
        answer = json.loads(promises.answers[f"usage/{record.idempotency_key}"])
        promised = {"id": answer["id"], "account_id": answer["account"], "charged": _micros(answer["credits"])}
        promised |= {name: _micros(amount) for name, amount in answer["consumed"].items()}
        kept = {name: getattr(record, name) for name in promised}
        assert kept == promised, f"a record is {kept}, its client was told {promised}"
    held = {json.loads(answer)["id"] for key, answer in promises.answers.items() if key.startswith("holds/")}
    _none({hold.id for hold in books.holds} ^ held, "holds that are not what was acknowledged")


def _check_family(family: str, rows: list[Row[Any]], promises: Promises) -> None:
    kept = Counter(f"{family}/{row.idempotency_key}" for row in rows)
    told = {key for key in promises.answers if key.startswith(f"{family}/")}
    _none(told - kept.keys(), "acknowledged, but not in the books")
    _none(kept.keys() - told, "in the books, but refused or never acknowledged")
    _none([key for key, times in kept.items() if times > 1], "counted more than once")


def _micros(amount: str) -> int:
    return int(Decimal(amount) * 1_000_000)


def check_lots(books: Books) -> None:
    """What records consumed is what lots lost, by account and kind; no period issued its allowance twice."""
    consumed: Counter[tuple[str, str]] = Counter()
    for record in books.records:
        for kind in KINDS:
            consumed[record.account_id, kind] += getattr(record, kind)
    lost: Counter[tuple[str, str]] = Counter()
    for lot in books.lots:
        assert 0 <= lot.remaining <= lot.issued - lot.removed, f"impossible: {lot}"
        lost[lot.account_id, lot.kind] += lot.issued - lot.remaining - lot.removed
    wrong = [(key, consumed[key], lost[key]) for key in consumed.keys() | lost.keys() if consumed[key] != lost[key]]
    _none(wrong, "kinds whose lots lost another sum than the records consumed")
    periods = Counter((lot.account_id, lot.period_start) for lot in books.lots if lot.kind == "allowance")
    _none([period for period, times in periods.items() if times > 1], "periods with two allowances")


def tally(books: Books, idle: list[str]) -> Counter[str]:
    """What happened beside the requests, counted."""
    happened: Counter[str] = Counter()
    names = books.accounts
    renewals = Counter(names[lot.account_id] for lot in books.lots if lot.kind == "allowance")
    renewals.subtract(names.values())  # the plan's first allowance is no renewal
    expiries = Counter(names[entry.account_id] for entry in books.entries if entry.reason == "expiry")
    happened["renewals"] = renewals.total()
    happened["expiries"] = expiries.total()
    happened["idle renewals"] = sum(renewals[name] for name in idle)
    happened["idle expiries"] = sum(expiries[name] for name in idle)
    happened["unfunded"] = sum(record.unfunded > 0 for record in books.records)
    for hold in books.holds:
        happened[f"holds {hold.state}"] += 1
    return happened
