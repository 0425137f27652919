"""The worker that `make run` serves with: gunicorn's own with threads, and a fast lane for the API's short requests.

Threads of one interpreter that all have something to do wait for each other more than they work. Where many clients
report usage at once, one thread that takes up whatever has come, records it together and answers all of it does the
same in half the time.
"""

from __future__ import annotations

import multiprocessing
import re
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from services.merging import side_by_side

_FAREWELL_SECONDS, _FAREWELL_BYTES = 2, 65536
"""So long, and for so much that it still sends, a client that was answered for the last time may take to hang up."""
_STUCK_SECONDS = 0.05
"""A lane that is busy for so long waits for its database."""
_STAY_SECONDS = 1.0
"""So long a connection stays in the lane without a request."""
_GIVE_WAY_SECONDS = 0.0002
_LARGEST = 16_384
_SHORT = re.compile(rb"(?:POST /api/v1/(?:usage|check)|GET /api/v1/balance)[ ?]")
_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,5})(?:\r\n|\Z)", re.IGNORECASE)
_NOBODY = -1


class Worker(ThreadWorker):
    """Requests that are short for sure go to the fast lane, all others to a thread each.

    A client that does not hang up keeps a thread of its own waiting; the library's worker waits in the one thread that
    takes everybody's requests.
    """

    def init_process(self) -> None:
        self._lane = FastLane(self)
        super().init_process()

    def accept(self, listener: Any) -> None:
        if headcount.is_ahead(self):
            time.sleep(_GIVE_WAY_SECONDS)
        super().accept(listener)

    def enqueue_req(self, conn: Any) -> None:
        if not self._lane.take(conn):
            super().enqueue_req(conn)

    def notify(self) -> None:
        """Called at least once a second, and whenever something has come."""
        super().notify()
        headcount.note(self)
        for conn in self._lane.left_behind():
            if conn.initialized:
                self.take_back(conn, True)
            else:  # it has a request, its first, that nobody has looked at
                super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        goes_on = super().handle(conn)
        if not goes_on:
            _see_off(conn.sock)
        return goes_on

    def handle_in_lane(self, conn: Any) -> bool:
        """Answer a request that is there as a whole; whether the connection goes on."""
        conn.init()
        client = conn.sock
        conn.sock = answer = _Answer(client)
        conn.data_ready = True
        try:
            goes_on = super().handle(conn)
        finally:
            conn.sock = client
        return answer.send() and bool(goes_on)

    def take_back(self, conn: Any, goes_on: bool) -> None:
        """Wait for the connection's next request, or have a thread see it off. Called in the main thread."""
        if not goes_on:
            farewell: Future[Any] = self.tpool.submit(_see_off, conn.sock)
            farewell.add_done_callback(partial(self.method_queue.defer, self.finish_request, conn))
            return
        answered: Future[bool] = Future()
        answered.set_result(True)
        self.finish_request(conn, answered)


class _Answer:
    """A client's socket for one answer, which goes out in one piece: the library sends its parts one by one."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._parts: list[bytes] = []

    def sendall(self, part: bytes) -> None:
        self._parts.append(part)

    def send(self) -> bool:
        """Whether the client was still there."""
        try:
            self._client.sendall(b"".join(self._parts))
        except OSError:
            return False
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class FastLane:
    """One thread that serves its guests side by side: connections, as long as they have short requests to make.

    All of them may have to wait for the database. Then the worker has its threads serve those who come meanwhile, and
    those who are left behind.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._poller = selectors.DefaultSelector()
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._poller.register(self._bell, selectors.EVENT_READ)
        self._newcomers: deque[Any] = deque()
        self._guests: dict[Any, float] = {}
        """And when each came or was served last."""
        self._being_served: set[Any] = set()
        self._lock = threading.Lock()
        """Of the guests; it is free while they are served."""
        self._busy_since: float | None = None
        self._look_round_at = 0.0
        threading.Thread(target=self._run, name="fast-lane", daemon=True).start()

    def take(self, conn: Any) -> bool:
        """Whether the lane serves the connection's next request. Called in the worker's main thread."""
        if self._is_stuck() or not _is_short(conn):
            return False
        self._newcomers.append(conn)
        self._button.send(b"!")
        return True

    def left_behind(self) -> list[Any]:
        """Whom the lane can not look after, because it is stuck. Called in the worker's main thread."""
        if not self._is_stuck():
            return []
        with self._lock:
            waiting = [conn for conn in self._guests if conn not in self._being_served]
            for conn in waiting:
                self._let_go(conn)
            while self._newcomers:
                waiting.append(self._newcomers.popleft())
        return waiting

    def _is_stuck(self) -> bool:
        since = self._busy_since
        return since is not None and time.monotonic() - since > _STUCK_SECONDS

    def _run(self) -> None:
        try:
            while True:
                side_by_side(partial(self._arrived, iter([_STAY_SECONDS])))
                self._busy_since = None
                self._look_round()
        except BaseException:
            self._worker.log.exception("The fast lane has failed, and with it the worker: another will be started")
            self._busy_since = 0.0  # the threads serve all who come now
            self._worker.handle_exit(None, None)

    def _arrived(self, patience: Iterator[float]) -> Iterator[Callable[[], None]]:
        """What has come; only the first time it waits for something to come, and not at all when it is stuck."""
        if self._is_stuck():
            return
        ready = [key.data for key, _ in self._poller.select(next(patience, 0))]
        if self._busy_since is None:
            self._busy_since = time.monotonic()
        with self._lock:
            callers = list(self._ready_guests(ready))
            self._being_served.update(callers)
        for conn in callers:
            yield partial(self._serve, conn)

    def _ready_guests(self, ready: Sequence[Any]) -> Iterator[Any]:
        """Those with a short request; who has another one is shown out."""
        for conn in ready:
            if conn is None:
                yield from self._let_in()
            elif conn in self._guests and conn not in self._being_served:
                if _is_short(conn):
                    yield conn
                else:
                    self._show_out(conn, True)

    def _let_in(self) -> Iterator[Any]:
        with suppress(BlockingIOError):
            self._bell.recv(_LARGEST)
        while self._newcomers:
            conn = self._newcomers.popleft()
            self._guests[conn] = time.monotonic()
            self._poller.register(conn.sock, selectors.EVENT_READ, conn)
            yield conn

    def _serve(self, conn: Any) -> None:
        goes_on = False
        try:
            goes_on = self._worker.handle_in_lane(conn)
        except BaseException:
            self._worker.log.exception("Error handling request")
        with self._lock:
            self._being_served.remove(conn)
            self._guests[conn] = time.monotonic()
            if not goes_on or conn.parser.unreader.buf.getvalue():
                self._show_out(conn, goes_on)

    def _look_round(self) -> None:
        """Part with those who have not wanted anything for a while."""
        now = time.monotonic()
        if now < self._look_round_at and self._worker.alive:
            return
        self._look_round_at = now + _STAY_SECONDS
        with self._lock:
            for conn, since in list(self._guests.items()):
                if now - since > _STAY_SECONDS or not self._worker.alive:
                    self._show_out(conn, True)

    def _show_out(self, conn: Any, goes_on: bool) -> None:
        self._let_go(conn)
        self._worker.method_queue.defer(self._worker.take_back, conn, goes_on)

    def _let_go(self, conn: Any) -> None:
        del self._guests[conn]
        self._poller.unregister(conn.sock)


class Headcount:
    """How many connections each worker has, in memory that all of them share.

    Whoever is awake takes all that connect at once; then one worker serves all clients and the others none. So who has
    more than another gives way for a moment.
    """

    def __init__(self, most: int = 256) -> None:
        self._of: Any = multiprocessing.RawArray("i", [_NOBODY] * most)

    def enter(self, worker: Any) -> None:
        """In the master, before the worker's process is made."""
        worker.place = next((place for place, count in enumerate(self._of) if count == _NOBODY), None)
        if worker.place is not None:
            self._of[worker.place] = 0

    def leave(self, worker: Any) -> None:
        """In the master, after its end."""
        if worker.place is not None:
            self._of[worker.place] = _NOBODY

    def note(self, worker: Any) -> None:
        if worker.place is not None:
            self._of[worker.place] = worker.nr_conns

    def is_ahead(self, worker: Any) -> bool:
        others = (count for place, count in enumerate(self._of) if count != _NOBODY and place != worker.place)
        return any(count < worker.nr_conns for count in others)


headcount = Headcount()


def _is_short(conn: Any) -> bool:
    """Whether the next request is of a kind that is answered at once, and nobody has to wait for its client.

    It must have come as a whole, which is told from its beginning without taking it, and its answer must have room.
    """
    if conn.is_http2 or (conn.parser is not None and conn.parser.unreader.buf.getvalue()):
        return False
    try:
        seen = conn.sock.recv(_LARGEST, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    head, end, body = seen.partition(b"\r\n\r\n")
    if not end or not _SHORT.match(head):
        return False
    lower = head.lower()
    if b"\ntransfer-encoding" in lower or b"\nexpect" in lower:
        return False
    lengths = lower.count(b"content-length")
    if lengths:
        length = _LENGTH.search(head)
        if lengths > 1 or length is None or len(body) < int(length[1]):
            return False
    room = select.poll()
    room.register(conn.sock, select.POLLOUT)
    return bool(room.poll(0))


def _see_off(client: socket.socket) -> None:
    """Say that there is nothing more to come, and let the client take it all: only then does a close harm nothing."""
    until, taken = time.monotonic() + _FAREWELL_SECONDS, 0
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        while taken < _FAREWELL_BYTES and (left := until - time.monotonic()) > 0:
            client.settimeout(left)
            rest = client.recv(4096)
            if not rest:
                break
            taken += len(rest)
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)  # for the worker, which closes it, there is nobody left to wait for
