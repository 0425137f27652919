"""The outbox: mails exist with what caused them, go out once, and wait patiently for a server that refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select, update

import database
from app import create_app
from extensions import db
from models.user import Mail
from services import mailer, people
from tests import factories, servers
from tests.mail_server import MailServer
from tests.together import at_once


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def mailing(app: Flask, server: MailServer, credentials: str = "", query: str = "") -> Flask:
    """The app with the server as its MAIL_URL."""
    url = f"smtp://{credentials}{server.address}{query}"
    app.config["SETTINGS"] = replace(app.config["SETTINGS"], mail_url=url)
    return app


@pytest.fixture
def sender(app: Flask, server: MailServer) -> Flask:
    return mailing(app, server)


@pytest.fixture
def small(sqlite_app: Flask, server: MailServer) -> Flask:
    return mailing(sqlite_app, server)


def queue(app: Flask, to: str = "ann@example.com", subject: str = "Hello", text: str = "Some text.\n") -> None:
    with app.app_context(), database.transaction() as session:
        mailer.queue(session, to=to, kind="test", subject=subject, text=text)


def send(app: Flask, *, by_hand: bool = False) -> int:
    with app.app_context():
        sent = mailer.send_due(by_hand)
        db.session.remove()
    return sent


def outbox(app: Flask) -> list[Mail]:
    with app.app_context():
        mails = list(db.session.scalars(select(Mail).order_by(Mail.created_at, Mail.id)))
        db.session.remove()
    return mails


class TestSending:
    def test_a_mail_arrives_as_it_was_written(self, small: Flask, server: MailServer) -> None:
        text = f"Grüße — a link:\n\nhttp://127.0.0.1:8000/verify/{'x' * 300}\n\n.\n..two dots\n"
        queue(small, subject="Bestätigen – now", text=text)
        assert send(small) == 1
        [(recipient, message)] = server.taken
        assert recipient == message["To"] == "ann@example.com"
        assert message["From"] == "spillway@127.0.0.1"
        assert message["Subject"] == "Bestätigen – now"
        assert message.get_content().replace("\r\n", "\n") == text
        [mail] = outbox(small)
        assert message["Message-ID"] == f"<{mail.id}@127.0.0.1>"
        assert mail.sent_at is not None
        assert (mail.attempts, mail.error) == (1, None)

    def test_it_goes_once(self, sender: Flask, server: MailServer) -> None:
        queue(sender)
        assert [send(sender), send(sender), send(sender, by_hand=True)] == [1, 0, 0]
        assert len(server.taken) == 1

    def test_the_oldest_go_first(self, small: Flask, server: MailServer) -> None:
        for number in range(4):
            queue(small, to=f"ann{number}@example.com")
        with small.app_context():
            assert mailer.send_due(limit=3) == 3
        assert [recipient for recipient, _ in server.taken] == [f"ann{number}@example.com" for number in range(3)]
        assert send(small) == 1

    def test_the_sender_can_be_named(self, sqlite_app: Flask, server: MailServer) -> None:
        app = mailing(sqlite_app, server, query="?from=Billing%20%3Cbilling@example.com%3E")
        queue(app)
        assert send(app) == 1
        assert server.taken[0][1]["From"] == "Billing <billing@example.com>"

    def test_it_logs_in_where_it_has_to(self, sqlite_app: Flask, server: MailServer) -> None:
        app = mailing(sqlite_app, server, credentials="us%40er:pass%2Fword@")
        queue(app)
        assert send(app) == 1
        assert server.credentials == [("us@er", "pass/word")]

    def test_a_wrong_password_is_told_without_being_told(
        self, sqlite_app: Flask, server: MailServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.password = "right"
        app = mailing(sqlite_app, server, credentials="user:wr0ng-pass@")
        queue(app)
        assert send(app) == 0
        [mail] = outbox(app)
        assert mail.error is not None
        assert mail.error.startswith("SMTPAuthenticationError")
        assert "wr0ng-pass" not in mail.error + caplog.text

    def test_encryption_that_is_asked_for_is_never_done_without(self, sqlite_app: Flask, server: MailServer) -> None:
        for scheme in ("smtp+starttls", "smtps"):
            url = f"{scheme}://user:secret@{server.address}"
            sqlite_app.config["SETTINGS"] = replace(sqlite_app.config["SETTINGS"], mail_url=url)
            queue(sqlite_app)
            assert send(sqlite_app, by_hand=True) == 0
        assert server.credentials == []
        assert server.taken == []


class TestTogether:
    """Several processes have the same outbox."""

    @pytest.fixture
    def twin(self, sender: Flask) -> Iterator[Flask]:
        twin = create_app(sender.config["SETTINGS"])
        yield twin
        with twin.app_context():
            db.session.remove()
            db.engine.dispose()

    @pytest.mark.parametrize("by_hand", [False, True])
    def test_of_two_that_send_at_once_one_does(
        self, sender: Flask, twin: Flask, server: MailServer, by_hand: bool
    ) -> None:
        server.seconds = 0.1
        for number in range(3):
            queue(sender, to=f"ann{number}@example.com")
        sent = at_once(lambda: send(sender, by_hand=by_hand), lambda: send(twin), lambda: send(sender, by_hand=by_hand))
        assert sum(sent) == 3
        assert sorted(recipient for recipient, _ in server.taken) == [f"ann{number}@example.com" for number in range(3)]

    def test_a_process_that_died_amid_sending_is_replaced_after_a_while(
        self, sender: Flask, server: MailServer
    ) -> None:
        queue(sender)
        now = datetime.now(UTC)
        with sender.app_context(), database.transaction() as session:  # as the one that died left it
            session.execute(update(Mail).values(attempts=1, next_attempt_at=now + timedelta(minutes=5)))
        assert [send(sender), send(sender, by_hand=True)] == [0, 0], "it may be sending still"
        with sender.app_context(), database.transaction() as session:
            session.execute(update(Mail).values(next_attempt_at=now))
        assert send(sender) == 1

    def test_two_commands_at_once(self, sqlite_app: Flask, server: MailServer, tmp_path: Path) -> None:
        server.seconds = 0.2
        queue(sqlite_app)
        url = sqlite_app.config["SETTINGS"].database_url
        environ = servers.environment(tmp_path, url, MAIL_URL=f"smtp://{server.address}")
        runs = at_once(*[lambda: servers.command(environ, "jobs", "run", "send-outbox")] * 2)
        assert [run.returncode for run in runs] == [0, 0]
        assert sorted(run.stdout.split() for run in runs)[1] == ["send-outbox:", "ok", "1"]
        assert len(server.taken) == 1


class TestRefusal:
    def test_a_pause_grows_with_each_failure(self, small: Flask, server: MailServer) -> None:
        server.refusing = True
        queue(small)
        pauses = []
        for attempts in (1, 2, 3):
            assert send(small, by_hand=True) == 0
            [mail] = outbox(small)
            assert mail.sent_at is None
            assert mail.attempts == attempts == server.connections
            assert mail.error is not None
            assert "451" in mail.error
            pauses.append((mail.next_attempt_at - datetime.now(UTC)).total_seconds())
            assert send(small) == 0, "it waits"
            assert server.connections == attempts
        assert pauses == [pytest.approx(seconds, abs=5) for seconds in (30, 60, 120)]
        server.refusing = False
        assert send(small, by_hand=True) == 1
        assert outbox(small)[0].error is None

    def test_but_not_beyond_a_few_hours(self, small: Flask, server: MailServer) -> None:
        server.refusing = True
        queue(small)
        with small.app_context(), database.transaction() as session:
            session.execute(update(Mail).values(attempts=5000))
        assert send(small) == 0
        pause = outbox(small)[0].next_attempt_at - datetime.now(UTC)
        assert timedelta(hours=5) < pause <= timedelta(hours=6)

    def test_a_pause_ends_by_itself(self, small: Flask, server: MailServer) -> None:
        server.refusing = True
        queue(small)
        send(small)
        server.refusing = False
        with small.app_context(), database.transaction() as session:
            session.execute(update(Mail).values(next_attempt_at=datetime.now(UTC)))
        assert send(small) == 1

    def test_one_that_is_refused_does_not_hold_up_the_others(self, small: Flask, server: MailServer) -> None:
        server.unknown = {"ann1@example.com"}
        for number in range(3):
            queue(small, to=f"ann{number}@example.com")
        assert send(small) == 2
        assert [mail.sent_at is None for mail in outbox(small)] == [False, True, False]

    def test_a_server_that_is_not_there(self, sqlite_app: Flask) -> None:
        url = f"smtp://127.0.0.1:{servers.free_port()}"
        sqlite_app.config["SETTINGS"] = replace(sqlite_app.config["SETTINGS"], mail_url=url)
        queue(sqlite_app)
        assert send(sqlite_app) == 0
        [mail] = outbox(sqlite_app)
        assert mail.error is not None
        assert mail.error.startswith("ConnectionRefusedError")


class TestCause:
    def test_a_mail_exists_exactly_when_its_transaction_does(self, sender: Flask, server: MailServer) -> None:
        with (
            sender.app_context(),
            pytest.raises(ZeroDivisionError),
            database.transaction() as session,
        ):
            mailer.queue(session, to="ann@example.com", kind="test", subject="x", text="x")
            session.flush()
            raise ZeroDivisionError
        assert outbox(sender) == []
        assert send(sender) == 0
        assert server.taken == []

    def test_people_do_not_wait_for_the_mail_server(self, small: Flask, server: MailServer) -> None:
        with small.app_context():
            people.sign_up("ann@example.com", factories.PASSWORD, "Ann", "127.0.0.1")
            people.request_reset("ann@example.com")
            db.session.remove()
        assert server.connections == 0
        assert [mail.kind for mail in outbox(small)] == ["verify_email", "password_reset"]
        assert send(small) == 2
        assert "/password/reset/" in server.taken[1][1].get_content()

    def test_a_sign_up_that_fails_sends_nothing(self, small: Flask, server: MailServer) -> None:
        factories.person(small, "ann@example.com")
        send(small)
        with small.app_context(), pytest.raises(Exception, match="in use"):
            people.sign_up("ann@example.com", factories.PASSWORD, "Ann", "127.0.0.1")
        assert len(outbox(small)) == len(server.taken) == 1


class TestWithoutMailServer:
    def test_the_log_takes_the_mail_at_once(self, sqlite_app: Flask, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "spillway.mail")
        factories.person(sqlite_app, "ann@example.com")
        with sqlite_app.app_context():
            people.request_reset("ann@example.com")
        [mail] = outbox(sqlite_app)
        assert mail.sent_at is not None
        link = mail.text.partition("http")[2].split()[0]
        assert link in caplog.text, "whoever runs this reads the link there"
        assert send(sqlite_app, by_hand=True) == 0

    def test_what_waited_goes_when_a_server_is_there(self, sqlite_app: Flask, server: MailServer) -> None:
        queue(sqlite_app)
        assert send(mailing(sqlite_app, server)) == 1


def test_the_job_sends(small: Flask, server: MailServer) -> None:
    queue(small)
    run = small.test_cli_runner().invoke(args=["jobs", "run", "send-outbox"])
    assert (run.exit_code, run.output) == (0, "send-outbox: ok 1\n")
    assert len(server.taken) == 1
