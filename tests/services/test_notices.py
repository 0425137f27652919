"""Mails about alerts: to whom, once, as text and HTML, and how they are stopped."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

import database
from extensions import db
from jobs import registry
from models.account import Role
from models.alert import AlertKind
from models.user import User
from services import alerts, letters, notices
from tests import factories, html
from tests.factories import Api, Cast
from tests.mail_server import MailServer
from tests.pages.helpers import letters as outbox
from tests.together import at_once


@pytest.fixture
def spender(app: Flask, cast: Cast) -> Api:
    """Alice's account, which has 100 credits of the sign-up."""
    return Api(app, factories.token(app, cast.alice.account_id, "read", "write", "billing"))


def spend(api: Api, credits: int) -> None:
    assert api.post("/usage", {"credits": credits, "enforce": False}).status == 201


def send(app: Flask) -> None:
    assert registry.run(app, "send-outbox").outcome == "ok"


def mailed(app: Flask) -> list[tuple[str, str]]:
    """Kind and address of each mail about an alert, in the order of addresses."""
    return sorted((letter.kind, letter.to) for letter in outbox(app) if letter.kind in letters.KINDS)


def stop_link(app: Flask, kind: str = "low_balance") -> str:
    [letter] = outbox(app, kind)
    found = re.search(r"http://127.0.0.1:8000(/unsubscribe/\S+)", letter.text)
    assert found is not None
    return found[1]


def test_owners_and_admins_are_told_once(app: Flask, cast: Cast, spender: Api) -> None:
    spend(spender, 85)
    assert mailed(app) == [], "nothing is mailed while spending"
    send(app)
    assert mailed(app) == [("low_balance", "alice@example.com")], "Bob is a member only"
    spend(spender, 1)
    send(app)
    assert len(mailed(app)) == 1
    [letter] = outbox(app, "low_balance")
    assert "Only 15 credits are left" in letter.text
    assert "Get credits: http://127.0.0.1:8000/buy" in letter.text


def test_of_several_thresholds_the_highest_is_mailed(app: Flask, cast: Cast, spender: Api, operator: Api) -> None:
    operator.post(f"/accounts/{cast.alice.account_id}/plan", {"tier": "enterprise", "included_credits": 1000})
    factories.join(app, cast.charlie.user_id, cast.alice.account_id, Role.ADMIN)
    spend(spender, 950)
    send(app)
    told = [("allowance", "alice@example.com"), ("allowance", "charlie@example.com")]
    assert mailed(app) == told
    assert "950 of the 1,000 credits" in outbox(app, "allowance")[0].text
    spend(spender, 50)
    send(app)
    assert mailed(app) == sorted(told * 2)
    assert "All 1,000 credits" in outbox(app, "allowance")[-1].text


def test_what_is_over_is_not_mailed(app: Flask, cast: Cast, spender: Api, operator: Api) -> None:
    spend(spender, 85)
    operator.post(f"/accounts/{cast.alice.account_id}/grants", {"credits": 100, "reason": "x"})
    send(app)
    assert mailed(app) == []


def test_an_account_without_people_is_told_at_its_own_address(app: Flask, operator: Api) -> None:
    operator.post("/accounts", {"external_id": "acme", "name": "Acme", "email": "billing@acme.example"})
    operator.post("/usage", {"account": "acme", "credits": 90})
    send(app)
    assert mailed(app) == [("low_balance", "billing@acme.example")]


def test_two_processes_tell_once(app: Flask, cast: Cast, spender: Api) -> None:
    spend(spender, 85)

    def tell() -> int:
        with app.app_context():
            told = notices.tell_due()
            db.session.remove()
            return told

    at_once(*[tell] * 4)
    assert len(mailed(app)) == 1


def test_one_that_can_not_be_told_keeps_nobody_waiting(app: Flask, cast: Cast, spender: Api) -> None:
    with app.app_context():
        alerts.raise_now(cast.charlie.account_id, AlertKind.SPIKE, "x", {"nothing": "of what a spike has"})
    spend(spender, 85)
    send(app)
    assert mailed(app) == [("low_balance", "alice@example.com")]


class TestStopping:
    def test_a_link_works_without_a_log_in(self, app: Flask, cast: Cast, spender: Api) -> None:
        spend(spender, 85)
        send(app)
        path, nobody = stop_link(app), app.test_client()
        page = nobody.get(path)
        assert page.status_code == 200 and "Few credits are left" in page.text
        assert self.comes(app, cast), "looking at the page stops nothing"
        assert html.post(nobody, path).status_code == 200
        assert not self.comes(app, cast)
        assert nobody.get(path[:-3]).status_code == 404

    def test_one_click(self, app: Flask, cast: Cast, spender: Api) -> None:
        spend(spender, 85)
        send(app)
        path = stop_link(app).replace("/unsubscribe/", "/api/unsubscribe/")
        for _ in range(2):
            answer = app.test_client().post(path, data={"List-Unsubscribe": "One-Click"})
            assert answer.status_code == 200
        assert not self.comes(app, cast)
        assert app.test_client().post(path + "x").status_code == 404

    def comes(self, app: Flask, cast: Cast) -> bool:
        """Whether the next mail of the kind is written."""
        before = len(mailed(app))
        with app.app_context():
            told = {"remaining": 1, "top_up": 100}
            alerts.raise_now(cast.alice.account_id, AlertKind.LOW_BALANCE, uuid.uuid4().hex, told)
        send(app)
        return len(mailed(app)) > before

    def test_on_a_page(self, app: Flask, cast: Cast, spender: Api) -> None:
        client = cast.alice.client
        assert client.get("/notifications").text.count("checked") == len(letters.KINDS)
        chosen: dict[str, Any] = {"kinds": ["spike", "allowance"]}
        assert html.post(client, "/notifications", chosen).status_code == 302
        with app.app_context():
            wanted = notices.wanted("alice@example.com", cast.alice.account_id)
        assert {kind for kind, comes in wanted.items() if comes} == {"spike", "allowance", *letters.ESSENTIAL}
        assert not self.comes(app, cast)
        html.post(client, "/notifications", {"kinds": list(letters.KINDS)})
        assert self.comes(app, cast)

    def test_essential_mails_always_come(self, app: Flask, cast: Cast) -> None:
        html.post(cast.alice.client, "/notifications", {})
        with app.app_context():
            alerts.raise_now(cast.alice.account_id, AlertKind.PAYMENT_FAILED, "in_1", {})
        send(app)
        [letter] = outbox(app, "payment_failed")
        assert "unsubscribe" not in letter.text
        with app.app_context():
            link = notices.link(notices.Subscription("alice@example.com", cast.alice.account_id, "payment_failed"))
        assert html.post(app.test_client(), link.partition("8000")[2]).status_code == 422


class TestOnTheWire:
    @pytest.fixture
    def server(self) -> Iterator[MailServer]:
        with MailServer() as server:
            yield server

    def test_text_html_and_headers(self, app: Flask, cast: Cast, spender: Api, server: MailServer) -> None:
        spend(spender, 85)
        app.config["SETTINGS"] = replace(app.config["SETTINGS"], mail_url=f"smtp://{server.address}")
        send(app)
        assert not [one for one, message in server.taken if message["List-Unsubscribe"]], "the address is not proved"
        with app.app_context(), database.transaction() as session:
            for user in session.query(User):
                user.email_verified_at = user.created_at
            alerts.raise_(session.connection(), cast.alice.account_id, AlertKind.SPIKE, "x", {"today": 9, "usual": 1})
        send(app)
        [message] = [message for one, message in server.taken if message["List-Unsubscribe"]]
        assert message["To"] == "alice@example.com"
        assert message["List-Unsubscribe"].startswith("<http://127.0.0.1:8000/api/unsubscribe/")
        assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        text = message.get_body(("plain",)).get_content()
        page = html.Page(message.get_body(("html",)).get_content())
        assert "9 credits were used today" in text and "9 credits were used today" in page.text
        assert page.inline == [] and len(page.addresses) == 2


@pytest.mark.parametrize("kind", list(letters.KINDS))
def test_every_mail_can_be_looked_at_by_operators(sqlite_app: Flask, kind: str) -> None:
    ann = factories.person(sqlite_app, "ann@example.com")
    assert ann.client.get(f"/admin/mails/{kind}").status_code == 403
    with sqlite_app.app_context(), database.transaction() as session:
        session.get_one(User, ann.user_id).is_operator = True
    page = ann.client.get(f"/admin/mails/{kind}")
    assert page.status_code == 200 and "Acme Vision" in page.text
    assert letters.KINDS[kind] in ann.client.get("/admin/mails").text
    assert ann.client.get("/admin/mails/other").status_code == 404
