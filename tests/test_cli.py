"""`flask …`: what each command prints and exits with: 0 all is well, 1 something was found, 2 wrong use."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select, text

import database as databases
from extensions import db
from jobs import registry
from models.token import Token
from models.user import User
from settings import ROOT
from tests.factories import Api
from tests.servers import command, environment

TOKEN = re.compile(r"spw_[0-9a-z]{16}[A-Za-z0-9_-]{43}")


@pytest.fixture
def run(sqlite_app: Flask) -> Any:
    """Runs a command in this process, without a terminal."""

    def invoke(*arguments: str) -> Result:
        result = sqlite_app.test_cli_runner().invoke(args=list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


def refused(result: Result, told: str) -> None:
    """Wrong use: exit code 2, nothing on standard output, the reason in the last line."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert told in result.stderr.splitlines()[-1]


# operators


def test_operators_add_makes_a_new_person_an_operator_with_a_link_that_sets_a_password(
    sqlite_app: Flask, run: Any
) -> None:
    result = run("operators", "add", " Olga@Example.com ")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first == "olga@example.com is an operator."
    link = second.rpartition(" ")[2]
    assert link.startswith(sqlite_app.config["SETTINGS"].public_url)
    page = sqlite_app.test_client().get(link.removeprefix(sqlite_app.config["SETTINGS"].public_url))
    assert page.status_code == 200
    assert "password" in page.text


def test_operators_add_of_somebody_known_needs_no_link_and_is_harmless_again(sqlite_app: Flask, run: Any) -> None:
    assert run("operators", "add", "olga@example.com").exit_code == 0
    again = run("operators", "add", "OLGA@example.com")
    assert (again.exit_code, again.stdout) == (0, "olga@example.com is an operator.\n")
    with sqlite_app.app_context():
        users = db.session.scalars(select(User)).all()
    assert [(user.email, user.is_operator) for user in users] == [("olga@example.com", True)]


def test_operators_add_refuses_what_is_no_address(run: Any) -> None:
    refused(run("operators", "add", "olga"), "error: email: Not an e-mail address.")
    refused(run("operators", "add"), "Missing argument 'EMAIL'")


# tokens


def test_tokens_create_prints_a_service_token_alone_on_the_last_line(sqlite_app: Flask, run: Any) -> None:
    result = run("tokens", "create", "--service", "--scopes", "read, write,admin", "--name", "backend")
    assert result.exit_code == 0
    secret = result.stdout.splitlines()[-1]
    assert TOKEN.fullmatch(secret)
    api = Api(sqlite_app, secret)
    assert api.post("/accounts", {"external_id": "acme", "name": "Acme"}).status == 201
    with sqlite_app.app_context():
        made = db.session.scalars(select(Token)).one()
    assert (made.name, made.scopes, made.is_service) == ("backend", "read,write,admin", True)
    assert api.post("/tokens", {"account": "acme", "name": "n", "scopes": ["billing"]}).status == 201


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--service", "--scopes", "read,fly", "--name", "n"], "error: scopes: Must be one or more of read, write"),
        (["--service", "--scopes", "", "--name", "n"], "error: scopes: "),
        (["--scopes", "read", "--name", "n"], "Missing option '--service'"),
        (["--service", "--name", "n"], "Missing option '--scopes'"),
        (["--service", "--scopes", "read"], "Missing option '--name'"),
        (["--service", "--scopes", "read", "--name", " "], "must have 1 to 100 characters"),
        (["--service", "--scopes", "read", "--name", "n" * 101], "must have 1 to 100 characters"),
    ],
)
def test_tokens_create_refuses_wrong_use(run: Any, arguments: list[str], told: str) -> None:
    refused(run("tokens", "create", *arguments), told)


# accounts


def test_accounts_create_prints_the_id_and_finds_it_again(run: Any) -> None:
    made = run("accounts", "create", "--external-id", "acme", "--name", "Acme", "--email", "Ada@Acme.com")
    assert made.exit_code == 0
    assert re.fullmatch(r"acc_[0-9a-z]{16}\n", made.stdout)
    again = run("accounts", "create", "--external-id", "acme", "--name", "Another name")
    assert (again.exit_code, again.stdout) == (0, made.stdout)


def test_an_account_made_by_the_command_is_as_one_made_by_the_api(sqlite_app: Flask, run: Any) -> None:
    arguments = ["--external-id", "acme", "--name", "Acme", "--email", "Ada@Acme.com"]
    account_id = run("accounts", "create", *arguments).stdout.strip()
    secret = run("tokens", "create", "--service", "--scopes", "read,admin", "--name", "n").stdout.strip()
    api = Api(sqlite_app, secret)
    shown = api.get("/accounts/acme").json
    assert (shown["id"], shown["name"], shown["email"]) == (account_id, "Acme", "ada@acme.com")
    assert api.get("/balance?account=acme").json["granted"]["total"] == 100


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--external-id", "acc_1", "--name", "n"], "error: external_id: "),
        (["--external-id", "a b", "--name", "n"], "error: external_id: "),
        (["--external-id", "x" * 129, "--name", "n"], "error: external_id: "),
        (["--external-id", "x", "--name", ""], "must have 1 to 200 characters"),
        (["--external-id", "x", "--name", "n" * 201], "must have 1 to 200 characters"),
        (["--external-id", "x", "--name", "n", "--email", "nobody"], "error: email: Not an e-mail address."),
        (["--name", "n"], "Missing option '--external-id'"),
    ],
)
def test_accounts_create_refuses_wrong_use(run: Any, arguments: list[str], told: str) -> None:
    refused(run("accounts", "create", *arguments), told)


# catalog


@pytest.fixture
def catalog_file(sqlite_app: Flask) -> Path:
    path: Path = sqlite_app.config["SETTINGS"].catalog_file
    return path


def test_the_default_catalog_has_no_mistakes(run: Any) -> None:
    result = run("catalog", "lint")
    assert (result.exit_code, result.stdout) == (0, "No mistakes found.\n")


def test_catalog_lint_names_each_mistaken_object_with_its_cure(run: Any, catalog_file: Path) -> None:
    catalog_file.write_text(
        '[product]\n"rate:page" = "per_unit=much"\n'
        '[[prices]]\nid = "team_month"\ncurrency = "usd"\nunit_amount = 1\ninterval = "month"\nprice_type = "base"\n'
    )
    result = run("catalog", "lint")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any(line.startswith("team_month: ") for line in lines)
    assert any("rate:page" in line for line in lines)
    assert all(line.endswith(")") for line in lines), "each has its cure in brackets"


def test_catalog_sync_takes_the_file_in_once(run: Any, catalog_file: Path) -> None:
    catalog_file.write_text('[product]\n"rate:page" = "per_unit=1"\n')
    first, second = run("catalog", "sync"), run("catalog", "sync")
    assert (first.exit_code, second.exit_code) == (0, 0)
    version = re.fullmatch(r"Version (\d+) taken in\.\n", first.stdout)
    assert version
    assert second.stdout == f"Version {version[1]} is in force already.\n"


def test_catalog_sync_of_a_broken_file_keeps_what_is_in_force(run: Any, catalog_file: Path) -> None:
    catalog_file.write_text('[product]\n"rate:page" = "per_unit=1"\n')
    run("catalog", "sync")
    catalog_file.write_text("[product\n")
    result = run("catalog", "sync")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Not taken in, version 1 stays in force: ")
    assert "catalog file: not valid TOML" in result.stderr
    lint = run("catalog", "lint")
    assert lint.exit_code == 1
    assert lint.stdout.startswith("catalog file: not valid TOML")


# jobs


def test_jobs_list_names_every_job_first_on_its_line(run: Any) -> None:
    result = run("jobs", "list")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(registry.JOBS)
    expected = {"sync-catalog", "renew-allowances", "expire-lots", "expire-holds", "send-outbox", "prune"}
    assert expected <= set(registry.JOBS)
    assert {tuple(row[1:]) for row in rows} == {("never",)}


@pytest.mark.parametrize("name", registry.JOBS)
def test_jobs_run_runs_it_and_the_list_remembers(run: Any, name: str) -> None:
    result = run("jobs", "run", name)
    assert result.exit_code == 0
    assert re.fullmatch(rf"{name}: ok \d+\n", result.stdout)
    (row,) = [line.split() for line in run("jobs", "list").stdout.splitlines() if line.split()[0] == name]
    assert datetime.fromisoformat(row[1]).utcoffset() is not None
    assert row[2] == "ok"


def test_a_job_that_fails_is_told_and_the_command_still_ends_well(sqlite_app: Flask, run: Any) -> None:
    with sqlite_app.app_context(), databases.connection() as conn:
        conn.execute(text("ALTER TABLE holds RENAME TO hidden"))
    result = run("jobs", "run", "expire-holds")
    assert (result.exit_code, result.stdout) == (0, "expire-holds: error OperationalError\n")
    assert "error OperationalError" in run("jobs", "list").stdout


def test_an_unknown_job_is_refused_with_the_names_there_are(run: Any) -> None:
    refused(run("jobs", "run", "make-coffee"), "'make-coffee' is not one of 'sync-catalog'")


# All of them


@pytest.mark.parametrize(
    "arguments", [["operators"], ["tokens"], ["accounts"], ["catalog"], ["jobs"], ["scheduler"], ["ledger"]]
)
def test_a_group_alone_tells_its_commands(run: Any, arguments: list[str]) -> None:
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert "Commands:" in result.stdout
    refused(run(*arguments, "no-such-command"), "No such command 'no-such-command'")


# As an operator runs them: processes of their own


def test_a_command_works_beside_others_with_nothing_but_the_environment(app: Flask, tmp_path: Path) -> None:
    environ = environment(tmp_path, app.config["SETTINGS"].database_url)
    made = command(environ, "tokens", "create", "--service", "--scopes", "read,write,admin", "--name", "n")
    assert (made.returncode, made.stderr) == (0, "")
    secret = made.stdout.splitlines()[-1]
    assert TOKEN.fullmatch(secret)
    assert Api(app, secret).post("/accounts", {"external_id": "acme", "name": "Acme"}).status == 201


def one_line(done: subprocess.CompletedProcess[str], start: str) -> None:
    """Exit code 2 and one line on standard error, that begins so."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_wrong_setting_stops_a_command_with_its_name_in_one_line(tmp_path: Path) -> None:
    environ = environment(tmp_path, f"sqlite:///{tmp_path}/never.db", CLOCK_FILE="/no/such/clock")
    one_line(command(environ, "ledger", "verify"), "CLOCK_FILE: ")


def test_a_wrong_setting_stops_the_server_with_its_name_in_one_line(tmp_path: Path) -> None:
    environ = environment(tmp_path, f"sqlite:///{tmp_path}/never.db", WEB_THREADS="none")
    arguments = ["-m", "gunicorn", "--config", "gunicorn.conf.py", "app:create_app()"]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    one_line(done, "WEB_THREADS: ")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///{folder}/never-migrated.db", "no such table"),
        ("postgresql://me:hunter2@127.0.0.1:1/d", "127.0.0.1"),
    ],
)
def test_a_database_that_is_not_there_is_told_in_one_line(tmp_path: Path, url: str, told: str) -> None:
    done = command(environment(tmp_path, url.format(folder=tmp_path)), "ledger", "verify")
    one_line(done, "error: the database can not be used")
    assert told in done.stderr
    assert "hunter2" not in done.stderr
