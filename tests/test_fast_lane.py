"""The lane for short requests, seen from outside: nobody in it waits for longer than without it."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from tests import servers
from tests.databases import Sqlite
from web_worker import FastLane, Headcount

_PATIENCE_SECONDS = 60


class Shop:
    """A server with one worker, an account with credits, and what its product asks."""

    def __init__(self, server: servers.Server, token: str, database: Path) -> None:
        self.server, self._lock_file = server, Path(f"{database}.lock")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._connections: list[http.client.HTTPConnection] = []
        self._head = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        self.ask(self.connect(), "POST", "/api/v1/accounts", {"external_id": "acme", "name": "Acme"})

    def connect(self) -> http.client.HTTPConnection:
        self._connections.append(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=_PATIENCE_SECONDS))
        return self._connections[-1]

    def leave(self) -> None:
        for connection in self._connections:
            connection.close()

    def ask(self, connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
        """The answer, which may be a refusal."""
        connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 500, text
        return json.loads(text)

    def one_piece(self, body: str = "") -> bytes:
        """A request for the balance, or one that records usage, as many clients send it: at once."""
        if not body:
            return f"GET /api/v1/balance?account=acme {self._head}\r\n".encode()
        form = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return f"POST /api/v1/usage {self._head}{form}{body}".encode()

    def use(self, connection: http.client.HTTPConnection, **more: Any) -> Any:
        return self.ask(connection, "POST", "/api/v1/usage", {"account": "acme", "credits": 1, **more})

    def balance(self, connection: http.client.HTTPConnection) -> int:
        return int(self.ask(connection, "GET", "/api/v1/balance?account=acme")["available"])

    @contextmanager
    def somebody_writes(self) -> Iterator[None]:
        """Nobody else may write to the database meanwhile."""
        descriptor = os.open(self._lock_file, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


@pytest.fixture
def shop(tmp_path: Path, sqlite_databases: Sqlite) -> Iterator[Shop]:
    with sqlite_databases.copy() as url:
        settings = {"WEB_WORKERS": "1", "WEB_THREADS": "4", "SCHEDULER": "off", "SIGNUP_CREDITS": "1000"}
        environ = servers.environment(tmp_path, url, **settings)
        token = servers.service_token(environ)
        with servers.Server(environ, tmp_path) as server:
            shop = Shop(server, token, Path(str(make_url(url).database)))
            yield shop
            shop.leave()
            faults = [line for line in server.log.read_text().splitlines() if '"level": "error"' in line]
            assert faults == []


def test_one_connection_for_everything(shop: Shop) -> None:
    """Short requests, others, refused ones, and a pause after which the lane has long forgotten the client."""
    connection = shop.connect()
    assert shop.use(connection)["balance"]["available"] == 999
    assert shop.balance(connection) == 999
    assert shop.ask(connection, "GET", "/healthz")
    assert shop.ask(connection, "POST", "/api/v1/check", {"account": "acme", "credits": 5})["allowed"] is True
    assert shop.ask(connection, "POST", "/api/v1/usage", {"account": "acme"})["code"] == "validation_error"
    assert shop.ask(connection, "GET", "/api/v1/usage/records?account=acme")["data"]
    assert shop.use(connection, properties={"long": "x" * 9_000})["balance"]["available"] == 998
    time.sleep(2.5)
    sock = connection.sock
    assert shop.balance(connection) == 998
    assert connection.sock is sock, "the server had closed it"


def test_while_somebody_else_writes_all_but_writers_are_answered(shop: Shop) -> None:
    guests = [shop.connect() for _ in range(6)]
    for guest in guests:
        shop.balance(guest)
    with ThreadPoolExecutor(3) as pool:
        with shop.somebody_writes():
            written = [pool.submit(shop.use, guest) for guest in guests[:3]]
            for guest in (*guests[3:], shop.connect()):
                assert shop.balance(guest) == 1000
                assert shop.ask(guest, "GET", "/healthz")
            assert not any(one.done() for one in written)
        assert sorted(one.result()["balance"]["available"] for one in written) == [997, 998, 999]
    assert [shop.balance(guest) for guest in guests] == [997] * 6


def test_whoever_comes_while_somebody_else_writes_is_answered_afterwards(shop: Shop) -> None:
    """Some find the lane free, some waiting, some stuck."""
    asked = shop.one_piece('{"account":"acme","credits":1}')
    waiting: list[socket.socket] = []
    with ExitStack() as clients:
        with shop.somebody_writes():
            for _ in range(40):
                client = socket.create_connection(("127.0.0.1", shop.server.port), timeout=_PATIENCE_SECONDS)
                clients.enter_context(client).sendall(asked)
                waiting.append(client)
                time.sleep(0.004)
        for client in waiting:
            assert client.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert shop.balance(shop.connect()) == 960


def test_many_at_once_are_counted_one_by_one(shop: Shop) -> None:
    def work(number: int) -> list[Any]:
        connection = shop.connect()
        return [shop.use(connection, idempotency_key=f"{number}-{i // 2}")["id"] for i in range(20)]

    with ThreadPoolExecutor(12) as pool:
        ids = [one for ids in pool.map(work, range(12)) for one in ids]
    assert len(set(ids)) == 120
    assert shop.balance(shop.connect()) == 880


def test_a_client_that_reads_no_answer_keeps_nobody_waiting(shop: Shop) -> None:
    with socket.create_connection(("127.0.0.1", shop.server.port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        with pytest.raises(BlockingIOError):
            for _ in range(1_000_000):
                deaf.send(shop.one_piece())
        connection = shop.connect()
        for available in range(999, 989, -1):
            assert shop.use(connection)["balance"]["available"] == available


def test_it_ends_while_clients_are_connected(shop: Shop) -> None:
    connections = [shop.connect() for _ in range(5)]
    for connection in connections:
        shop.balance(connection)
    assert shop.server.stop() == 0


def test_threads_do_not_keep_memory_each_for_itself(shop: Shop) -> None:
    """glibc reserves 64 MB at their own multiples for each of its arenas; the first one is the heap."""
    with ThreadPoolExecutor(8) as pool:
        path = "/api/v1/usage/records?account=acme"
        for answered in [pool.submit(shop.ask, shop.connect(), "GET", path) for _ in range(40)]:
            assert answered.result()["data"] == []
    (worker,) = shop.server.workers()
    maps = [line.split() for line in Path(f"/proc/{worker}/maps").read_text().splitlines()]
    anonymous = [int(fields[0].split("-")[0], 16) for fields in maps if len(fields) == 5 and fields[1] == "rw-p"]
    assert sum(start % (64 << 20) == 0 for start in anonymous) <= 1


class Failing:
    """A worker with a fault of its own in it: it can take no connection back."""

    alive = True

    def __init__(self) -> None:
        self.told: list[str] = []
        self.ended = threading.Event()
        self.log = SimpleNamespace(exception=self.told.append)
        self.method_queue = SimpleNamespace(defer=self._fail)

    def _fail(self, *_arguments: object) -> None:
        raise RuntimeError("a fault")

    def handle_in_lane(self, conn: Any) -> bool:
        conn.sock.sendall(conn.sock.recv(4096)[:4])
        return True

    def handle_exit(self, _signal: object, _frame: object) -> None:
        self.ended.set()


class Connected:
    """A connection as far as the lane looks at it."""

    is_http2 = False

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.parser = SimpleNamespace(unreader=SimpleNamespace(buf=BytesIO()))


def test_a_lane_that_fails_ends_its_worker_and_takes_nobody_any_more() -> None:
    worker = Failing()
    lane = FastLane(worker)  # type: ignore[arg-type]
    here, there = socket.socketpair()
    here.settimeout(_PATIENCE_SECONDS)
    conn = Connected(there)
    with here, there, lane._bell, lane._button:
        here.sendall(b"GET /api/v1/balance HTTP/1.1\r\n\r\n")
        assert lane.take(conn)
        assert here.recv(4) == b"GET "
        here.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert worker.ended.wait(_PATIENCE_SECONDS)
        assert len(worker.told) == 1
        there.recv(4096)
        here.sendall(b"GET /api/v1/balance HTTP/1.1\r\n\r\n")
        assert not lane.take(conn)


class TestHeadcount:
    def workers(self, headcount: Headcount, *counts: int) -> list[Any]:
        workers = [SimpleNamespace(nr_conns=count) for count in counts]
        for worker in workers:
            headcount.enter(worker)
            headcount.note(worker)
        return workers

    def test_who_has_more_than_another_is_ahead(self) -> None:
        headcount = Headcount(most=4)
        fewest, other, most = self.workers(headcount, 1, 2, 3)
        assert not headcount.is_ahead(fewest)
        assert headcount.is_ahead(other) and headcount.is_ahead(most)
        headcount.leave(fewest)
        assert not headcount.is_ahead(other) and headcount.is_ahead(most)
        headcount.leave(other)
        most.nr_conns += 5  # not noted yet
        assert not headcount.is_ahead(most), "there is nobody else"

    def test_places_are_used_again_and_there_may_be_too_few(self) -> None:
        headcount = Headcount(most=2)
        first, _, third = self.workers(headcount, 0, 5, 9)
        assert third.place is None and headcount.is_ahead(third)
        headcount.leave(first)
        headcount.leave(third)
        (fourth,) = self.workers(headcount, 5)
        assert fourth.place == first.place and not headcount.is_ahead(fourth)
