"""How far a run is: a bar on a terminal, elsewhere a line for each larger step."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Self

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn


class Ticker:
    """`total` counts the measurements of the run."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._progress = Progress(
            *Progress.get_default_columns(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("setting up", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, what: str) -> None:
        """A small step: on the bar only."""
        self._progress.update(self._task, description=what)

    def tell(self, what: str) -> None:
        """A larger step."""
        self.show(what)
        if not self._console.is_terminal:
            self._console.print(f"{datetime.now().astimezone():%H:%M:%S} {what}", highlight=False, soft_wrap=True)

    def about(self, kind: str) -> Callable[[str], None]:
        """`tell` of that kind of database."""
        return lambda what: self.tell(f"{kind}: {what}")

    def advance(self) -> None:
        self._progress.advance(self._task)
