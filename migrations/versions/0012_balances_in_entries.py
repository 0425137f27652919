"""Every ledger entry keeps the balances of all three kinds, so the index of entries by kind is not needed any more.

Revision 0012, after 0011. The balances are summed up from the changes: by one statement that writes every entry of
PostgreSQL's once more, and while SQLite's table is copied once. What a void gave back has its index.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLE = "ledger_entries"
_KINDS = ("allowance", "purchased", "granted")
_AFTERS = [f"{kind}_after" for kind in _KINDS]
_CHECK = "ck_ledger_entries_after"
_OF_ALL = f"{' AND '.join(f'{after} >= 0' for after in _AFTERS)} AND balance_after = {' + '.join(_AFTERS)}"
_OF_ONE = "kind_after >= 0 AND balance_after >= kind_after"
_SUMS = [
    f"CAST(coalesce(sum(change) FILTER (WHERE kind = '{kind}') OVER until_then, 0) AS BIGINT) AS {kind}_after"
    for kind in _KINDS
]
_UNTIL_THEN = "WINDOW until_then AS (PARTITION BY account_id ORDER BY seq ROWS UNBOUNDED PRECEDING)"
_OWN = "CASE kind WHEN 'allowance' THEN allowance_after WHEN 'purchased' THEN purchased_after ELSE granted_after END"
_SETTLED = sa.text("reason = 'settle'")
_CAUSE = sa.text("reason IN ('settle','void')")


def upgrade() -> None:
    op.drop_index("ix_ledger_entries_kind", _TABLE)
    op.drop_index("ix_ledger_entries_settled", _TABLE)
    if op.get_bind().dialect.name == "sqlite":
        _copy(["kind_after"], _AFTERS, _OF_ONE, _OF_ALL, _SUMS, _UNTIL_THEN)
    else:
        source = f"SELECT account_id, seq, {', '.join(_SUMS)} FROM {_TABLE} {_UNTIL_THEN}"  # noqa: S608 - our own names
        found = f"{source}) AS s WHERE s.account_id = {_TABLE}.account_id AND s.seq = {_TABLE}.seq"
        _replace(["kind_after"], _AFTERS, _OF_ALL, f"{', '.join(f'{a} = s.{a}' for a in _AFTERS)} FROM ({found}")
    op.create_index("ix_ledger_entries_cause", _TABLE, ["cause_id"], sqlite_where=_CAUSE, postgresql_where=_CAUSE)


def downgrade() -> None:
    op.drop_index("ix_ledger_entries_cause", _TABLE)
    if op.get_bind().dialect.name == "sqlite":
        _copy(_AFTERS, ["kind_after"], _OF_ALL, _OF_ONE, [_OWN])
    else:
        _replace(_AFTERS, ["kind_after"], _OF_ONE, f"kind_after = {_OWN}")
    op.create_index("ix_ledger_entries_settled", _TABLE, ["cause_id"], sqlite_where=_SETTLED, postgresql_where=_SETTLED)
    op.create_index("ix_ledger_entries_kind", _TABLE, ["account_id", "kind", "created_at", "seq"])


def _replace(old: Sequence[str], new: Sequence[str], check: str, values: str) -> None:
    """Columns of PostgreSQL's table by others, which an UPDATE gives their values."""
    op.drop_constraint(op.f(_CHECK), _TABLE, type_="check")
    for name in new:
        op.add_column(_TABLE, sa.Column(name, sa.BigInteger()))
    op.execute(f"UPDATE {_TABLE} SET {values}")  # noqa: S608 - our own names
    for name in new:
        op.alter_column(_TABLE, name, nullable=False)
    op.create_check_constraint(op.f(_CHECK), _TABLE, check)
    for name in old:
        op.drop_column(_TABLE, name)


def _copy(
    old: Sequence[str], new: Sequence[str], old_check: str, check: str, values: Sequence[str], window: str = ""
) -> None:
    """The same on SQLite: copy the table into one that is defined a little differently, in the order of its key."""
    bind = op.get_bind()
    kept = "SELECT sql FROM sqlite_master WHERE tbl_name = :table AND type = :type AND sql IS NOT NULL"
    (definition,) = bind.scalars(sa.text(kept), {"table": _TABLE, "type": "table"})
    indexes = list(bind.scalars(sa.text(kept), {"table": _TABLE, "type": "index"}))
    columns = [column["name"] for column in sa.inspect(bind).get_columns(_TABLE)]
    place = columns.index(old[0])
    taken = [*columns[:place], *values, *columns[place + len(old) :]]
    for before, after in (
        (
            r",\s*".join(rf"{name} BIGINT NOT NULL" for name in old),
            ", ".join(f"{name} BIGINT NOT NULL" for name in new),
        ),
        (re.escape(old_check), check),
        (rf'^CREATE TABLE "?{_TABLE}"?', f'CREATE TABLE "{_TABLE}_new"'),
    ):
        definition, found = re.subn(before, after, definition)
        if found != 1:
            raise RuntimeError(f"{_TABLE} is not defined as expected: {definition}")
    for statement in (
        definition,
        f"INSERT INTO {_TABLE}_new SELECT {', '.join(taken)} FROM {_TABLE} {window} ORDER BY account_id, seq",  # noqa: S608
        f"DROP TABLE {_TABLE}",
        f"ALTER TABLE {_TABLE}_new RENAME TO {_TABLE}",
        *indexes,
    ):
        bind.exec_driver_sql(statement)
