"""Balances and checks that are read together: each caller gets what they would get alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

import database as databases
from services.merging import side_by_side
from tests.api.helpers import open_account, set_plan
from tests.factories import Answer, Api, service_token, token
from tests.moments import At

Call = Callable[[], Answer]


def beside(calls: Sequence[Call]) -> list[Answer]:
    answers: dict[int, Answer] = {}
    side_by_side(lambda: [partial(lambda at, call: answers.update({at: call()}), *one) for one in enumerate(calls)])
    return [answers[position] for position in range(len(calls))]


def told(answer: Answer) -> tuple[int, Any]:
    """Status and body but for the moment."""
    return answer.status, {name: value for name, value in answer.json.items() if name != "as_of"}


def test_each_gets_their_own(operator: Api, at: At) -> None:
    at("2026-01-31T10:00:00Z")
    app = operator.app
    acme, other = open_account(operator), open_account(operator, "other")
    ended = token(app, acme)
    calls: list[Call] = [
        partial(operator.get, "/balance?account=acme"),
        partial(operator.get, "/balance?account=other"),
        partial(operator.get, "/balance?account=nobody"),
        partial(Api(app, token(app, acme)).get, "/balance"),
        partial(Api(app, token(app, acme)).get, f"/balance?account={other}"),
        partial(Api(app, token(app, other)).get, "/balance"),
        partial(Api(app, ended).get, "/balance"),
        partial(Api(app, "spw_nothing").get, "/balance"),
        partial(Api(app, service_token(app, "write")).get, "/balance?account=acme"),
        partial(operator.post, "/check", {"account": "acme", "credits": 5}),
        partial(operator.post, "/check", {"account": "other", "credits": 5_000_000}),
        partial(operator.post, "/check", {"account": "other", "credits": 5, "subject": "s"}),
    ]
    operator.delete(f"/tokens/tok_{ended.removeprefix('spw_')[:16]}")
    alone = [told(call()) for call in calls]
    assert [told(answer) for answer in beside(calls)] == alone
    assert [status for status, _ in alone] == [200, 200, 404, 200, 403, 200, 401, 401, 403, 200, 200, 200]
    assert alone[0][1]["account"] == acme and alone[5][1]["account"] == other


def test_what_is_due_is_written_first(operator: Api, at: At) -> None:
    at("2026-01-10T00:00:00Z")
    for name in ("acme", "other"):
        open_account(operator, name)
        set_plan(operator, name, included_credits=50)
    at("2026-02-20T00:00:00Z")
    answers = beside([partial(operator.get, f"/balance?account={name}") for name in ("acme", "other", "acme")])
    assert [answer.json["period"]["start"] for answer in answers] == ["2026-02-10T00:00:00Z"] * 3


@pytest.mark.parametrize("database", ["postgresql"])
def test_a_fault_of_one_account_is_nobody_elses(operator: Api, at: At) -> None:
    at("2026-01-10T00:00:00Z")
    for name in ("acme", "other"):
        open_account(operator, name)
    at("2026-02-20T00:00:00Z")
    operator.get("/balance?account=other")
    with operator.app.app_context(), databases.connection() as conn:
        fails = "RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; RETURN NEW;"
        conn.execute(text(f"CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {fails} END $$"))
        conn.execute(
            text(
                "CREATE TRIGGER fails BEFORE UPDATE ON accounts FOR EACH ROW WHEN (NEW.external_id = 'acme')"
                " EXECUTE FUNCTION fails()"
            )
        )
    names = ("other", "acme", "other")
    answers = beside([partial(operator.get, f"/balance?account={name}") for name in names])
    assert [answer.status for answer in answers] == [200, 503, 200]
