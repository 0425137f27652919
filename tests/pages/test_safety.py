"""What keeps a browser safe here: forms nobody can forge, cookies, headers, and nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from extensions import db
from services import people
from tests import factories, html
from tests.factories import PASSWORD, Api
from tests.pages.helpers import letters, log_in, sign_up

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def pages(app: Flask, method: str) -> list[str]:
    """The rules of all pages (not the API's) that take the method."""
    return sorted(
        rule.rule
        for rule in app.url_map.iter_rules()
        if method in (rule.methods or ())
        and not rule.rule.startswith(("/api/", "/webhooks/"))
        and not rule.endpoint.endswith("static")
    )


def filled(rule: str) -> str:
    """A path of the rule; what it names is not there."""
    return rule.replace("<", "").replace(">", "")


@pytest.fixture
def ann(sqlite_app: Flask) -> FlaskClient:
    browser = sqlite_app.test_client()
    sign_up(browser)
    return browser


def everything(app: Flask) -> str:
    """All that is kept, but sessions' and throttles' traces."""
    names = ("users", "accounts", "memberships", "tokens", "ledger_entries", "mails", "setup_links")
    with app.app_context(), db.engine.connect() as conn:
        return str([conn.execute(text(f"SELECT * FROM {name}")).all() for name in names])


class TestForgedForms:
    def test_no_page_takes_a_form_without_its_token(
        self, sqlite_app: Flask, ann: FlaskClient, subtests: pytest.Subtests
    ) -> None:
        rules = pages(sqlite_app, "POST")
        assert len(rules) >= 9
        stranger = html.csrf(sqlite_app.test_client())
        data = {"email": "bob@example.com", "password": PASSWORD, "name": "x", "scopes": "read", "current": PASSWORD}
        before = everything(sqlite_app)
        for rule in rules:
            for browser in (ann, sqlite_app.test_client()):
                with subtests.test(f"{rule} {'logged in' if browser is ann else ''}"):
                    html.csrf(browser)
                    for token in ({}, {"csrf_token": ""}, {"csrf_token": "x"}, {"csrf_token": stranger}):
                        answer = browser.post(filled(rule), data={**data, **token})
                        assert answer.status_code == 400
                        assert answer.headers["Content-Type"].startswith("text/html")
                        assert "The form has expired." in answer.text
                    assert browser.post(filled(rule), json=data).status_code == 400
        assert everything(sqlite_app) == before
        assert ann.get("/settings").status_code == 200, "not even logged out"

    def test_every_form_carries_one(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        Api(sqlite_app, factories.service_token(sqlite_app))
        html.post(ann, "/tokens", {"name": "x", "scopes": "read"})
        seen = 0
        for address, answer in every_page(sqlite_app, ann):
            for form in html.read(answer).forms:
                if form.method == "post":
                    seen += 1
                    assert form.fields.get("csrf_token"), address
                else:
                    assert "csrf_token" not in form.fields, f"{address} would put it into an address"
        assert seen > 15


def every_page(app: Flask, browser: FlaskClient) -> Iterator[tuple[str, object]]:
    """Every GET page, as somebody who is logged in and as nobody, with errors and with what a form says back."""
    with app.app_context():
        setup = str(people.setup_link()).partition("8000")[2]
        people.request_reset("ann@example.com")
        db.session.remove()
    paths = [filled(rule) for rule in pages(app, "GET")]
    paths += [setup, letters(app, "password_reset")[-1].path, "/nothing", "/usage?range=x", "/usage?range=90d&by=model"]
    for client in (app.test_client(), browser):
        for path in paths:
            if path not in ("/healthz", "/readyz", "/metrics") and not path.endswith(".csv"):
                yield path, client.get(path)
    nobody = app.test_client()
    for path in ("/signup", "/login", "/password/forgot"):
        yield f"POST {path}", html.post(nobody, path, {"email": "", "password": ""})
    yield "POST /tokens", html.post(browser, "/tokens", {"name": "", "cap": "x", "expires_on": "2000-01-01"})
    yield "POST /tokens", html.post(browser, "/tokens", {"name": "x", "scopes": "read"})
    yield "POST /logout", browser.post("/logout")


def test_no_page_loads_from_elsewhere_or_holds_scripts_and_styles(sqlite_app: Flask, ann: FlaskClient) -> None:
    account_id = ann.get("/settings").text.partition("Id <code>")[2].partition("<")[0]
    operator = Api(sqlite_app, factories.service_token(sqlite_app))
    usage = {"account": account_id, "credits": 1.5, "operation": "chat", "llm_model": "m", "subject": "u"}
    record = operator.post("/usage", usage).json["id"]
    seen, local = set(), set()
    for address, answer in [*every_page(sqlite_app, ann), ("record", log_in_again(sqlite_app, f"/usage/{record}"))]:
        page = html.read(answer)
        seen.add((address, answer.status_code))
        assert page.inline == [], address
        for loaded in page.addresses:
            assert not loaded.startswith("//") and ":" not in loaded.partition("/")[0], (address, loaded)
            local.add(loaded)
    assert {status for _, status in seen} >= {200, 302, 400, 404, 422}
    files = {path for path in local if "/static/" in path}
    assert len(files) >= 4, "Bootstrap's style, ours, and the scripts"
    for path in files:
        with ann.get(path) as answer:
            assert answer.status_code == 200, path


def log_in_again(app: Flask, path: str) -> object:
    browser = app.test_client()
    log_in(browser)
    answer = browser.get(path)
    assert answer.status_code == 200
    return answer


class TestHeaders:
    def test_every_answer_carries_them(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        sqlite_app.view_functions["usage_pages.home"] = broken = lambda: 1 / 0
        broken.access = "public"
        operator = Api(sqlite_app, factories.service_token(sqlite_app))
        with ann.get("/static/spillway.css") as static:
            assert static.status_code == 200
        answers = [
            ann.get("/usage"),
            ann.get("/login"),
            ann.get("/nothing"),
            ann.get("/"),
            ann.post("/logout"),
            ann.get("/logout"),
            ann.get("/healthz"),
            ann.get("/readyz"),
            ann.get("/api/v1/openapi.json"),
            ann.get("/api/v1/balance"),
            ann.get("/api/nothing"),
            static,
            ann.get("/accounts", headers={"Authorization": f"Bearer {operator.token}"}),
        ]
        assert [answer.status_code for answer in answers] == [
            200, 302, 404, 500, 400, 405, 200, 200, 200, 401, 404, 200, 404,
        ]  # fmt: skip
        for answer in answers:
            for name, value in HEADERS.items():
                assert answer.headers[name] == value, (answer.request.path, name)
            policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
            assert policy["default-src"] == "'self'"
            assert policy["frame-ancestors"] == "'none'"
            assert policy["object-src"] == "'none'"
            assert policy["base-uri"] == "'none'"
            assert policy["form-action"] == "'self'"
            assert "unsafe" not in str(policy)
            assert "http" not in str(policy)
            assert "Strict-Transport-Security" not in answer.headers
            assert len(answer.headers["X-Request-Id"]) == 32
            if "/static/" not in answer.request.path:
                assert answer.headers["Cache-Control"] == "no-store"
        assert "ZeroDivisionError" not in answers[3].text
        assert answers[3].headers["X-Request-Id"] in answers[3].text

    @pytest.mark.settings(public_url="https://billing.example.com")
    def test_https_is_remembered(self, sqlite_app: Flask) -> None:
        for path in ("/login", "/nothing", "/api/v1/balance"):
            answer = sqlite_app.test_client().get(path)
            assert answer.headers["Strict-Transport-Security"].startswith("max-age=31536000")

    def test_probes_never_redirect(self, sqlite_app: Flask) -> None:
        for path in ("/healthz", "/readyz"):
            assert sqlite_app.test_client().get(path).status_code == 200


class TestCookies:
    def flags(self, app: Flask, base_url: str) -> set[str]:
        answer = app.test_client().get("/login", base_url=base_url)
        [cookie] = answer.headers.getlist("Set-Cookie")
        name, *flags = cookie.split("; ")
        assert name.startswith("session=")
        return {flag.partition("=")[0] if flag.startswith("Expires") else flag for flag in flags}

    def test_over_http(self, sqlite_app: Flask) -> None:
        assert self.flags(sqlite_app, "http://127.0.0.1:8000") == {"HttpOnly", "SameSite=Lax", "Path=/"}

    @pytest.mark.settings(public_url="https://billing.example.com")
    def test_over_https(self, sqlite_app: Flask) -> None:
        found = self.flags(sqlite_app, "https://billing.example.com")
        assert found == {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"}

    def test_a_session_lasts_two_weeks_and_can_not_be_changed(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        answer = sign_up(sqlite_app.test_client(), "bob@example.com")
        [cookie] = answer.headers.getlist("Set-Cookie")
        assert "Expires=" in cookie
        kept = ann.get_cookie("session")
        assert kept is not None
        payload, rest = kept.value.split(".", 1)
        ann.set_cookie("session", f"{payload[:-2]}AA.{rest}")
        assert ann.get("/settings").status_code == 302

    def test_the_api_neither_reads_nor_makes_any(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        assert ann.get("/api/v1/balance").status_code == 401, "being logged in on pages is nothing here"
        assert "Set-Cookie" not in sqlite_app.test_client().get("/api/v1/balance").headers


def test_errors_of_pages_are_pages(sqlite_app: Flask, ann: FlaskClient) -> None:
    for browser in (ann, sqlite_app.test_client()):
        for answer, status in (
            (browser.get("/nothing"), 404),
            (browser.get("/usage/use_none/"), 404),
            (browser.delete("/usage"), 405),
            (browser.post("/login", data=b"x" * 1_048_577, content_type="application/x-www-form-urlencoded"), 413),
        ):
            assert answer.status_code == status
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            page = html.read(answer)
            assert "To the start" in page.text
            assert str(status) in page.text
