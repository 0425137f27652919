"""A database that goes away: a clear 503 that says when to come back, and recovery without anybody's help."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import databases, run_folder, servers
from tests.databases import Embedded
from tests.waiting import until


@pytest.fixture
def postgresql() -> Iterator[Embedded]:
    """A PostgreSQL of this test's own, to be stopped at will.

    Not in `tmp_path`: whenever another pytest starts, it closes the folder above all of them to PostgreSQL's user.
    """
    own = Embedded(run_folder.mine() / "outage", durable=True)
    own.start()
    yield own
    own.stop()


def ask(server: servers.Server, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Idempotency-Key": "once"}
    connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, answer.headers, json.loads(text)


def served(*request: Any) -> Any:
    """The answer, unless it is to ask again: one of the workers may have come back before the other."""
    answer = ask(*request)
    return answer if answer[0] != 503 else None


@pytest.mark.slow
def test_postgresql_goes_and_comes_back(tmp_path: Path, postgresql: Embedded) -> None:
    maker = databases.Postgresql(tmp_path, postgresql.address)
    with maker.copy() as url:
        environ = servers.environment(tmp_path, url, WEB_WORKERS="2", SCHEDULER="embedded")
        token = servers.service_token(environ)
        done = servers.quick_command(environ, "accounts", "create", "--external-id", "acme", "--name", "A")
        assert done.returncode == 0
        with servers.Server(environ, tmp_path) as server:
            usage = {"account": "acme", "credits": 1}
            assert ask(server, "POST", "/api/v1/usage", token, usage)[0] == 201

            postgresql.stop()
            for method, path, body in (
                ("POST", "/api/v1/usage", usage),
                ("GET", "/api/v1/balance?account=acme", None),
                ("POST", "/api/v1/usage/batch", {"records": [usage]}),
            ):
                status, headers, problem = ask(server, method, path, token, body)
                assert (status, problem["code"]) == (503, "database_busy"), problem
                assert headers["Content-Type"] == "application/problem+json"
                assert int(headers["Retry-After"]) >= 1
                assert "psycopg" not in json.dumps(problem) and "password" not in json.dumps(problem)
            assert ask(server, "GET", "/healthz", token)[0] == 200
            assert ask(server, "GET", "/readyz", token)[0] == 503

            postgresql.start()
            until(server.is_ready)
            status, headers, _ = until(lambda: served(server, "POST", "/api/v1/usage", token, usage))
            assert status == 200 and headers["Idempotent-Replayed"] == "true"
            answer = until(lambda: served(server, "GET", "/api/v1/balance?account=acme", token))
            assert answer[2]["available"] == 99
            assert servers.quick_command(environ, "ledger", "verify").returncode == 0
    maker.close()


@contextmanager
def holding(path: str) -> Iterator[int]:
    """A process, by its id, that has begun to write the file and does not end."""
    script = "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    script += "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process.pid
        process.kill()


@pytest.mark.slow
def test_sqlite_held_by_somebody_else_is_busy_not_broken(tmp_path: Path, sqlite_databases: databases.Sqlite) -> None:
    """A foreign program that keeps the file locked: 503 while it does, then as before."""
    with sqlite_databases.copy() as url:
        environ = servers.environment(tmp_path, url, WEB_WORKERS="1", SCHEDULER="off")
        token = servers.service_token(environ)
        done = servers.quick_command(environ, "accounts", "create", "--external-id", "acme", "--name", "A")
        assert done.returncode == 0
        with servers.Server(environ, tmp_path) as server, holding(url.removeprefix("sqlite:///")) as holder:
            usage = {"account": "acme", "credits": 1}
            status, headers, problem = ask(server, "POST", "/api/v1/usage", token, usage)
            assert (status, problem["code"]) == (503, "database_busy")
            assert int(headers["Retry-After"]) >= 1
            os.kill(holder, signal.SIGKILL)
            until(lambda: ask(server, "POST", "/api/v1/usage", token, usage)[0] in (200, 201))
            assert ask(server, "GET", "/api/v1/balance?account=acme", token)[2]["available"] == 99
