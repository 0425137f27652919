"""Migrations on books that are in use: what they fill in, and the way back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import flask_migrate
import pytest
import sqlalchemy
import sqlalchemy.exc
from flask import Flask
from sqlalchemy import select, text

import clock
import database
from extensions import db
from models.account import SignupClaim
from services import accounts, verify
from settings import ROOT
from tests import factories
from tests.buying.helpers import fulfil, tenant
from tests.factories import Api
from tests.moments import At
from tests.stripe_world import StripeWorld

LEDGER = "ledger_entries"


def migrate(app: Flask, revision: str, *, back: bool = False) -> None:
    move = flask_migrate.downgrade if back else flask_migrate.upgrade
    with app.app_context():
        move(directory=str(ROOT / "migrations"), revision=revision)


def free_claims(app: Flask) -> dict[str, str]:
    with app.app_context(), database.transaction() as session:
        found = session.scalars(select(SignupClaim).where(SignupClaim.key.like("free:%")))
        return {claim.key: claim.account_id for claim in found}


def test_who_signed_up_before_has_the_free_allowance_on_their_first_account(app: Flask) -> None:
    """0003 writes for them what signing up writes since."""
    people = [factories.person(app, f"{name}@example.com") for name in ("ann", "ben")]
    factories.account(app)
    claims = free_claims(app)
    assert sorted(claims.values()) == sorted(person.account_id for person in people)
    migrate(app, "0002", back=True)
    with app.app_context(), database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM signup_claims WHERE key LIKE 'free:%'")) == 0
        session.execute(text("UPDATE accounts SET name = 'from before'"))
    migrate(app, "head")
    assert free_claims(app) == claims
    with app.app_context():
        assert all(accounts.get(person.account_id).free_allowance for person in people)


def test_the_last_top_up_is_found_in_the_ledger(app: Flask) -> None:
    """0007 writes what issuing credits writes since."""
    plain, granted = factories.account(app, "plain", credits=0), factories.account(app, "granted", credits=30)
    both = {plain: "after its sign-up credits", granted: "after a grant"}

    def told() -> dict[str, tuple[int, str | None]]:
        with app.app_context(), database.transaction() as session:
            rows = session.execute(text("SELECT id, topped_up, topped_up_lot FROM accounts"))
            return {row[0]: (row[1], row[2]) for row in rows}

    before = told()
    assert {before[account][0] for account in both} == {100_000_000, 30_000_000}
    migrate(app, "0006", back=True)
    migrate(app, "head")
    assert told() == before


def test_tables_that_are_copied_keep_what_they_hold_and_what_they_promise(app: Flask, operator: Api) -> None:
    """0010 and 0011 rebuild tables on SQLite; on the way back 0013 adds what it counted to the hours."""
    factories.account(app, "acme", credits=30)
    hold = operator.post("/holds", {"account": "acme", "credits": 7}).json["id"]
    assert operator.post(f"/holds/{hold}/capture", {"credits": 5, "idempotency_key": "once"}).status == 201
    for number in range(5):
        assert operator.post("/usage", {"account": "acme", "credits": number, "subject": "ann"}).status == 201
    paths = [f"/{path}?account=acme" for path in ("statement", "usage/records", "ledger", "usage/summary", "balance")]

    def told() -> list[Any]:
        return [{**operator.get(path).json, "as_of": None} for path in paths]

    before = told()
    migrate(app, "0009", back=True)
    migrate(app, "head")
    assert told() == before
    with app.app_context():
        assert verify.verify().differences == []
        with pytest.raises(database.Duplicate), database.transaction() as session:
            session.execute(text("UPDATE usage_records SET hold_id = :hold"), {"hold": hold})
        with pytest.raises(sqlalchemy.exc.IntegrityError), database.transaction() as session:
            session.execute(text("UPDATE ledger_entries SET lot_remaining = -1"))


def entries(app: Flask) -> list[dict[str, Any]]:
    with app.app_context(), database.transaction() as session:
        found = session.execute(text("SELECT * FROM ledger_entries ORDER BY account_id, seq")).mappings()
        return [dict(row) for row in found]


def schema(app: Flask) -> Any:
    """Of the ledger's entries, as far as the database tells it."""
    with app.app_context():
        told = sqlalchemy.inspect(db.engine)
        return (
            sorted((column["name"], str(column["type"]), column["nullable"]) for column in told.get_columns(LEDGER)),
            sorted((check["name"], check["sqltext"]) for check in told.get_check_constraints(LEDGER)),
            sorted((key["name"], key["constrained_columns"]) for key in told.get_foreign_keys(LEDGER)),
            told.get_pk_constraint(LEDGER),
            sorted(
                (index["name"], index["column_names"], [str(value) for value in index["dialect_options"].values()])
                for index in told.get_indexes(LEDGER)
            ),
            told.get_table_options(LEDGER),
        )


def some_of_everything(stripe: StripeWorld, operator: Api, at: At) -> None:
    """Three accounts with credits of every kind, used, voided, expired, settled and reset; a fourth has nothing."""
    stripe.seed()
    for name in ("acme", "other", "third"):
        account_id, api = tenant(stripe, name)
        assert fulfil(stripe, stripe.buy(account_id, quantity=100))
        plan = {"tier": "enterprise", "included_credits": 20}
        assert operator.post(f"/accounts/{name}/plan", plan).status == 200
        soon = {"credits": 30, "reason": "x", "expires_at": (clock.now() + timedelta(days=2)).isoformat()}
        assert operator.post(f"/accounts/{name}/grants", soon).status == 201
        used = [api.post("/usage", {"credits": amount}).json["id"] for amount in ("7.000001", 25, 95, 0)]
        at.forward(days=3)
        for record in used[1:]:
            assert operator.post(f"/usage/records/{record}/void", {"reason": "x"}).status == 200
        assert operator.post(f"/accounts/{name}/reset-limit", {"reason": "x"}).status == 200
        assert api.post("/usage", {"credits": 500, "enforce": False}).status == 201
        assert operator.post(f"/accounts/{name}/grants", {"credits": 10, "reason": "x"}).status == 201
    assert operator.post("/accounts", {"external_id": "empty", "name": "Empty"}).status == 201


@pytest.mark.settings(settle_unfunded=True, signup_credits=0)
def test_entries_keep_the_balance_of_every_kind(stripe: StripeWorld, operator: Api, at: At) -> None:
    """0012 makes of the changes what recording writes since; and there is a way back."""
    some_of_everything(stripe, operator, at)
    before, made = entries(stripe.app), schema(stripe.app)
    assert {entry["kind"] for entry in before} == {"allowance", "purchased", "granted"}
    assert {"purchase", "grant", "usage", "void", "expiry", "reset", "settle"} <= {entry["reason"] for entry in before}
    assert verified(stripe.app) == []

    migrate(stripe.app, "0011", back=True)
    afters = ("allowance_after", "purchased_after", "granted_after")
    older = [
        {name: value for name, value in entry.items() if name not in afters}
        | {"kind_after": entry[f"{entry['kind']}_after"]}
        for entry in before
    ]
    assert entries(stripe.app) == older
    assert "ix_ledger_entries_kind" in str(schema(stripe.app))
    with stripe.app.app_context(), pytest.raises(sqlalchemy.exc.IntegrityError), database.transaction() as session:
        session.execute(text("UPDATE ledger_entries SET kind_after = balance_after + 1"))

    migrate(stripe.app, "head")
    assert (entries(stripe.app), schema(stripe.app)) == (before, made)
    assert verified(stripe.app) == []
    for wrong in ("granted_after = -1, balance_after = balance_after - granted_after - 1", "balance_after = 7"):
        with stripe.app.app_context(), pytest.raises(sqlalchemy.exc.IntegrityError), database.transaction() as session:
            session.execute(text(f"UPDATE ledger_entries SET {wrong}"))


def verified(app: Flask) -> list[verify.Difference]:
    with app.app_context():
        return verify.verify().differences


def test_who_agreed_to_auto_top_up_before_is_watched(stripe: StripeWorld) -> None:
    """0009 writes what PUT /controls writes since."""
    stripe.seed()
    account_id, api = tenant(stripe)
    other_id, other = tenant(stripe, "other")
    wanted = {"enabled": True, "below": 5, "credits": 100, "monthly_ceiling": 1000}
    assert api.put("/controls", {"auto_top_up": wanted}).status == 200
    assert other.put("/controls", {"auto_top_up": wanted | {"enabled": False}}).status == 200

    def watched() -> list[tuple[str, int]]:
        with stripe.app.app_context(), database.transaction() as session:
            return [tuple(row) for row in session.execute(text("SELECT account_id, below FROM top_up_watches"))]

    assert watched() == [(account_id, 5_000_000)]
    migrate(stripe.app, "0008", back=True)
    migrate(stripe.app, "head")
    assert watched() == [(account_id, 5_000_000)]
    assert other_id != account_id
