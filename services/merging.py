"""Group commit: calls that arrive while another is being written are written together by one of their threads.

The database sees one transaction instead of many, which is what makes an account with many callers no slower than
many accounts. Nothing waits for company: a lone call is written at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_NO_TURN = nullcontext()


class _Entry(Generic[T, R]):
    """One call that waits. `wake` is held until a leader has decided the call or made it the next leader."""

    __slots__ = ("decided", "error", "item", "result", "wake")

    def __init__(self, item: T) -> None:
        self.item = item
        self.result: R | None = None
        self.error: BaseException | None = None
        self.decided = False
        self.wake = threading.Lock()
        self.wake.acquire()


class Merger(Generic[T, R]):
    """Calls of `work` with one item each, merged into calls with up to `largest`, by at most `leaders` threads.

    A leader waits for its `turn` before it looks who else has come: what arrives while others write goes with it.

    `work` returns one result for each item, in order, and has no effect when it raises. What it raises for several
    items comes from one of them or from outside: `isolates` tells whether each shall be tried alone.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        *,
        isolates: Callable[[BaseException], bool],
        turn: AbstractContextManager[object] = _NO_TURN,
        leaders: int = 1,
        largest: int = 64,
    ) -> None:
        self._work, self._isolates, self._turn, self._largest = work, isolates, turn, largest
        self._free_leaders = leaders
        self._waiting: list[_Entry[T, R]] = []
        self._lock = threading.Lock()

    def __call__(self, item: T) -> R:
        """What `work` returns for the item. Raises what it raises."""
        entry: _Entry[T, R] = _Entry(item)
        with self._lock:
            leads = self._free_leaders > 0
            if leads:
                self._free_leaders -= 1
            else:
                self._waiting.append(entry)
        if not leads:
            entry.wake.acquire()
        if not entry.decided:
            self._lead(entry)
        if entry.error is not None:
            raise entry.error
        return entry.result  # type: ignore[return-value]

    def _lead(self, entry: _Entry[T, R]) -> None:
        """Decide this thread's call and those that wait, then hand the lead to the next that came meanwhile."""
        group = [entry]
        try:
            with self._turn:
                with self._lock:
                    group += self._waiting[: self._largest - 1]
                    del self._waiting[: self._largest - 1]
                self._decide(group)
        finally:
            for other in group:
                other.decided = True
            with self._lock:
                following = self._waiting.pop(0) if self._waiting else None
                if following is None:
                    self._free_leaders += 1
            for other in group[1:]:
                other.wake.release()
            if following is not None:
                following.wake.release()

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
