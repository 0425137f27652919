"""Migrations on books that are in use: what they fill in, and the way back."""

from __future__ import annotations

from typing import Any

import flask_migrate
import pytest
import sqlalchemy.exc
from flask import Flask
from sqlalchemy import select, text

import database
from models.account import SignupClaim
from services import accounts, verify
from settings import ROOT
from tests import factories
from tests.buying.helpers import tenant
from tests.factories import Api
from tests.stripe_world import StripeWorld


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
    """0010 and 0011 rebuild tables on SQLite."""
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
