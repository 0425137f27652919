"""Old records in bulk: accounts with three months of history, written straight into the tables, and consistent.

Every number follows from the ledger as if the records had come through the API: `flask ledger verify` finds nothing.
They are written in the order of their times, so that the records of one account lie far apart, as they do in books
that grew. Each account has an owner who can log in, with the password of the person that is copied.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, create_engine, select, text

from benchmarks.stores import Store
from models.account import Account
from models.credit import Lot
from models.types import EPOCH, UtcDateTime, to_microseconds
from models.usage import UsageRecord
from models.user import User
from services.periods import month_period

Tell = Callable[[str], None]
"""Is called with what is being done."""
_AGE = timedelta(days=87)
"""Within three months, however short they are: the oldest records lie in the period before the last."""
_CHUNK = 250_000
"""Records of one statement."""
_QUICKLY = {
    "sqlite": ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "PRAGMA cache_size=-1000000"),
    "postgresql": (
        # Nothing refers to what is not there, so nothing need be looked up for every row.
        "SET session_replication_role = replica",
        "SET synchronous_commit = off",
        "SET work_mem = '256MB'",
        # Each checkpoint has every page of the indexes written whole once more.
        "ALTER SYSTEM SET max_wal_size = '4GB'",
        "SELECT pg_reload_conf()",
    ),
}
_AFTERWARDS = {
    "sqlite": ("PRAGMA journal_mode=WAL",),
    "postgresql": ("ALTER SYSTEM RESET max_wal_size", "SELECT pg_reload_conf()", "VACUUM ANALYZE", "CHECKPOINT"),
}
_NUMBERS = MetaData()
_ACCOUNTS = Table("fill_accounts", _NUMBERS, Column("n", BigInteger, primary_key=True), Column("pad", Text))
_STEPS = Table(
    "fill_steps",
    _NUMBERS,
    Column("n", BigInteger, primary_key=True),
    Column("pad", Text),
    Column("period_start", UtcDateTime),
)
"""The numbers from 1, each also as text; of a step also when the period began in which its record lies."""
_COPY = {
    "users": {
        "id": "'usr_old' || a.pad",
        "email": "'old-' || a.pad || '@example.com'",
        "created_at": "r.created_at - :age",
    },
    "memberships": {"user_id": "'usr_old' || a.pad", "created_at": "r.created_at - :age"},
    "subscriptions": {"id": "r.id || '_' || a.pad", "anchor": "r.anchor", "created_at": "r.created_at - :age"},
    "accounts": {
        "id": "'acc_old' || a.pad",
        "external_id": "'old-' || a.pad",
        "subscription_id": "r.subscription_id || '_' || a.pad",
        "seq": "r.seq + 2 * :records",
        "name": "'Old ' || a.pad",
        "period_start": ":period_start",
        "period_end": ":period_end",
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
        "period_start": "k.period_start",
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
        "granted_after": ":total - k.n * :price",
        "balance_after": ":total - k.n * :price",
    },
}
"""The same for the records of the history, `k.n` counting them within the account."""
_HOUR = {"sqlite": "occurred_at / 3600000000 * 3600000000", "postgresql": "date_trunc('hour', occurred_at)"}
_SUMS = {"usage_hours": ("operation", "llm_model", "source"), "subject_hours": ("subject",)}
"""The sums per hour that are kept beside the records, and their labels. The copied record has no cost."""


def external_id(number: int) -> str:
    """The external id of an account that was filled in."""
    return f"old-{number:05d}"


def email(external_id: str) -> str:
    """The owner of the account with that external id."""
    return f"{external_id}@example.com"


def fill(store: Store, model: str, person: str, accounts: int, records: int, tell: Tell | None = None) -> list[str]:
    """Add accounts with `records` old records each, copies of the account with the external id `model`.

    Their external ids. `model` must have been granted credits and have one record; the person with that e-mail must
    belong to one account. Nobody may use the database meanwhile.
    """
    tell = tell or (lambda _what: None)
    engine = create_engine(store.url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in _QUICKLY[store.kind]:
                connection.execute(text(statement))
            facts = _facts(connection, model, person, records)
            _number(connection, facts, accounts, records)
            _fill(connection, _as_kept(facts, store.kind), accounts, records, tell)
            tell("sums per hour of the old records")
            for table, labels in _SUMS.items():
                _sum(connection, table, ", ".join(labels), _HOUR[store.kind])
            tell("statistics of the tables")
            _NUMBERS.drop_all(connection)
            for statement in _AFTERWARDS[store.kind]:
                connection.execute(text(statement))
        os.sync()  # books that grew are on the disk: the system shall not write them while something is measured
    finally:
        engine.dispose()
    return [external_id(number) for number in range(1, accounts + 1)]


def _facts(connection: Connection, model: str, person: str, records: int) -> dict[str, Any]:
    """The parameters of the statements."""
    account = connection.execute(
        select(Account.id, Account.subscription_id, Account.period_start).where(Account.external_id == model)
    ).one()
    lots = connection.execute(
        select(Lot.id, Lot.remaining).where(Lot.account_id == account.id).order_by(Lot.remaining.desc())
    ).all()
    record = connection.execute(
        select(UsageRecord.id, UsageRecord.charged, UsageRecord.occurred_at).where(UsageRecord.account_id == account.id)
    ).one()
    period_start, period_end = month_period(account.period_start - _AGE, account.period_start)
    return {
        "user": connection.execute(select(User.id).where(User.email == person)).scalar_one(),
        "account": account.id,
        "subscription": account.subscription_id,
        "anchor": account.period_start - _AGE,
        "period_start": period_start,
        "period_end": period_end,
        "lot": lots[0].id,
        "left": lots[0].remaining,
        "total": sum(lot.remaining for lot in lots),
        "record": record.id,
        "price": record.charged,
        "oldest": record.occurred_at - _AGE,
        "records": records,
        "age": _AGE,
        "step": _AGE / records,
    }


def _as_kept(facts: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Times as that kind of database keeps them."""

    def kept(value: Any) -> Any:
        if isinstance(value, timedelta):
            value = EPOCH + value
        return to_microseconds(value) if isinstance(value, datetime) else value

    return {name: kept(value) if kind == "sqlite" else value for name, value in facts.items()}


def _number(connection: Connection, facts: Mapping[str, Any], accounts: int, records: int) -> None:
    _NUMBERS.create_all(connection)
    rows = [{"n": number, "pad": f"{number:05d}"} for number in range(1, accounts + 1)]
    connection.execute(_ACCOUNTS.insert(), rows)
    steps = [
        {
            "n": n,
            "pad": f"{n:018d}",
            "period_start": month_period(facts["anchor"], facts["oldest"] + n * facts["step"])[0],
        }
        for n in range(1, records + 1)
    ]
    connection.execute(_STEPS.insert(), steps)


def _fill(connection: Connection, facts: Mapping[str, Any], accounts: int, records: int, tell: Tell) -> None:
    rows_of = {
        "users": "r.id = :user",
        "memberships": "r.user_id = :user",
        "subscriptions": "r.id = :subscription",
        "accounts": "r.id = :account",
    }
    for table, changes in _COPY.items():
        source = f"fill_accounts AS a WHERE {rows_of.get(table, 'r.account_id = :account')}"
        _insert(connection, table, changes, source, facts)
    which = {
        "usage_records": "r.id = :record",
        "ledger_entries": "r.account_id = :account AND r.cause_id = :record",
    }
    steps = max(1, _CHUNK // accounts)
    for first in range(0, records, steps):
        tell(f"{first * accounts:,} of {records * accounts:,} old records")
        limits = {"first": first, "last": min(records, first + steps)}
        for table, changes in _HISTORY.items():
            source = (
                f"fill_steps AS k CROSS JOIN fill_accounts AS a WHERE {which[table]} AND k.n > :first AND k.n <= :last"
            )
            _insert(connection, table, changes, source, {**facts, **limits})


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
