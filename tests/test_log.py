"""What the logs say, and what they never say. Run in processes of their own, as configuring logs is for good."""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

import log
from extensions import db
from services import people
from settings import ROOT
from tests import factories, servers
from tests.databases import Sqlite
from tests.waiting import until

TOKEN = "spw_0123456789abcdef" + "S" * 43


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"token {TOKEN} refused", "token spw_0123… refused"),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer …"),
        ("Bearer eyJhbGciOi.J9", "Bearer …"),
        ("key sk_live_51Habc_9 here", "key sk_… here"),
        ("rk_test_abc", "rk_…"),
        ("whsec_abcDEF123", "whsec_…"),
        ("two: sk_test_a, sk_test_b", "two: sk_…, sk_…"),
        ("Basic YWxpY2U6c2VjcmV0", "Basic …"),
        ("GET /verify/ImFsaWNlIg.Zx9-_q1w2e3r?x=1", "GET /verify/…?x=1"),
        ("http://127.0.0.1/password/reset/ImFsaWNlIg.Zx9-_q1w2e3r", "http://127.0.0.1/password/reset/…"),
        ("mail to alice+x@mail.example.com, 'bob@example.com'", "mail to …@…, '…@…'"),
        ("Key (email)=(a@b) exists\nDETAIL:  Key (name)=(Alice)\nmore", "Key (email)=(…@…) exists\nDETAIL: …\nmore"),
        ("task_list and risk_level are words", "task_list and risk_level are words"),
        ("nothing secret", "nothing secret"),
    ],
)
def test_secrets_are_cut_where_they_begin(text: str, kept: str) -> None:
    assert log.redact(text) == kept


def lines(script: str) -> list[dict[str, Any]]:
    """What the script writes to stderr, every line a JSON object."""
    done = subprocess.run(
        [sys.executable, "-c", "import logging, structlog, log\nlog.configure()\n" + script],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_our_own_and_the_libraries_logs_are_one_json_object_a_line() -> None:
    own, foreign = lines(
        "structlog.get_logger('spillway.mine').info('two\\nlines', account='acc_1', ünï='ö')\n"
        "logging.getLogger('library').warning('%s of %d', 'one', 2)"
    )
    assert own["event"] == "two\nlines"
    assert (own["level"], own["logger"]) == ("info", "spillway.mine")
    assert (own["account"], own["ünï"]) == ("acc_1", "ö")
    assert own["timestamp"].endswith("Z")
    assert (foreign["event"], foreign["level"], foreign["logger"]) == ("one of 2", "warning", "library")


def test_secrets_are_cut_from_events_fields_and_tracebacks() -> None:
    script = f"""
structlog.get_logger('a').info('saw {TOKEN}', header='Bearer abc', nested={{'key': ['sk_live_abc']}})
logging.getLogger('b').error('key %s', 'whsec_abc')
try:
    raise ValueError('sk_test_abc')
except ValueError:
    logging.getLogger('c').exception('failed')
"""
    own, foreign, failed = lines(script)
    assert own["event"] == "saw spw_0123…"
    assert own["header"] == "Bearer …"
    assert own["nested"] == {"key": ["sk_…"]}
    assert foreign["event"] == "key whsec_…"
    assert "ValueError: sk_…" in failed["exception"]
    assert "Traceback" in failed["exception"]


def test_debug_and_chatter_are_left_out_and_configuring_again_doubles_nothing() -> None:
    script = """
log.configure()
logging.getLogger('spillway').debug('detail')
logging.getLogger('apscheduler.scheduler').info('chatter')
logging.getLogger('spillway').info('once')
"""
    assert [line["event"] for line in lines(script)] == ["once"]


def test_what_is_no_json_is_still_logged() -> None:
    (line,) = lines("structlog.get_logger('a').info('odd', value=object(), raw=b'x')")
    assert line["event"] == "odd"
    assert line["value"].startswith("<object object")


# What a server writes


SECRET = "S3cr3tS3cr3tS3cr3tS3cr3t"
PRIVATE = (SECRET, "S3CR3T", "mallory@example.net", "correct horse", TOKEN[8:], "c00kie", "203.0.113.77")
"""Nothing of this may come out again."""


class Talk:
    """Requests full of secrets to one server, and the ids its answers carried."""

    def __init__(self, server: servers.Server) -> None:
        self._port = server.port
        self.answered: dict[str, int] = {}

    def send(self, method: str, path: str, body: str | None = None, **headers: str) -> str:
        sent = {
            "Cookie": "session=c00kie; remember=c00kie",
            "Referer": f"http://127.0.0.1/password/reset/{SECRET}?email=mallory@example.net",
            "User-Agent": SECRET,
            "X-Forwarded-For": "203.0.113.77",
            "Authorization": f"Bearer {TOKEN}",
        } | {name.replace("_", "-"): shown for name, shown in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        page = answer.read().decode()
        self.answered[answer.headers["X-Request-Id"]] = answer.status
        connection.close()
        return page

    def raw(self, sent: bytes) -> bytes:
        """Whatever is no HTTP; what comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=60) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


def _talk(talk: Talk) -> None:
    query = f"?token={SECRET}&email=mallory@example.net&account={TOKEN}"
    for path in ("/usage", "/login", "/api/v1/balance", "/nothing", f"/{SECRET}", f"/verify/{SECRET}"):
        talk.send("GET", path + query)
    talk.send("GET", f"/setup/{SECRET}")
    talk.send("GET", f"/password/reset/{SECRET}{query}")
    talk.send("GET", f"/api/v1/usage/records/{TOKEN}")
    talk.send("GET", f"/api/v1/accounts/mallory@example.net{query}")
    talk.send("GET", "/api/v1/balance", X_Api_Key=TOKEN, Authorization=f"Basic {SECRET}")
    json_type = {"Content_Type": "application/json"}
    talk.send("POST", "/api/v1/usage", f'{{"subject":"mallory@example.net","token":"{TOKEN}"}}', **json_type)
    talk.send("POST", "/api/v1/usage", f"{SECRET} mallory@example.net", **json_type)
    form = f"email=mallory@example.net&password=correct+horse+battery&csrf_token={SECRET}"
    form_type = {"Content_Type": "application/x-www-form-urlencoded"}
    for path in ("/login", "/signup", "/password/forgot", f"/password/reset/{SECRET}", f"/setup/{SECRET}"):
        talk.send("POST", path, form, **form_type)
    talk.send("S3CR3T", "/usage")
    talk.send("GET", "/usage", X_Request_Id=TOKEN[:64])


def _garble(talk: Talk) -> None:
    host = b"Host: x\r\n"
    secret = SECRET.encode()
    for garbage in (
        secret + b" mallory@example.net\r\n\r\n",
        b"GET /verify/" + secret + b" HTTP/9.9\r\n" + host + b"\r\n",
        b"GET /verify/" + secret + b" HTTP/1.1\r\n" + host + b"Bad Header " + secret + b": 1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"Authorization: Bearer " + secret + b"\x00\r\n\r\n",
        b"GET /?" + secret * 1000 + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"POST /login HTTP/1.1\r\n" + host + b"Content-Length: " + secret + b"\r\n\r\n",
        b"POST /login HTTP/1.1\r\n" + host + b"Transfer-Encoding: " + secret + b"\r\n\r\n",
        b"POST /login HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n" + secret + b"\r\n",
    ):
        talk.raw(garbage)


def _entries(server: servers.Server) -> list[dict[str, Any]]:
    """The log's lines as they must be, but for the link that is printed for who starts a fresh installation."""
    text = server.log.read_text().splitlines()
    printed = [line for line in text if not line.startswith("{")]
    assert all("There is no operator" in line or "/setup/" in line or not line for line in printed), printed
    return [json.loads(line) for line in text if line.startswith("{")]


@pytest.mark.slow
def test_no_request_gets_its_secrets_into_the_log(tmp_path: Path, sqlite_databases: Sqlite) -> None:
    with sqlite_databases.copy() as url:
        environ = servers.environment(tmp_path, url, WEB_WORKERS="1", SCHEDULER="off", MAIL_URL="smtp://127.0.0.1:9")
        with servers.Server(environ, tmp_path) as server:
            talk = Talk(server)
            _talk(talk)
            _garble(talk)
            server.stop()
    entries = _entries(server)  # workers that end write what they gathered
    told = "\n".join(map(str, entries))
    assert [secret for secret in PRIVATE if secret in told] == []
    logged = {line["request_id"]: line["status"] for line in entries if line["event"] == "request"}
    asked = {shown: status for shown, status in talk.answered.items() if not shown.startswith("spw_")}
    assert logged.items() >= asked.items(), "each answer's id finds its line"
    assert not [line for line in entries if line["level"] == "error" or "exception" in line]


@pytest.mark.slow
def test_without_a_mail_server_the_mails_are_the_one_exception(tmp_path: Path, sqlite_databases: Sqlite) -> None:
    with sqlite_databases.copy() as url:
        environ = servers.environment(tmp_path, url, WEB_WORKERS="1", SCHEDULER="off")
        with servers.Server(environ, tmp_path) as server:
            assert servers.quick_command(environ, "operators", "add", "alice@example.com").returncode == 0
            before = len(_entries(server))
            page = Talk(server).send("GET", "/password/forgot")
            assert "alice" not in page
            until(lambda: before < len(_entries(server)))
            _ask_for_a_reset(server, "alice@example.com")
            entries = _entries(server)
    mails = [line for line in entries if line["logger"] == "spillway.mail"]
    assert [mail["to"] for mail in mails] == ["alice@example.com"]
    assert "/password/reset/" in mails[0]["text"] and "…" not in mails[0]["text"]
    assert "alice" not in str([line for line in entries if line not in mails])


def _ask_for_a_reset(server: servers.Server, email: str) -> None:
    """As a browser does it, cookie and all."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    page = browser.open(f"{server.url}/password/forgot").read().decode()
    csrf_token = page.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]
    form = urllib.parse.urlencode({"email": email, "csrf_token": csrf_token})
    assert browser.open(f"{server.url}/password/forgot", form.encode()).status == 200


# What goes wrong


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What this process writes to its log during the test."""
    written = io.StringIO()
    for handler in logging.getLogger().handlers:
        if isinstance(handler, log._Handler):
            monkeypatch.setattr(handler, "stream", written)
    return written


def test_an_error_of_the_database_does_not_quote_the_row(app: Flask, logged: io.StringIO) -> None:
    with app.app_context():
        people.sign_up("alice@example.com", factories.PASSWORD, "Alice", "127.0.0.1")

    def broken() -> str:
        columns = "id, email, password_hash, session_version, is_operator, created_at"
        source = "SELECT 'usr_x', :email, 'Secret of Alice', 1, is_operator, created_at FROM users"
        with db.engine.begin() as conn:
            conn.execute(text(f"INSERT INTO users ({columns}) {source}"), {"email": "alice@example.com"})
        return ""

    app.add_url_rule("/api/v1/broken", view_func=broken)
    answer = factories.Api(app, None).get("/broken")
    assert answer.status == 500
    line = next(entry for entry in map(json.loads, logged.getvalue().splitlines()) if "exception" in entry)
    assert line["request_id"] == answer.headers["X-Request-Id"] and "IntegrityError" in line["exception"]
    for told in (str(line), answer.text):
        assert "alice@" not in told and "example.com" not in told
