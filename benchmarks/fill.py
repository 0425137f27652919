"""Old records in bulk: accounts with a month of history, written straight into the tables, and consistent.

Every number follows from the ledger as if the records had come through the API: `flask ledger verify` finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, create_engine, text

from benchmarks.stores import Store
from models.types import EPOCH, to_microseconds

_AGE = timedelta(days=29)
_CHUNK = 50_000
"""Records of one statement."""
_QUICKLY = {
    "sqlite": ("PRAGMA synchronous=OFF", "PRAGMA cache_size=-500000"),
    # Nothing refers to what is not there, so nothing need be looked up for every row.
    "postgresql": ("SET session_replication_role = replica", "SET synchronous_commit = off"),
}
_AFTERWARDS = {
    "sqlite": ("PRAGMA wal_checkpoint(TRUNCATE)",),
    "postgresql": ("VACUUM ANALYZE", "CHECKPOINT"),
}
_COPY = {
    "subscriptions": {"id": "r.id || '_' || a.pad", "anchor": "r.anchor", "created_at": "r.created_at - :age"},
    "accounts": {
        "id": "'acc_old' || a.pad",
        "external_id": "'old-' || a.pad",
        "subscription_id": "r.subscription_id || '_' || a.pad",
        "seq": "r.seq + 2 * :records",
        "period_start": "r.period_start - :age",
        "created_at": "r.created_at - :age",
    },
    "lots": {
        "id": "r.id || '_' || a.pad",
        "source_key": "r.source_key || '_' || a.pad",
        "remaining": "r.remaining - CASE WHEN r.id = :lot THEN :records * :price ELSE 0 END",
        "created_at": "r.created_at - :age",
    },
    "ledger_entries": {
        "lot_id": "r.lot_id || '_' || a.pad",
        "cause_id": "r.cause_id || '_' || a.pad",
        "created_at": "r.created_at - :age",
    },
    "usage_records": {
        "id": "r.id || '_' || a.pad",
        "occurred_at": "r.occurred_at - :age",
        "recorded_at": "r.recorded_at - :age",
        "period_start": "r.period_start - :age",
    },
}
"""How the rows of a copied account differ from the rows `r` of the account that is copied; `a.pad` numbers it."""
_WHEN = "r.{} - :age + k.n * :step"
_HISTORY = {
    "usage_records": {
        "id": "'use_' || k.pad || a.pad",
        "seq": "r.seq + r.entries + 2 * k.n - 1",
        "idempotency_key": "'old-' || k.pad",
        "entries": "1",
        "granted": ":price",
        "occurred_at": _WHEN.format("occurred_at"),
        "recorded_at": _WHEN.format("recorded_at"),
        "period_start": "r.period_start - :age",
        "available_after": ":total - k.n * :price",
        "granted_after": ":total - k.n * :price",
    },
    "ledger_entries": {
        "seq": "r.seq + 2 * k.n",
        "lot_id": ":lot || '_' || a.pad",
        "cause_id": "'use_' || k.pad || a.pad",
        "change": "-:price",
        "created_at": _WHEN.format("created_at"),
        "lot_remaining": ":left - k.n * :price",
        "kind_after": ":total - k.n * :price",
        "balance_after": ":total - k.n * :price",
    },
}
"""The same for the records of the history, `k.n` counting them within the account."""
_HOUR = {"sqlite": "occurred_at / 3600000000 * 3600000000", "postgresql": "date_trunc('hour', occurred_at)"}
_SUMS = {"usage_hours": ("operation", "llm_model", "source"), "subject_hours": ("subject",)}
"""The sums per hour that are kept beside the records, and their labels. The copied record has no cost."""


def fill(store: Store, model: str, accounts: int, records: int, tell: Callable[[int], None] | None = None) -> list[str]:
    """Add accounts with `records` old records each, copies of the account with the external id `model`.

    Their external ids. `model` must have been granted credits and have one record; nobody may use it meanwhile.
    `tell` is called with the number of records written so far.
    """
    engine = create_engine(store.url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in _QUICKLY[store.kind]:
                connection.execute(text(statement))
            _number(connection, "fill_accounts", accounts, width=5)
            _number(connection, "fill_steps", records, width=18)
            _fill(connection, _facts(connection, store.kind, model, records), accounts, records, tell)
            for table, labels in _SUMS.items():
                _sum(connection, table, ", ".join(labels), _HOUR[store.kind])
            for statement in ("DROP TABLE fill_accounts", "DROP TABLE fill_steps", *_AFTERWARDS[store.kind]):
                connection.execute(text(statement))
    finally:
        engine.dispose()
    return [f"old-{number:05d}" for number in range(1, accounts + 1)]


def _number(connection: Connection, table: str, count: int, *, width: int) -> None:
    """The numbers from 1, each also as text of that width."""
    connection.execute(text(f"CREATE TABLE {table} (n bigint PRIMARY KEY, pad text NOT NULL)"))
    rows = [{"n": number, "pad": f"{number:0{width}d}"} for number in range(1, count + 1)]
    connection.execute(text(f"INSERT INTO {table} (n, pad) VALUES (:n, :pad)"), rows)


def _facts(connection: Connection, kind: str, model: str, records: int) -> dict[str, Any]:
    """The parameters of the statements; times as that kind of database keeps them."""
    account = connection.execute(
        text("SELECT id, subscription_id FROM accounts WHERE external_id = :name"), {"name": model}
    ).one()
    lots = connection.execute(
        text("SELECT id, remaining FROM lots WHERE account_id = :id ORDER BY remaining DESC"), {"id": account.id}
    ).all()
    record = connection.execute(
        text("SELECT id, charged FROM usage_records WHERE account_id = :id"), {"id": account.id}
    ).one()
    step = _AGE / records
    facts = {
        "account": account.id,
        "subscription": account.subscription_id,
        "lot": lots[0].id,
        "left": lots[0].remaining,
        "total": sum(lot.remaining for lot in lots),
        "record": record.id,
        "price": record.charged,
        "records": records,
        "age": _AGE,
        "step": step,
    }
    if kind == "sqlite":
        facts |= {"age": to_microseconds(EPOCH + _AGE), "step": to_microseconds(EPOCH + step)}
    return facts


def _fill(
    connection: Connection,
    facts: dict[str, Any],
    accounts: int,
    records: int,
    tell: Callable[[int], None] | None,
) -> None:
    for table, changes in _COPY.items():
        where = {"subscriptions": "r.id = :subscription", "accounts": "r.id = :account"}
        source = f"fill_accounts AS a WHERE {where.get(table, 'r.account_id = :account')}"
        _insert(connection, table, changes, source, facts)
    which = {
        "usage_records": "r.id = :record",
        "ledger_entries": "r.account_id = :account AND r.cause_id = :record",
    }
    steps = max(1, _CHUNK // accounts)
    for first in range(0, records, steps):
        limits = {"first": first, "last": min(records, first + steps)}
        for table, changes in _HISTORY.items():
            source = (
                f"fill_steps AS k CROSS JOIN fill_accounts AS a WHERE {which[table]} AND k.n > :first AND k.n <= :last"
            )
            _insert(connection, table, changes, source, {**facts, **limits})
        if tell is not None:
            tell(limits["last"] * accounts)


def _sum(connection: Connection, table: str, labels: str, hour: str) -> None:
    statement = (
        f"INSERT INTO {table} (account_id, hour, {labels}, records, charged, cost)"
        f" SELECT account_id, {hour}, {labels}, count(*), sum(charged), 0 FROM usage_records"
        f" WHERE account_id LIKE 'acc_old%' GROUP BY account_id, {hour}, {labels}"
    )
    connection.execute(text(statement))


def _insert(
    connection: Connection, table: str, values: Mapping[str, str], source: str, facts: Mapping[str, Any]
) -> None:
    """Copy the rows `r` of the table, with some columns replaced by expressions."""
    names = list(connection.execute(text(f"SELECT * FROM {table} LIMIT 0")).keys())
    listed = ", ".join(f'"{name}"' for name in names)
    values = {"account_id": "'acc_old' || a.pad", **values}
    taken = ", ".join(values.get(name, f'r."{name}"') for name in names)
    statement = f"INSERT INTO {table} ({listed}) SELECT {taken} FROM {table} AS r CROSS JOIN {source}"
    used = {name: value for name, value in facts.items() if f":{name}" in statement}
    connection.execute(text(statement), used)
