"""People in races: one of each, however many come at once, and the sign-up credits once per person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import argon2
import pytest
from flask import Flask
from sqlalchemy import text, update

import database
from errors import RateLimited, ValidationError
from extensions import db
from models.user import User
from services import accounts, passwords, people, throttle
from services.throttle import Limit
from tests.factories import PASSWORD, Api, service_token
from tests.together import at_once


def sign_up(app: Flask, email: str) -> Callable[[], str]:
    """A call that answers the new person's id, or why there is none."""

    def call() -> str:
        with app.app_context():
            try:
                return people.sign_up(email, PASSWORD, "Team", "127.0.0.1").id
            except ValidationError as error:
                return error.detail
            finally:
                db.session.remove()

    return call


def numbers(app: Flask, *queries: str) -> list[Any]:
    with app.app_context(), db.engine.connect() as conn:
        return [conn.execute(text(query)).scalar_one() for query in queries]


def kept(app: Flask) -> list[Any]:
    """How many users, accounts, memberships and sign-up grants there are."""
    return numbers(
        app,
        "SELECT count(*) FROM users",
        "SELECT count(*) FROM accounts",
        "SELECT count(*) FROM memberships",
        "SELECT count(*) FROM ledger_entries WHERE reason = 'signup'",
    )


class TestSigningUp:
    @pytest.mark.parametrize(
        "emails",
        [["ann@example.com"] * 4, ["ann@example.com", " Ann@Example.com", "ANN@EXAMPLE.COM ", "ann@example.COM"]],
    )
    def test_one_of_many_at_once_succeeds(self, app: Flask, emails: list[str]) -> None:
        results = at_once(*[sign_up(app, email) for email in emails])
        assert sum(result.startswith("usr_") for result in results) == 1
        assert sum("This address is in use." in result for result in results) == 3
        assert kept(app) == [1, 1, 1, 1]
        assert numbers(app, "SELECT email FROM users", "SELECT role FROM memberships") == ["ann@example.com", "owner"]

    def test_different_people_at_once_all_succeed(self, app: Flask) -> None:
        results = at_once(*[sign_up(app, f"ann{number}@example.com") for number in range(4)])
        assert all(result.startswith("usr_") for result in results)
        assert kept(app) == [4, 4, 4, 4]

    def test_credits_come_once_though_person_and_operator_come_at_once(self, app: Flask) -> None:
        operator = Api(app, service_token(app))

        def create(number: int) -> Callable[[], str]:
            body = {"external_id": f"acme{number}", "name": "Acme", "email": " ANN@example.com".strip()}
            return lambda: str(operator.post("/accounts", body).status)

        results = at_once(sign_up(app, "Ann@example.com"), create(1), create(2))
        assert results[0].startswith("usr_")
        assert results[1:] == ["201", "201"]
        assert kept(app) == [1, 3, 1, 1]

    def test_more_accounts_bring_no_more_credits(self, app: Flask) -> None:
        sign_up(app, "ann@example.com")()
        with app.app_context():
            with database.transaction() as session:
                user = session.scalars(db.select(User)).one()
                for number in range(3):
                    accounts.sign_up_account(session, user, f"Team {number}")
            db.session.remove()
        assert kept(app) == [1, 4, 4, 1]

    @pytest.mark.settings(signup_grant="verified")
    def test_proving_the_address_in_two_ways_at_once_gives_once(self, app: Flask) -> None:
        user_id = sign_up(app, "ann@example.com")()
        with app.app_context(), database.transaction() as session:
            session.execute(update(User).values(email_verified_at=accounts.clock.now()))

        def grant() -> bool:
            with app.app_context():
                return accounts.grant_verified(user_id)

        assert sorted(at_once(grant, grant, grant)) == [False, False, True]
        assert kept(app) == [1, 1, 1, 1]

    def test_whom_a_claim_is_about_is_not_kept(self, sqlite_app: Flask) -> None:
        sign_up(sqlite_app, "ann@example.com")()
        with sqlite_app.app_context(), db.engine.connect() as conn:
            keys = [str(key) for key in conn.execute(text("SELECT key FROM signup_claims")).scalars()]
        assert keys
        assert "ann" not in " ".join(keys)


class TestOperators:
    def test_added_twice_at_once_there_is_one(self, app: Flask) -> None:
        def add() -> bool:
            with app.app_context():
                return people.add_operator(" Boss@example.com")[1] is not None

        assert sorted(at_once(add, add, add)) == [False, False, True], "one of them gets the link"
        assert numbers(app, "SELECT count(*) FROM users", "SELECT count(*) FROM accounts") == [1, 1]

    def test_somebody_who_signed_up_becomes_one(self, sqlite_app: Flask) -> None:
        user_id = sign_up(sqlite_app, "ann@example.com")()
        with sqlite_app.app_context():
            user, link = people.add_operator("ANN@example.com")
            assert (user.id, user.is_operator, link) == (user_id, True, None)
            assert people.setup_link() is None


@pytest.mark.usefixtures("real_hashes")
class TestPasswords:
    def test_a_hash_tells_nothing_and_is_no_other(self) -> None:
        first, second = passwords.hashed(PASSWORD), passwords.hashed(PASSWORD)
        assert first != second
        assert first.startswith("$argon2id$")
        assert PASSWORD not in first
        assert passwords.matches(first, PASSWORD)
        for wrong in ("", PASSWORD.upper(), f"{PASSWORD} ", first, "é" * 100):
            assert not passwords.matches(first, wrong)

    def test_what_is_no_hash_matches_nothing(self) -> None:
        for wrong in (None, "", "plain", "$argon2id$v=19$m=1", passwords.unusable()):
            assert not passwords.matches(wrong, PASSWORD)

    def test_an_outdated_hash_is_renewed_at_the_next_log_in(self, sqlite_app: Flask) -> None:
        user_id = sign_up(sqlite_app, "ann@example.com")()
        weak = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
        with sqlite_app.app_context():
            with database.transaction() as session:
                session.execute(update(User).values(password_hash=weak))
            assert people.log_in("ann@example.com", "wrong password", "127.0.0.1") is None
            user = people.log_in("ann@example.com", PASSWORD, "127.0.0.1")
            assert user is not None
            assert user.id == user_id
            assert people.log_in("ann@example.com", PASSWORD, "127.0.0.1") is not None
            db.session.remove()
        [now] = numbers(sqlite_app, "SELECT password_hash FROM users")
        assert now != weak
        assert not passwords.is_outdated(now)

    def test_a_session_ends_with_its_version(self, sqlite_app: Flask) -> None:
        user_id = sign_up(sqlite_app, "ann@example.com")()
        with sqlite_app.app_context():
            assert people.get(user_id, 1) is not None
            for version in (0, 2):
                assert people.get(user_id, version) is None
            assert people.get("usr_none", 1) is None


class TestThrottle:
    LIMIT = Limit("test", 3, 3600)

    def attempt(self, app: Flask, limit: Limit, *parts: str) -> int:
        """Seconds to wait; 0 when the attempt is allowed."""
        with app.app_context():
            try:
                throttle.attempt(limit, *parts)
            except RateLimited as error:
                return error.retry_after
        return 0

    @pytest.mark.usefixtures("whole_window")
    def test_all_processes_count_together(self, app: Flask) -> None:
        waits = at_once(*[lambda: self.attempt(app, self.LIMIT, "ann@example.com", "::1")] * 6)
        refused = [wait for wait in waits if wait]
        assert len(refused) == 3
        assert all(1 <= wait <= 3600 for wait in refused)
        assert self.attempt(app, self.LIMIT, "ann@example.com", "::1")

    @pytest.mark.usefixtures("whole_window")
    def test_others_are_not_affected_and_success_forgives(self, sqlite_app: Flask) -> None:
        for _ in range(7):
            last = self.attempt(sqlite_app, self.LIMIT, "ann")
        assert last > 0
        for limit, parts in ((self.LIMIT, ("bob",)), (self.LIMIT, ("ann", "")), (Limit("other", 3, 3600), ("ann",))):
            assert self.attempt(sqlite_app, limit, *parts) == 0
        with sqlite_app.app_context():
            throttle.forgive(self.LIMIT, "ann")
        assert self.attempt(sqlite_app, self.LIMIT, "ann") == 0

    def test_a_new_window_begins_anew(self, sqlite_app: Flask) -> None:
        short = Limit("short", 1, 1)
        waits = [self.attempt(sqlite_app, short, "ann")]
        while len(waits) < 2000 and not (waits[-1] == 0 and 1 in waits):
            waits.append(self.attempt(sqlite_app, short, "ann"))
        assert 1 in waits, "refused within a second"
        assert waits[-1] == 0, "and allowed in the next"

    def test_the_table_tells_nobody_who_tried(self, sqlite_app: Flask) -> None:
        self.attempt(sqlite_app, self.LIMIT, "ann@example.com", "203.0.113.7")
        with sqlite_app.app_context(), db.engine.connect() as conn:
            rows = str(conn.execute(text("SELECT * FROM throttles")).all())
        assert "ann" not in rows
        assert "203.0.113" not in rows


def test_an_address_is_the_same_however_it_is_written(sqlite_app: Flask) -> None:
    """An international domain has two spellings; whoever signs up with one logs in with either."""
    with sqlite_app.app_context():
        user = people.sign_up(" Eva@Büro.example ", PASSWORD, "Eva", "127.0.0.1")
        assert user.email == "eva@xn--bro-hoa.example"
        for written in ("eva@büro.example", "EVA@XN--BRO-HOA.example"):
            found = people.log_in(written, PASSWORD, "127.0.0.1")
            assert found is not None
            assert found.id == user.id
        assert people.log_in("no address", PASSWORD, "127.0.0.1") is None
