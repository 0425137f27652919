"""Set-based reading and writing of whole rows on the hot path, below the ORM.

A row class is a slotted twin of a model: the same attributes and predicates, none of the
instrumentation. A `Statement` is SQL with
its parameters; `run` sends several in one round trip (PostgreSQL) or one after another (SQLite).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, Generic, TypeVar

import orjson
import psycopg
from sqlalchemy import Boolean, Connection, Engine, String, Table
from sqlalchemy.dialects import postgresql

from database import OUTAGES
from models.base import Base
from models.types import ExactDecimal, UtcDateTime, from_microseconds, to_microseconds

M = TypeVar("M", bound=Base)
_LOCKS = " FOR UPDATE"
_POSTGRESQL_JSON = "(SELECT json_agg(json_build_array({columns})) FROM ({rows}) q)::text"
_SQLITE_JSON = "(SELECT json_group_array(json_array({columns})) FROM ({rows}))"
_MOST_ROWS = 64
_FEW_ROWS = 16
_MANY_ROWS = 50
"""Of so many it is no chance what they share, and they are worth a statement of their own."""
_MOST_TEXTS = 500
"""What is remembered: who sends batches decides what their records share, and so how many texts there are."""
_JSON = json.JSONDecoder(parse_float=Decimal)
"""For PostgreSQL, whose costs are numbers; made once, as making it costs as much as reading a short text with it."""


@dataclass(slots=True)
class Statement:
    """SQL and its parameters: `?` on SQLite, `%s` on PostgreSQL.

    `reads` makes something of each row. A statement whose rows can also come as JSON says how (`reads_json`), and the
    names of its columns; then it can be answered together with others. On SQLite `many` makes the SQL for so many rows
    at once, and `params` holds the values of each row.
    """

    sql: str
    params: Any = ()
    many: Callable[[int], str] | None = None
    reads: Callable[[Sequence[Any]], Any] | None = None
    reads_json: Callable[[Sequence[Any]], Any] | None = None
    columns: Sequence[str] = ()


def run(conn: Connection, statements: Sequence[Statement]) -> list[list[Any]]:
    """Send the statements in order in this transaction; a list of rows for each that reads, else an empty one."""
    raw: Any = conn.connection.driver_connection
    return _run_sqlite(raw, statements) if conn.dialect.name == "sqlite" else _run_postgresql(raw, statements)


def glance(engine: Engine, statements: Sequence[Statement]) -> list[list[Any]]:
    """Read at one moment, in one round trip, past the ORM and its transactions; a list of rows for each statement.

    The moment is that of the one statement that all are merged into: so each must be able to be. A connection that
    turns out to be dead is replaced, and the reading done once more.
    """
    for attempt in (1, 2):
        borrowed = engine.raw_connection()
        try:
            raw: Any = borrowed.driver_connection
            (group,) = _groups(statements)
            return _run_sqlite(raw, group) if engine.dialect.name == "sqlite" else _ask_postgresql(raw, group)
        except OUTAGES:
            borrowed.invalidate()
            if attempt == 2:
                raise
            engine.dispose()
        finally:
            borrowed.close()
    raise AssertionError("unreachable")


def _run_postgresql(raw: Any, statements: Sequence[Statement]) -> list[list[Any]]:
    """In one round trip, and in as few statements as can be: each costs the driver as much as the database."""
    groups = _groups(statements)
    if len(groups) == 1:
        cursors = [_send(raw, groups[0])]
    else:
        with raw.pipeline():
            cursors = [_send(raw, group) for group in groups]
    found = zip(groups, cursors, strict=True)
    return [rows for group, cursor in found for rows in _unpacked(group, cursor, _JSON.decode)]


def _ask_postgresql(raw: Any, group: Sequence[Statement]) -> list[list[Any]]:
    """One statement sees one moment and needs no transaction around it."""
    raw.autocommit = True
    try:
        cursor = _send(raw, group)
    finally:
        if not raw.broken:
            raw.autocommit = False
    return _unpacked(group, cursor, _JSON.decode)


def _send(raw: Any, group: Sequence[Statement]) -> Any:
    sql = _numbered(_merged(tuple((statement.sql, tuple(statement.columns)) for statement in group), _POSTGRESQL_JSON))
    return psycopg.RawCursor(raw).execute(sql, [param for statement in group for param in statement.params])


@functools.lru_cache(maxsize=_MOST_TEXTS)
def _numbered(sql: str) -> bytes:
    """The SQL as the server takes it, so that the driver need not take it apart each time."""
    pieces = sql.split("%s")
    numbered = "".join(f"{piece}${number}" for number, piece in enumerate(pieces[:-1], 1)) + pieces[-1]
    return numbered.replace("%%", "%").encode()


def _run_sqlite(raw: Any, statements: Sequence[Statement]) -> list[list[Any]]:
    """In as few calls as can be: in each of them other threads take the interpreter over, and give it back late."""
    results: list[list[Any]] = []
    for group in _groups(statements):
        if group[0].reads is None:
            for statement in group:
                _write_sqlite(raw, statement)
                results.append([])
        else:
            sql = _merged(tuple((statement.sql, tuple(statement.columns)) for statement in group), _SQLITE_JSON)
            cursor = raw.execute(sql, [param for statement in group for param in statement.params])
            results += _unpacked(group, cursor, orjson.loads)  # no number of ours has a fraction there
    return results


def _write_sqlite(raw: Any, statement: Statement) -> None:
    if statement.many is None:
        raw.execute(statement.sql, statement.params)
        return
    rows = statement.params
    while rows:
        # What callers at once make is one call: in each of them other threads take the interpreter over. Beyond that
        # powers of two, so that there are few texts for the driver to remember.
        count = len(rows) if len(rows) <= _FEW_ROWS else min(_MOST_ROWS, 1 << (len(rows).bit_length() - 1))
        raw.execute(statement.many(count), [value for row in rows[:count] for value in row])
        rows = rows[count:]


def _groups(statements: Sequence[Statement]) -> list[list[Statement]]:
    """Neighbours that can be one statement: readers that can answer in JSON, or writers."""
    groups: list[list[Statement]] = []
    for statement in statements:
        kind = _kind(statement)
        if groups and kind is not None and kind == _kind(groups[-1][-1]):
            groups[-1].append(statement)
        else:
            groups.append([statement])
    return groups


def _kind(statement: Statement) -> str | None:
    """A statement that locks must be over before the next one looks, so it stays alone."""
    if statement.reads is None:
        return "writes"
    return "reads" if statement.reads_json is not None and not statement.sql.endswith(_LOCKS) else None


@functools.lru_cache(maxsize=_MOST_TEXTS)
def _merged(shapes: tuple[tuple[str, tuple[str, ...]], ...], to_json: str) -> str:
    """One SQL text."""
    if len(shapes) == 1:
        return shapes[0][0]
    if shapes[0][1]:
        return "SELECT " + ", ".join(to_json.format(columns=_listed(names), rows=sql) for sql, names in shapes)
    # Writers see the same moment and never each other's rows: no two of a transaction change the same one.
    parts = (f"w{number} AS ({sql})" for number, (sql, _) in enumerate(shapes))
    return f"WITH {', '.join(parts)} SELECT 1"


def _unpacked(group: Sequence[Statement], cursor: Any, loads: Callable[[str], Any]) -> list[list[Any]]:
    """The rows of each statement of a group."""
    if group[0].reads is None:
        return [[] for _ in group]
    if len(group) == 1:
        return [[group[0].reads(row) for row in cursor.fetchall()]]
    return [
        [statement.reads_json(row) for row in loads(text)]  # type: ignore[misc]
        if text is not None
        else []
        for statement, text in zip(group, cursor.fetchone(), strict=True)
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _same(value: Any) -> Any:
    return value


def _sum(row: Sequence[Any]) -> tuple[Any, ...]:
    """PostgreSQL adds up to decimals."""
    return *row[:-1], int(row[-1])


def _tuple(*values: Any) -> tuple[Any, ...]:
    return values


# Of times there are few: the period's, the allowance's, and this moment.
_time_in = functools.lru_cache(maxsize=10_000)(to_microseconds)
_time_out = functools.lru_cache(maxsize=10_000)(from_microseconds)


def _of_json(column: Any) -> Callable[[Any], Any]:
    """From PostgreSQL's JSON, where a number without a fraction comes as int."""
    if isinstance(column.type, UtcDateTime):
        return datetime.fromisoformat
    return Decimal if isinstance(column.type, ExactDecimal) else _same


def _compiled(arguments: str, parts: Sequence[str], converters: Sequence[Callable[[Any], Any]], make: Any) -> Any:
    """A function of `arguments` that makes something of each of the `parts`, converted.

    Made as dataclasses make theirs: a loop over the columns took several times as long.
    """
    called = [
        part if convert is _same else f"None if {part} is None else c{number}({part})"
        for number, (part, convert) in enumerate(zip(parts, converters, strict=True))
    ]
    names = {f"c{number}": convert for number, convert in enumerate(converters)}
    return eval(f"lambda {arguments}: make({', '.join(called)})", {"make": make, **names})  # noqa: S307


def _converters(column: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """To and from SQLite, but for None; PostgreSQL's driver speaks Python's types itself."""
    if isinstance(column.type, UtcDateTime):
        return _time_in, _time_out
    if isinstance(column.type, ExactDecimal):
        return str, Decimal
    if isinstance(column.type, Boolean):
        return _same, bool
    return _same, _same


def _array(written: Callable[[Any], str]) -> Callable[[Sequence[Any]], str]:
    """PostgreSQL's text of an array. The driver, which asks each element what it is, took a fifth of a batch's time."""

    def array(values: Sequence[Any]) -> str:
        if None in values:
            return "{" + ",".join(["NULL" if value is None else written(value) for value in values]) + "}"
        return "{" + ",".join(map(written, values)) + "}"

    return array


def _or_null(written: Callable[[Any], str]) -> Callable[[Any], str | None]:
    return written if written is _same else lambda value: None if value is None else written(value)


def _written(column: Any) -> Callable[[Any], str]:
    """How a value of a column is written for PostgreSQL."""
    if isinstance(column.type, String):
        return _same
    if isinstance(column.type, UtcDateTime):  # a transaction has few of them
        return functools.lru_cache(maxsize=10_000)(datetime.isoformat)
    return str


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _texts(values: Sequence[str | None]) -> str:
    """The same of texts, of which hardly any holds what must be quoted within quotes."""
    if values and None not in values:
        joined = '","'.join(values)  # type: ignore[arg-type]
        if joined.count('"') == 2 * len(values) - 2 and "\\" not in joined:
            return f'{{"{joined}"}}'
    return _any_texts(values)


_any_texts = _array(_quoted)


class Rows(Generic[M]):
    """Everything `rows` can do with one model's table."""

    def __init__(self, model: type[M]) -> None:
        self.table: Table = model.__table__  # type: ignore[assignment]
        self.columns = [column.name for column in self.table.columns]
        self.select_list = ", ".join(f'"{name}"' for name in self.columns)
        self.name = self.table.name
        self._select = f"SELECT {self.select_list} FROM {self.name} WHERE "
        self._keys = [column.name for column in self.table.primary_key.columns]
        self._in = {column.name: _converters(column)[0] for column in self.table.columns}
        dialect = postgresql.dialect()
        self._pg_type = {
            column.name: column.type.compile(dialect).split(" COLLATE")[0].split("(")[0]
            for column in self.table.columns
        }
        written = {column.name: _written(column) for column in self.table.columns}
        self._pg_text = {name: _or_null(write) for name, write in written.items()}
        self._pg_array = {name: _texts if write is _same else _array(write) for name, write in written.items()}
        self._postgresql_text = functools.lru_cache(maxsize=_MOST_TEXTS)(self._make_postgresql_text)
        self.make: Callable[..., M] = self._make_row_class(model)
        """Makes a new row; columns not named are None."""
        columns, values = self.table.columns, [f"v[{number}]" for number in range(len(self.columns))]
        self._load_sqlite = _compiled("v", values, [_converters(column)[1] for column in columns], self.make)
        self._load_json = _compiled("v", values, [_of_json(column) for column in columns], self.make)
        self._sql: dict[Any, Any] = {}
        self._values_of: dict[Any, Callable[[M], Sequence[Any]]] = {}
        """For each text of SQLite's: what it takes of a row."""

    def _make_row_class(self, model: type[M]) -> type[Any]:
        arguments = ", ".join(f"{name}=None" for name in self.columns)
        body = "\n".join(f"    self.{name} = {name}" for name in self.columns)
        namespace: dict[str, Any] = {}
        # Built as dataclasses builds them: one plain __init__, an order of magnitude faster than a loop.
        exec(f"def __init__(self, {arguments}):\n{body}", namespace)  # noqa: S102
        predicates = {name: value for name, value in vars(model).items() if isinstance(value, property)}
        members = {"__slots__": tuple(self.columns), "__init__": namespace["__init__"]} | predicates
        return type(f"{model.__name__}Row", (), members)

    def _load(self, values: Sequence[Any]) -> M:
        return self.make(*values)

    def select(self, conn: Connection | Engine, where: str, *params: Any) -> Statement:
        """Rows that match `where`, in which `IN ?` takes a list of texts and `?` a value, for both databases alike."""
        sql, values = self._asked(conn, self._select, where, "", params)
        if conn.dialect.name == "sqlite":
            return Statement(sql, values, None, self._load_sqlite, self._load_sqlite, self.columns)
        return Statement(sql, values, None, self._load, self._load_json, self.columns)

    def sums(self, conn: Connection | Engine, by: Sequence[str], what: str, where: str, *params: Any) -> Statement:
        """A tuple for each different `by` of the rows that match: them, and the sum of whole numbers `what`."""
        names = ", ".join(by)
        select = f"SELECT {names}, sum({what}) AS total FROM {self.name} WHERE "
        sql, values = self._asked(conn, select, where, f" GROUP BY {names}", params)
        return Statement(sql, values, None, _sum, _sum, (*by, "total"))

    def _asked(
        self, conn: Connection | Engine, select: str, where: str, rest: str, params: Sequence[Any]
    ) -> tuple[str, list[Any]]:
        """The SQL and its parameters."""
        if conn.dialect.name == "sqlite":
            alone = tuple([type(value) is list and len(value) == 1 and type(value[0]) is str for value in params])
            sql = self._sql.get((select, where, alone))
            if sql is None:
                text = _sqlite_where(where, alone).removesuffix(_LOCKS)
                sql = self._sql[select, where, alone] = f"{select}{text}{rest}"
            return sql, [value[0] if one else _sqlite_param(value) for value, one in zip(params, alone, strict=True)]
        sql = self._sql.get((select, where))
        if sql is None:
            text = where.replace("%", "%%").replace("IN ?", "= ANY(%s::text[])").replace("?", "%s")
            sql = self._sql[select, where] = f"{select}{text}{rest}"
        return sql, [_texts(p) if isinstance(p, list | tuple) else p for p in params]

    def insert(self, conn: Connection, rows: Sequence[M], replace: str | None = None) -> Statement:
        """Insert whole rows; `replace` names the column to overwrite where the primary key exists."""
        return self._insert(conn, rows, "insert", (replace,) if replace else ())

    def add(self, conn: Connection, rows: Sequence[M], columns: Sequence[str]) -> Statement:
        """Insert rows; where the primary key exists, add the values of `columns` to those that are there."""
        return self._insert(conn, rows, "add", columns)

    def _insert(self, conn: Connection, rows: Sequence[M], how: str, columns: Sequence[str]) -> Statement:
        if conn.dialect.name != "sqlite":
            return self._write_postgresql(how, tuple(columns), self.columns, rows)
        key: tuple[Any, ...] = (how, *columns)
        if key not in self._sql:
            clash = self._clash(how, columns, self._sqlite_sum)
            self._sql[key] = _sqlite_texts(f"{self._into()} VALUES {{rows}}{clash}", len(self.columns))
        return self._write_sqlite(self._sql[key], self.columns, rows)

    def _into(self) -> str:
        return f"INSERT INTO {self.name} ({self.select_list})"

    def _clash(self, how: str, columns: Sequence[str], add: Callable[[str], str]) -> str:
        if not columns:
            return ""
        new = {name: add(name) if how == "add" else f'excluded."{name}"' for name in columns}
        sets = ", ".join(f'"{name}" = {value}' for name, value in new.items())
        return f" ON CONFLICT ({_listed(self._keys)}) DO UPDATE SET {sets}"

    def _plain_sum(self, name: str) -> str:
        return f'{self.name}."{name}" + excluded."{name}"'

    def _sqlite_sum(self, name: str) -> str:
        exact = isinstance(self.table.columns[name].type, ExactDecimal)
        return f'decimal_add({self.name}."{name}", excluded."{name}")' if exact else self._plain_sum(name)

    def update(self, conn: Connection, rows: Sequence[M], columns: Sequence[str]) -> Statement:
        """Set `columns` of existing rows, found by primary key."""
        names = [*columns, *self._keys]
        if conn.dialect.name != "sqlite":
            return self._write_postgresql("update", tuple(columns), names, rows)
        key = ("update", *columns)
        if key not in self._sql:
            # SQLite names the columns of VALUES column1, column2 …
            number = {name: position for position, name in enumerate(names, 1)}
            sets = ", ".join(f'"{name}" = v.column{number[name]}' for name in columns)
            found = " AND ".join(f't."{name}" = v.column{number[name]}' for name in self._keys)
            text = f"UPDATE {self.name} AS t SET {sets} FROM (VALUES {{rows}}) AS v WHERE {found}"
            self._sql[key] = _sqlite_texts(text, len(names))
        return self._write_sqlite(self._sql[key], names, rows)

    def _write_postgresql(
        self, how: str, changed: tuple[str, ...], names: Sequence[str], rows: Sequence[M]
    ) -> Statement:
        """Every parameter is a text, so that one prepared statement serves whatever the values are.

        A value that all rows share is sent once: in a batch most columns are such, and an array costs both sides for
        each element. Few rows may agree by chance; their statements would be too many to stay prepared.
        """
        columns = list(zip(*map(attrgetter(*names), rows), strict=True))
        if len(rows) == 1:
            shared = (True,) * len(names)
        elif len(rows) < _MANY_ROWS:
            shared = (False,) * len(names)
        else:
            shared = tuple([column.count(column[0]) == len(column) for column in columns])
        values = list(zip(names, columns, shared, strict=True))
        params = [self._pg_text[name](column[0]) for name, column, one in values if one]
        params += [self._pg_array[name](column) for name, column, one in values if not one]
        return Statement(self._postgresql_text(how, changed, shared), params)

    def _make_postgresql_text(self, how: str, changed: tuple[str, ...], shared: tuple[bool, ...]) -> str:
        """The SQL, in which the shared values come before the arrays."""
        if how != "update":
            return f"{self._into()} {self._source(self.columns, shared)}{self._clash(how, changed, self._plain_sum)}"
        names = [*changed, *self._keys]
        sets = ", ".join(f'"{name}" = v."{name}"' for name in changed)
        found = " AND ".join(f't."{name}" = v."{name}"' for name in self._keys)
        return f"UPDATE {self.name} AS t SET {sets} FROM ({self._source(names, shared)}) AS v WHERE {found}"

    def _source(self, names: Sequence[str], shared: Sequence[bool]) -> str:
        """A SELECT of so many rows as the arrays have elements."""
        chosen = list(zip(names, shared, strict=True))
        values = ", ".join(f'%s::{self._pg_type[name]} AS "{name}"' if one else f'a."{name}"' for name, one in chosen)
        arrays = ", ".join(f"%s::{self._pg_type[name]}[]" for name, one in chosen if not one)
        if not arrays:
            return f"SELECT {values}"
        return f"SELECT {values} FROM unnest({arrays}) AS a({_listed([name for name, one in chosen if not one])})"

    def _write_sqlite(self, many: Callable[[int], str], names: Sequence[str], rows: Sequence[M]) -> Statement:
        values = self._values_of.get(many)
        if values is None:
            parts = [f"row.{name}" for name in names]
            values = self._values_of[many] = _compiled("row", parts, [self._in[name] for name in names], _tuple)
        return Statement(many(1), [values(row) for row in rows], many=many)


def _sqlite_texts(text: str, width: int) -> Callable[[int], str]:
    """The SQL for so many rows of `width` values each."""
    row = f"({', '.join('?' * width)})"
    return functools.lru_cache(maxsize=None)(lambda count: text.format(rows=", ".join([row] * count)))


def _sqlite_where(where: str, alone: Sequence[bool]) -> str:
    """`alone` tells of each parameter whether it is a list of one text: then there is nothing to unfold."""
    pieces, are_alone = re.split(r"(\bIN \?|\?)", where), iter(alone)
    for number in range(1, len(pieces), 2):
        one = next(are_alone)
        if pieces[number] == "IN ?":
            pieces[number] = "= ?" if one else "IN (SELECT value FROM json_each(?))"
    return "".join(pieces)


def _sqlite_param(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return orjson.dumps(value).decode()
    return to_microseconds(value) if isinstance(value, datetime) else value
