"""The load generator: one thread, many keep-alive connections, on each of them always one request under way.

Run as `python -m benchmarks.load`, it reads a Load as JSON from stdin and writes an Outcome to stdout. It is a process
of its own, imports nothing of the server's and speaks HTTP on bare sockets, so that it stays far from being what is
measured. Requests that the deadline finds under way are waited for: every answer is judged and counted.
"""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import socket
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import requests

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_PATIENCE = 60.0
"""Seconds without any answer after which the server is taken to hang."""
_LEAST = 20
"""Calls that are measured at least, however long that takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`kind` names a function of `requests`. After `warm_up` the load is measured for `seconds`; with a `limit` it
    ends after that many requests instead. `run` makes the idempotency keys of this load its own. `cookies` are the
    browser sessions of pages, by account."""

    port: int
    kind: str
    connections: int
    accounts: list[str]
    token: str = ""
    cookies: dict[str, str] = field(default_factory=dict)
    run: str = ""
    size: int = 1
    warm_up: float = 0.0
    seconds: float = 0.0
    limit: int | None = None


@dataclass(slots=True)
class Outcome:
    """`seconds` is how long was measured. `accepted` counts all acknowledged requests by account, those of the warm-up
    and those that the end found under way included."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    accepted: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    busy: float = 0.0


class _Client:
    """One connection with at most one request under way."""

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self._address = ("127.0.0.1", port)
        self._selector = selector
        self._socket: socket.socket | None = None
        self._unsent = memoryview(b"")
        self._received = bytearray()
        self.request = requests.Request(b"", "", b"")
        self.started = 0.0

    def send(self, request: requests.Request) -> None:
        self.request, self.started = request, time.perf_counter()
        self._unsent = memoryview(request.wire)
        self._received.clear()
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=_PATIENCE)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setblocking(False)
            self._selector.register(self._socket, selectors.EVENT_READ, self)
        self.push()

    def push(self) -> None:
        """Send what the socket takes; wait for it to take more where it does not take all."""
        assert self._socket is not None
        waited = len(self._unsent) < len(self.request.wire)
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        if self._unsent:
            self._selector.modify(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)
        elif waited:
            self._selector.modify(self._socket, selectors.EVENT_READ, self)

    def receive(self) -> tuple[int, bytes] | None:
        """Status and body once the answer is whole. Raises ConnectionError when the server hangs up before that."""
        assert self._socket is not None
        chunk = self._socket.recv(262_144)
        if not chunk:
            raise ConnectionError("the server closed the connection before it had answered")
        self._received += chunk
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        body_end = self._body_end(end + 4, end)
        if body_end is None:
            return None
        if _CLOSES.search(self._received, 0, end):
            self.close()
        return int(self._received[9:12]), bytes(self._received[end + 4 : body_end])

    def _body_end(self, start: int, head_end: int) -> int | None:
        """Where the body ends; None while that has not come. Raises ConnectionError.

        A body in chunks is left as it comes: what is sent so here is JSON on one line, so none of its chunks holds the
        line ends of the last one.
        """
        length = _LENGTH.search(self._received, 0, head_end)
        if length is not None:
            end = start + int(length[1])
            return end if len(self._received) >= end else None
        if _CHUNKED.search(self._received, 0, head_end) is None:
            raise ConnectionError("an answer of unknown length")
        return len(self._received) if self._received.endswith(b"\r\n0\r\n\r\n") else None

    def close(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None


class _Generator:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._next = requests.KINDS[load.kind](load)
        self._selector = selectors.DefaultSelector()
        self._sent = self._under_way = 0
        self._accepted: Counter[str] = Counter()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        load = self._load
        began, used = time.perf_counter(), time.process_time()
        self._measured_from = began + load.warm_up
        self._ends = self._measured_from + load.seconds if load.limit is None else float("inf")
        self._ended = False
        clients = [_Client(load.port, self._selector) for _ in range(load.connections)]
        for client in clients:
            self._send(client)
        try:
            self._loop()
        finally:
            for client in clients:
                client.close()
        self.outcome.busy = (time.process_time() - used) / (time.perf_counter() - began)
        self.outcome.accepted = dict(self._accepted)
        return self.outcome

    def _send(self, client: _Client) -> None:
        done = self._load.limit is not None and self._sent >= self._load.limit
        if not self._ended and not done and not self.outcome.wrong:
            client.send(self._next(self._sent))
            self._sent += 1
            self._under_way += 1

    def _loop(self) -> None:
        while self._under_way:
            ready = self._selector.select(_PATIENCE)
            if not ready:
                self.outcome.wrong.append(f"no answer for {_PATIENCE:.0f} s")
                return
            for key, events in ready:
                if events & selectors.EVENT_WRITE:
                    key.data.push()
                if events & selectors.EVENT_READ:
                    self._read(key.data)

    def _read(self, client: _Client) -> None:
        try:
            answer = client.receive()
        except OSError as error:
            self.outcome.wrong.append(f"{self._load.kind}: {error}")
            client.close()
            self._under_way -= 1
            return
        if answer is None:
            return
        now = time.perf_counter()
        self._under_way -= 1
        self._judge(client.request, *answer)
        if self._measured_from <= now and not self._ended:
            self.outcome.latencies.append(now - client.started)
            self.outcome.seconds = now - self._measured_from
            self._ended = now >= self._ends and len(self.outcome.latencies) >= _LEAST
        self._send(client)

    def _judge(self, request: requests.Request, status: int, body: bytes) -> None:
        if status == request.status and request.holds in body:
            self._accepted[request.account] += 1
        elif len(self.outcome.wrong) < 5:
            self.outcome.wrong.append(f"{self._load.kind}: {status} {body[:400].decode(errors='replace')}")


def main() -> None:
    """Read the load, put it on the server, write the outcome."""
    spec: dict[str, Any] = json.load(sys.stdin)
    json.dump(asdict(_Generator(Load(**spec)).run()), sys.stdout)


if __name__ == "__main__":
    main()
