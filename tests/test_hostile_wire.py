"""What is wrong below HTTP or with its framing: bodies that never end, broken chunks, garbage, clients that stall."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from settings import ROOT
from tests import servers
from tests.databases import Sqlite
from tests.waiting import soon

pytestmark = pytest.mark.slow

ACCOUNT = b"acme"
BODY = b'{"account":"acme","credits":1}'
TOKEN = b"@TOKEN@"
HEAD = b"Host: x\r\nAuthorization: Bearer " + TOKEN + b"\r\nContent-Type: application/json\r\n"
POST = b"POST /api/v1/usage HTTP/1.1\r\n" + HEAD
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
GET = b"GET /api/v1/balance?account=acme HTTP/1.1\r\n" + HEAD
FORM = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
SIZE = b"%x" % len(BODY)

REFUSED = {
    "a body that is shorter than it says": POST + b"Content-Length: 100\r\n\r\n" + BODY,
    "a body that is longer than anything": POST + b"Content-Length: 99999999999999999999\r\n\r\n" + BODY,
    "a negative length": POST + b"Content-Length: -5\r\n\r\n" + BODY,
    "a length with a sign": POST + b"Content-Length: +30\r\n\r\n" + BODY,
    "a length in other digits": POST + "Content-Length: ３０\r\n\r\n".encode() + BODY,
    "two lengths": POST + b"Content-Length: 30\r\nContent-Length: 5\r\n\r\n" + BODY,
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + SIZE + b"\r\n" + BODY,
    "chunks of no size": CHUNKED + b"ZZZ\r\nabc",
    "a chunk of negative size": CHUNKED + b"-5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk of absurd size": CHUNKED + b"f" * 18 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk that is cut off": CHUNKED + SIZE + b"\r\n" + BODY[:9],
    "a chunk that does not end": CHUNKED + SIZE + b"\r\n" + BODY + b"XX\r\n0\r\n\r\n",
    "a chunk with a broken extension": CHUNKED + SIZE + b";a=\x00\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunks without the last": CHUNKED + SIZE + b"\r\n" + BODY + b"\r\n",
    "a broken trailer": CHUNKED + SIZE + b"\r\n" + BODY + b"\r\n0\r\nX\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: banana\r\n\r\n" + BODY,
    "chunks inside chunks": POST
    + b"Transfer-Encoding: chunked, chunked\r\n\r\n"
    + SIZE
    + b"\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "an expectation nobody can meet": POST + b"Expect: banana\r\nContent-Length: 30\r\n\r\n" + BODY,
    "a huge header": POST + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "thousands of headers": POST + b"".join(b"X%d: 1\r\n" % number for number in range(5_000)) + b"\r\n",
    "a huge address": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a NUL in the address": b"GET /\x00 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a NUL in a header": GET + b"X: a\x00b\r\n\r\n",
    "a header without a name": GET + b": a\r\n\r\n",
    "a header with a space": GET + b"X : a\r\n\r\n",
    "a folded header": GET + b"X: a\r\n b\r\n\r\n",
    "bare line feeds": GET.replace(b"\r\n", b"\n") + b"\n",
    "two hosts": b"GET /readyz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /readyz\r\n\r\n",
    "HTTP/9.9": b"GET /readyz HTTP/9.9\r\n" + HEAD + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in small letters": b"get /readyz HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a proxy's greeting": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + GET + b"\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a form in broken chunks": FORM + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "a form that is cut off": FORM + b"Content-Length: 100\r\n\r\nemail=a",
    "a form without a boundary": FORM.replace(b"x-www-form-urlencoded", b"x") + b"Content-Length: 4\r\n\r\n--x\r",
}
ACCEPTED = {
    "whole": WHOLE,
    "in chunks": CHUNKED + SIZE + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "with a path of its own in a header": WHOLE.replace(
        b"\r\n\r\n", b"\r\nSCRIPT_NAME: /api\r\nPath-Info: /x\r\n\r\n", 1
    ),
    "with an offer of HTTP/2": WHOLE.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 1),
}


class Wire:
    """Bytes to and from one server, about an account whose name is as long as the one they are written with."""

    def __init__(self, server: servers.Server, token: str, account: str) -> None:
        self.server, self._token, self._account = server, token.encode(), account.encode()
        assert len(account) == len(ACCOUNT)

    def filled_in(self, sent: bytes) -> bytes:
        return sent.replace(TOKEN, self._token).replace(ACCOUNT, self._account)

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
        connection.sendall(self.filled_in(sent))
        return connection

    def talk(self, sent: bytes, *, half_close: bool = True) -> list[int]:
        """The statuses of all that comes back until the server closes."""
        with self.connect() as connection:
            try:
                connection.sendall(self.filled_in(sent))
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the server has refused it already
            return statuses(read(connection))

    def records(self) -> int:
        """How many were recorded, as the balance tells: each took one credit."""
        with self.connect(GET + b"Connection: close\r\n\r\n") as connection:
            body: dict[str, Any] = json.loads(read(connection).rpartition(b"\r\n")[2])
        return int(body["granted"]["used"])


def read(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


@pytest.fixture(scope="module")
def wires(tmp_path_factory: pytest.TempPathFactory, sqlite_databases: Sqlite) -> Iterator[Iterator[Wire]]:
    """One server for most of them; each test has an account of its own."""
    with serving(tmp_path_factory.mktemp("wire"), sqlite_databases, ROOT / "gunicorn.conf.py") as wires:
        yield wires


@contextmanager
def serving(folder: Path, sqlite_databases: Sqlite, config: Path) -> Iterator[Iterator[Wire]]:
    """A server, which is sound at the end."""
    with sqlite_databases.copy() as url:
        environ = servers.environment(
            folder, url, WEB_WORKERS="1", WEB_THREADS="6", SCHEDULER="off", SIGNUP_CREDITS="1000000"
        )
        token = servers.service_token(environ)
        with servers.Server(environ, folder, config) as server:
            yield (Wire(server, token, open_account(server, token, f"acm{number}")) for number in range(10))
            verified = servers.quick_command(environ, "ledger", "verify")
            assert verified.returncode == 0, verified.stdout
            faults = [line for line in server.log.read_text().splitlines() if '"level": "error"' in line]
            assert faults == []


def open_account(server: servers.Server, token: str, name: str) -> str:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"external_id": name, "name": name}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/api/v1/accounts", body, headers)) as answer:
        assert answer.status == 201
    return name


@pytest.fixture
def wire(wires: Iterator[Wire]) -> Wire:
    return next(wires)


def test_broken_framing_is_refused_and_records_nothing(wire: Wire) -> None:
    for name, sent in REFUSED.items():
        for status in wire.talk(sent):
            # 501 is what RFC 9112 wants to be said of a transfer coding.
            assert 400 <= status < 500 or (status == 501 and b"Transfer-Encoding" in sent), name
    assert wire.records() == 0
    for number, (name, sent) in enumerate(ACCEPTED.items(), 1):
        assert wire.talk(sent) == [201], name
        assert wire.records() == number, name


def test_garbage_after_and_between_requests_costs_nobody_anything(wire: Wire) -> None:
    chance = random.Random(7)
    pieces = [*REFUSED.values(), GET + b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"]
    done = 0
    for _ in range(300):
        garbage = b"".join(
            chance.choice([chance.randbytes(chance.randrange(200)), chance.choice(pieces)[: chance.randrange(1, 400)]])
            for _ in range(chance.randrange(1, 4))
        )
        answers = wire.talk(WHOLE * chance.randrange(3) + garbage)
        assert all(status < 500 or status == 501 for status in answers), garbage
        done += answers.count(201)
    assert done > 100 and wire.records() == done


def test_slow_clients_are_served_and_their_requests_count_once(wire: Wire) -> None:
    def dribble(sent: bytes) -> list[int]:
        with wire.connect() as connection:
            whole = wire.filled_in(sent)
            for start in range(0, len(whole), 16):
                connection.sendall(whole[start : start + 16])
                time.sleep(0.05)
            connection.shutdown(socket.SHUT_WR)
            return statuses(read(connection))

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(dribble, [WHOLE, ACCEPTED["in chunks"], GET + b"\r\n"]))
    assert answers == [[201], [201], [200]]
    assert wire.records() == 2


def test_who_hangs_up_at_once_is_counted_once_or_not_at_all(wire: Wire) -> None:
    keys = [b"key-%d" % number for number in range(40)]
    for number, key in enumerate(keys):
        sent = WHOLE.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: " + key + b"\r\n\r\n", 1)
        connection = wire.connect(sent[: len(sent) - number % 2])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # with a reset, at whatever moment that is for the server
    repeated = []  # some while the server is still busy with the first
    for key in keys:
        repeated += wire.talk(WHOLE.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: " + key + b"\r\n\r\n", 1))
    assert set(repeated[::2]) <= {200, 201} and len(repeated) == len(keys)
    assert set(repeated[1::2]) == {201}, "what was cut off by a byte is never recorded"
    assert wire.records() == len(keys)


@pytest.fixture
def impatient(tmp_path: Path, sqlite_databases: Sqlite) -> Iterator[Wire]:
    """A server that waits for nobody as long as the real one."""
    config, patience = (ROOT / "gunicorn.conf.py").read_text(), "_STALL_SECONDS = 20\n"
    assert patience in config
    quick = tmp_path / "quick.conf.py"
    quick.write_text(config.replace(patience, "_STALL_SECONDS = 4\n"))
    with serving(tmp_path, sqlite_databases, quick) as wires:
        yield next(wires)


def test_clients_that_stall_are_hung_up_on(impatient: Wire) -> None:
    """More of them than there are threads: everybody else waits, but not for ever."""
    kinds = (
        POST + b"Content-Length: 30\r\n\r\n" + BODY[:20],
        CHUNKED + SIZE + b"\r\n" + BODY[:20],
        CHUNKED + SIZE + b"\r\n" + BODY + b"\r\n",
        FORM + b"Content-Length: 30\r\n\r\nemail=a",
        GET + b"X: ",
        b"GET /rea",
    )
    served = []

    def stall() -> None:
        stalled = [impatient.connect(sent) for sent in kinds]
        served.append(impatient.talk(WHOLE))
        for connection in stalled:
            with connection:
                assert set(statuses(read(connection))) <= {400, 408}

    soon(stall, 45)
    assert served == [[201]] * len(served)
    assert impatient.records() == len(served)


def test_clients_that_never_hang_up_keep_nobody_waiting(wire: Wire) -> None:
    """They were told that there is nothing more to come; the server's patience with them is not everybody's."""
    last = GET + b"Connection: close\r\n\r\n"

    def linger() -> None:
        lingering = [wire.connect(last) for _ in range(5)]
        for connection in lingering:
            assert statuses(read(connection)) == [200]
        assert wire.talk(last) == [200]
        for connection in lingering:
            connection.close()

    soon(linger, 7)  # else each of the five was waited for
