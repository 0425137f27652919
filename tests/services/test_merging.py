"""Calls that share a transaction: each gets its own answer, whatever happens to the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from flask import Flask

from errors import DatabaseBusy
from services import usage
from services.merging import Merger, side_by_side
from services.tokens import parse
from services.usage import UsageRequest
from tests import factories
from tests.waiting import until


class Work:
    """Doubles numbers, slowly enough for company to arrive. 13 is a bad one, 99 finds the database gone."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, items: Sequence[int]) -> list[int]:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            time.sleep(0.01)
            if 13 in items:
                raise ValueError("13")
            if 99 in items:
                raise DatabaseBusy()
            self.groups.append(list(items))
            return [item * 2 for item in items]
        finally:
            with self._lock:
                self.running -= 1


def merger(work: Work, **values: int) -> Merger[int, int]:
    return Merger(work, isolates=lambda error: isinstance(error, ValueError), **values)


def together(call: Callable[[int], int], items: Sequence[int]) -> list[int | Exception]:
    def one(item: int) -> int | Exception:
        try:
            return call(item)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(one, items))


@pytest.mark.parametrize("leaders", [1, 2, 5])
def test_everybody_gets_their_own_result_once(leaders: int) -> None:
    work = Work()
    call = merger(work, leaders=leaders, largest=7)
    items = list(range(100, 140))
    for _ in range(5):
        work.groups.clear()
        assert together(call, items) == [item * 2 for item in items]
        assert sorted(item for group in work.groups for item in group) == items
        assert max(map(len, work.groups)) <= 7
    assert 1 <= work.most <= leaders
    assert len(work.groups) < len(items)


def test_large_calls_leave_less_room_and_the_largest_go_alone() -> None:
    work, turn = Work(), AnothersTurn(taken=True)
    call: Merger[int, int] = Merger(
        work, isolates=lambda _: False, turn=turn, largest=100, size=lambda item: {1: 1, 40: 40, 90: 90, 500: 500}[item]
    )
    with ThreadPoolExecutor(10) as pool:
        sent = []
        for item in (40, 40, 1, 90, 1, 500, 1, 40):
            sent.append(pool.submit(call, item))
            time.sleep(0.05)  # so that they come in this order
        turn.given_back()
        assert [future.result(60) for future in sent] == [80, 80, 2, 180, 2, 1000, 2, 80]
    assert work.groups == [[40, 40, 1], [90, 1], [500], [1, 40]]


def test_who_had_to_wait_gives_others_a_pause_to_come() -> None:
    groups: list[list[int]] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(items: Sequence[int]) -> Sequence[int]:
        groups.append(list(items))
        begun.set()
        assert go_on.wait(60)
        return items

    call: Merger[int, int] = Merger(work, isolates=lambda _: False, pause=2)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(call, 1)
        assert begun.wait(60)
        second = pool.submit(call, 2)
        until(lambda: call._waiting)
        go_on.set()
        assert first.result(60) == 1
        third = pool.submit(call, 3)
        assert (second.result(60), third.result(60)) == (2, 3)
    assert groups == [[1], [2, 3]]


def test_a_lone_call_is_done_at_once_and_alone() -> None:
    work = Work()
    call = merger(work)
    assert [call(1), call(2)] == [2, 4]
    assert work.groups == [[1], [2]]


def test_one_bad_call_spoils_nobody_elses() -> None:
    work = Work()
    answers = together(merger(work), [1, 2, 13, 3, 4])
    assert [answers[0], answers[1], answers[3], answers[4]] == [2, 4, 6, 8]
    assert isinstance(answers[2], ValueError)


def test_an_outage_is_told_to_everybody_without_trying_each() -> None:
    work = Work()
    call = merger(work)
    answers = together(call, [99] * 6)
    assert all(isinstance(answer, DatabaseBusy) for answer in answers)
    assert call(5) == 10


def test_the_lead_is_never_lost() -> None:
    """Errors in between, many rounds, more threads than leaders: whoever calls afterwards is answered."""
    work = Work()
    call = merger(work, leaders=2, largest=3)
    for _ in range(5):
        together(call, [1, 13, 99, 2, 13, 3, 99, 4])
    assert together(call, [7, 8]) == [14, 16]


def test_concurrent_usage_is_decided_one_by_one(app: Flask) -> None:
    """Forty calls of one credit on thirty: thirty are recorded, ten refused, and the sum is exact."""
    account = factories.account(app, credits=30)
    presented = parse(f"Bearer {factories.token(app, account)}", None)

    def spend(number: int) -> int:
        with app.app_context():
            usage.record(presented, None, UsageRequest(credits=1_000_000, idempotency_key=f"k{number}"))
        return number

    answers = together(spend, range(40))
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(refused) == 10
    assert {getattr(error, "code", error) for error in refused} == {"insufficient_credits"}
    operator = factories.Api(app, factories.service_token(app))
    assert operator.get(f"/balance?account={account}").json["available"] == 0
    listed = operator.get(f"/usage/records?account={account}&limit=100").json["data"]
    assert [record["credits"] for record in listed if record["recorded_at"]].count(1) == 30


class AnothersTurn:
    """A turn that somebody else has until `given_back`. The lock of SQLite's writers in small."""

    def __init__(self, *, taken: bool) -> None:
        self._lock = threading.Lock()
        if taken:
            self._lock.acquire()
        self.given_back = self._lock.release

    def __enter__(self) -> None:
        assert self._lock.acquire(timeout=60)

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()

    def is_taken(self) -> bool:
        return self._lock.locked()


def beside(call: Callable[[int], int], items: Sequence[int]) -> list[int | Exception]:
    """As `together`, but in this thread."""
    answers: list[int | Exception] = [0] * len(items)

    def one(position: int) -> None:
        try:
            answers[position] = call(items[position])
        except Exception as error:
            answers[position] = error

    side_by_side(lambda: [partial(one, position) for position in range(len(items))])
    return answers


class TestSideBySide:
    def test_they_are_one_group(self) -> None:
        work = Work()
        call = merger(work)
        assert beside(call, range(13)) == [item * 2 for item in range(13)]
        assert beside(call, [21]) == [42]
        assert work.groups == [list(range(13)), [21]]

    def test_one_bad_call_spoils_nobody_elses(self) -> None:
        answers = beside(merger(Work()), [1, 2, 13, 3])
        assert [answers[0], answers[1], answers[3]] == [2, 4, 6]
        assert isinstance(answers[2], ValueError)

    def test_an_outage_is_told_to_everybody(self) -> None:
        call = merger(Work())
        assert {type(answer) for answer in beside(call, [99, 1, 2])} == {DatabaseBusy}
        assert beside(call, [5]) == [10]

    def test_each_goes_on_by_itself_and_may_merge_again(self) -> None:
        work = Work()
        call = merger(work)
        assert beside(lambda item: call(call(item)), [1, 2, 3]) == [4, 8, 12]
        assert work.groups == [[1, 2, 3], [2, 4, 6]]

    def test_beside_threads_nobody_is_lost(self) -> None:
        """A thread that runs calls side by side leads beside the threads' leaders, and decides for theirs too."""
        work = Work()
        call = merger(work, leaders=1, largest=5)
        with ThreadPoolExecutor(8) as pool:
            lanes = [pool.submit(beside, call, range(200 + 10 * lane, 207 + 10 * lane)) for lane in range(6)]
            alone = [pool.submit(call, item) for item in range(100, 140)]
            assert [future.result(timeout=60) for future in alone] == [item * 2 for item in range(100, 140)]
            for number, lane in enumerate(lanes):
                assert lane.result(timeout=60) == [(200 + 10 * number + item) * 2 for item in range(7)]
        assert together(call, [7, 8]) == [14, 16]
        assert len([item for group in work.groups for item in group]) == 40 + 6 * 7 + 2

    def test_who_comes_while_others_write_goes_along_and_who_only_reads_waits_for_nobody(self) -> None:
        turn, writes, reads = AnothersTurn(taken=True), Work(), Work()
        write: Merger[int, int] = Merger(writes, isolates=lambda _: True, turn=turn)
        read = merger(reads, leaders=100)
        done: list[int] = []
        arrivals = [
            [lambda: done.append(write(1)), lambda: done.append(read(10))],
            [lambda: done.append(write(2)), lambda: done.append(read(20))],
            [lambda: done.append(write(3))],
        ]

        def arrived() -> Sequence[Callable[[], object]]:
            if not arrivals:
                assert done == [20, 40], "those who only read have been answered"
                turn.given_back()
                return []
            return arrivals.pop(0)

        side_by_side(arrived)
        assert (writes.groups, reads.groups) == ([[1, 2, 3]], [[10], [20]])
        assert done == [20, 40, 2, 4, 6]
