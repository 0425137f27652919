"""APScheduler under a lease: every process has a scheduler, the one with the lease lets its jobs run."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import threading
import uuid
from datetime import timedelta
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask

from jobs import registry
from services import leases

LEASE = leases.SCHEDULER
TTL = timedelta(seconds=30)
HEARTBEAT = timedelta(seconds=10)
_log = logging.getLogger("spillway.scheduler")


class Scheduler:
    """One process's part of the fleet's scheduler."""

    def __init__(self, app: Flask, *, ttl: timedelta = TTL, heartbeat: timedelta = HEARTBEAT) -> None:
        self._app = app
        self._ttl = ttl
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._leads = False
        self._stopped = threading.Event()
        self._beating = threading.Lock()
        self._timers = BackgroundScheduler(
            daemon=True,
            timezone="UTC",
            # The lease is prolonged even while every thread for jobs is busy.
            executors={"default": ThreadPoolExecutor(4), "heartbeat": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._timers.add_job(
            self.beat, "interval", seconds=heartbeat.total_seconds(), id="heartbeat", executor="heartbeat"
        )
        with_stripe = app.config["SETTINGS"].stripe_secret_key is not None
        for job in registry.JOBS.values():
            when: dict[str, Any] = {"trigger": "interval", "seconds": job.pause(with_stripe)}
            if job.hour is not None:  # whose intervals would never end where the server is restarted every day
                when = {"trigger": "cron", "hour": job.hour}
            self._timers.add_job(self._run, id=job.name, args=[job.name], **when)

    def start(self) -> None:
        self.beat()
        self._timers.start()

    def beat(self) -> None:
        """Take or prolong the lease; without an answer from the database this process does not lead."""
        with self._beating:
            if not self._stopped.is_set():
                self._beat()

    def _beat(self) -> None:
        try:
            with self._app.app_context():
                leads = leases.acquire(LEASE, self._holder, self._ttl)
        except Exception:
            _log.exception("the scheduler's lease can not be read")
            leads = False
        if leads != self._leads:
            _log.info("scheduler %s the lease", "holds" if leads else "lost")
        self._leads = leads

    def _run(self, name: str) -> None:
        if self._leads:
            registry.run(self._app, name)

    def stop(self) -> None:
        """Stop the timers and let go of the lease."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._timers.running:
            self._timers.shutdown(wait=False)
        with self._beating:  # a beat in flight would take the lease again
            if self._leads:
                self._leads = False
                self._release()

    def _release(self) -> None:
        try:
            with self._app.app_context():
                leases.release(LEASE, self._holder)
        except Exception:
            _log.exception("the scheduler's lease could not be released; it runs out by itself")

    def run(self) -> None:
        """Start, and stop at SIGTERM or SIGINT. Their handlers only note it: a start must not be torn in two."""
        told = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: told.set())
        self.start()
        told.wait()
        self.stop()


def start_in_worker(app: Flask) -> Scheduler:
    """Start this web process's part. Called after the fork, never while an app is merely created."""
    scheduler = Scheduler(app)
    scheduler.start()
    atexit.register(scheduler.stop)
    return scheduler


def sync_catalog_in_worker(app: Flask) -> threading.Thread | None:
    """Ask Stripe for the catalog beside the first requests, which do not wait; None where the file is all there is."""
    if app.config["SETTINGS"].stripe_secret_key is None:
        return None
    thread = threading.Thread(target=registry.run, args=(app, "sync-catalog"), name="sync-catalog", daemon=True)
    thread.start()
    return thread
