"""Closing an account: what ends with it, what stays, also amid usage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from errors import AccountClosed, AccountNotFound, Forbidden, NotFound, SpillwayError
from models.account import Role
from services import accounts, balances, invitations, members, tokens, verify
from tests import factories, mailbox
from tests.factories import Api, Person
from tests.moments import At
from tests.together import at_once


@pytest.fixture
def owner(app: Flask) -> Person:
    return factories.person(app, "olga@example.com")


def close(app: Flask, owner: Person) -> None:
    with app.app_context():
        accounts.close(owner.account_id, "Closed by its owner.", by=owner.user_id)


def sound(app: Flask) -> bool:
    with app.app_context():
        return not verify.verify().differences


def test_open_holds_come_free_and_expired_ones_stay_expired(app: Flask, operator: Api, owner: Person, at: At) -> None:
    body = {"account": owner.account_id, "credits": 10}
    old = operator.post("/holds", {**body, "ttl_seconds": 60}).json["id"]
    used = operator.post("/holds", body).json["id"]
    assert operator.post(f"/holds/{used}/capture", {}).status == 201
    at.forward(seconds=90)
    kept = operator.post("/holds", body).json["id"]
    assert operator.get(f"/balance?account={owner.account_id}").json["held"] == 10
    close(app, owner)
    states = {hold: operator.get(f"/holds/{hold}").json["state"] for hold in (old, used, kept)}
    assert states == {old: "expired", used: "captured", kept: "released"}
    balance = operator.get(f"/balance?account={owner.account_id}").json
    assert (balance["status"], balance["held"], balance["available"]) == ("closed", 0, 90)
    assert operator.post(f"/holds/{kept}/capture", {}).code in ("hold_not_open", "account_closed")
    assert sound(app)


def test_by_api_holds_come_free_too(app: Flask, operator: Api) -> None:
    account_id = factories.account(app)
    hold = operator.post("/holds", {"account": account_id, "credits": 40}).json["id"]
    for _ in range(2):
        closed = operator.post("/accounts/acme/close", {"reason": "over"})
        assert (closed.status, closed.json["status"]) == (200, "closed")
    assert operator.get(f"/holds/{hold}").json["state"] == "released"
    assert operator.get("/holds?account=acme&state=open").json["data"] == []
    assert sound(app)


def test_tokens_stop_and_nothing_more_is_recorded_but_all_can_be_read(app: Flask, operator: Api, owner: Person) -> None:
    own = Api(app, factories.token(app, owner.account_id, user_id=owner.user_id))
    assert own.post("/usage", {"credits": 5}, key="k").status == 201
    close(app, owner)
    assert own.get("/balance").status == 401
    account = {"account": owner.account_id}
    for path, body in (
        ("/usage", {"credits": 1}),
        ("/usage", {"credits": 1, "enforce": False}),
        ("/holds", {"credits": 1}),
    ):
        assert operator.post(path, {**account, **body}).code == "account_closed"
    assert operator.post("/usage", {**account, "credits": 5}, key="k").headers["Idempotent-Replayed"] == "true"
    assert operator.post("/check", {**account, "credits": 1}).json["code"] == "account_closed"
    assert len(operator.get(f"/ledger?account={owner.account_id}").json["data"]) == 2
    with app.app_context(), pytest.raises(AccountClosed):
        tokens.create(account_id=owner.account_id, name="late", scopes=["read"], user_id=owner.user_id)


def test_its_first_reason_stays_and_it_is_not_opened_again(app: Flask, operator: Api, owner: Person) -> None:
    close(app, owner)
    with app.app_context():
        assert accounts.close(owner.account_id, "another reason").status_reason == "Closed by its owner."
    for again in ("restore", "suspend"):
        assert operator.post(f"/accounts/{owner.account_id}/{again}", {"reason": "x"}).code == "account_closed"


def test_open_invitations_end(app: Flask, owner: Person) -> None:
    with app.app_context():
        invitations.invite(owner.account_id, owner.user_id, "nina@example.com", Role.OWNER)
    close(app, owner)
    with app.app_context():
        assert invitations.waiting(owner.account_id) == []
        with pytest.raises(NotFound):
            invitations.opened(mailbox.secret(app, "nina@example.com"))


def test_only_an_owner_closes(app: Flask, owner: Person) -> None:
    others = [factories.person(app, f"{role}@example.com") for role in ("admin", "member", "outsider")]
    factories.join(app, others[0].user_id, owner.account_id, Role.ADMIN)
    factories.join(app, others[1].user_id, owner.account_id, Role.MEMBER)
    with app.app_context():
        for other in others:
            with pytest.raises(Forbidden):
                accounts.close(owner.account_id, "no", by=other.user_id)
        with pytest.raises(AccountNotFound):
            accounts.close("acc_nobody", "no")
        assert not accounts.get(owner.account_id).is_closed


def test_people_can_still_be_removed_and_leave(app: Flask, owner: Person) -> None:
    others = [factories.person(app, f"{name}@example.com") for name in ("one", "two")]
    for other in others:
        factories.join(app, other.user_id, owner.account_id, Role.MEMBER)
    close(app, owner)
    with app.app_context():
        members.remove(owner.account_id, owner.user_id, others[0].user_id)
        members.leave(owner.account_id, others[1].user_id)
        assert [one.email for one in members.listing(owner.account_id)] == ["olga@example.com"]


def test_amid_usage_holds_and_new_tokens_nothing_slips_through(app: Flask, operator: Api, owner: Person) -> None:
    account = {"account": owner.account_id, "credits": 1}

    def spending(path: str) -> Callable[[], list[Any]]:
        return lambda: [operator.post(path, account) for _ in range(4)]

    def closing() -> list[Any]:
        close(app, owner)
        return []

    def making() -> list[Any]:
        with app.app_context():
            try:
                tokens.create(account_id=owner.account_id, name="late", scopes=["read"], user_id=owner.user_id)
            except SpillwayError as error:
                return [error]
        return []

    calls = [spending("/usage"), spending("/holds"), making, closing, spending("/usage"), spending("/holds"), making]
    results = [answer for some in at_once(*calls) for answer in some]
    answers = [result for result in results if not isinstance(result, SpillwayError)]
    errors = [result for result in results if isinstance(result, SpillwayError)]
    assert {answer.code for answer in answers if answer.status != 201} <= {"account_closed"}
    assert {type(error) for error in errors} <= {AccountClosed}
    assert operator.get(f"/holds?account={owner.account_id}&state=open").json["data"] == []
    recorded = [answer for answer in answers if answer.status == 201 and "consumed" in answer.json]
    with app.app_context():
        assert all(token.revoked_at is not None for token in tokens.listing(owner.account_id, 50))
        assert balances.balance(owner.account_id)["available"] == 100 - len(recorded)
    assert sound(app)
