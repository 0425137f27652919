"""Shorthands that make what tests need through the services, and an API client that keeps decimals exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import simplejson
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

import amounts
import clock
import database
from models.account import Membership, Role
from models.user import User
from services import accounts, people, tokens

PASSWORD = "correct horse battery"


class Answer:
    """An answer with its JSON read exactly: numbers are int or Decimal."""

    def __init__(self, response: TestResponse) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.text = response.get_data(as_text=True)

    @property
    def json(self) -> Any:
        return simplejson.loads(self.text, use_decimal=True)

    @property
    def code(self) -> str:
        """The problem's stable code."""
        return str(self.json["code"])

    def __repr__(self) -> str:
        return f"<{self.status} {self.text[:600]}>"


class Api:
    """The JSON API as the holder of `token` sees it; paths are below /api/v1."""

    def __init__(self, app: Flask, token: str | None) -> None:
        self.app, self.token = app, token

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if key is not None:
            sent["Idempotency-Key"] = key
        data = None
        if body is not None:
            data = body if isinstance(body, str | bytes) else simplejson.dumps(body, use_decimal=True)
            sent["Content-Type"] = "application/json"
        client = self.app.test_client(use_cookies=False)
        return Answer(client.open(f"/api/v1{path}", method=method, data=data, headers={**sent, **(headers or {})}))

    def get(self, path: str, **kwargs: Any) -> Answer:
        return self("GET", path, **kwargs)

    def post(self, path: str, body: Any = None, **kwargs: Any) -> Answer:
        return self("POST", path, {} if body is None else body, **kwargs)

    def patch(self, path: str, body: Any) -> Answer:
        return self("PATCH", path, body)

    def put(self, path: str, body: Any) -> Answer:
        return self("PUT", path, body)

    def delete(self, path: str) -> Answer:
        return self("DELETE", path)


def service_token(app: Flask, *scopes: str) -> str:
    """The secret of a new service token; with every scope when none is named."""
    with app.app_context():
        wanted = scopes or ("read", "write", "billing", "tokens", "admin")
        return tokens.create(account_id=None, name="service", scopes=wanted)[1]


def token(app: Flask, account_id: str, *scopes: str, **values: Any) -> str:
    """The secret of a new account token; `read` and `write` when no scope is named."""
    with app.app_context():
        return tokens.create(account_id=account_id, name="test", scopes=scopes or ("read", "write"), **values)[1]


def account(app: Flask, external_id: str = "acme", *, credits: str | int | None = None, **plan: Any) -> str:
    """The id of a new account with exactly `credits` of granted credits (None: the sign-up credits as they are).

    `plan` goes to accounts.set_plan, `included` in credits.
    """
    with app.app_context():
        made, _ = accounts.create_by_operator(external_id, external_id.title(), None)
    operator = Api(app, service_token(app))
    if credits is not None:
        have = operator.get(f"/balance?account={made.id}").json["available"]
        if have:
            spent = operator.post("/usage", {"account": made.id, "credits": have})
            assert spent.status == 201, spent
        if amounts.parse(str(credits)):
            body = {"credits": amounts.parse(str(credits)), "reason": "test"}
            granted = operator.post(f"/accounts/{made.id}/grants", body)
            assert granted.status == 201, granted
    if plan:
        with app.app_context():
            included = plan.pop("included", None)
            micros = None if included is None else amounts.to_micros(amounts.parse(str(included)))
            accounts.set_plan(made.id, tier=plan.pop("tier", "enterprise"), included=micros, **plan)
    return made.id


@dataclass
class Person:
    """Somebody with a browser: `client` keeps their cookies."""

    user_id: str
    email: str
    account_id: str
    client: FlaskClient


@dataclass
class Cast:
    """Alice owns the account that Bob is a member of. Charlie is the outsider with an account of his own."""

    alice: Person
    bob: Person
    charlie: Person


def person(app: Flask, email: str) -> Person:
    """Somebody who signed up and is logged in."""
    with app.app_context():
        user = people.sign_up(email, PASSWORD, email.partition("@")[0].title(), "127.0.0.1")
        account_id = _own_account(user)
    return Person(user.id, email, account_id, logged_in(app, email))


def _own_account(user: User) -> str:
    with database.transaction() as session:
        account_id = session.scalars(select(Membership.account_id).where(Membership.user_id == user.id)).one()
    return str(account_id)


def logged_in(app: Flask, email: str, password: str = PASSWORD) -> FlaskClient:
    """A browser after logging in through the form, its CSRF token included."""
    client = app.test_client()
    answer = client.post(
        "/login", data={"email": email, "password": password, "csrf_token": csrf_token(client, "/login")}
    )
    assert answer.status_code == 302, answer.get_data(as_text=True)
    return client


def csrf_token(client: FlaskClient, path: str) -> str:
    """The token in the first form of a page."""
    page = client.get(path, follow_redirects=True).get_data(as_text=True)
    return page.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]


def join(app: Flask, user_id: str, account_id: str, role: Role) -> None:
    """Make the user a member of the account, and of no other."""
    with app.app_context(), database.transaction() as session:
        for old in session.scalars(select(Membership).where(Membership.user_id == user_id)):
            session.delete(old)
        session.flush()
        session.add(Membership(user_id=user_id, account_id=account_id, role=role.value, created_at=clock.now()))


def cast(app: Flask) -> Cast:
    """The fixed cast, signed up and logged in."""
    alice, bob, charlie = (person(app, f"{name}@example.com") for name in ("alice", "bob", "charlie"))
    join(app, bob.user_id, alice.account_id, Role.MEMBER)
    bob.account_id = alice.account_id
    return Cast(alice, bob, charlie)
