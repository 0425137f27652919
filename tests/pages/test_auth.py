"""Coming in, staying in and going: sign-up, log-in, passwords, verified addresses and the set-up link."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from sqlalchemy import text

from extensions import db
from services import people
from tests import html
from tests.factories import PASSWORD, Api, service_token
from tests.pages.helpers import available, is_logged_in, letters, log_in, sign_up
from tests.together import at_once

OTHER_PASSWORD = "another horse battery"


@pytest.fixture
def browser(sqlite_app: Flask) -> FlaskClient:
    return sqlite_app.test_client()


def count(app: Flask, table: str) -> int:
    with app.app_context(), db.engine.connect() as conn:
        return int(conn.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def without_what_varies(page: str) -> str:
    """The page without CSRF tokens, request ids and the e-mail it was sent."""
    page = re.sub(r'(name="csrf_token"[^>]*value=")[^"]*', r"\1", page)
    return re.sub(r'Request [0-9a-f]{32}|value="[^"]*@[^"]*"', "", page)


class TestSigningUp:
    def test_it_logs_in_to_an_account_with_the_sign_up_credits(self, app: Flask) -> None:
        browser = app.test_client()
        answer = sign_up(browser, " Ann@Example.com ", account="Ann's  <Shop>")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/usage")
        page = browser.get("/usage")
        assert page.status_code == 200
        assert available(browser) == "100"
        assert "Ann&#39;s &lt;Shop&gt;" in page.text
        assert "ann@example.com" in browser.get("/settings").text

    def test_without_a_name_the_account_is_called_after_the_person(self, browser: FlaskClient) -> None:
        sign_up(browser, "ann.lee@example.com")
        assert "ann.lee</span>" in browser.get("/usage").text

    @pytest.mark.parametrize(
        ("email", "password", "complaint"),
        [
            ("", PASSWORD, "Your e-mail address."),
            ("nobody", PASSWORD, "Not an e-mail address."),
            ("a b@example.com", PASSWORD, "Not an e-mail address."),
            ("ann@", PASSWORD, "Not an e-mail address."),
            ("ann@example.com\nbob@example.com", PASSWORD, "Not an e-mail address."),
            ("ann@example.com", "", "Choose a password."),
            ("ann@example.com", "7 chars", "8 to 200 characters."),
            ("ann@example.com", "x" * 201, "8 to 200 characters."),
            ("ann@example.com", "Ann@Example.com", "Not the e-mail address itself."),
        ],
    )
    def test_a_complaint_stands_at_its_field(
        self, sqlite_app: Flask, browser: FlaskClient, email: str, password: str, complaint: str
    ) -> None:
        answer = sign_up(browser, email, password)
        assert answer.status_code == 422
        assert complaint in answer.text
        assert "is-invalid" in answer.text
        assert password not in answer.text.replace(email, "") or not password
        assert count(sqlite_app, "users") == count(sqlite_app, "accounts") == 0
        assert not is_logged_in(browser)

    @pytest.mark.parametrize("again", ["ann@example.com", "  ANN@example.COM "])
    def test_an_address_is_taken_once(self, sqlite_app: Flask, browser: FlaskClient, again: str) -> None:
        sign_up(sqlite_app.test_client(), "ann@example.com")
        answer = sign_up(browser, again)
        assert answer.status_code == 422
        assert "This address is in use." in answer.text
        assert count(sqlite_app, "users") == count(sqlite_app, "accounts") == 1

    def test_whoever_is_logged_in_has_signed_up(self, browser: FlaskClient) -> None:
        sign_up(browser)
        answer = browser.get("/signup")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/usage")

    def test_text_that_can_not_be_kept_is_refused(self, app: Flask) -> None:
        browser = app.test_client()
        for data in ({"account": "a\x00b"}, {"email": "a\x00@example.com"}, {"account": "a\x1bb"}):
            answer = sign_up(browser, **data)
            assert answer.status_code == 400
        assert log_in(browser, "a\x00@example.com").status_code == 400
        assert html.post(browser, "/password/forgot", {"email": "\x00"}).status_code == 400
        for path in ("/usage/%00", "/verify/a%00", "/setup/%00", "/password/reset/%01"):
            assert browser.get(path).status_code == 404
        assert count(app, "users") == 0


class TestLoggingIn:
    def test_in_and_out(self, sqlite_app: Flask, browser: FlaskClient) -> None:
        sign_up(sqlite_app.test_client())
        assert not is_logged_in(browser)
        answer = log_in(browser, " ANN@example.com ")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/usage")
        assert is_logged_in(browser)
        assert browser.get("/login").headers["Location"] == "/usage"
        assert browser.get("/").headers["Location"] == "/usage"
        out = html.post(browser, "/logout", form="/settings")
        assert (out.status_code, out.headers["Location"]) == (302, "/login")
        assert not is_logged_in(browser)
        assert browser.get("/").status_code == 200
        assert browser.get("/logout").status_code == 405, "a link can not log anybody out"

    def test_unknown_people_and_wrong_passwords_look_alike(self, sqlite_app: Flask) -> None:
        sign_up(sqlite_app.test_client())
        wrong = log_in(sqlite_app.test_client(), password="wrong password")
        unknown = log_in(sqlite_app.test_client(), "bob@example.com", "wrong password")
        assert wrong.status_code == unknown.status_code == 422
        assert without_what_varies(wrong.text) == without_what_varies(unknown.text)
        assert "E-mail and password do not match." in wrong.text
        assert "wrong password" not in wrong.text
        assert sorted(wrong.headers.keys()) == sorted(unknown.headers.keys())

    @pytest.mark.usefixtures("whole_window")
    def test_guessing_is_bounded_also_for_people_who_do_not_exist(self, sqlite_app: Flask) -> None:
        sign_up(sqlite_app.test_client())
        for email in ("ann@example.com", "nobody@example.com"):
            statuses = []
            while 429 not in statuses and len(statuses) < 15:
                last = log_in(sqlite_app.test_client(), email, "wrong password")
                statuses.append(last.status_code)
            assert statuses.index(429) == 10, statuses
            assert 1 <= int(last.headers["Retry-After"]) <= 900
            assert last.headers["Content-Type"].startswith("text/html")
            right = log_in(sqlite_app.test_client(), email)
            assert right.status_code == 429, "the right password is not told apart either"
        sign_up(sqlite_app.test_client(), "bob@example.com")
        assert log_in(sqlite_app.test_client(), "bob@example.com").status_code == 302

    def test_whoever_gets_in_begins_to_count_anew(self, sqlite_app: Flask) -> None:
        sign_up(sqlite_app.test_client())
        for _ in range(2):
            for _ in range(6):
                assert log_in(sqlite_app.test_client(), password="wrong password").status_code == 422
            assert log_in(sqlite_app.test_client()).status_code == 302

    def test_the_session_holds_nothing_from_before(self, sqlite_app: Flask, browser: FlaskClient) -> None:
        sign_up(sqlite_app.test_client())
        before = html.csrf(browser)
        with browser.session_transaction() as session:
            session["planted"] = "by somebody else"
        log_in(browser)
        with browser.session_transaction() as session:
            assert "planted" not in session
            assert session["_user_id"].startswith("usr_")
        answer = browser.post("/logout", data={"csrf_token": before})
        assert answer.status_code == 400, "nor is a form of before good now"


LOCAL = ["/tokens", "/usage?range=30d&by=model", "/", "/a/b#c", "/%C3%A9", "/usage?next=//evil.example"]
ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "\\/evil.example",
    "https://evil.example",
    "https:evil.example",
    "javascript:alert(1)",
    "evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/\x00/evil.example",
    "/ok\r\nX-Header: 1",
    "/ok\\@evil.example",
    "",
    "?",
]


class TestWhereToNext:
    @pytest.mark.parametrize("path", ["/tokens", "/usage?range=30d&by=model"])
    def test_a_page_that_needs_a_log_in_comes_after_it(
        self, sqlite_app: Flask, browser: FlaskClient, path: str
    ) -> None:
        sign_up(sqlite_app.test_client())
        asked = browser.get(path)
        assert asked.status_code == 302
        login = asked.headers["Location"]
        assert login.startswith("/login?next=/")
        token = html.csrf(browser, login)
        data = {"email": "ann@example.com", "password": PASSWORD, "csrf_token": token}
        assert browser.post(login, data=data).headers["Location"] == path

    def test_only_paths_of_this_site_are_followed(self, browser: FlaskClient) -> None:
        sign_up(browser)
        for following in LOCAL:
            answer = browser.get("/login", query_string={"next": following})
            assert (answer.status_code, answer.headers["Location"]) == (302, following)
        for following in ELSEWHERE:
            answer = browser.get("/login", query_string={"next": following})
            assert (answer.status_code, answer.headers["Location"]) == (302, "/usage"), following

    def test_log_in_and_sign_up_follow_it_as_carefully(self, sqlite_app: Flask) -> None:
        for number, (following, expected) in enumerate(
            [("/tokens", "/tokens"), ("//evil.example", "/usage"), ("/\\evil.example", "/usage")]
        ):
            data = {"email": f"ann{number}@example.com", "password": PASSWORD}
            for path in ("/signup", "/login"):
                browser = sqlite_app.test_client()
                form = {**data, "csrf_token": html.csrf(browser, path)}
                answer = browser.post(path, query_string={"next": following}, data=form)
                assert (answer.status_code, answer.headers["Location"]) == (302, expected)


def aged(app: Flask, path: str, seconds: int) -> str:
    """The same link as if it had been made some seconds ago."""
    front, _, token = path.rpartition("/")
    salt = {"reset": "spillway-password-reset", "verify": "spillway-verify-email"}[front.rpartition("/")[2]]

    class Older(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time()) - seconds

    key = app.config["SECRET_KEY"]
    payload = URLSafeTimedSerializer(key, salt=salt).loads(token)
    made = URLSafeTimedSerializer(key, salt=salt, signer=Older).dumps(payload)
    return f"{front}/{made}"


def tampered(path: str) -> list[str]:
    """Links that nobody signed."""
    front, _, token = path.rpartition("/")
    payload, stamp, signature = token.split(".")
    return [
        f"{front}/{wrong}"
        for wrong in (
            f"{payload}.{stamp}.{signature[:-3]}AAA",
            f"{payload}A.{stamp}.{signature}",
            f"{payload}.{stamp[:-1]}_.{signature}",
            f"{payload}.{stamp}",
            payload,
            "x",
            "..",
            "a" * 5000,
        )
    ]


class TestForgottenPassword:
    @pytest.fixture
    def ann(self, sqlite_app: Flask) -> FlaskClient:
        browser = sqlite_app.test_client()
        sign_up(browser)
        return browser

    def ask(self, app: Flask, email: str = "ann@example.com") -> str:
        """The path of the link in the mail."""
        answer = html.post(app.test_client(), "/password/forgot", {"email": email})
        assert answer.status_code == 302
        return letters(app, "password_reset")[-1].path

    def set(self, app: Flask, path: str, password: str = OTHER_PASSWORD) -> Any:
        return html.post(app.test_client(), path, {"password": password})

    def test_the_answer_does_not_say_who_exists(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        pages = []
        for email in ("ann@example.com", "nobody@example.com"):
            browser = sqlite_app.test_client()
            answer = html.post(browser, "/password/forgot", {"email": email})
            assert (answer.status_code, answer.headers["Location"]) == (302, "/login")
            pages.append(without_what_varies(browser.get("/login").text))
        assert pages[0] == pages[1]
        [letter] = letters(sqlite_app, "password_reset")
        assert letter.to == "ann@example.com"

    def test_a_new_password_ends_the_old_one_and_every_session(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        path = self.ask(sqlite_app, " ANN@example.com ")
        browser = sqlite_app.test_client()
        assert browser.get(path).status_code == 200, "looking does not use the link up"
        answer = html.post(browser, path, {"password": OTHER_PASSWORD})
        assert (answer.status_code, answer.headers["Location"]) == (302, "/usage")
        assert is_logged_in(browser)
        assert not is_logged_in(ann)
        assert log_in(sqlite_app.test_client()).status_code == 422
        assert log_in(sqlite_app.test_client(), password=OTHER_PASSWORD).status_code == 302

    def test_the_link_works_once(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        first, second = self.ask(sqlite_app), self.ask(sqlite_app)
        assert self.set(sqlite_app, first).status_code == 302
        for path in (first, second):
            assert sqlite_app.test_client().get(path).status_code == 404, "a new password ends every link"
            assert self.set_blindly(sqlite_app, path, "yet another one").status_code == 404
        assert log_in(sqlite_app.test_client(), password=OTHER_PASSWORD).status_code == 302

    def set_blindly(self, app: Flask, path: str, password: str) -> Any:
        """Without looking at the form first."""
        browser = app.test_client()
        return browser.post(path, data={"password": password, "csrf_token": html.csrf(browser)})

    def test_used_twice_at_once_it_still_works_once(self, app: Flask) -> None:
        sign_up(app.test_client())
        path = self.ask(app)
        passwords = [f"password number {number}" for number in range(4)]

        def use(password: str) -> Callable[[], int]:
            browser = app.test_client()
            token = html.csrf(browser)
            return lambda: browser.post(path, data={"password": password, "csrf_token": token}).status_code

        statuses = at_once(*[use(password) for password in passwords])
        assert sorted(statuses) == [302, 404, 404, 404]
        winner = passwords[statuses.index(302)]
        assert log_in(app.test_client(), password=winner).status_code == 302

    def test_it_ends_after_an_hour(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        path = self.ask(sqlite_app)
        assert sqlite_app.test_client().get(aged(sqlite_app, path, 3590)).status_code == 200
        old = aged(sqlite_app, path, 3602)
        assert sqlite_app.test_client().get(old).status_code == 404
        assert self.set_blindly(sqlite_app, old, OTHER_PASSWORD).status_code == 404
        assert log_in(sqlite_app.test_client()).status_code == 302

    def test_nobody_can_make_one(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        path = self.ask(sqlite_app)
        for wrong in tampered(path):
            assert sqlite_app.test_client().get(wrong).status_code == 404, wrong
            assert self.set_blindly(sqlite_app, wrong, OTHER_PASSWORD).status_code == 404
        verification = path.replace("/password/reset/", "/verify/")
        assert sqlite_app.test_client().get(verification).status_code == 404, "one kind of link is no other"
        assert log_in(sqlite_app.test_client()).status_code == 302

    def test_a_bad_password_leaves_the_link_good(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        path = self.ask(sqlite_app)
        for bad in ("", "7 chars", "ann@example.com"):
            assert self.set(sqlite_app, path, bad).status_code == 422
        assert self.set(sqlite_app, path).status_code == 302

    @pytest.mark.usefixtures("whole_window")
    def test_asking_is_bounded_for_everybody_alike(self, sqlite_app: Flask, ann: FlaskClient) -> None:
        for email in ("ann@example.com", "nobody@example.com"):
            statuses: list[int] = []
            while 429 not in statuses and len(statuses) < 15:
                last = html.post(sqlite_app.test_client(), "/password/forgot", {"email": email})
                statuses.append(last.status_code)
            assert 5 <= statuses.index(429) <= 10
            assert 1 <= int(last.headers["Retry-After"]) <= 3600

    @pytest.mark.settings(public_url="https://billing.example.com")
    def test_links_are_made_from_the_public_address(self, sqlite_app: Flask) -> None:
        browser = sqlite_app.test_client()
        evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
        page = html.read(browser.get("/signup", headers=evil, base_url="https://evil.example"))
        data = {"email": "ann@example.com", "password": PASSWORD, "csrf_token": page.forms[0].fields["csrf_token"]}
        secure = {**evil, "Referer": "https://evil.example/signup"}
        assert browser.post("/signup", data=data, headers=secure, base_url="https://evil.example").status_code == 302
        with sqlite_app.app_context():
            people.request_reset("ann@example.com")
            db.session.remove()
        [letter] = letters(sqlite_app, "password_reset")
        assert letter.link.startswith("https://billing.example.com/password/reset/")


@pytest.mark.settings(signup_grant="verified")
class TestVerifiedAddress:
    def test_the_credits_wait_for_it_and_come_once(self, app: Flask) -> None:
        browser = app.test_client()
        sign_up(browser)
        assert available(browser) == "0"
        assert "not confirmed yet" in browser.get("/settings").text
        [letter] = letters(app, "verify_email")
        assert letter.to == "ann@example.com"
        somewhere_else = app.test_client()
        assert somewhere_else.get(letter.path).status_code == 302
        assert not is_logged_in(somewhere_else), "a link in a mail logs nobody in"
        assert available(browser) == "100"
        assert browser.get(letter.path).status_code == 302
        assert available(browser) == "100"
        assert "not confirmed yet" not in browser.get("/settings").text

    def test_opened_many_times_at_once_it_gives_once(self, app: Flask) -> None:
        browser = app.test_client()
        sign_up(browser)
        [letter] = letters(app, "verify_email")
        statuses = at_once(*[lambda: app.test_client().get(letter.path).status_code] * 4)
        assert statuses == [302] * 4
        assert available(browser) == "100"

    @pytest.mark.usefixtures("whole_window")
    def test_another_link_can_be_had_but_not_for_ever(self, sqlite_app: Flask, browser: FlaskClient) -> None:
        sign_up(browser)
        for _ in range(2):
            answer = html.post(browser, "/verify/resend", form="/settings")
            assert (answer.status_code, answer.headers["Location"]) == (302, "/settings")
        sent = letters(sqlite_app, "verify_email")
        assert len(sent) == 3
        browser.get(sent[-1].path)
        assert available(browser) == "100"
        statuses = [html.post(browser, "/verify/resend", form="/settings").status_code for _ in range(9)]
        assert 429 in statuses

    def test_a_password_by_mail_proves_the_address_too(self, sqlite_app: Flask, browser: FlaskClient) -> None:
        sign_up(browser)
        html.post(sqlite_app.test_client(), "/password/forgot", {"email": "ann@example.com"})
        [letter] = letters(sqlite_app, "password_reset")
        html.post(browser, letter.path, {"password": OTHER_PASSWORD})
        assert available(browser) == "100"

    def test_a_person_who_had_them_gets_none(self, sqlite_app: Flask, browser: FlaskClient) -> None:
        operator = Api(sqlite_app, service_token(sqlite_app))
        operator.post("/accounts", {"external_id": "acme", "name": "Acme", "email": "Ann@example.com"})
        sign_up(browser)
        browser.get(letters(sqlite_app, "verify_email")[0].path)
        assert available(browser) == "0"

    def test_wrong_and_old_links(self, sqlite_app: Flask, browser: FlaskClient) -> None:
        sign_up(browser)
        path = letters(sqlite_app, "verify_email")[0].path
        for wrong in (*tampered(path), aged(sqlite_app, path, 7 * 86400 + 2)):
            assert browser.get(wrong).status_code == 404, wrong
        assert available(browser) == "0"
        assert browser.get(aged(sqlite_app, path, 7 * 86400 - 60)).status_code == 302
        assert available(browser) == "100"


class TestChangingThePassword:
    def test_other_sessions_end_and_this_one_stays(self, sqlite_app: Flask, browser: FlaskClient) -> None:
        sign_up(browser)
        elsewhere = sqlite_app.test_client()
        log_in(elsewhere)
        answer = html.post(browser, "/settings", {"current": PASSWORD, "new": OTHER_PASSWORD})
        assert (answer.status_code, answer.headers["Location"]) == (302, "/settings")
        assert is_logged_in(browser)
        assert not is_logged_in(elsewhere)
        assert log_in(elsewhere).status_code == 422
        assert log_in(elsewhere, password=OTHER_PASSWORD).status_code == 302

    @pytest.mark.parametrize(
        ("current", "new", "complaint"),
        [
            ("wrong password", OTHER_PASSWORD, "That is not your password."),
            ("", OTHER_PASSWORD, "Your password."),
            (PASSWORD, "short", "8 to 200 characters."),
            (PASSWORD, "ann@example.com", "Not the e-mail address itself."),
        ],
    )
    def test_complaints(self, browser: FlaskClient, current: str, new: str, complaint: str) -> None:
        sign_up(browser)
        answer = html.post(browser, "/settings", {"current": current, "new": new})
        assert answer.status_code == 422
        assert complaint in answer.text
        assert new not in answer.text.replace("ann@example.com</p>", "").replace("ann@example.com\n", "") or "@" in new
        assert is_logged_in(browser)


class TestSetUp:
    """The one-time link of a fresh installation."""

    def link(self, app: Flask) -> str:
        with app.app_context():
            found = people.setup_link()
            db.session.remove()
        assert found is not None
        assert found.startswith("http://127.0.0.1:8000/setup/")
        return found.removeprefix("http://127.0.0.1:8000")

    def use(self, app: Flask, path: str, email: str = "boss@example.com") -> Any:
        browser = app.test_client()
        data = {"email": email, "password": PASSWORD, "csrf_token": html.csrf(browser)}
        return browser.post(path, data=data), browser

    def test_it_makes_the_first_operator_with_credits_to_try(self, app: Flask) -> None:
        path = self.link(app)
        assert app.test_client().get(path).status_code == 200
        answer, browser = self.use(app, path)
        assert (answer.status_code, answer.headers["Location"]) == (302, "/usage")
        assert available(browser) == "100"
        assert "operator" in html.read(browser.get("/settings")).text

    @pytest.mark.settings(signup_grant="verified")
    def test_also_where_credits_wait_for_verified_addresses(self, sqlite_app: Flask) -> None:
        _, browser = self.use(sqlite_app, self.link(sqlite_app))
        assert available(browser) == "100"

    def test_it_works_once_and_ends_all_others(self, sqlite_app: Flask) -> None:
        first, second = self.link(sqlite_app), self.link(sqlite_app)  # a server that was started twice
        assert first != second
        assert self.use(sqlite_app, first)[0].status_code == 302
        for path in (first, second):
            assert sqlite_app.test_client().get(path).status_code == 404
            assert self.use(sqlite_app, path, "other@example.com")[0].status_code == 404
        with sqlite_app.app_context():
            assert people.setup_link() is None
        assert count(sqlite_app, "users") == 1

    def test_used_at_once_it_makes_one_operator(self, app: Flask) -> None:
        paths = [self.link(app), self.link(app)]

        def use(number: int) -> Callable[[], int]:
            return lambda: self.use(app, paths[number % 2], f"boss{number}@example.com")[0].status_code

        assert sorted(at_once(*[use(number) for number in range(4)])) == [302, 404, 404, 404]
        assert count(app, "users") == count(app, "accounts") == 1

    def test_it_ends_with_an_operator_of_the_command_line(self, app: Flask, runner: FlaskCliRunner) -> None:
        path = self.link(app)
        made = runner.invoke(args=["operators", "add", "boss@example.com"])
        assert made.exit_code == 0, made.output
        assert app.test_client().get(path).status_code == 404
        assert self.use(app, path, "other@example.com")[0].status_code == 404
        reset = re.search(r"http://127\.0\.0\.1:8000(/password/reset/\S+)", made.output)
        assert reset is not None
        browser = app.test_client()
        assert html.post(browser, reset[1], {"password": PASSWORD}).status_code == 302
        assert "operator" in html.read(browser.get("/settings")).text

    def test_a_bad_form_leaves_the_link_good(self, sqlite_app: Flask) -> None:
        sign_up(sqlite_app.test_client(), "ann@example.com")
        path = self.link(sqlite_app)
        for email in ("nobody", "ann@example.com"):
            assert self.use(sqlite_app, path, email)[0].status_code == 422
        assert self.use(sqlite_app, path)[0].status_code == 302

    def test_nobody_can_guess_it(self, sqlite_app: Flask) -> None:
        path = self.link(sqlite_app)
        for wrong in ("/setup/x", path[:-1], path + "x", path.swapcase(), "/setup/" + "a" * 5000):
            answer = sqlite_app.test_client().get(wrong)
            assert answer.status_code in (301, 308, 404)
        assert len(path.removeprefix("/setup/")) >= 43
        with sqlite_app.app_context(), db.engine.connect() as conn:
            kept = str(conn.execute(text("SELECT * FROM setup_links")).all())
        assert path.removeprefix("/setup/") not in kept

    def test_secrets_of_paths_are_not_logged(self, sqlite_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        written = io.StringIO()
        for handler in logging.root.handlers:
            if isinstance(handler, logging.StreamHandler):
                monkeypatch.setattr(handler, "stream", written)
        path = self.link(sqlite_app)
        sqlite_app.test_client().get(path)
        assert "/setup/<secret>" in written.getvalue()
        assert path.removeprefix("/setup/") not in written.getvalue()


class TestRenaming:
    def test_the_owner_names_the_account(self, browser: FlaskClient) -> None:
        sign_up(browser)
        answer = html.post(browser, "/settings/account", {"name": "  New \t\r\n name "}, form="/settings")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/settings")
        assert "New name</span>" in browser.get("/usage").text

    @pytest.mark.parametrize("name", ["", "   ", "x" * 201])
    def test_complaints(self, browser: FlaskClient, name: str) -> None:
        sign_up(browser, account="Old name")
        answer = html.post(browser, "/settings/account", {"name": name}, form="/settings")
        assert answer.status_code == 422
        assert "is-invalid" in answer.text
        assert "Old name</span>" in browser.get("/usage").text
