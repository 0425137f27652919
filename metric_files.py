"""Where the processes of one server count: a folder below the instance's, which goes when the server does.

prometheus_client writes a file per process and kind of metric. A server's folder belongs to whoever holds the lock in
it, so that servers on one instance folder never count into each other's, and what a killed one left is recognised.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_GATE_SECONDS = 2.0
_own: dict[str, Path] = {}
"""This server's folder, once it is made."""
_ended: set[int] = set()
"""Processes whose files have not been added to the sum of those that ended."""


def prepare(instance: Path) -> None:
    """Make this server's folder and remove those of servers that are gone. Called before any worker exists.

    Harmless when a running server calls it again, on reading its configuration anew. Raises OSError.
    """
    if _own:
        return
    parent = instance / "metrics"
    parent.mkdir(exist_ok=True)
    with _gate(parent, fcntl.LOCK_EX) as alone:
        for old in parent.glob("server-*") if alone else ():
            if _is_abandoned(old):
                shutil.rmtree(old, ignore_errors=True)
        path = parent / f"server-{os.getpid()}-{time.time_ns():x}"
        path.mkdir()
        # Never closed: the lock is free when the last process of this server has ended, however it ended.
        fcntl.flock(os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
    _own["folder"] = path
    os.environ[_VARIABLE] = str(path)


def folder() -> Path | None:
    """This server's folder; None in a process that is no part of a server."""
    return _own.get("folder")


def remove() -> None:
    """At the server's end."""
    path = folder()
    if path is not None:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def steady() -> Iterator[list[Path]]:
    """The files with something in them; none is added up or removed during the block."""
    path = folder()
    assert path is not None
    with _gate(path, fcntl.LOCK_SH):
        yield [file for file in path.glob("*.db") if file.stat().st_size]


def add_up(pid: int) -> None:
    """Add the files of a process that has ended to one of all such, so that they do not pile up.

    Where a reader holds the gate too long it is done after the next process's end.
    """
    from prometheus_client.mmap_dict import MmapedDict

    path = folder()
    assert path is not None
    _ended.add(pid)
    with _gate(path, fcntl.LOCK_EX) as alone:
        if not alone:
            return
        for ended in _ended:
            for file in path.glob(f"*_{ended}.db"):
                if file.stat().st_size:
                    total = MmapedDict(str(path / f"{file.name.partition('_')[0]}_0.db"))
                    for key, value, _timestamp, _position in MmapedDict.read_all_values_from_file(str(file)):
                        total.write_value(key, total.read_value(key)[0] + value, 0.0)
                    total.close()
                file.unlink()
        _ended.clear()


def _is_abandoned(path: Path) -> bool:
    """Whether every process of the server that made the folder has ended."""
    try:
        descriptor = os.open(path / "lock", os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def _gate(path: Path, how: int) -> Iterator[bool]:
    """Between those who read the folder and who changes it; False when it was not to be had in time."""
    descriptor = os.open(path / "gate", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _locked(descriptor, how)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, how: int) -> bool:
    deadline = time.monotonic() + _GATE_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.005)
        else:
            return True
    return False
