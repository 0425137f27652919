"""The floor on SQLite: the same rows into the same tables, with nothing decided and nobody asked.

Run as `python -m benchmarks.raw_sqlite`, it reads a spec as JSON from stdin and writes what it measured to stdout. One
connection: SQLite has one writer, and more of them would only wait.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

Step = Callable[[int], None]
"""One transaction; the argument counts them."""


class _Tables:
    """Copies of a real usage record and a real ledger entry, told apart by what must be unique."""

    def __init__(self, connection: sqlite3.Connection, run: str) -> None:
        connection.row_factory = sqlite3.Row
        self._connection, self._run = connection, run
        self._record = dict(connection.execute("SELECT * FROM usage_records LIMIT 1").fetchone())
        self._entry = dict(connection.execute("SELECT * FROM ledger_entries WHERE reason = 'usage' LIMIT 1").fetchone())
        self._account = self._record["account_id"]
        self._first = connection.execute("SELECT max(seq) FROM ledger_entries").fetchone()[0] + 1_000_000
        self._insert_record = _insert("usage_records", self._record)
        self._insert_entry = _insert("ledger_entries", self._entry)

    def deducts(self, size: int) -> Step:
        """`size` times one ledger entry and one balance update, one after another, in one transaction."""

        def step(serial: int) -> None:
            execute = self._connection.execute
            execute("BEGIN IMMEDIATE")
            for number in range(serial * size, (serial + 1) * size):
                execute(self._insert_entry, self._entry_row(number))
                execute("UPDATE accounts SET seq = seq + 1 WHERE id = ?", (self._account,))
            execute("COMMIT")

        return step

    def rows(self, size: int) -> Step:
        """`size` records and as many entries by `executemany`, and one balance update, in one transaction."""

        def step(serial: int) -> None:
            numbers = range(serial * size, (serial + 1) * size)
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(self._insert_record, [self._record_row(number) for number in numbers])
            self._connection.executemany(self._insert_entry, [self._entry_row(number) for number in numbers])
            self._connection.execute("UPDATE accounts SET seq = seq + ? WHERE id = ?", (2 * size, self._account))
            self._connection.execute("COMMIT")

        return step

    def _record_row(self, number: int) -> tuple[Any, ...]:
        key = f"{self._run}-{number:012d}"
        return tuple({**self._record, "id": f"use_{key}", "idempotency_key": key, "seq": number}.values())

    def _entry_row(self, number: int) -> tuple[Any, ...]:
        return tuple({**self._entry, "seq": self._first + number}.values())


def _insert(table: str, row: dict[str, Any]) -> str:
    names = ", ".join(f'"{name}"' for name in row)
    return f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' for _ in row)})"


def measure(path: str, mode: str, size: int, seconds: float, run: str) -> dict[str, Any]:
    """Latencies in seconds of the transactions that fit into `seconds`."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        tables = _Tables(connection, run)
        step = tables.rows(size) if mode == "rows" else tables.deducts(size)
        latencies: list[float] = []
        began = before = time.perf_counter()
        while before - began < seconds:
            step(len(latencies))
            now = time.perf_counter()
            latencies.append(now - before)
            before = now
        return {"latencies": latencies, "seconds": before - began}


if __name__ == "__main__":
    json.dump(measure(**json.load(sys.stdin)), sys.stdout)
