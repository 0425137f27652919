"""The lease: one holder at a time, by real time, whoever asks at once."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from flask import Flask
from sqlalchemy import select

import database
from extensions import db
from models.operation import Lease
from services import leases
from tests.moments import At

LONG = timedelta(minutes=1)
LONGER = timedelta(minutes=3)


def holders(app: Flask) -> dict[str, str]:
    with app.app_context():
        return {lease.name: lease.holder for lease in db.session.scalars(select(Lease))}


def acquire(app: Flask, holder: str, ttl: timedelta = LONG, name: str = "work") -> bool:
    """As a process of its own would."""
    with app.app_context():
        return leases.acquire(name, holder, ttl)


def pass_time(app: Flask, seconds: float) -> None:
    """So long ago was all that has happened."""
    with app.app_context(), database.transaction() as session:
        for lease in session.scalars(select(Lease)):
            lease.expires_at -= timedelta(seconds=seconds)


def release(app: Flask, holder: str) -> None:
    with app.app_context():
        leases.release("work", holder)


def test_the_first_takes_it_and_the_second_does_not(app: Flask) -> None:
    assert acquire(app, "one")
    assert not acquire(app, "two")
    assert holders(app) == {"work": "one"}


def test_the_holder_prolongs_it(app: Flask) -> None:
    assert acquire(app, "one", LONG)
    assert acquire(app, "one", LONGER)
    pass_time(app, 90)
    assert not acquire(app, "two")
    with app.app_context():
        ends = db.session.scalars(select(Lease.expires_at)).one()
    assert timedelta(0) < ends - datetime.now(UTC) <= LONGER


def test_a_lease_that_ran_out_goes_to_the_next_and_its_old_holder_is_told(app: Flask) -> None:
    assert acquire(app, "one")
    assert not acquire(app, "two")
    pass_time(app, 60.001)
    assert acquire(app, "two")
    assert not acquire(app, "one")
    assert holders(app) == {"work": "two"}


def test_a_released_lease_is_free_at_once(app: Flask) -> None:
    assert acquire(app, "one")
    release(app, "one")
    assert holders(app) == {}
    assert acquire(app, "two")


def test_nobody_lets_go_of_anothers_lease(app: Flask) -> None:
    assert acquire(app, "one")
    release(app, "two")
    assert not acquire(app, "two")


def test_leases_of_other_names_are_apart(app: Flask) -> None:
    assert acquire(app, "one")
    assert acquire(app, "two", name="other")
    assert holders(app) == {"work": "one", "other": "two"}


def test_a_moved_business_clock_moves_no_lease(app: Flask, at: At) -> None:
    assert acquire(app, "one")
    at.forward(days=400)
    assert not acquire(app, "two")


def test_of_many_at_once_one_wins(app: Flask) -> None:
    assert acquire(app, "dead", timedelta(0))
    together = threading.Barrier(6)
    won: list[str] = []

    def ask(holder: str) -> None:
        together.wait(120)
        if acquire(app, holder):
            won.append(holder)

    threads = [threading.Thread(target=ask, args=[f"holder-{number}"]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(won) == 1
    assert holders(app) == {"work": won[0]}
