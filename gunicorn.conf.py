"""How `make run` serves: one process that forks WEB_WORKERS workers of WEB_THREADS threads each."""

from __future__ import annotations

import sys
from typing import Any

import metric_files
from settings import Settings, SettingsError

try:
    _settings = Settings.from_env()
except SettingsError as error:
    print(error, file=sys.stderr)  # noqa: T201 - the one line, instead of a traceback
    raise SystemExit(2) from None

metric_files.prepare(_settings.instance_path)  # before the app, and with it prometheus_client, is imported

_host = f"[{_settings.host}]" if ":" in _settings.host else _settings.host
bind = f"{_host}:{_settings.port}"
worker_class = "gthread"
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


def on_starting(server: Any) -> None:
    """Once, before any worker exists: tell the operator how to get in."""
    from app import prepare_to_serve

    prepare_to_serve(server.app.wsgi())


def post_worker_init(worker: Any) -> None:
    """In each worker: its scheduler competes for the lease, so that one process of the fleet runs jobs."""
    if _settings.scheduler == "embedded":
        from jobs import scheduler

        scheduler.start_in_worker(worker.app.wsgi())


def child_exit(_server: Any, worker: Any) -> None:
    """In the master, after a worker's end: what it counted is kept."""
    metric_files.add_up(worker.pid)


def on_exit(_server: Any) -> None:
    """In the master, at the very end."""
    metric_files.remove()
