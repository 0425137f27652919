"""The floor on PostgreSQL: PostgreSQL's own pgbench runs scripts over the same tables, with nothing decided.

pgbench is written in C and needs next to nothing of the processor, so what it reaches is what the database can do.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.figures import BenchmarkError, Figure, figure
from benchmarks.stores import Store

_FREE = {
    "usage_records": {
        "id": "'use_' || lpad(nextval('floor_serial')::text, 23, '0')",
        "idempotency_key": "'floor-' || nextval('floor_serial')",
        "account_id": "a.id",
        "seq": "nextval('floor_serial')",
    },
    "ledger_entries": {"account_id": "a.id", "seq": "nextval('floor_serial')", "lot_id": "a.lot_id"},
}
"""What must differ from row to row; all else is copied from a real row."""
_PREPARE = (
    "CREATE SEQUENCE floor_serial START 1000000 CACHE 1000",
    "CREATE TABLE floor_accounts AS SELECT row_number() OVER (ORDER BY accounts.id)::int AS n, accounts.id,"
    " (SELECT min(lots.id) FROM lots WHERE lots.account_id = accounts.id) AS lot_id FROM accounts",
    "ALTER TABLE floor_accounts ADD PRIMARY KEY (n)",
    "ANALYZE",
)


class Floor:
    """Scripts over a copy of the set-up books. `hot` scripts use one account, the others all of them."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._runs = 0
        with psycopg.connect(store.address, autocommit=True) as connection:
            for statement in _PREPARE:
                connection.execute(statement)
            found = connection.execute("SELECT count(*) FROM floor_accounts").fetchone()
            self._accounts: int = found[0] if found else 0
            self._record, self._entry = (
                self._copying(connection, "usage_records", "true"),
                self._copying(connection, "ledger_entries", "reason = 'usage'"),
            )

    @staticmethod
    def _copying(connection: psycopg.Connection[Any], table: str, where: str) -> str:
        """`INSERT INTO table SELECT …`, to be completed by a FROM that offers `a`, the account."""
        cursor = connection.execute(f"SELECT * FROM {table} WHERE {where} LIMIT 1")
        row = cursor.fetchone()
        if row is None:
            raise BenchmarkError(f"no row of {table} to copy")
        names = [column.name for column in cursor.description or ()]
        values = [
            _FREE[table].get(name) or sql.Literal(value).as_string(connection)
            for name, value in zip(names, row, strict=True)
        ]
        listed = ", ".join(f'"{name}"' for name in names)
        return f"INSERT INTO {table} ({listed}) SELECT {', '.join(values)}"

    def _script(self, mode: str, size: int) -> str:
        hot = mode.endswith("-hot")
        choose = rf"\set n {'1' if hot else f'random(1, {self._accounts})'}"
        one = "FROM floor_accounts AS a WHERE a.n = :n"
        account = "(SELECT id FROM floor_accounts WHERE n = :n)"
        deduct = f"UPDATE accounts SET seq = seq + 1 WHERE id = {account}"
        if mode.startswith("one-trip"):
            # The entry's SELECT reads the updated row's id, so the insert waits for the account's lock.
            changed = f"WITH u AS ({deduct} RETURNING id)"
            return f"{choose}\n{changed} {self._entry} FROM floor_accounts AS a JOIN u ON u.id = a.id;\n"
        if mode == "rows":
            source = f"FROM floor_accounts AS a, generate_series(1, {size}) AS g WHERE a.n = :n"
            return f"{choose}\nWITH u AS ({self._record} {source}) {self._entry} {source};\n"
        steps = [
            "BEGIN",
            f"SELECT * FROM accounts WHERE id = {account} FOR UPDATE",
            f"SELECT * FROM lots WHERE account_id = {account} AND open",
            deduct,
            f"{self._record} {one}",
            f"{self._entry} {one}",
            "COMMIT",
        ]
        return f"{choose}\n" + ";\n".join(steps) + ";\n"

    def measure(self, mode: str, size: int, connections: int, seconds: float) -> Figure:
        """Run a script for whole seconds (pgbench knows no others). Raises BenchmarkError."""
        self._runs += 1
        name = f"pgbench-{self._runs}"
        script = self._folder / f"{name}.sql"
        script.write_text(self._script(mode, size))
        whole = math.ceil(seconds)
        command = [str((self._store.programs or Path()) / "pgbench"), "--no-vacuum", "--protocol=prepared"]
        command += [f"--client={connections}", f"--time={whole}", f"--file={script}"]
        command += ["--log", f"--log-prefix={self._folder / name}", self._store.address]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise BenchmarkError(f"pgbench failed on {mode}:\n{done.stderr[-2000:]}")
        latencies = [microseconds / 1e6 for microseconds in self._logged(name)]
        return figure(latencies, whole, size)

    def _logged(self, name: str) -> Iterator[int]:
        """The latency of each transaction, third on its line of the log; the files are removed."""
        for log in self._folder.glob(f"{name}.*"):
            if log.suffix != ".sql":
                with log.open() as lines:
                    yield from (int(line.split()[2]) for line in lines)
            log.unlink()
