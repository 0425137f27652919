"""How `make run` serves: one process that forks WEB_WORKERS workers of WEB_THREADS threads each."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

from gunicorn.glogging import Logger

import log
import metric_files
from settings import Settings, SettingsError
from web_worker import Worker, headcount

try:
    _settings = Settings.from_env()
except SettingsError as error:
    print(error, file=sys.stderr)  # noqa: T201 - the one line, instead of a traceback
    raise SystemExit(2) from None

_M_ARENA_MAX = -8  # glibc's malloc.h
if "MALLOC_ARENA_MAX" not in os.environ:
    # glibc keeps memory apart for each thread, up to eight times as many as there are cores, and each of these arenas
    # keeps what it once needed: a worker would grow for as long as ever another thread met a large request.
    with suppress(OSError, AttributeError):  # other systems' libraries have nothing to set
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)

metric_files.prepare(_settings.instance_path)  # before the app, and with it prometheus_client, is imported

_host = f"[{_settings.host}]" if ":" in _settings.host else _settings.host
bind = f"{_host}:{_settings.port}"
workers = _settings.web_workers
threads = _settings.web_threads
# The app is built once and forked: workers share its memory, and a fault in it stops the start.
preload_app = True
keepalive = 30
timeout = 60
graceful_timeout = 30
# Heartbeats on a disk that stalls would get healthy workers killed.
worker_tmp_dir = "/dev/shm" if sys.platform == "linux" else None  # noqa: S108
control_socket_disable = True
# A client can send a header of any name: none of them decides about paths.
forwarder_headers = ""
_first_worker = multiprocessing.Semaphore(1)
"""Taken once by whichever worker is up first, in all lives of the workers."""
_STALL_SECONDS = 20
"""A thread waits so long for a client's next byte, and for it to take the next one."""


class ServerLog(Logger):
    """gunicorn's own messages, in the form of all others and with the same care."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        log.configure()
        self.error_log.handlers.clear()
        self.error_log.propagate = True

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Requests that can not be read are quoted, with their sender's address: none of that is for the log."""
        if msg.startswith("Invalid request from"):
            msg, args = "A request that could not be read was refused", ()
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Addresses may hold one-time secrets; a client that stalls is no fault of ours."""
        if isinstance(sys.exc_info()[1], BlockingIOError):
            self.info("A client that stalled was hung up on")
            return
        if msg.startswith("Error handling request"):
            msg, args = "Error handling a request", ()
        super().exception(msg, *args, **kwargs)


logger_class = ServerLog


worker_class = Worker


def on_starting(server: Any) -> None:
    """Once, before any worker exists: tell the operator how to get in."""
    from app import prepare_to_serve

    prepare_to_serve(server.app.wsgi())


def when_ready(server: Any) -> None:
    """Before the first worker: connections inherit from their listeners how long they may stall."""
    limit = struct.pack("ll", _STALL_SECONDS, 0)
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, limit)


def pre_fork(_server: Any, worker: Any) -> None:
    """In the master, for each worker."""
    headcount.enter(worker)


def post_worker_init(worker: Any) -> None:
    """In each worker: its scheduler competes for the lease, so that one process of the fleet runs jobs.

    The first also asks Stripe for the catalog, whoever runs the jobs: the start itself never waits for Stripe.
    """
    import write_ahead_log
    from jobs import scheduler

    # What is there now stays: looking for garbage among it took a twentieth of the time, and in long pauses.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    log.gather_requests()
    write_ahead_log.keep_short(worker.app.wsgi())
    if _first_worker.acquire(block=False):
        scheduler.sync_catalog_in_worker(worker.app.wsgi())
    if _settings.scheduler == "embedded":
        scheduler.start_in_worker(worker.app.wsgi())


def worker_exit(_server: Any, _worker: Any) -> None:
    """In each worker, at its end."""
    log.write_requests_out()


def child_exit(_server: Any, worker: Any) -> None:
    """In the master, after a worker's end: what it counted is kept."""
    headcount.leave(worker)
    metric_files.add_up(worker.pid)


def on_exit(_server: Any) -> None:
    """In the master, at the very end."""
    metric_files.remove()
