"""`/metrics`: who may read it, and that its sums are right whatever becomes of the workers that counted."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families as parsed
from sqlalchemy import text

import database as databases
import metrics
from extensions import db
from jobs import registry
from models.stripe import WebhookEvent
from services import leases, mailer
from tests import factories, servers
from tests.databases import Sqlite
from tests.waiting import until

Sample = tuple[str, frozenset[tuple[str, str]]]


def samples(exposition: str) -> dict[Sample, float]:
    """Each value by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parsed(exposition)
        for sample in family.samples
    }


def value(found: dict[Sample, float], name: str, **labels: str) -> float:
    """Nothing counted yet is 0."""
    return found.get((f"spillway_{name}", frozenset(labels.items())), 0.0)


def gone_up(after: dict[Sample, float], before: dict[Sample, float], name: str, **labels: str) -> float:
    return value(after, name, **labels) - value(before, name, **labels)


# Who may read


def status(app: Flask, address: str = "127.0.0.1", host: str = "localhost:8000", **headers: str) -> int:
    sent = {"Host": host} | {name.replace("_", "-"): shown for name, shown in headers.items()}
    client = app.test_client()
    return client.get("/metrics", headers=sent, environ_overrides={"REMOTE_ADDR": address}).status_code


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1", "127.0.0.1:8000"),
        ("127.9.9.9", "localhost"),
        ("::1", "[::1]:8000"),
        ("::ffff:127.0.0.1", "LOCALHOST:1"),
    ],
)
def test_this_machine_reads_them(sqlite_app: Flask, address: str, host: str) -> None:
    assert status(sqlite_app, address, host) == 200


@pytest.mark.parametrize("address", ["10.0.0.7", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.7", "", "127.0.0.1.evil"])
def test_other_machines_do_not(sqlite_app: Flask, address: str) -> None:
    assert status(sqlite_app, address) == 403
    assert status(sqlite_app, address, X_Forwarded_For="127.0.0.1", X_Real_Ip="127.0.0.1", Via="1.1 me") == 403
    assert status(sqlite_app, address, Forwarded="for=127.0.0.1") == 403


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Forwarded", "Via"])
@pytest.mark.parametrize("shown", ["203.0.113.9", "127.0.0.1", ""])
def test_a_proxy_on_this_machine_is_no_password(sqlite_app: Flask, name: str, shown: str) -> None:
    assert status(sqlite_app, **{name: shown}) == 403


@pytest.mark.parametrize(
    "host", ["spillway.example.com", "10.0.0.7", "[::1", "localhost.example.com", "127.0.0.1.nip.io"]
)
def test_nor_is_one_that_only_passes_the_name_on(sqlite_app: Flask, host: str) -> None:
    assert status(sqlite_app, host=host) == 403


@pytest.mark.settings(metrics_token="let me in")
def test_the_token_opens_from_anywhere(sqlite_app: Flask) -> None:
    assert status(sqlite_app) == 200
    far = {"address": "10.0.0.7", "host": "spillway.example.com", "X_Forwarded_For": "203.0.113.9"}
    assert status(sqlite_app, **far, Authorization="Bearer let me in") == 200
    for wrong in (
        "Bearer let me",
        "Bearer let me in!",
        "Basic let me in",
        "let me in",
        "Bearer",
        "Bearer ",
        "Bearer é",
    ):
        assert status(sqlite_app, **far, Authorization=wrong) == 403


def test_without_a_token_nothing_shown_opens(sqlite_app: Flask) -> None:
    for shown in ("Bearer", "Bearer None", "Bearer "):
        assert status(sqlite_app, "10.0.0.7", Authorization=shown) == 403


# What one process counts


def counted(app: Flask) -> dict[Sample, float]:
    return samples(app.test_client().get("/metrics").get_data(as_text=True))


def test_requests_are_counted_by_pattern_never_by_path(sqlite_app: Flask) -> None:
    before = counted(sqlite_app)
    client = sqlite_app.test_client()
    for number in range(3):
        client.get(f"/api/v1/usage/records/use_{number}")
        client.get(f"/nothing/{number}")
        client.open("/nothing", method=f"BREW{number}")
    after = counted(sqlite_app)
    route = "/api/v1/usage/records/<record_id>"
    assert gone_up(after, before, "http_requests_total", method="GET", route=route, status="401") == 3
    assert gone_up(after, before, "http_request_duration_seconds_count", method="GET", route=route) == 3
    assert gone_up(after, before, "http_requests_total", method="GET", route="(none)", status="404") == 3
    assert gone_up(after, before, "http_requests_total", method="other", route="(none)", status="404") == 3
    assert gone_up(after, before, "refusals_total", code="unauthenticated") == 3


def test_usage_is_counted_once_with_what_paid(app: Flask, operator: factories.Api) -> None:
    factories.account(app, credits=10, included=5)
    before = counted(app)
    body = {"account": "acme", "credits": "7.25"}
    assert operator.post("/usage", body, key="a").status == 201
    assert operator.post("/usage", body, key="a").status == 200
    assert operator.post("/usage", {"account": "acme", "credits": 99}).status == 402
    records = [{"account": "acme", "credits": 1}, {"account": "nobody", "credits": 1}, {**body, "idempotency_key": "a"}]
    assert operator.post("/usage/batch", {"records": [*records, {"credits": -1}]}).json["accepted"] == 2
    done = {"account": "acme", "credits": 20, "enforce": False}
    assert operator.post("/usage", done).status == 201
    after = counted(app)
    assert gone_up(after, before, "usage_records_total") == 3
    assert gone_up(after, before, "usage_replays_total") == 2
    paid = {"allowance": 5.0, "purchased": 0.0, "granted": 10.0, "overage": 0.0, "unfunded": 13.25}
    assert {kind: gone_up(after, before, "usage_credits_total", kind=kind) for kind in paid} == paid
    for code in ("insufficient_credits", "account_not_found", "validation_error"):
        assert gone_up(after, before, "refusals_total", code=code) == 1


def test_groups_of_records_are_counted(sqlite_app: Flask) -> None:
    before = counted(sqlite_app)
    for size in (1, 3, 1000):
        metrics.spent_together(size)
    after = counted(sqlite_app)
    assert gone_up(after, before, "spend_group_size_count") == 3
    assert gone_up(after, before, "spend_group_size_sum") == 1004
    assert gone_up(after, before, "spend_group_size_bucket", le="4.0") == 2


# What the database tells


def test_what_waits_and_what_runs_is_told(app: Flask, at: Any) -> None:
    before = counted(app)
    assert value(before, "database_up") == 1 and value(before, "scheduler_alive") == 0
    with app.app_context():
        with databases.transaction() as session:
            mailer.queue(session, to="a@example.com", kind="test", subject="s", text="t")
        leases.acquire(leases.SCHEDULER, "somebody", timedelta(hours=1))
    waiting = counted(app)
    assert gone_up(waiting, before, "outbox_waiting") == 1 and value(waiting, "scheduler_alive") == 1
    began = int(time.time())
    registry.run(app, "send-outbox")
    after = counted(app)
    assert value(after, "outbox_waiting") == 0
    assert value(after, "job_last_run_ok", job="send-outbox") == 1
    assert began <= value(after, "job_last_run_timestamp_seconds", job="send-outbox") <= time.time()
    assert gone_up(after, before, "job_runs_total", job="send-outbox", outcome="ok") == 1
    with app.app_context():
        leases.release(leases.SCHEDULER, "somebody")
    assert value(counted(app), "scheduler_alive") == 0


def test_events_that_wait_and_dead_ones_are_told(sqlite_app: Flask) -> None:
    def event(number: int, status: str) -> WebhookEvent:
        now = datetime.now(UTC)
        times = {"created_at": now, "received_at": now, "next_attempt_at": now}
        processed_at = now if status == "processed" else None
        return WebhookEvent(
            id=f"evt_{number}", type="t", payload="{}", status=status, processed_at=processed_at, **times
        )

    with sqlite_app.app_context(), databases.transaction() as session:
        for number, status in enumerate(("pending", "failed", "failed", "dead", "processed")):
            session.add(event(number, status))
    found = counted(sqlite_app)
    assert (value(found, "inbox_waiting"), value(found, "inbox_dead")) == (3, 1)


def test_a_job_that_fails_is_told(sqlite_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_by_hand: bool) -> int:
        raise RuntimeError("a bad day")

    monkeypatch.setitem(registry.JOBS, "bad", registry.Job("bad", 60, fail))
    before = counted(sqlite_app)
    registry.run(sqlite_app, "bad")
    after = counted(sqlite_app)
    assert value(after, "job_last_run_ok", job="bad") == 0
    assert gone_up(after, before, "job_runs_total", job="bad", outcome="error") == 1


def test_without_a_database_the_rest_is_still_told(sqlite_app: Flask) -> None:
    with sqlite_app.app_context(), db.engine.connect() as conn:
        conn.execute(text("ALTER TABLE leases RENAME TO hidden"))
        conn.commit()
    found = counted(sqlite_app)
    assert value(found, "database_up") == 0
    assert ("spillway_outbox_waiting", frozenset()) not in found
    assert ("spillway_usage_records_total", frozenset()) in found


# Many processes


@pytest.fixture
def environ(tmp_path: Path, sqlite_databases: Sqlite) -> Iterator[dict[str, str]]:
    with sqlite_databases.copy() as url:
        yield servers.environment(tmp_path, url, WEB_WORKERS="2", SCHEDULER="off", METRICS_TOKEN="let me in")


class Caller:
    def __init__(self, server: servers.Server, token: str) -> None:
        self._port, self._token = server.port, token

    def post(self, path: str, body: Any, key: str = "") -> int:
        sent = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        if key:
            sent["Idempotency-Key"] = key
        return self._ask("POST", path, json.dumps(body), sent)[0]

    def metrics(self, **headers: str) -> tuple[int, str]:
        return self._ask("GET", "/metrics", None, headers)

    def counters(self) -> dict[Sample, float]:
        return {key: number for key, number in samples(self.metrics()[1]).items() if not key[0].endswith("_up")}

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def folders(environ: dict[str, str]) -> list[Path]:
    return sorted(Path(environ["INSTANCE_PATH"], "metrics").glob("server-*"))


@pytest.mark.slow
def test_sums_over_workers_are_right_and_outlive_them(environ: dict[str, str], tmp_path: Path) -> None:
    token = servers.service_token(environ)
    with servers.Server(environ, tmp_path) as server:
        caller = Caller(server, token)
        assert caller.post("/api/v1/accounts", {"external_id": "acme", "name": "Acme"}) == 201
        _sums_are_right(caller)
        until(lambda: all(_counts(folders(environ)[0], pid) for pid in server.workers()) or _ask_again(caller))
        _never_fall(server, caller)
        files = list(folders(environ)[0].glob("*.db"))
        assert len(files) <= 2 * 4, files  # of master, workers and the dead
        _outsiders_get_nothing(caller, token)


def _sums_are_right(caller: Caller) -> None:
    body = {"account": "acme", "credits": "0.25"}
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda number: caller.post("/api/v1/usage", body, f"k{number}"), range(80))) == {201}
        assert set(pool.map(lambda number: caller.post("/api/v1/usage", body, f"k{number}"), range(20))) == {200}
        batch = {"records": [body, {"account": "acme", "credits": 1000}]}
        assert set(pool.map(lambda _: caller.post("/api/v1/usage/batch", batch), range(10))) == {200}
    found = caller.counters()
    assert value(found, "usage_records_total") == 90
    assert value(found, "usage_replays_total") == 20
    assert value(found, "usage_credits_total", kind="granted") == 22.5
    assert value(found, "refusals_total", code="insufficient_credits") == 10
    route = "/api/v1/usage"
    assert value(found, "http_requests_total", method="POST", route=route, status="201") == 80
    assert value(found, "http_requests_total", method="POST", route=route, status="200") == 20
    assert value(found, "http_request_duration_seconds_count", method="POST", route=route) == 100
    assert value(found, "http_request_duration_seconds_bucket", method="POST", route=route, le="+Inf") == 100
    shown = {shown for _, labels in found for _, shown in labels} | {name for _, labels in found for name, _ in labels}
    assert not [text for text in shown if "acc_" in text or "acme" in text or text == "account"]


def _counts(folder: Path, pid: int) -> bool:
    """Whether the process has counted requests of its own."""
    file = folder / f"counter_{pid}.db"
    return file.exists() and any("http_requests" in key for key, *_ in MmapedDict.read_all_values_from_file(str(file)))


def _ask_again(caller: Caller) -> None:
    """On a busy machine one worker may have been quick enough for everybody, before the other came to it."""
    body = {"account": "acme", "credits": "0.25"}
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: caller.post("/api/v1/usage", body, "k0"), range(20))) == {200}


def _never_fall(server: servers.Server, caller: Caller) -> None:
    """Kill workers amid requests, and look at every counter all the while."""
    over = threading.Event()
    last = caller.counters()
    with ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(_send_until, over, caller) for _ in range(4)]
        try:
            for _ in range(4):
                assert server.kill_worker()
                for _ in range(12):
                    now = _metrics_until_answered(caller)
                    assert {key: (last[key], now.get(key)) for key in last if now.get(key, -1.0) < last[key]} == {}
                    last = now
        finally:
            over.set()
    acknowledged = 90 + sum(done.result() for done in sending)
    counted = value(caller.counters(), "usage_records_total")
    # What a worker counted and could not answer any more is in the books as well.
    assert acknowledged <= counted <= acknowledged + 4 * 4


def _send_until(over: threading.Event, caller: Caller) -> int:
    """How many records were acknowledged."""
    done = 0
    while not over.is_set():
        with suppress(OSError, http.client.HTTPException):
            status = caller.post("/api/v1/usage", {"account": "acme", "credits": "0.000001"})
            assert status == 201
            done += 1
    return done


def _metrics_until_answered(caller: Caller) -> dict[Sample, float]:
    while True:
        try:
            return caller.counters()
        except (OSError, http.client.HTTPException):
            continue


def _outsiders_get_nothing(caller: Caller, token: str) -> None:
    for headers in (
        {"X-Forwarded-For": "127.0.0.1"},
        {"Host": "spillway.example.com"},
        {"X-Forwarded-For": "127.0.0.1", "Authorization": "Bearer wrong"},
        {"X-Forwarded-For": "127.0.0.1", "Authorization": f"Bearer {token}"},
    ):
        status, text = caller.metrics(**headers)
        assert status == 403 and "spillway_" not in text
    status, text = caller.metrics(**{"X-Forwarded-For": "203.0.113.9", "Authorization": "Bearer let me in"})
    assert status == 200 and "spillway_usage_records_total" in text


@pytest.mark.slow
def test_each_server_counts_in_a_folder_of_its_own(environ: dict[str, str], tmp_path: Path) -> None:
    token = servers.service_token(environ)
    with servers.Server(environ, tmp_path) as one, servers.Server(environ, tmp_path) as two:
        assert len(folders(environ)) == 2
        first, second = Caller(one, token), Caller(two, token)
        assert first.post("/api/v1/accounts", {"external_id": "acme", "name": "Acme"}) == 201
        assert first.post("/api/v1/usage", {"account": "acme", "credits": 1}) == 201
        assert value(first.counters(), "usage_records_total") == 1
        assert value(second.counters(), "usage_records_total") == 0
        one.kill()
        one.start()
        assert len(folders(environ)) == 2, "what a killed server leaves is removed by the next"
        assert value(first.counters(), "usage_records_total") == 0
        assert two.stop() == 0
        assert len(folders(environ)) == 1, "a server that ends well takes its folder with it"
