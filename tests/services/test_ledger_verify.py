"""`flask ledger verify`: books in order pass, and whatever is changed behind the services' back is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy import text

import database
from services import verify
from tests.factories import Api
from tests.moments import At

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])
"""What is found in the rows does not depend on where they are kept; each way of looking runs on both once."""


@dataclass
class Books:
    """An account with some of everything: the ids that corruptions aim at."""

    app: Flask
    account: str
    other: str
    record: str
    voided: str
    lot: str

    def sql(self, statement: str, **values: Any) -> None:
        """Run it as somebody with a database shell would; it must change something."""
        known = {"account": self.account, "other": self.other, "record": self.record, "voided": self.voided}
        known |= {"lot": self.lot} | values
        used = {name: value for name, value in known.items() if f":{name}" in statement}
        with self.app.app_context(), database.connection() as conn:
            assert conn.execute(text(statement), used).rowcount > 0

    def number(self, query: str) -> int:
        with self.app.app_context(), database.snapshot() as conn:
            return int(conn.execute(text(query), {"account": self.account, "record": self.record}).scalar_one())


@pytest.fixture
def books(app: Flask, operator: Api, at: At) -> Books:
    """Seven credits of allowance, ten given, a charge over both, one short of credits, a void, a capture, a renewal."""
    at("2026-01-31T10:00:00Z")

    def post(path: str, **body: Any) -> Any:
        answer = operator.post(path, body)
        assert answer.status in (200, 201), answer
        return answer.json

    def use(credits: int, **body: Any) -> str:
        return str(post("/usage", account="acme", credits=credits, **body)["id"])

    other = post("/accounts", external_id="other", name="Other")["id"]
    post("/accounts/other/grants", credits=5, reason="test")
    account = post("/accounts", external_id="acme", name="Acme")["id"]
    use(100)
    post("/accounts/acme/plan", tier="custom", included_credits=7)
    grant = post("/accounts/acme/grants", credits=10, reason="test")
    use(0)
    record = use(8)
    voided = use(3)
    post(f"/usage/records/{voided}/void", reason="test")
    hold = post("/holds", account="acme", credits=1)
    post(f"/holds/{hold['id']}/capture")
    use(20, enforce=False)
    post("/accounts/acme/reset-limit", reason="test")
    at("2026-02-28T10:00:00Z")
    use(1)
    return Books(app, account, other, record, voided, grant["lot"])


def found(runner: FlaskCliRunner) -> list[str]:
    """The differences that the command names, one a line; its exit code must say the same."""
    result = runner.invoke(args=["ledger", "verify"])
    *lines, summary = result.stdout.splitlines()
    assert summary.startswith("2 accounts, ")
    assert summary.endswith("all in order" if not lines else f"{len(lines)} differences")
    assert result.exit_code == (1 if lines else 0)
    return lines


def test_books_in_order_pass(books: Books, runner: FlaskCliRunner) -> None:
    assert found(runner) == []
    with books.app.app_context():
        report = verify.verify()
    assert report.accounts == 2
    assert report.records == books.number("SELECT count(*) FROM usage_records")
    assert report.entries == books.number("SELECT count(*) FROM ledger_entries")
    assert report.lots == books.number("SELECT count(*) FROM lots")


def test_an_empty_installation_passes(app: Flask, runner: FlaskCliRunner) -> None:
    assert app.testing
    result = runner.invoke(args=["ledger", "verify"])
    assert (result.exit_code, result.stdout) == (
        0,
        "0 accounts, 0 lots, 0 entries, 0 usage records: all in order\n",
    )


CORRUPTIONS = {
    "a lot's remaining": (
        "UPDATE lots SET remaining = remaining - 1 WHERE account_id = :account AND kind = 'allowance' AND open",
        "remaining is 5999999, the ledger makes it 6000000",
    ),
    "a lot's issued": ("UPDATE lots SET issued = issued + 1 WHERE id = :lot", "issued is 10000001"),
    "a lot's removed": (
        "UPDATE lots SET issued = issued + 1, removed = removed + 1 WHERE id = :lot",
        "removed is 1, the ledger makes it 0",
    ),
    "a lot's kind": ("UPDATE lots SET kind = 'purchased' WHERE id = :lot", "kind is purchased"),
    "a lot's owner": ("UPDATE lots SET account_id = :other WHERE id = :lot", "not its lot"),
    "a lot out of nothing": (
        "INSERT INTO lots (id, account_id, kind, issued, remaining, removed, open, current, created_at)"
        " SELECT 'lot_forged', account_id, kind, 5, 5, 0, 1 = 1, current, created_at FROM lots WHERE id = :lot",
        "lot_forged: remaining is 5, the ledger makes it 0",
    ),
    "an entry's change": (
        "UPDATE ledger_entries SET change = change - 1 WHERE account_id = :account AND reason = 'grant'",
        "issued is 10000000, the ledger makes it 9999999",
    ),
    "an entry's lot_remaining": (
        "UPDATE ledger_entries SET lot_remaining = 1 WHERE account_id = :account AND reason = 'grant'",
        "lot_remaining is 1, the ledger makes it 10000000",
    ),
    "a balance after an entry that went to another kind": (
        "UPDATE ledger_entries SET allowance_after = allowance_after - 1, purchased_after = purchased_after + 1"
        " WHERE account_id = :account AND reason = 'grant'",
        "purchased_after is 1, the ledger makes it 0",
    ),
    "an entry's balance_after": (
        "UPDATE ledger_entries SET granted_after = granted_after + 1, balance_after = balance_after + 1"
        " WHERE account_id = :account AND reason = 'grant'",
        "balance_after is",
    ),
    "an entry of usage that is gone": (
        "DELETE FROM ledger_entries WHERE account_id = :account AND cause_id = :record AND reason = 'usage'"
        " AND kind = 'granted'",
        "its ledger entry",
    ),
    "an issue that is gone": (
        "DELETE FROM ledger_entries WHERE account_id = :account AND reason = 'grant'",
        "remaining is",
    ),
    "an expiry that is gone": (
        "DELETE FROM ledger_entries WHERE account_id = :account AND reason = 'expiry'",
        "removed is",
    ),
    "the account's unfunded": (
        "UPDATE accounts SET unfunded = unfunded + 1 WHERE id = :account",
        "unfunded: is 12000001, the records make it 12000000",
    ),
    "the account's debt": ("UPDATE accounts SET debt = 1 WHERE id = :account", "debt: is 1"),
    "the account's overage": ("UPDATE accounts SET overage = 1 WHERE id = :account", "overage: is 1"),
    "the account's numbering": ("UPDATE accounts SET seq = seq - 1 WHERE id = :account", "seq: is"),
    "what a record took from a kind": (
        "UPDATE usage_records SET granted = granted - 1, unfunded = unfunded + 1 WHERE id = :record",
        "granted is 999999, the ledger makes it 1000000",
    ),
    "what a record was charged": (
        "UPDATE usage_records SET unfunded = unfunded - 1, charged = charged - 1 WHERE unfunded > 0",
        "unfunded: is 12000000, the records make it 11999999",
    ),
    "a record's entries": ("UPDATE usage_records SET entries = entries - 1 WHERE id = :record", "spends without"),
    "a record's void": (
        "UPDATE usage_records SET voided_at = recorded_at WHERE id = :record",
        "is voided and drew 8000000, but the ledger gave 0 back",
    ),
    "a void undone": (
        "UPDATE usage_records SET voided_at = NULL WHERE id = :voided",
        "is not voided and drew 3000000, but the ledger gave 3000000 back",
    ),
    "what a record was settled by": (
        "UPDATE usage_records SET settled = 1 WHERE unfunded > 0",
        "settled is 1, the ledger makes it 0",
    ),
    "a record that is gone": ("DELETE FROM usage_records WHERE id = :record", "spends without a usage record"),
    "a record of nothing that is gone": ("DELETE FROM usage_records WHERE charged = 0", "seq: is"),
    "an allowance that came twice": (
        "UPDATE lots SET source_key = source_key || 'again', period_start = (SELECT min(period_start) FROM lots l"
        " WHERE l.account_id = lots.account_id AND l.source_key LIKE 'allowance:%') WHERE account_id = :account"
        " AND source_key LIKE 'allowance:%'",
        "has more than one allowance of the period",
    ),
    "a purchase without its credits": (
        "INSERT INTO purchases (id, account_id, session_id, mode, status, credits, created_at)"
        " SELECT 'pur_1', :account, 'cs_1', 'payment', 'paid', 5, created_at FROM lots WHERE id = :lot",
        "pur_1: is paid; its lot is None, the account has None for it",
    ),
    "credits of a purchase that was never made": (
        "UPDATE lots SET source_key = 'purchase:cs_1' WHERE id = :lot",
        "was issued for purchase:cs_1, which no purchase of this account is",
    ),
    "a capture that is gone": (
        "UPDATE holds SET state = 'released' WHERE state = 'captured'",
        "a captured hold and its one usage record",
    ),
}


@ON_SQLITE
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_named_with_its_account_and_fails_the_command(
    books: Books, runner: FlaskCliRunner, name: str
) -> None:
    statement, told = CORRUPTIONS[name]
    books.sql(statement)
    lines = found(runner)
    assert any(told in line for line in lines), lines
    assert all(line.startswith((books.account, books.other)) for line in lines)
    assert all(line.startswith(books.account) for line in lines) or "owner" in name


def test_all_corruptions_of_an_account_are_named_at_once(books: Books, runner: FlaskCliRunner) -> None:
    names = [
        "a lot's issued",
        "an entry's balance_after",
        "an entry of usage that is gone",
        "the account's unfunded",
        "the account's debt",
        "a record's void",
        "a capture that is gone",
    ]
    for name in names:
        books.sql(CORRUPTIONS[name][0])
    lines = found(runner)
    subjects = {line.split()[1].rstrip(":") for line in lines}
    assert {books.lot, books.record, "unfunded", "debt", "seq", "entry"} <= subjects
    assert len(lines) >= len(names)


@ON_SQLITE
def test_a_grant_that_vanished_with_its_lot_leaves_a_gap(books: Books, runner: FlaskCliRunner) -> None:
    """Entry and lot gone together leave every sum right but the numbers of the account's ledger."""
    books.sql("DELETE FROM ledger_entries WHERE account_id = :other AND reason = 'grant'")
    books.sql("DELETE FROM lots WHERE account_id = :other AND issued = 5000000")
    lines = found(runner)
    assert len(lines) == 1
    assert lines[0].startswith(f"{books.other} seq: ")


def test_the_accounts_beside_a_corrupt_one_are_still_checked(books: Books, runner: FlaskCliRunner) -> None:
    books.sql("UPDATE lots SET issued = issued + 1 WHERE account_id = :account AND id = :lot")
    books.sql("UPDATE accounts SET unfunded = 3 WHERE id = :other")
    lines = found(runner)
    assert {line.split()[0] for line in lines} == {books.account, books.other}


@ON_SQLITE
def test_verifying_changes_nothing(books: Books, runner: FlaskCliRunner) -> None:
    books.sql("UPDATE lots SET issued = issued + 1 WHERE id = :lot")
    assert len(found(runner)) == len(found(runner)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE lots SET remaining = -1 WHERE id = :lot",
        "UPDATE lots SET remaining = issued + 1 WHERE id = :lot",
        "UPDATE lots SET removed = issued + 1 WHERE id = :lot",
        "UPDATE accounts SET unfunded = -1 WHERE id = :account",
        "UPDATE accounts SET debt = -1 WHERE id = :account",
        "UPDATE usage_records SET granted = granted + 1 WHERE id = :record",
        "UPDATE ledger_entries SET change = 0 WHERE account_id = :account",
        "DELETE FROM lots WHERE id = :lot",
    ],
)
def test_the_database_itself_refuses_the_impossible(books: Books, statement: str) -> None:
    with pytest.raises(Exception, match=r"(?i)constraint"):
        books.sql(statement)
