"""A plan's requests a minute: 429 with Retry-After, per account, and nothing for those without a limit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, func, select

import database as databases
from errors import RateLimited
from extensions import db
from models.user import Throttle
from services import catalog, throttle
from services.stripe import catalog as stripe_catalog
from services.throttle import Limit
from tests import factories
from tests.api.helpers import account_api, grant, open_account
from tests.factories import Answer, Api
from tests.stripe_world import StripeWorld

LIMITED = '[[prices]]\nprice_type = "base"\ntier = "slow"\nincluded_credits = 1000\nrequests_per_minute = 3\n'


@pytest.fixture
def slow(app: Flask, operator: Api) -> Api:
    """A token of an account whose plan allows three requests a minute."""
    with app.app_context():
        app.config["SETTINGS"].catalog_file.write_text(LIMITED)
        catalog.sync()
    return account_api(operator, open_account(operator, tier="slow", included_credits=1000))


def statuses(*answers: Answer) -> list[int]:
    return [answer.status for answer in answers]


def limited(answer: Answer) -> None:
    assert (answer.status, answer.code) == (429, "rate_limited"), answer
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


@contextmanager
def statements() -> Iterator[list[str]]:
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        asked.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def test_the_fourth_request_is_refused_and_changes_nothing(slow: Api, operator: Api) -> None:
    body = {"credits": 1}
    assert statuses(slow.post("/usage", body), slow.get("/balance"), slow.get("/ledger")) == [201, 200, 200]
    for answer in (slow.post("/usage", body), slow.get("/balance"), slow.post("/check", body)):
        limited(answer)
    limited(operator.get("/balance?account=acme"))
    assert operator.get("/accounts/acme").status == 200, "operators manage it all the same"
    assert operator.post("/accounts/acme/plan", {"tier": "enterprise"}).status == 200
    assert slow.get("/balance").status == 200, "the new plan counts at once"


def test_accounts_do_not_share_their_minute(slow: Api, operator: Api) -> None:
    other = account_api(operator, open_account(operator, "other", tier="slow", included_credits=1))
    for _ in range(3):
        assert slow.get("/balance").status == 200
    limited(slow.get("/balance"))
    assert other.get("/balance").status == 200


def test_all_tokens_of_an_account_count_together(slow: Api, operator: Api) -> None:
    second = account_api(operator, operator.get("/accounts/acme").json["id"])
    answers = [api.get("/balance") for api in (slow, second, slow)]
    assert statuses(*answers) == [200, 200, 200]
    limited(second.get("/balance"))


def test_who_may_not_ask_uses_nothing_up(slow: Api, operator: Api) -> None:
    account_id = operator.get("/accounts/acme").json["id"]
    narrow, revoked = account_api(operator, account_id, "tokens"), account_api(operator, account_id)
    assert revoked.token is not None
    assert operator.delete(f"/tokens/tok_{revoked.token[4:20]}").status == 204
    for _ in range(5):
        assert statuses(narrow.post("/usage", {"credits": 1}), revoked.get("/balance")) == [403, 401]
        assert Api(slow.app, "spw_nonsense").get("/balance").status == 401
    assert [slow.get("/balance").status for _ in range(4)] == [200, 200, 200, 429]
    assert statuses(narrow.post("/usage", {"credits": 1}), revoked.get("/balance")) == [403, 401]


def test_other_processes_count_too_and_learn_of_the_limit(app: Flask, slow: Api) -> None:
    assert slow.get("/balance").status == 200
    app.extensions["memory"].clear()  # as a process that never met the account
    assert slow.get("/balance").status == 200
    account_id = next(iter(app.extensions["memory"]["limits"]))
    app.extensions["memory"]["limits"][account_id] = ("free", None)  # as one that knew it before
    assert slow.post("/usage", {"credits": 1}).status == 201
    limited(slow.get("/balance"))


def test_an_account_without_a_limit_costs_not_one_statement(app: Flask, operator: Api) -> None:
    free = account_api(operator, open_account(operator))
    grant(operator, "acme", 100)
    free.get("/balance")
    with app.app_context():
        with statements() as asked:
            assert free.get("/balance").status == 200
            assert free.post("/usage", {"credits": 1}).status == 201
        assert not [statement for statement in asked if "throttles" in statement or "accounts" in statement]
        with databases.snapshot() as conn:
            assert conn.scalar(select(func.count()).select_from(Throttle)) == 0


def test_at_once_from_many_threads_no_more_get_through(app: Flask) -> None:
    limit, passed = Limit("requests", 20, 60), []

    def knock() -> None:
        with app.app_context(), suppress(RateLimited):
            throttle.pace(limit, "acc")
            passed.append(1)

    threads = [threading.Thread(target=lambda: [knock() for _ in range(5)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 20


def test_the_minute_passes(sqlite_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 1_800_000_000.0

    class Clock(throttle.datetime):  # type: ignore[misc,name-defined]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(moment, tz)

    monkeypatch.setattr(throttle, "datetime", Clock)
    limit = Limit("requests", 3, 60)
    with sqlite_app.app_context():

        def tries(count: int) -> int:
            done = 0
            for _ in range(count):
                with suppress(RateLimited):
                    throttle.pace(limit, "acc")
                    done += 1
            return done

        assert tries(2) == 2
        moment += 30
        assert tries(5) == 1
        moment += 35  # the first two were 65 seconds ago, the third 35
        assert tries(1) == 0, "slices are never free too early"
        moment += 5
        assert tries(5) == 2
        moment += 200
        assert tries(5) == 3
        with databases.snapshot() as conn:
            assert conn.scalar(select(func.count()).select_from(Throttle)) == 1, "old slices are gone"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_subscriber_keeps_the_limit_they_subscribed_to(stripe: StripeWorld) -> None:
    metadata = {"price_type": "base", "tier": "team", "included_credits": "10", "requests_per_minute": "2"}
    price = {"unit_amount": 900, "recurring": {"interval": "month"}, "metadata": metadata}
    ids = stripe.seed({"team": price, "open": {**price, "metadata": {**metadata, "tier": "open"}}})
    stripe.client.v1.prices.update(ids["open"], params={"metadata": {"requests_per_minute": ""}})
    stripe.sync_catalog()
    account_ids = [factories.account(stripe.app, name) for name in ("first", "second")]
    for account_id, name in zip(account_ids, ("team", "open"), strict=True):
        stripe.subscribe(account_id, name)
    stripe.settle()
    stripe.client.v1.prices.update(ids["team"], params={"metadata": {"requests_per_minute": "100"}})
    stripe.client.v1.prices.update(ids["open"], params={"metadata": {"requests_per_minute": "1"}})
    stripe.settle()
    with stripe.app.app_context():
        assert stripe_catalog.sync().error is None
    first, second = (Api(stripe.app, factories.token(stripe.app, account_id)) for account_id in account_ids)
    assert first.get("/balance").json["plan"] == "team"
    assert [first.get("/balance").status for _ in range(3)] == [200, 429, 429]
    assert [second.get("/balance").status for _ in range(3)] == [200, 200, 200]
