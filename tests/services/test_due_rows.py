"""Jobs find what is due by the index that holds nothing else, however much there once was."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Connection, event

from extensions import db
from services import holds, outgoing
from services.stripe import overage, topups
from tests.stripe_world import StripeWorld

JOBS = {
    "ix_holds_open": holds.expire_due,
    "ix_outgoing_deliveries_due": outgoing.deliver_due,
    "ix_overage_bills_due": overage.overdue,
    "ix_auto_top_ups_due": lambda: topups.buy_due(by_hand=False),
}


@pytest.mark.parametrize("index", JOBS)
def test_what_is_due_is_found_by_its_index(stripe: StripeWorld, index: str) -> None:
    asked: list[tuple[str, Any]] = []

    def listen(_conn: Connection, _cursor: Any, sql: str, params: Any, *_rest: Any) -> None:
        asked.append((sql, params))

    with stripe.app.app_context():
        event.listen(db.engine, "before_cursor_execute", listen)
        JOBS[index]()
        event.remove(db.engine, "before_cursor_execute", listen)
        explain = "EXPLAIN QUERY PLAN" if db.engine.dialect.name == "sqlite" else "EXPLAIN"
        with db.engine.connect() as conn:
            if explain == "EXPLAIN":
                conn.execute(sqlalchemy.text("SET enable_seqscan = off"))  # of empty tables all is read at once
            selects = [(sql, params) for sql, params in asked if sql.lstrip().upper().startswith("SELECT")]
            plans = [str(conn.exec_driver_sql(f"{explain} {sql}", params).fetchall()) for sql, params in selects]
    assert any(index in plan for plan in plans), plans
