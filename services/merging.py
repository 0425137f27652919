"""Group commit: calls that arrive while another is being written are written together by one of them.

The database sees one transaction instead of many, which is what makes an account with many callers no slower than
many accounts. A lone call is written at once and never waits for company.

Threads that all have work to do spend much of their time on waiting for each other, as the interpreter runs one of them
at a time. So a thread may also run many calls `side_by_side`: what they merge is one group without anybody waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Generic, Protocol, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")
R = TypeVar("R")


class Turn(Protocol):
    """What one writer at a time has."""

    def __enter__(self) -> object: ...

    def __exit__(self, *exception: object) -> None: ...

    def is_taken(self) -> bool:
        """Whether another has it now."""


class _Entry(Generic[T, R]):
    """One call that waits: until it is decided, or made the leader of those that wait with it."""

    __slots__ = ("company", "decided", "error", "item", "result", "wake")

    def __init__(self, item: T) -> None:
        self.item = item
        self.result: R | None = None
        self.error: BaseException | None = None
        self.decided = False
        self.company: Sequence[_Entry[T, R]] = ()
        """Those beside it in its thread, which its leader decides with it."""
        self.wake: threading.Lock | None = None
        """Of one that waits for another thread: held until that has decided."""


class Merger(Generic[T, R]):
    """Calls of `work` with one item each, merged into calls with up to `largest`, by at most `leaders` threads.

    An item counts as many as its `size` says; one that is larger than `largest` goes alone. A leader that had to wait
    itself gives others a `pause` of so many seconds to come: those just answered often have more.

    A leader waits for its `turn` before it looks who else has come: what arrives while others write goes with it.
    Calls that are side by side in a thread are always one group; that thread does not wait to be a leader.

    `work` returns one result for each item, in order, and has no effect when it raises. What it raises for several
    items comes from one of them or from outside: `isolates` tells whether each shall be tried alone.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        *,
        isolates: Callable[[BaseException], bool],
        turn: Turn | None = None,
        leaders: int = 1,
        largest: int = 64,
        size: Callable[[T], int] = lambda _item: 1,
        pause: float = 0,
    ) -> None:
        self._work, self._isolates, self.turn, self._largest, self._size = work, isolates, turn, largest, size
        self._free_leaders, self._pause = leaders, pause
        self._waiting: list[_Entry[T, R]] = []
        self._lock = threading.Lock()

    def must_wait(self) -> bool:
        """Whether it is another writer's turn."""
        return self.turn is not None and self.turn.is_taken()

    def __call__(self, item: T) -> R:
        """What `work` returns for the item. Raises what it raises."""
        entry: _Entry[T, R] = _Entry(item)
        if _beside.hub is not None:
            _beside.park(self, entry)
            if not entry.decided:
                with self._lock:
                    self._free_leaders -= 1
        else:
            self._queue_up(entry)
        if not entry.decided:
            self._lead(entry)
        if entry.error is not None:
            raise entry.error
        return entry.result  # type: ignore[return-value]

    def _queue_up(self, entry: _Entry[T, R]) -> None:
        """Return when the entry is decided or shall lead."""
        with self._lock:
            if self._free_leaders > 0:
                self._free_leaders -= 1
                return
            wake = entry.wake = threading.Lock()
            wake.acquire()
            self._waiting.append(entry)
        wake.acquire()

    def _lead(self, entry: _Entry[T, R]) -> None:
        """Decide this call and those that wait, then hand the lead to the next that came meanwhile."""
        group = [entry, *entry.company]
        try:
            if entry.wake is not None and self._pause:
                time.sleep(self._pause)
            with self.turn or nullcontext():
                with self._lock:
                    self._fill(group)
                self._decide(group)
        finally:
            for other in group:
                other.decided = True
            with self._lock:
                following = self._waiting.pop(0) if self._waiting and self._free_leaders >= 0 else None
                if following is None:
                    self._free_leaders += 1
            for waiting in (*group, following):
                if waiting is not None and waiting is not entry and waiting.wake is not None:
                    waiting.wake.release()

    def _fill(self, group: list[_Entry[T, R]]) -> None:
        """Add those that came first, as far as there is room."""
        room = self._largest - sum(self._size(entry.item) for entry in group)
        while self._waiting and (room := room - self._size(self._waiting[0].item)) >= 0:
            group.append(self._waiting.pop(0))

    def _decide(self, group: list[_Entry[T, R]]) -> None:
        try:
            for entry, result in zip(group, self._work([entry.item for entry in group]), strict=True):
                entry.result = result
        except BaseException as error:
            if len(group) > 1 and self._isolates(error):
                for entry in group:
                    self._decide([entry])
                return
            for entry in group:
                entry.error = error


class _Beside(threading.local):
    """This thread's calls that run side by side, where there are any."""

    hub: greenlet | None = None

    def __init__(self) -> None:
        self.parked: dict[Merger[Any, Any], list[tuple[_Entry[Any, Any], greenlet]]] = {}

    def park(self, merger: Merger[Any, Any], entry: _Entry[Any, Any]) -> None:
        """Let the others run until all of them wait; return when the entry is decided or shall lead."""
        assert self.hub is not None
        self.parked.setdefault(merger, []).append((entry, getcurrent()))
        self.hub.switch()


_beside = _Beside()


def side_by_side(arrived: Callable[[], Iterable[Callable[[], object]]]) -> None:
    """Run calls in this thread: each until it would merge, then what they merge at once, then each to its end.

    `arrived` gives those that have come since it was asked last. It is asked again while it is another writer's turn.
    The calls must not raise, and hold nothing when they merge that another of them may wait for.
    """
    _beside.hub = getcurrent()
    try:
        _begin(arrived())
        while _beside.parked:
            # Whoever waits for no other writer first.
            merger = min(_beside.parked, key=lambda merger: merger.turn is not None)
            if merger.must_wait() and _begin(arrived()):
                continue
            entries = _beside.parked.pop(merger)
            entries[0][0].company = [entry for entry, _ in entries[1:]]
            for _, waiting in entries:
                waiting.switch()
    finally:
        _beside.hub = None


def _begin(calls: Iterable[Callable[[], object]]) -> int:
    """Run each to its end or until it waits; how many there were."""
    begun = 0
    for begun, call in enumerate(calls, 1):  # noqa: B007
        greenlet(call).switch()
    return begun
