"""The pages of caps and alerts, and the banner on every page."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from models.account import Role
from tests import factories, html
from tests.factories import Api, Person

LOW = "Credits run low: less than a fifth of the last top-up, 100, is left."


@pytest.fixture
def ann(sqlite_app: Flask) -> Person:
    return factories.person(sqlite_app, "ann@example.com")


@pytest.fixture
def tenant(sqlite_app: Flask, ann: Person) -> Api:
    return Api(sqlite_app, factories.token(sqlite_app, ann.account_id, "read", "write", "billing"))


def add(person: Person, **data: Any) -> Any:
    sent = {"scope": "account", "key": "", "window": "day", "credits": "5", **data}
    return html.post(person.client, "/controls/caps", sent, form="/controls")


def text(person: Person, path: str) -> str:
    return html.read(person.client.get(path)).text


class TestCaps:
    def test_they_are_set_replaced_and_removed(self, ann: Person, tenant: Api) -> None:
        assert "None yet" in text(ann, "/controls")
        assert add(ann).status_code == 302
        assert add(ann, credits="7.5").status_code == 302
        assert add(ann, scope="subject", key="user-1", window="period").status_code == 302
        tenant.post("/usage", {"credits": 2})
        page = text(ann, "/controls")
        assert "7.5 credits per day for the whole account 2 used in this day" in page
        assert "5 credits per period for subject user-1" in page
        assert tenant.post("/usage", {"credits": 6}).code == "cap_reached"
        sent = {"scope": "account", "key": "", "window": "day"}
        assert html.post(ann.client, "/controls/caps/remove", sent, form="/controls").status_code == 302
        assert [cap["scope"] for cap in tenant.get("/controls").json["caps"]] == ["subject"]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({"credits": ""}, "required"),
            ({"credits": "many"}, "number"),
            ({"credits": "-1"}, "Must not be negative"),
            ({"scope": "token", "key": "tok_none"}, "no token with this id"),
            ({"scope": "team"}, "Not a valid choice"),
        ],
    )
    def test_mistakes_are_told_in_place(self, ann: Person, tenant: Api, data: dict[str, Any], message: str) -> None:
        answer = add(ann, **data)
        assert answer.status_code == 422
        assert message in html.read(answer).text
        assert tenant.get("/controls").json["caps"] == []

    def test_what_is_locked_stays(self, sqlite_app: Flask, ann: Person, tenant: Api) -> None:
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        locked = {"scope": "account", "window": "day", "credits": 50, "locked": True}
        operator.put("/controls", {"account": ann.account_id, "caps": [locked]})
        assert "set by the operator" in text(ann, "/controls")
        assert add(ann, credits="500").status_code == 422
        assert add(ann, window="period").status_code == 302
        html.post(ann.client, "/controls/caps/remove", {"scope": "account", "window": "day"}, form="/controls")
        assert tenant.get("/controls").json["caps"][0] == locked

    def test_members_do_not_come_here(self, sqlite_app: Flask, ann: Person) -> None:
        bob = factories.person(sqlite_app, "bob@example.com")
        factories.join(sqlite_app, bob.user_id, ann.account_id, Role.MEMBER)
        assert bob.client.get("/controls").status_code == 403
        assert bob.client.get("/alerts").status_code == 200
        assert html.post(bob.client, "/controls/thresholds", {"thresholds": "5"}, form="/settings").status_code == 403


def test_thresholds(ann: Person, tenant: Api) -> None:
    def choose(value: str) -> int:
        answer = html.post(ann.client, "/controls/thresholds", {"thresholds": value}, form="/controls")
        return int(answer.status_code)

    assert 'value="70, 90, 100"' in ann.client.get("/controls").text
    assert choose("50, 80") == 302
    assert tenant.get("/controls").json["alert_thresholds"] == [50, 80]
    assert choose("") == 302
    assert tenant.get("/controls").json["alert_thresholds"] == []
    assert choose("0") == choose("a lot") == choose("101") == 422


class TestBanner:
    def test_it_is_on_every_page_until_it_is_dismissed(self, ann: Person, tenant: Api) -> None:
        tenant.post("/usage", {"credits": 85})
        for path in ("/usage", "/ledger", "/settings", "/tokens", "/alerts"):
            assert f"{LOW} Get credits" in text(ann, path), path
        [alert] = tenant.get("/alerts").json["data"]
        assert html.post(ann.client, f"/alerts/{alert['id']}/dismiss", form="/alerts").status_code == 302
        assert "Get credits" not in text(ann, "/usage")
        assert "dismissed" in text(ann, "/alerts")

    def test_members_see_it_and_can_not_dismiss_it(self, sqlite_app: Flask, ann: Person, tenant: Api) -> None:
        bob = factories.person(sqlite_app, "bob@example.com")
        factories.join(sqlite_app, bob.user_id, ann.account_id, Role.MEMBER)
        tenant.post("/usage", {"credits": 85})
        page = bob.client.get("/usage")
        assert LOW in html.read(page).text and "/dismiss" not in page.text
        [alert] = tenant.get("/alerts").json["data"]
        assert html.post(bob.client, f"/alerts/{alert['id']}/dismiss", form="/settings").status_code == 403

    def test_of_several_thresholds_the_highest_is_shown(self, sqlite_app: Flask, ann: Person, tenant: Api) -> None:
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        operator.post(f"/accounts/{ann.account_id}/plan", {"tier": "enterprise", "included_credits": 1000})
        tenant.post("/usage", {"credits": 950})
        page = text(ann, "/usage")
        assert "90 % of this period's allowance of 1,000 credits is used. See larger plans" in page
        assert "70 %" not in page

    def test_others_do_not_see_it(self, sqlite_app: Flask, ann: Person, tenant: Api) -> None:
        eve = factories.person(sqlite_app, "eve@example.com")
        tenant.post("/usage", {"credits": 85})
        assert "Credits run low" not in text(eve, "/usage")

    def test_an_account_without_alerts(self, ann: Person) -> None:
        assert "Nothing so far" in text(ann, "/alerts")
