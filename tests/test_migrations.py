"""Migrations on books that are in use: what they fill in, and the way back."""

from __future__ import annotations

import flask_migrate
from flask import Flask
from sqlalchemy import select, text

import database
from models.account import SignupClaim
from services import accounts
from settings import ROOT
from tests import factories
from tests.buying.helpers import tenant
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
