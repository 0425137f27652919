"""The folder of a run, shared by all its worker processes: in memory where there is room, as databases come and go."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_RUN = "SPILLWAY_TEST_RUN"
_PREFIX = "spillway-tests-"
_MEMORY = Path("/dev/shm")
_ROOM = 2_000_000_000
"""Bytes that have to be free; a run needs a tenth of it."""


def make() -> None:
    """The first process of a run makes the folder, and removes it at the very end."""
    if _RUN in os.environ:
        return
    root = _root()
    _remove_abandoned(root)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    lock = os.open(folder / "locking", os.O_WRONLY | os.O_CREAT)  # held as long as this process lives
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / "locking").rename(folder / "lock")  # seen by others only once it is held
    os.environ[_RUN] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def shared() -> Path:
    return Path(os.environ[_RUN])


def mine() -> Path:
    """This worker's own part of it."""
    folder = shared() / os.environ.get("PYTEST_XDIST_WORKER", "alone")
    folder.mkdir(exist_ok=True)
    return folder


def _root() -> Path:
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
        return _MEMORY
    return Path(tempfile.gettempdir())


def _remove_abandoned(root: Path) -> None:
    """What runs left behind that were killed, or it would fill the machine's memory."""
    for lock in root.glob(f"{_PREFIX}*/lock"):
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
        shutil.rmtree(lock.parent, ignore_errors=True)
