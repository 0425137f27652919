"""The page of access tokens: made here, shown once, ended here."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask

from tests import factories, html
from tests.factories import Api, Person
from tests.moments import At

SECRET = re.compile(r"spw_[0-9a-z]{16}[A-Za-z0-9_-]{43}", re.ASCII)


@pytest.fixture
def ann(sqlite_app: Flask) -> Person:
    return factories.person(sqlite_app, "ann@example.com")


def make(person: Person, **data: Any) -> Any:
    return html.post(person.client, "/tokens", {"name": "backend", "scopes": ["read", "write"], **data})


def secret_of(answer: Any) -> str:
    assert answer.status_code == 200, html.read(answer).text
    found = set(SECRET.findall(answer.text))
    assert len(found) == 1
    return str(found.pop())


def rows(person: Person) -> list[str]:
    """The table of tokens as text, one string a row."""
    page = person.client.get("/tokens").text
    return [html.Page(row).text for row in page.partition("<tbody>")[2].partition("</tbody>")[0].split("<tr>")[1:]]


def test_it_is_shown_once_and_works_at_once(sqlite_app: Flask, ann: Person) -> None:
    answer = make(ann, name="  My   backend ")
    secret = secret_of(answer)
    assert answer.headers["Cache-Control"] == "no-store"
    assert f"Authorization: Bearer {secret}" in html.read(answer).text, "with a call to try it"
    tenant = Api(sqlite_app, secret)
    assert tenant.get("/balance").json["account"] == ann.account_id
    assert tenant.post("/usage", {"credits": 1}).status == 201
    again = ann.client.get("/tokens").text
    assert secret not in again
    assert secret[20:] not in again
    [row] = rows(ann)
    assert row.startswith(f"My backend tok_{secret[4:20]} read write –")
    assert "active Revoke" in row


def test_scopes_cap_and_expiry_are_those_that_were_chosen(sqlite_app: Flask, ann: Person, at: At) -> None:
    secret = secret_of(make(ann, scopes=["read", "write", "billing", "tokens"], cap="1.5", expires_on="2026-11-21"))
    tenant = Api(sqlite_app, secret)
    [token] = tenant.get("/tokens").json["data"]
    assert token["scopes"] == ["read", "write", "billing", "tokens"]
    assert (token["cap"], token["expires_at"]) == (factories.amounts.parse("1.5"), "2026-11-22T00:00:00Z")
    assert tenant.post("/usage", {"credits": 2}).code == "cap_reached"
    at("2026-11-21T23:59:59Z")
    assert tenant.post("/usage", {"credits": 1}).status == 201
    at("2026-11-22T00:00:00Z")
    assert tenant.get("/balance").status == 401
    [row] = rows(ann)
    assert "1.5" in row
    assert "2026-11-22 00:00 UTC" in row
    assert row.endswith("expired"), "and there is nothing left to revoke"


def test_revoking_works_at_once(sqlite_app: Flask, ann: Person) -> None:
    secret = secret_of(make(ann))
    tenant = Api(sqlite_app, secret)
    assert tenant.post("/usage", {"credits": 1}).status == 201
    path = f"/tokens/tok_{secret[4:20]}/revoke"
    answer = html.post(ann.client, path, form="/tokens")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/tokens")
    assert tenant.post("/usage", {"credits": 1}).status == 401
    assert tenant.get("/balance").status == 401
    assert "The token is revoked" in ann.client.get("/tokens").text
    [row] = rows(ann)
    assert row.endswith("revoked")
    assert html.post(ann.client, path, form="/tokens").status_code == 302, "harmless when it has ended"
    assert html.post(ann.client, "/tokens/tok_none/revoke", form="/tokens").status_code == 404


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "   "}, "This field is required."),
        ({"name": "x" * 101}, "Field cannot be longer than 100 characters."),
        ({"scopes": []}, "Choose at least one."),
        ({"scopes": ["read", "admin"]}, "'admin' is not a valid choice"),
        ({"cap": "many"}, "Not a number."),
        ({"cap": "-1"}, "Must not be negative."),
        ({"cap": "NaN"}, "Not a finite number."),
        ({"cap": "0.0000001"}, "At most 6 decimal places."),
        ({"cap": "1e99999999"}, "Must not be more than 1000000000."),
        ({"cap": "1" * 31}, "Field cannot be longer than 30 characters."),
        ({"expires_on": "2026-11-20"}, "Choose today or a later day."),
        ({"expires_on": "9999-12-31"}, "Choose today or a later day."),
        ({"expires_on": "tomorrow"}, "Not a valid date value."),
    ],
)
def test_a_complaint_stands_at_its_field(ann: Person, at: At, data: Any, complaint: str) -> None:
    [field] = data
    answer = make(ann, **data)
    assert answer.status_code == 422
    assert SECRET.search(answer.text) is None
    page = answer.text.replace("&#39;", "'")
    assert page.count("invalid-feedback") == 1
    assert complaint in page
    place = page.index(complaint)
    assert page.rindex(f'name="{field}"', 0, place) > page.rindex("<form", 0, place)
    later = page[place:].partition("</form>")[0]
    assert f'name="{field}"' not in later
    assert rows(ann) == []


def test_what_was_typed_is_still_there_after_a_complaint(ann: Person) -> None:
    answer = make(ann, name='"><script>alert(1)</script>', cap="many", expires_on="2099-01-01")
    page = html.read(answer)
    form = page.forms[-1].fields
    assert form["name"] == '"><script>alert(1)</script>'
    assert (form["cap"], form["expires_on"]) == ("many", "2099-01-01")
    assert page.inline == []


def test_names_are_text(ann: Person) -> None:
    secret_of(make(ann, name="<script>alert('x')</script> & <b>"))
    page = html.read(ann.client.get("/tokens"))
    assert "<script>alert('x')</script> & <b>" in page.text
    assert page.inline == []
    assert "b" not in page.tags


def test_a_closed_account_makes_none(sqlite_app: Flask, ann: Person) -> None:
    operator = Api(sqlite_app, factories.service_token(sqlite_app))
    operator.post(f"/accounts/{ann.account_id}/close", {"reason": "x"})
    answer = make(ann)
    assert answer.status_code == 403
    assert "The account is closed" in answer.text


def test_tokens_of_the_api_are_listed_too(sqlite_app: Flask, ann: Person, at: At) -> None:
    operator = Api(sqlite_app, factories.service_token(sqlite_app))
    made = operator.post("/tokens", {"account": ann.account_id, "name": "from the API", "scopes": ["read"]}).json
    Api(sqlite_app, made["token"]).get("/balance")
    [row] = rows(ann)
    assert row.startswith("from the API")
    assert "2026-11-21 10:00 UTC" in row, "when it was last used"
