"""Waiting for what happens in another process or thread, and telling what waits too long from a machine that stalls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What the condition answers once it holds; fails when it never does."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
    return answer


def soon(act: Callable[[], T], seconds: float, tries: int = 3) -> T:
    """What the act returns that takes less than so long; it is done again where it took longer, as machines stall."""
    took = []
    for _ in range(tries):
        began = time.monotonic()
        answer = act()
        took.append(time.monotonic() - began)
        if took[-1] < seconds:
            return answer
    raise AssertionError(f"it took {min(took):.1f} seconds at best")
