"""Servers die in the midst of everything, many times; afterwards the books are exact and nobody was told a lie."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import clock
from settings import ROOT
from tests.kill_audit import Books, Promises, check_lots, check_records, collect, read_books, tally
from tests.kill_clients import (
    CLIENTS,
    HOT,
    OTHERS,
    Client,
    Observed,
    Target,
    kind,
    parts,
    run_clients,
    usage,
)
from tests.moments import At
from tests.servers import Server, environment, quick_command, service_token

pytestmark = pytest.mark.slow(seconds=60)

PROCESSES = 4
SECONDS = 14
KILLS = 12
DAYS = 75
"""A run lasts so many seconds, kills and days of the business clock, whichever is latest."""
IDLE = [f"idle-{number}" for number in range(4)]
"""Accounts that no client touches: only jobs renew them and expire their lots."""
ENOUGH = {
    "kills": KILLS,
    "whole servers": 2,
    "acknowledged": 500,
    "refused": 5,
    "replays": 50,
    "broken": KILLS,
    "abandoned": 2,
    "renewals": 20,
    "idle renewals": len(IDLE),
    "idle expiries": len(IDLE),
    "expiries": 15,
    "holds captured": 20,
    "holds released": 5,
    "holds expired": 5,
    "unfunded": 1,
}
"""The least of each that a run must have seen, so that it can not pass by having done nothing."""


@dataclass
class Installation:
    """Two servers on one database, and a loop of jobs beside them."""

    folder: Path
    environ: dict[str, str]
    at: At
    servers: list[Server]
    target: Target
    operator: Client
    grants: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """Key to the account and body of each grant."""
    happened: Counter[str] = field(default_factory=Counter)
    jobs: subprocess.Popen[bytes] | None = None


@pytest.fixture
def installation(tmp_path: Path, database_url: str, at: At, clock_file: Path) -> Iterator[Installation]:
    environ = environment(
        tmp_path,
        database_url,
        CLOCK_FILE=str(clock_file),
        SCHEDULER="embedded",
        SIGNUP_CREDITS="5",
        WEB_WORKERS="2",
        WEB_THREADS="6",
    )
    token = service_token(environ)
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(environ, tmp_path)) for _ in range(2)]
        ports = tuple(server.port for server in servers)
        first = Client(Target(ports, (token, token), tmp_path / "stop"), CLIENTS)
        stack.callback(first.connection.close)
        hot_token = _make_accounts(first, at)
        operator = Client(Target(ports, (token, hot_token), tmp_path / "stop"), CLIENTS)
        stack.callback(operator.connection.close)
        installation = Installation(tmp_path, environ, at, servers, operator._target, operator)
        stack.callback(_kill_jobs, installation)
        yield installation


def _make_accounts(operator: Client, at: At) -> str:
    """The accounts with their plans, begun on different days; the hot account's own token."""
    for number, name in enumerate([HOT, *IDLE, *(f"account-{number}" for number in range(OTHERS))]):
        _post(operator, "/accounts", {"external_id": name, "name": name}, 201)
        included = 1_500 if name == HOT else 3 if number % 5 == 0 else 60
        _post(operator, f"/accounts/{name}/plan", {"tier": "enterprise", "included_credits": included}, 200)
        if name in IDLE:
            expires_at = clock.rfc3339(clock.now() + timedelta(days=20))
            grant = {"credits": 7, "reason": "kill test", "expires_at": expires_at}
            _post(operator, f"/accounts/{name}/grants", grant, 201)
        if number % 5 == 0:
            at.forward(days=1, hours=5)
    made = _post(operator, "/tokens", {"account": HOT, "name": "own", "scopes": ["write"]}, 201)
    return str(made["token"])


def _post(operator: Client, path: str, body: dict[str, Any], expected: int) -> Any:
    status, answer, _ = operator.connection.settle(path, body)
    assert status == expected, answer
    return answer


# The run


def _start_jobs(installation: Installation) -> None:
    with (installation.folder / "jobs.log").open("ab") as log:
        installation.jobs = subprocess.Popen(
            [sys.executable, "-c", "from tests.kill_clients import run_jobs; run_jobs()"],
            cwd=ROOT,
            env=installation.environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _kill_jobs(installation: Installation) -> None:
    if installation.jobs is not None:
        installation.jobs.kill()
        installation.jobs.wait()
        installation.jobs = None


@contextmanager
def _clients(installation: Installation) -> Iterator[list[Future[list[Observed]]]]:
    """All clients, in several processes, running until the block ends."""
    share = CLIENTS // PROCESSES
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        try:
            yield [
                pool.submit(run_clients, installation.target, range(first, first + share))
                for first in range(0, CLIENTS, share)
            ]
        finally:
            installation.target.stop.touch()


def _wreck(installation: Installation) -> None:
    """Kill something at random, and put it back."""
    server = random.choice(installation.servers)
    what = random.choices(["worker", "server", "both", "clean", "jobs"], [60, 18, 5, 7, 10])[0]
    if what == "worker":
        installation.happened["kills"] += server.kill_worker()
    elif what == "jobs":
        _kill_jobs(installation)
        _start_jobs(installation)
    elif what == "clean":
        assert server.stop() == 0, server.tail()
        server.start()
    else:
        victims = installation.servers if what == "both" else [server]
        for victim in victims:
            victim.kill()
            installation.happened["kills"] += 1
            installation.happened["whole servers"] += 1
        time.sleep(random.uniform(0, 0.3))
        for victim in victims:
            victim.start()


def _move_time(installation: Installation) -> None:
    """Let hours or days pass, and give someone credits that will not last."""
    now = installation.at.forward(hours=random.choice([0.02, 2, 30, 120]))
    number = len(installation.grants)
    account = random.choice([HOT, f"account-{random.randrange(OTHERS)}"])
    body = {
        "credits": random.randint(5, 60),
        "reason": "kill test",
        "expires_at": clock.rfc3339(now + timedelta(hours=random.choice([6, 100, 300]))),
    }
    key = f"grant-{number}"
    installation.grants[key] = (account, body)
    _grant(installation, key)


def _grant(installation: Installation, key: str) -> None:
    account, body = installation.grants[key]
    operator = installation.operator
    status, answer, replayed = operator.connection.settle(f"/accounts/{account}/grants", body, key)
    assert status in (200, 201), answer
    assert replayed is (status == 200), answer
    operator.observed.add(f"grants/{key}", status, answer)


def _pass_time(installation: Installation, over: threading.Event) -> None:
    while not over.wait(0.2):
        _move_time(installation)


def _run(installation: Installation) -> list[Observed]:
    _start_jobs(installation)
    over = threading.Event()
    with _clients(installation) as futures, ThreadPoolExecutor(1) as pool:
        passing = pool.submit(_pass_time, installation, over)
        try:
            _wreck_often(installation, [*futures, passing])
        finally:
            over.set()
    passing.result()
    seen = [observed for future in futures for observed in future.result()]
    _kill_jobs(installation)
    return [*seen, installation.operator.observed]


def _wreck_often(installation: Installation, running: Sequence[Future[Any]]) -> None:
    """Until it was long enough and enough has died, or one of those that should be running has failed."""
    end, last_day, happened = time.monotonic() + SECONDS, clock.now() + timedelta(days=DAYS), installation.happened
    few = ("kills", "whole servers")
    while time.monotonic() < end or clock.now() < last_day or any(happened[name] < ENOUGH[name] for name in few):
        time.sleep(random.uniform(0.1, 0.5))
        _wreck(installation)
        if any(future.done() for future in running):
            return


# Afterwards


def _settle_abandoned(installation: Installation, seen: list[Observed]) -> Observed:
    """Learn what became of the requests whose clients hung up: done or not, asking again decides."""
    client = Client(installation.target, CLIENTS)
    for number in sorted({number for observed in seen for number in observed.abandoned}):
        client.do(number)
    client.connection.close()
    return client.observed


def _repeat_everything(installation: Installation, seen: list[Observed], promises: Promises) -> None:
    """Every acknowledged request once more. All must be replays and give what was promised."""
    numbers = sorted(set().union(*(observed.numbers for observed in seen)))
    bodies = [
        body
        for number in numbers
        if kind(number) != "hold"
        for body in (usage(number, part) for part in range(parts(number)))
        if f"usage/{body['idempotency_key']}" in promises.answers
    ]
    holds = [number for number in numbers if f"holds/{number}" in promises.answers]
    before = len(installation.operator.observed.answers)
    for key in installation.grants:
        _grant(installation, key)
    answers = installation.operator.observed.answers[before:]
    with ThreadPoolExecutor(8) as pool:
        for observed in pool.map(lambda start: _repeat(installation, bodies[start::8], holds[start::8]), range(8)):
            answers += observed.answers
    assert {status for _, status, _ in answers} == {200}
    repeated = {key: answer for key, _, answer in answers}
    assert repeated.keys() == promises.answers.keys()
    different = [(key, answer, repeated[key]) for key, answer in promises.answers.items() if repeated[key] != answer]
    assert different == []


def _repeat(installation: Installation, bodies: list[dict[str, Any]], holds: list[int]) -> Observed:
    """Some usage singly, where a header tells the replay, the rest in batches; holds and captures as they were."""
    client = Client(installation.target, random.randrange(CLIENTS))
    for body in bodies[:40]:
        client.do_single(body)
    for start in range(40, len(bodies), 500):
        client.do_batch(bodies[start : start + 500])
    for number in holds:
        client.do_hold(number)
    client.connection.close()
    return client.observed


def _check_jobs(installation: Installation) -> None:
    """Jobs ran to their end, and nothing in any log was unexpected."""
    for log in installation.folder.glob("*.log"):
        told = log.read_text(errors="replace")
        assert "Traceback" not in told, f"{log}: {told[told.index('Traceback') :][:4000]}"
    listed = quick_command(installation.environ, "jobs", "list")
    assert listed.returncode == 0, listed.stderr
    runs = {line.split()[0]: line for line in listed.stdout.splitlines()}
    for name in ("renew-allowances", "expire-lots", "expire-holds"):
        assert " ok " in runs[name], runs[name]


def test_kill(installation: Installation) -> None:
    """32 clients repeat their requests while workers and servers die: each is counted exactly once."""
    seen = _run(installation)
    seen.append(_settle_abandoned(installation, seen))
    promises = collect(seen)
    _repeat_everything(installation, seen, promises)
    books = read_books(installation.environ["DATABASE_URL"])
    check_records(books, promises)
    check_lots(books)
    _check_jobs(installation)
    verified = quick_command(installation.environ, "ledger", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    _check_enough_happened(installation, seen, promises, books)


def _check_enough_happened(installation: Installation, seen: list[Observed], promises: Promises, books: Books) -> None:
    """A run in which little happened proves little."""
    happened = installation.happened + Counter(
        {
            "acknowledged": len(promises.answers),
            "refused": promises.refusals,
            "replays": promises.replays,
            "broken": sum(observed.broken for observed in seen),
            "abandoned": sum(len(observed.abandoned) for observed in seen),
        }
    )
    happened += tally(books, IDLE)
    enough = ENOUGH.items()
    assert {name: happened[name] for name, least in enough if happened[name] < least} == {}, happened
