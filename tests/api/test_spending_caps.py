"""Caps of accounts, tokens and subjects, per day and per period: what they count, and that they hold."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

import clock
import database as db
import rows
from jobs import registry
from models.credit import CapCounter
from services import verify
from tests import servers
from tests.api.helpers import (
    NO_SIGNUP,
    account_api,
    at_once,
    balance,
    grant,
    hold,
    open_account,
    operate,
    refused,
    set_plan,
    untouched,
    use,
)
from tests.factories import Answer, Api
from tests.moments import At

pytestmark = NO_SIGNUP


def cap(scope: str, window: str, credits: Any, **more: Any) -> dict[str, Any]:
    return {"scope": scope, "window": window, "credits": credits, **more}


def limit(api: Api, *caps: dict[str, Any]) -> None:
    answer = api.put("/controls", {"account": "acme", "caps": list(caps)})
    assert answer.status == 200, answer


def spend(api: Api, credits: Any, **more: Any) -> Answer:
    return api.post("/usage", {"account": "acme", "credits": credits, **more})


def reached(answer: Answer, used: Any, **told: Any) -> Any:
    """The refusal by a cap of which so much was used."""
    problem = refused(answer, 402, "cap_reached")
    assert problem["cap"]["used"] == used, problem
    for name, value in told.items():
        assert problem["cap"][name] == value, problem
    return problem


@pytest.fixture
def acme(operator: Api, at: At) -> Api:
    """The account `acme` with 1,000 credits and a plan, as the operator's token sees it, at ten in the morning."""
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=1000, included_credits=100)
    return operator


def consistent(api: Api) -> None:
    with api.app.app_context():
        assert verify.verify().differences == []


class TestWindows:
    def test_a_day_ends_at_midnight(self, acme: Api, at: At) -> None:
        limit(acme, cap("account", "day", 10))
        use(acme, 7)
        with untouched(acme):
            problem = reached(spend(acme, "3.000001"), 7, scope="account", key=None, window="day", credits=10)
        assert problem["resets_at"] == "2026-11-22T00:00:00Z"
        use(acme, 3)
        at("2026-11-21T23:59:59.999999Z")
        reached(spend(acme, 1), 10)
        at("2026-11-22T00:00:00Z")
        use(acme, 10)
        reached(spend(acme, 1), 10)

    def test_a_period_ends_with_the_accounts(self, acme: Api, at: At) -> None:
        limit(acme, cap("account", "period", 10))
        use(acme, 10)
        at("2026-12-21T09:59:59Z")
        assert reached(spend(acme, 1), 10)["resets_at"] == "2026-12-21T10:00:00Z"
        at("2026-12-21T10:00:00Z")
        use(acme, 10)
        at.forward(seconds=1)
        reached(spend(acme, 1), 10)
        set_plan(acme, "acme", included_credits=50)  # which begins a period of its own
        use(acme, 10)
        reached(spend(acme, 11), 10)
        consistent(acme)

    def test_usage_counts_when_it_is_recorded(self, acme: Api, at: At) -> None:
        limit(acme, cap("account", "day", 10))
        yesterday = clock.rfc3339(clock.now() - timedelta(days=1))
        use(acme, 10, occurred_at=yesterday)
        reached(spend(acme, 1), 10)

    def test_a_reset_zeroes_the_period_and_not_the_day(self, acme: Api) -> None:
        limit(acme, cap("account", "period", 10), cap("account", "day", 15), cap("subject", "period", 10))
        use(acme, 10, subject="s")
        operate(acme, "acme", "reset-limit")
        use(acme, 5, subject="s")
        reached(spend(acme, 1, subject="s"), 15, window="day")
        consistent(acme)


class TestScopes:
    def test_each_subject_has_its_own_count(self, acme: Api) -> None:
        limit(acme, cap("subject", "day", 5), cap("subject", "day", 8, key="big"))
        use(acme, 5, subject="a")
        use(acme, 4, subject="b")
        use(acme, 100)
        assert reached(spend(acme, 1, subject="a"), 5, scope="subject", key="a")["cap"]["window"] == "day"
        use(acme, 1, subject="b")
        use(acme, 5, subject="big")
        reached(spend(acme, 1, subject="big"), 5, key="big", credits=5)

    def test_a_key_names_one_subject(self, acme: Api) -> None:
        limit(acme, cap("subject", "period", 3, key="a"))
        use(acme, 100, subject="b")
        use(acme, 3, subject="a")
        reached(spend(acme, 1, subject="a"), 3)

    def test_tokens(self, acme: Api, operator: Api) -> None:
        account = balance(acme)["account"]
        one, other = account_api(acme, account), account_api(acme, account, cap=9_000_000)
        token_id = f"tok_{(one.token or '')[4:20]}"
        limit(acme, cap("token", "day", 5, key=token_id), cap("token", "period", 20))
        use(one, 5)
        reached(spend(one, 1), 5, scope="token", key=token_id, credits=5)
        use(other, 9)
        reached(spend(other, 1), 9, credits=9, window="period")
        use(acme, 20)
        reached(spend(acme, 1), 20, credits=20)
        consistent(acme)

    def test_every_cap_has_to_hold(self, acme: Api) -> None:
        limit(acme, cap("account", "period", 10), cap("account", "day", 5), cap("subject", "day", 3))
        use(acme, 3, subject="a")
        reached(spend(acme, 1, subject="a"), 3, scope="subject")
        reached(spend(acme, 3, subject="b"), 3, scope="account", window="day")
        use(acme, 2, subject="b")

    def test_a_cap_is_told_before_a_shortfall_and_after_suspension(self, acme: Api) -> None:
        limit(acme, cap("account", "day", 2000))
        refused(spend(acme, 1500), 402, "insufficient_credits")
        refused(spend(acme, 2001), 402, "cap_reached")
        operate(acme, "acme", "suspend")
        refused(spend(acme, 2001), 403, "account_suspended")


class TestWhatCounts:
    def test_what_was_charged_before_the_cap_was_set(self, acme: Api, at: At) -> None:
        use(acme, 1, subject="a")
        at("2026-11-22T10:00:00Z")
        use(acme, 2, subject="a")
        use(acme, 4, subject="b")
        use(acme, 8)
        voided = use(acme, 16, subject="a").json["id"]
        assert acme.post(f"/usage/records/{voided}/void", {"reason": "x"}).status == 200
        everything = (cap("account", "day", 0), cap("account", "period", 0))
        limit(acme, *everything)
        reached(spend(acme, 1), 14, window="day")
        limit(acme, cap("account", "period", 0))
        reached(spend(acme, 1), 15)
        limit(acme, cap("subject", "period", 0), cap("subject", "day", 1, key="b"))
        reached(spend(acme, 1, subject="a"), 3, window="period")
        limit(acme, cap("subject", "day", 1, key="b"))
        reached(spend(acme, 1, subject="b"), 4)
        limit(acme, cap("token", "period", 0))
        reached(spend(acme, 1), 15)
        consistent(acme)

    def test_only_what_came_after_the_reset(self, acme: Api) -> None:
        use(acme, 5)
        operate(acme, "acme", "reset-limit")
        use(acme, 2)
        limit(acme, cap("account", "period", 0))
        reached(spend(acme, 1), 2)
        consistent(acme)

    def test_a_cap_that_was_taken_away_counts_all_when_it_comes_back(self, acme: Api) -> None:
        limit(acme, cap("account", "period", 100))
        use(acme, 5)
        limit(acme)
        use(acme, 7)
        limit(acme, cap("account", "period", 12))
        reached(spend(acme, 1), 12)
        limit(acme, cap("account", "period", 13))
        use(acme, 1)

    def test_finished_work_passes_and_counts(self, acme: Api) -> None:
        limit(acme, cap("account", "day", 10))
        use(acme, 2000, enforce=False)
        reached(spend(acme, "0.000001"), 2000)
        use(acme, 0)
        use(acme, 9, success=False)

    def test_open_holds_and_captures(self, acme: Api, at: At) -> None:
        limit(acme, cap("account", "day", 10), cap("subject", "period", 6))
        held = hold(acme, 4, subject="a", ttl_seconds=60)["id"]
        with untouched(acme):
            reached(spend(acme, 7), 4, scope="account")
            reached(spend(acme, 3, subject="a"), 4, scope="subject", key="a")
            refused(acme.post("/holds", {"account": "acme", "credits": 7}), 402, "cap_reached")
            refused(acme.post(f"/holds/{held}/extend", {"credits": 7}), 402, "cap_reached")
        captured = acme.post(f"/holds/{held}/capture", {"credits": 12})
        assert captured.status == 201, captured
        reached(spend(acme, 1), 12, scope="account")
        reached(spend(acme, 1, subject="a"), 12)
        at("2026-11-22T00:00:00Z")
        forgotten = hold(acme, 10, ttl_seconds=60)["id"]
        reached(spend(acme, 1), 10)
        at.forward(seconds=60)
        use(acme, 10)
        late = acme.post(f"/holds/{forgotten}/capture", {"credits": 1})
        assert late.status == 201
        reached(spend(acme, 1), 11)
        consistent(acme)

    def test_a_capture_may_name_another_subject(self, acme: Api) -> None:
        limit(acme, cap("subject", "day", 5))
        held = hold(acme, 4, subject="a")["id"]
        assert acme.post(f"/holds/{held}/capture", {"credits": 5, "subject": "b"}).status == 201
        reached(spend(acme, 1, subject="b"), 5)
        use(acme, 5, subject="a")

    def test_a_void_lowers_the_windows_that_run(self, acme: Api, at: At) -> None:
        limit(acme, cap("account", "day", 10), cap("account", "period", 20))
        old, new = use(acme, 10).json["id"], ""
        at("2026-11-22T10:00:00Z")
        new = use(acme, 10).json["id"]
        reached(spend(acme, 1), 10, window="day")
        assert acme.post(f"/usage/records/{old}/void", {"reason": "x"}).status == 200
        reached(spend(acme, 1), 10, window="day")
        assert acme.post(f"/usage/records/{new}/void", {"reason": "x"}).status == 200
        use(acme, 10)
        consistent(acme)

    def test_a_void_of_what_a_reset_forgot_lowers_only_the_day(self, acme: Api) -> None:
        limit(acme, cap("account", "day", 30), cap("account", "period", 10))
        record = use(acme, 10).json["id"]
        operate(acme, "acme", "reset-limit")
        use(acme, 10)
        assert acme.post(f"/usage/records/{record}/void", {"reason": "x"}).status == 200
        reached(spend(acme, 1), 10, window="period")
        consistent(acme)

    def test_a_batch_is_judged_record_by_record(self, acme: Api) -> None:
        limit(acme, cap("account", "day", 5), cap("subject", "day", 3))
        records = [{"credits": 3, "subject": "a"}, {"credits": 1, "subject": "a"}, {"credits": 3}, {"credits": 2}]
        answer = acme.post("/usage/batch", {"account": "acme", "records": records})
        assert [result["status"] for result in answer.json["results"]] == [201, 402, 402, 201]
        error = answer.json["results"][1]["error"]
        assert (error["code"], error["cap"]["key"], error["resets_at"]) == ("cap_reached", "a", "2026-11-22T00:00:00Z")

    def test_a_replay_is_neither_refused_nor_counted(self, acme: Api) -> None:
        limit(acme, cap("account", "day", 5))
        assert [spend(acme, 5, idempotency_key="k").status for _ in range(2)] == [201, 200]
        refused(spend(acme, 1, idempotency_key="l"), 402, "cap_reached")
        limit(acme, cap("account", "day", 6))
        assert spend(acme, 1, idempotency_key="l").status == 201


class TestCheck:
    def test_it_says_what_would_be_refused(self, acme: Api) -> None:
        limit(acme, cap("account", "day", 5), cap("subject", "day", 3))
        use(acme, 2, subject="a")

        def asked(credits: Any, **more: Any) -> Any:
            return acme.post("/check", {"account": "acme", "credits": credits, **more}).json

        assert asked(4) == asked(4) | {"allowed": False, "code": "cap_reached", "cure": ["raise_cap"]}
        assert asked(3)["allowed"] is True
        assert asked(2, subject="a")["code"] == "cap_reached"
        assert asked(1, subject="a")["allowed"] is True

    def test_a_process_that_has_not_met_the_account_knows_too(self, acme: Api) -> None:
        limit(acme, cap("account", "day", 5))
        use(acme, 5)
        acme.app.extensions["memory"].clear()
        assert acme.post("/check", {"account": "acme", "credits": 1}).json["code"] == "cap_reached"
        acme.app.extensions["memory"].clear()
        reached(spend(acme, 1), 5)


class TestTheLastCredit:
    def test_of_32_threads_one_gets_it(self, acme: Api) -> None:
        limit(acme, cap("account", "day", 10), cap("subject", "period", 10))
        use(acme, 9, subject="a")
        answers = at_once([lambda: spend(acme, 1, subject="a")] * 32)
        assert sorted(answer.status for answer in answers) == [201] + [402] * 31
        assert balance(acme)["available"] == 1090
        consistent(acme)

    def test_holds_batches_and_singles_at_the_same_moment(self, acme: Api) -> None:
        limit(acme, cap("account", "period", 20))
        batch = {"account": "acme", "records": [{"credits": 1}] * 4}
        calls = [
            *[lambda: spend(acme, 1)] * 10,
            *[lambda: acme.post("/holds", {"account": "acme", "credits": 1})] * 10,
            *[lambda: acme.post("/usage/batch", batch)] * 3,
        ]
        answers = at_once(calls)
        made = sum(answer.status == 201 for answer in answers)
        made += sum(answer.json["accepted"] for answer in answers if "accepted" in answer.json)
        assert made == 20
        consistent(acme)

    @pytest.mark.slow
    def test_across_processes(self, request: pytest.FixtureRequest, tmp_path: Path, database: str) -> None:
        with request.getfixturevalue(f"{database}_databases").copy() as url:
            environ = servers.environment(tmp_path, url, WEB_WORKERS="2", SCHEDULER="off")
            token = servers.service_token(environ)
            servers.quick_command(environ, "accounts", "create", "--external-id", "acme", "--name", "A")
            with servers.Server(environ, tmp_path) as one, servers.Server(environ, tmp_path) as other:
                caps = {"account": "acme", "caps": [cap("account", "day", 40), cap("subject", "day", 40)]}
                assert _send(one.port, token, "PUT", "/controls", caps) == 200
                plan = {"tier": "enterprise", "included_credits": 50}
                assert _send(one.port, token, "POST", "/accounts/acme/plan", plan) == 200
                body = {"account": "acme", "credits": 1, "subject": "s"}
                ports = [one.port, other.port] * 40
                with ThreadPoolExecutor(16) as pool:
                    statuses = list(pool.map(lambda port: _send(port, token, "POST", "/usage", body), ports))
                assert (statuses.count(201), statuses.count(402)) == (40, 40)
                _, told = _answer(other.port, token, "GET", "/alerts?account=acme", {})
                kinds = sorted((row["kind"], row["threshold"]) for row in told["data"])
                assert [kind for kind in kinds if kind[0] == "allowance"] == [("allowance", 70)]
                assert len(kinds) in (2, 3), "one for each cap that refused, whichever process did"
            verified = servers.quick_command(environ, "ledger", "verify")
            assert verified.returncode == 0, verified.stdout


def _send(port: int, token: str, method: str, path: str, body: Any) -> int:
    return _answer(port, token, method, path, body)[0]


def _answer(port: int, token: str, method: str, path: str, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request(method, f"/api/v1{path}", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.load(response)
    finally:
        connection.close()


class Trips:
    """Each call of the database below the ORM: the SQL of its statements as they were sent."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    @contextmanager
    def counted(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trips]:
        def watch(name: str) -> None:
            real = getattr(rows, name)

            def noted(raw: Any, statements: Sequence[Any]) -> Any:
                self.calls.append([" ".join(one.sql for one in group) for group in rows._groups(statements)])
                return real(raw, statements)

            monkeypatch.setattr(rows, name, noted)

        with monkeypatch.context() as patch:
            monkeypatch = patch
            watch("_run_sqlite")
            watch("_run_postgresql")
            yield self


def test_caps_cost_no_round_trip_and_accounts_without_any_nothing(acme: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    open_account(acme, "plain", credits=100)
    limit(acme, cap("account", "day", 50), cap("subject", "period", 50), cap("token", "day", 50))

    def trips(ref: str) -> list[list[str]]:
        for _ in range(2):  # the first call lets the process meet the account
            with Trips().counted(monkeypatch) as seen:
                answer = acme.post("/usage", {"account": ref, "credits": 1, "subject": "s"})
            assert answer.status == 201
        return seen.calls

    plain, capped = trips("plain"), trips("acme")
    assert len(plain) == len(capped) == 2, "one call reads, one writes"
    assert [len(groups) for groups in plain] == [len(groups) for groups in capped]
    assert "cap_counters" not in str(plain) and "cap_counters" in capped[0][-1]


def test_days_that_are_over_are_thrown_away(acme: Api, app: Flask, at: At) -> None:
    limit(acme, cap("account", "day", 50), cap("account", "period", 50))
    use(acme, 10)
    at("2026-11-24T10:00:00Z")
    use(acme, 5)
    assert registry.run(app, "prune").outcome == "ok"
    reached(spend(acme, 40), 15, window="period")
    reached(spend(acme, 46), 5, window="day")
    with app.app_context(), db.snapshot() as conn:
        assert len(conn.execute(select(CapCounter)).all()) == 2


def test_verify_finds_a_wrong_counter(acme: Api, app: Flask) -> None:
    limit(acme, cap("account", "day", 50), cap("subject", "period", 50))
    use(acme, Decimal("1.5"), subject="s")
    grant(acme, "acme", 5)
    consistent(acme)
    with app.app_context():
        with db.transaction() as session:
            session.execute(update(CapCounter).where(CapCounter.scope == "subject").values(used=CapCounter.used + 1))
        found = verify.verify().differences
    assert len(found) == 1 and "1500001" in str(found[0]) and "1500000" in str(found[0])
