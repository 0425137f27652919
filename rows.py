"""Set-based reading and writing of whole rows on the hot path, below the ORM.

A row class is a slotted twin of a model: the same attributes and predicates, none of the
instrumentation. A `Statement` is SQL with
its parameters; `run` sends several in one round trip (psycopg's pipeline) or one after another (SQLite).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import Boolean, Connection, Engine, Table
from sqlalchemy.dialects import postgresql

from database import OUTAGES
from models.base import Base
from models.types import ExactDecimal, UtcDateTime, from_microseconds, to_microseconds

M = TypeVar("M", bound=Base)


@dataclass(slots=True)
class Statement:
    """`many` runs the SQL once per parameter row (SQLite's executemany)."""

    sql: str
    params: Any = ()
    many: bool = False
    reads: Callable[[tuple[Any, ...]], Any] | None = None


def run(conn: Connection, statements: Sequence[Statement]) -> list[list[Any]]:
    """Send the statements in order in this transaction; a list of rows for each that reads, else an empty one."""
    raw: Any = conn.connection.driver_connection
    if conn.dialect.name == "sqlite":
        return [_run_sqlite(raw, statement) for statement in statements]
    with raw.pipeline():
        cursors = [raw.cursor().execute(statement.sql, statement.params) for statement in statements]
    return [
        [statement.reads(row) for row in cursor.fetchall()] if statement.reads else []
        for statement, cursor in zip(statements, cursors, strict=True)
    ]


def glance(engine: Engine, statements: Sequence[Statement]) -> list[list[Any]]:
    """Read at one moment, in one round trip, past the ORM and its transactions; a list of rows for each statement.

    A connection that turns out to be dead is replaced, and the reading done once more.
    """
    for attempt in (1, 2):
        borrowed = engine.raw_connection()
        try:
            return _read_at_once(engine, borrowed.driver_connection, statements)
        except OUTAGES:
            borrowed.invalidate()
            if attempt == 2:
                raise
            engine.dispose()
        finally:
            borrowed.close()
    raise AssertionError("unreachable")


def _read_at_once(engine: Engine, raw: Any, statements: Sequence[Statement]) -> list[list[Any]]:
    one = len(statements) == 1
    if engine.dialect.name == "sqlite":
        if one:
            return [_run_sqlite(raw, statements[0])]
        raw.execute("BEGIN")
        results = [_run_sqlite(raw, statement) for statement in statements]
        raw.execute("COMMIT")
        return results
    with raw.pipeline():
        if not one:
            raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursors = [raw.cursor().execute(statement.sql, statement.params) for statement in statements]
        raw.commit()
    return [
        [statement.reads(row) for row in cursor.fetchall()] if statement.reads else []
        for statement, cursor in zip(statements, cursors, strict=True)
    ]


def _run_sqlite(raw: Any, statement: Statement) -> list[Any]:
    if statement.many:
        raw.executemany(statement.sql, statement.params)
        return []
    cursor = raw.execute(statement.sql, statement.params)
    return [statement.reads(row) for row in cursor] if statement.reads else []


def _same(value: Any) -> Any:
    return value


def _time_in(value: Any) -> Any:
    return None if value is None else to_microseconds(value)


def _time_out(value: Any) -> Any:
    return None if value is None else from_microseconds(value)


def _decimal_in(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def _decimal_out(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _bool_out(value: Any) -> Any:
    return None if value is None else bool(value)


def _converters(column: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """To and from SQLite; PostgreSQL's driver speaks Python's types itself."""
    if isinstance(column.type, UtcDateTime):
        return _time_in, _time_out
    if isinstance(column.type, ExactDecimal):
        return _decimal_in, _decimal_out
    if isinstance(column.type, Boolean):
        return _same, _bool_out
    return _same, _same


class Rows(Generic[M]):
    """Everything `rows` can do with one model's table."""

    def __init__(self, model: type[M]) -> None:
        self.table: Table = model.__table__  # type: ignore[assignment]
        self.columns = [column.name for column in self.table.columns]
        self.select_list = ", ".join(f'"{name}"' for name in self.columns)
        self.name = self.table.name
        self._keys = [column.name for column in self.table.primary_key.columns]
        self._in = {column.name: _converters(column)[0] for column in self.table.columns}
        self._out = [_converters(column)[1] for column in self.table.columns]
        dialect = postgresql.dialect()
        self._pg_type = {
            column.name: column.type.compile(dialect).split(" COLLATE")[0].split("(")[0]
            for column in self.table.columns
        }
        self._row_class = self._make_row_class(model)
        self._sql: dict[Any, str] = {}

    def _make_row_class(self, model: type[M]) -> type[Any]:
        arguments = ", ".join(f"{name}=None" for name in self.columns)
        body = "\n".join(f"    self.{name} = {name}" for name in self.columns)
        namespace: dict[str, Any] = {}
        # Built as dataclasses builds them: one plain __init__, an order of magnitude faster than a loop.
        exec(f"def __init__(self, {arguments}):\n{body}", namespace)  # noqa: S102
        predicates = {name: value for name, value in vars(model).items() if isinstance(value, property)}
        members = {"__slots__": tuple(self.columns), "__init__": namespace["__init__"]} | predicates
        return type(f"{model.__name__}Row", (), members)

    def make(self, **values: Any) -> M:
        """A new row; columns not named are None."""
        return self._row_class(**values)  # type: ignore[no-any-return]

    def _load_sqlite(self, values: tuple[Any, ...]) -> M:
        return self._row_class(*[out(value) for out, value in zip(self._out, values, strict=True)])  # type: ignore[no-any-return]

    def _load(self, values: tuple[Any, ...]) -> M:
        return self._row_class(*values)  # type: ignore[no-any-return]

    def select(self, conn: Connection | Engine, where: str, *params: Any) -> Statement:
        """Rows that match `where`, in which `IN ?` takes a list and `?` a value, written alike for both databases."""
        key = (conn.dialect.name, where)
        if conn.dialect.name == "sqlite":
            if key not in self._sql:
                text = where.replace("IN ?", "IN (SELECT value FROM json_each(?))").split(" FOR UPDATE")[0]
                self._sql[key] = f"SELECT {self.select_list} FROM {self.name} WHERE {text}"
            return Statement(self._sql[key], [_sqlite_param(p) for p in params], reads=self._load_sqlite)
        if key not in self._sql:
            text = where.replace("%", "%%").replace("IN ?", "= ANY(%s)").replace("?", "%s")
            self._sql[key] = f"SELECT {self.select_list} FROM {self.name} WHERE {text}"
        return Statement(self._sql[key], params, reads=self._load)

    def insert(self, conn: Connection, rows: Sequence[M], replace: str | None = None) -> Statement:
        """Insert whole rows; `replace` names the column to overwrite where the primary key exists."""
        key = (conn.dialect.name, "insert", replace)
        if key not in self._sql:
            source = (
                f"VALUES ({', '.join('?' for _ in self.columns)})"
                if conn.dialect.name == "sqlite"
                else f"SELECT * FROM unnest({self._unnest(self.columns)})"
            )
            found = ", ".join(f'"{name}"' for name in self._keys)
            clash = f" ON CONFLICT ({found}) DO UPDATE SET {replace} = excluded.{replace}"
            self._sql[key] = f"INSERT INTO {self.name} ({self.select_list}) {source}{clash if replace else ''}"
        return self._write(conn, self._sql[key], self.columns, rows)

    def add(self, conn: Connection, rows: Sequence[M], columns: Sequence[str]) -> Statement:
        """Insert rows; where the primary key exists, add the values of `columns` to those that are there."""
        key = (conn.dialect.name, "add", *columns)
        if key not in self._sql:
            sets = ", ".join(f'"{name}" = {self._sum(conn, name)}' for name in columns)
            found = ", ".join(f'"{name}"' for name in self._keys)
            self._sql[key] = f"{self.insert(conn, []).sql} ON CONFLICT ({found}) DO UPDATE SET {sets}"
        return self._write(conn, self._sql[key], self.columns, rows)

    def _sum(self, conn: Connection, name: str) -> str:
        both = f'{self.name}."{name}"', f'excluded."{name}"'
        exact = conn.dialect.name == "sqlite" and isinstance(self.table.columns[name].type, ExactDecimal)
        return f"decimal_add({', '.join(both)})" if exact else " + ".join(both)

    def update(self, conn: Connection, rows: Sequence[M], columns: Sequence[str]) -> Statement:
        """Set `columns` of existing rows, found by primary key."""
        key = (conn.dialect.name, "update", *columns)
        if key not in self._sql:
            if conn.dialect.name == "sqlite":
                sets = ", ".join(f'"{name}" = ?' for name in columns)
                found = " AND ".join(f'"{name}" = ?' for name in self._keys)
                self._sql[key] = f"UPDATE {self.name} SET {sets} WHERE {found}"
            else:
                names = [*columns, *self._keys]
                sets = ", ".join(f'"{name}" = v."{name}"' for name in columns)
                found = " AND ".join(f't."{name}" = v."{name}"' for name in self._keys)
                listed = ", ".join(f'"{name}"' for name in names)
                values = f"unnest({self._unnest(names)}) AS v({listed})"
                self._sql[key] = f"UPDATE {self.name} AS t SET {sets} FROM {values} WHERE {found}"
        return self._write(conn, self._sql[key], [*columns, *self._keys], rows)

    def _unnest(self, names: Sequence[str]) -> str:
        return ", ".join(f"%s::{self._pg_type[name]}[]" for name in names)

    def _write(self, conn: Connection, sql: str, names: Sequence[str], rows: Sequence[M]) -> Statement:
        values = [attrgetter(*names)(row) for row in rows]
        if conn.dialect.name != "sqlite":
            return Statement(sql, [list(column) for column in zip(*values, strict=True)])
        converters = [self._in[name] for name in names]
        return Statement(sql, [[c(v) for c, v in zip(converters, row, strict=True)] for row in values], many=True)


def _sqlite_param(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return json.dumps(list(value))
    return to_microseconds(value) if isinstance(value, datetime) else value
