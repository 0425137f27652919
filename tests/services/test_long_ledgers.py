"""An account's ledger may be very long: what reads of it finds its place in few steps, and always the same place."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
import sqlalchemy
from flask import Flask
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Connection, event, select, update

import database as databases
from extensions import db
from models.account import Account
from models.credit import LedgerEntry, Lot
from services import controls, explain, statements
from tests import factories
from tests.factories import Api

_ENTRIES = LedgerEntry.__table__
_START = datetime(2026, 1, 1, tzinfo=UTC)
_NEVER = datetime(2100, 1, 1, tzinfo=UTC)
_LONG = 20_000


def write(conn: Connection, account_id: str, entries: Sequence[tuple[int, datetime]]) -> None:
    """Give the account these entries (number, time); after each it has as many millionths as its number."""
    lot = conn.execute(select(Lot.id).where(Lot.account_id == account_id)).scalars().first()
    same = {"account_id": account_id, "lot_id": lot, "kind": "granted", "change": 1, "reason": "usage"}
    same |= {"cause_type": "usage", "cause_id": "x", "lot_remaining": 1, "allowance_after": 0, "purchased_after": 0}
    rows = [same | {"seq": n, "granted_after": n, "balance_after": n, "created_at": at} for n, at in entries]
    if rows:
        conn.execute(_ENTRIES.insert(), rows)
    highest = max((number for number, _ in entries), default=0)
    conn.execute(update(Account).where(Account.id == account_id, Account.seq < highest).values(seq=highest))


def number_at(account_id: str, moment: datetime) -> int:
    drawn = statements.draw_up(account_id, moment, _NEVER)
    assert drawn.opening == {"allowance": 0, "purchased": 0, "granted": drawn.first}
    return drawn.first


# Gaps are the numbers of usage records; most entries come after the one before, some clocks are set back.
_HISTORIES = st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0, 1, 1, 2, 5, -1, -9])), max_size=40)


def test_the_number_of_a_moment(app: Flask) -> None:
    account_id = factories.account(app)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(history=_HISTORIES, cut=st.integers(0, 40))
    def numbers(history: list[tuple[int, int]], cut: int) -> None:
        seqs = list(itertools.accumulate(gap for gap, _ in history))
        hours = list(itertools.accumulate(step for _, step in history))
        entries = [(seq, _START + timedelta(hours=hour)) for seq, hour in zip(seqs, hours, strict=True)]
        moments = [_START + timedelta(hours=hour) for hour in range(min(hours, default=0), max(hours, default=0) + 2)]
        with databases.connection() as conn:
            conn.execute(_ENTRIES.delete().where(_ENTRIES.c.account_id == account_id))
            conn.execute(update(Account).where(Account.id == account_id).values(seq=0))
            write(conn, account_id, entries[:cut])
        early = [number_at(account_id, moment) for moment in moments]
        with databases.connection() as conn:
            write(conn, account_id, entries[cut:])
        late = [number_at(account_id, moment) for moment in moments]

        assert late == sorted(late), "a later moment has no lower number"
        assert (late[0], late[-1]) == (0, seqs[-1] if seqs else 0)
        for moment, before, after in zip(moments, early, late, strict=True):
            if all(at >= moment for _, at in entries[cut:]):
                assert before == after, "what is dated later moves nothing"
            if hours == sorted(hours):
                assert after == max((seq for seq, at in entries if at < moment), default=0)

    with app.app_context():
        numbers()


@pytest.fixture
def amid(app: Flask, operator: Api) -> tuple[str, str]:
    """A voided record, settled before, and another, of an account with 20,000 entries older and as many younger."""
    factories.account(app, "acme", credits=100, included=5)

    def more() -> None:
        with app.app_context(), databases.connection() as conn:
            account = conn.execute(select(Account.id, Account.seq).where(Account.external_id == "acme")).one()
            now = conn.execute(select(sqlalchemy.func.max(LedgerEntry.created_at))).scalar_one()
            write(conn, account.id, [(account.seq + n, now + timedelta(microseconds=n)) for n in range(1, _LONG + 1)])

    more()
    record = operator.post("/usage", {"account": "acme", "credits": 200, "enforce": False}).json["id"]
    operator.post("/accounts/acme/grants", {"credits": 20, "reason": "x"})
    assert operator.post(f"/usage/records/{record}/void", {"reason": "x"}).status == 200
    other = operator.post("/usage", {"account": "acme", "credits": 1}).json["id"]
    more()
    return str(record), str(other)


@pytest.mark.parametrize("database", ["sqlite"])
def test_few_steps_lead_to_what_is_looked_for(app: Flask, operator: Api, amid: tuple[str, str]) -> None:
    """Counted in thousands of the database's instructions: to read the whole ledger takes a few hundred."""
    ticks = 0

    def tick() -> int:
        nonlocal ticks
        ticks += 1
        return 0

    def watch(raw: Any, *_rest: Any) -> None:
        raw.set_progress_handler(tick, 1000)

    def steps(call: Callable[[], Any]) -> int:
        nonlocal ticks
        ticks = 0
        call()
        return ticks

    def done(answer: factories.Answer) -> None:
        assert answer.status == 200, answer

    voided, other = amid
    cap = {"scope": "account", "window": "period", "credits": 9}
    with app.app_context():
        account_id = factories.accounts.resolve("acme")
        event.listen(db.engine, "checkout", watch)
        month = statements.month(None)
        whole = steps(lambda: [*statements.pieces(statements.draw_up(account_id, *month))])
        looks = {
            "statement": lambda: statements.draw_up(account_id, *month),
            "movements": lambda: statements.movements(statements.draw_up(account_id, *month)),
            "explanation": lambda: explain.explain(voided, None),
            "void": lambda: done(operator.post(f"/usage/records/{other}/void", {"reason": "x"})),
            "reset": lambda: done(operator.post("/accounts/acme/reset-limit", {"reason": "x"})),
            "plan": lambda: done(operator.post("/accounts/acme/plan", {"tier": "basic", "included_credits": 9})),
            "cap": lambda: done(operator.put("/controls", {"account": "acme", "caps": [cap]})),
            "again": lambda: done(operator.post("/accounts/acme/plan", {"tier": "free"})),
        }
        told = {name: steps(look) for name, look in looks.items()}
    assert whole > 200
    assert {name: count for name, count in told.items() if count > 20} == {}


@pytest.mark.parametrize("database", ["postgresql"])
def test_the_rare_entries_are_found_by_their_index(app: Flask, operator: Api) -> None:
    """Also where the plan is made once for every value, as it is for the app."""
    account_id = factories.account(app, "acme", credits=9)
    cap = {"scope": "account", "window": "period", "credits": 9}
    assert operator.put("/controls", {"account": "acme", "caps": [cap]}).status == 200
    asked: list[str] = []

    def listen(_conn: Connection, _cursor: Any, sql: str, *_rest: Any) -> None:
        if "FROM ledger_entries" in sql:
            numbers = itertools.count(1)
            asked.append(re.sub(r"%\(\w+\)s", lambda _match: f"${next(numbers)}", sql))

    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", listen)
        statements.movements(statements.draw_up(account_id, _START, _NEVER))
        with databases.snapshot() as conn:
            assert list(controls.miscounted(conn, account_id)) == []
        event.remove(db.engine, "before_cursor_execute", listen)
        with db.engine.connect() as conn:
            conn.exec_driver_sql("SET enable_seqscan = off")  # of a short table all is read at once
            conn.exec_driver_sql("SET enable_bitmapscan = off")
            plans = [str(conn.exec_driver_sql(f"EXPLAIN (GENERIC_PLAN) {sql}").fetchall()) for sql in asked]
    assert len(plans) == 4
    for plan in plans:
        assert "ix_ledger_entries_other" in plan or ("pk_ledger_entries" in plan and "(seq = " in plan), plan
