"""The jobs by name, how often each runs, and the one way to run one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Flask
from sqlalchemy import select

import database
import metrics
from extensions import db
from models.operation import JobRun
from services import credits, holds, hours, mailer, notices, outgoing, pruning, spikes
from services.stripe import cards, customers, gateway, inbox, overage, reconcile, subscriptions, topups
from services.stripe import catalog as stripe_catalog

_log = logging.getLogger("spillway.jobs")
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Job:
    """`work(by_hand)` returns how much it did; by hand it ignores pauses after failures.

    `seconds` is the time between two runs; `stripe_seconds`, where given, with a Stripe key. A job with an `hour` runs
    once a day then, in UTC of the machine.
    """

    name: str
    seconds: int
    work: Callable[[bool], int]
    stripe_seconds: int | None = None
    hour: int | None = None

    def pause(self, sells_through_stripe: bool) -> int:
        """Seconds between two runs."""
        return self.stripe_seconds if sells_through_stripe and self.stripe_seconds else self.seconds


def _until_done(step: Callable[[int], int]) -> Callable[[bool], int]:
    """Repeat a step that handles a page at a time until a page is not full."""

    def work(_by_hand: bool) -> int:
        total = 0
        while True:
            done = step(_PAGE)
            total += done
            if done < _PAGE:
                return total

    return work


def _renew(_by_hand: bool) -> int:
    """First what needs nobody's word, so that nobody waits for Stripe who is not on a subscription of Stripe's."""
    return _until_done(credits.renew_due)(_by_hand) + subscriptions.renew_due()


def _sync_catalog(_by_hand: bool) -> int:
    return int(stripe_catalog.sync().changed)


def _reconcile() -> int:
    """Nightly, with repair; how many differences there were."""
    return len(reconcile.reconcile(repair=True).drifts) if gateway.is_configured() else 0


def _send_outbox(by_hand: bool) -> int:
    notices.tell_due()
    return mailer.send_due(by_hand)


def _prune(by_hand: bool) -> int:
    """First the hours that are over take up what was counted in them: then it has served its time as well."""
    return _until_done(hours.close_due)(by_hand) + pruning.prune()


JOBS = {
    job.name: job
    for job in (
        Job("sync-catalog", 15, _sync_catalog, stripe_seconds=900),
        Job("renew-allowances", 60, _renew),
        Job("expire-lots", 60, _until_done(credits.expire_due)),
        Job("expire-holds", 60, _until_done(holds.expire_due)),
        Job("create-customers", 60, lambda _by_hand: customers.create_missing()),
        Job("retry-inbox", 30, inbox.retry_due),
        Job("reconcile", 86400, lambda _by_hand: _reconcile(), hour=3),
        Job("dunning", 60, lambda _by_hand: subscriptions.dun_due() + cards.note_expiring()),
        Job("auto-top-up", 60, topups.buy_due),
        Job("bill-overage", 300, lambda _by_hand: overage.bill_due()),
        Job("spike-alerts", 600, lambda _by_hand: spikes.look()),
        Job("deliver-webhooks", 10, outgoing.deliver_due),
        Job("send-outbox", 15, _send_outbox),
        Job("prune", 3600, _prune),
    )
}


def run(app: Flask, name: str, by_hand: bool = False) -> JobRun:
    """Run one job now, in its own app context, and keep what came of it. Its errors are logged, never raised.

    Raises KeyError for an unknown name.
    """
    job = JOBS[name]
    with app.app_context():
        started, began = datetime.now(UTC), time.perf_counter()
        try:
            outcome, detail = "ok", str(job.work(by_hand))
        except Exception as error:
            _log.exception("job %s failed", name)
            outcome, detail = "error", type(error).__name__
        metrics.job_ran(name, outcome, time.perf_counter() - began)
        result = JobRun(name=name, started_at=started, finished_at=datetime.now(UTC), outcome=outcome, detail=detail)
        try:
            return _keep(result)
        except database.Duplicate:  # the very first run of it has just ended in another process, too
            return _keep(result)


@database.retrying
def _keep(result: JobRun) -> JobRun:
    with database.transaction() as session:
        return session.merge(result)


def last_runs() -> dict[str, JobRun]:
    """The last run of each job that has run."""
    return {job_run.name: job_run for job_run in db.session.scalars(select(JobRun))}
