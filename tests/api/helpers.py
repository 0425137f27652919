"""What the API's tests share: accounts with known credits, and the books as their owner can see them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from tests.factories import Answer, Api, token

MIB = 1024 * 1024

NO_SIGNUP = pytest.mark.settings(signup_credits=Decimal(0))
"""Accounts begin with nothing, so that each test sees only the credits it gave."""


def open_account(api: Api, ref: str = "acme", credits: Any = 0, **plan: Any) -> str:
    """The id of a new account with `credits` granted; `plan` is the body of a plan to put it on."""
    made = api.post("/accounts", {"external_id": ref, "name": ref.title()})
    assert made.status == 201, made
    if credits:
        grant(api, ref, credits)
    if plan:
        set_plan(api, ref, **plan)
    return str(made.json["id"])


def grant(api: Api, ref: str, credits: Any, **more: Any) -> Answer:
    granted = api.post(f"/accounts/{ref}/grants", {"credits": credits, "reason": "test", **more})
    assert granted.status == 201, granted
    return granted


def set_plan(api: Api, ref: str, **plan: Any) -> None:
    put = api.post(f"/accounts/{ref}/plan", {"tier": "enterprise", "included_credits": 0, **plan})
    assert put.status == 200, put


def operate(api: Api, ref: str, action: str) -> None:
    """Suspend, restore or close the account, or reset its limit."""
    done = api.post(f"/accounts/{ref}/{action}", {"reason": "test"})
    assert done.status == 200, done


def account_api(api: Api, account_id: str, *scopes: str, **values: Any) -> Api:
    """The API as a new token of the account sees it."""
    return Api(api.app, token(api.app, account_id, *scopes, **values))


def use(api: Api, credits: Any, **more: Any) -> Answer:
    """Usage of `acme` that has to be accepted."""
    answer = api.post("/usage", {"account": "acme", "credits": credits, **more})
    assert answer.status == 201, answer
    return answer


def hold(api: Api, credits: Any, **more: Any) -> Any:
    """An open hold of `acme`."""
    answer = api.post("/holds", {"account": "acme", "credits": credits, **more})
    assert answer.status == 201, answer
    return answer.json


def padded(size: int, body: str = '{"account":"acme","credits":1}') -> str:
    """The body with as many spaces behind it as make it `size` bytes."""
    return body + " " * (size - len(body))


def balance(api: Api, ref: str = "acme") -> Any:
    answer = api.get(f"/balance?account={ref}")
    assert answer.status == 200, answer
    return answer.json


def ledger(api: Api, ref: str = "acme") -> Any:
    """All entries, newest first."""
    return api.get(f"/ledger?account={ref}&limit=200").json["data"]


def books(api: Api, ref: str = "acme") -> dict[str, Any]:
    """Everything that the account's owner can see of its money."""
    now = balance(api, ref)
    del now["as_of"]
    lists = ("/ledger", "/usage/records", "/holds")
    return {"balance": now} | {path: api.get(f"{path}?account={ref}&limit=200").json["data"] for path in lists}


@contextmanager
def untouched(api: Api, ref: str = "acme") -> Iterator[None]:
    """What happens inside leaves nothing behind, not even half of it."""
    before = books(api, ref)
    yield
    assert books(api, ref) == before


def refused(answer: Answer, status: int, code: str, **extra: Any) -> Any:
    """The problem of a refusal, in the one form that all of them have."""
    assert (answer.status, answer.json.get("code")) == (status, code), answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert problem["status"] == status
    assert problem["title"] and problem["detail"] and problem["type"].endswith(f"#{code}")
    for name, value in extra.items():
        assert problem[name] == value, problem
    return problem


def invalid(answer: Answer, *paths: str) -> None:
    """A 422 that names exactly these fields, each with a message."""
    errors = refused(answer, 422, "validation_error")["errors"]
    assert sorted(errors) == sorted(paths), errors
    assert all(messages and all(messages) for messages in errors.values())


def at_once(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """The answers to calls that are all made in the same moment, each in its own thread."""
    start = threading.Barrier(len(calls))
    answers: list[Answer | None] = [None] * len(calls)

    def run(position: int) -> None:
        start.wait(timeout=120)
        answers[position] = calls[position]()

    threads = [threading.Thread(target=run, args=(position,)) for position in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert None not in answers, "a call did not come back"
    return [answer for answer in answers if answer is not None]
