"""`GET /metrics` for Prometheus: for this machine alone, or for whoever knows METRICS_TOKEN."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

import database
import metrics
import settings
from blueprints.auth import guard
from errors import Forbidden
from services import leases, vitals

blueprint = Blueprint("metrics", __name__)
_PROXIED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip")


@blueprint.get("/metrics")
@guard.public
def metrics_text() -> Response:
    """Sums over this server's processes, and what the database says at this moment."""
    if not (_has_token() or _is_local()):
        raise Forbidden("Metrics are for this machine only, or for a bearer of METRICS_TOKEN.")
    return Response(metrics.read(_Vitals()), content_type=CONTENT_TYPE_LATEST)


def _has_token() -> bool:
    wanted = settings.current().metrics_token
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    if wanted is None or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.strip().encode(), wanted.encode())


def _is_local() -> bool:
    """Whether the one who asks is on this machine. A proxy on it is, but those it speaks for are not."""
    if any(name in request.headers for name in _PROXIED):
        return False
    named = _hostname()
    return _is_loopback(request.remote_addr or "") and (named == "localhost" or _is_loopback(named))


def _hostname() -> str:
    """The name that was asked for: proxies that add no header mostly pass the public one on."""
    try:
        return urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


class _Vitals:
    """Asks the database when the metrics are read. Without an answer it says that, and the rest is still told."""

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("spillway_database_up", "Whether the database answers.")
        try:
            now = vitals.read(leases.SCHEDULER)
        except database.UNREADABLE:
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *_gauges(now)]


def _gauges(now: vitals.Vitals) -> Iterable[Metric]:
    mails = GaugeMetricFamily("spillway_outbox_waiting", "Mails that are not sent yet.", value=now.mails_waiting)
    failing = GaugeMetricFamily("spillway_outbox_failing", "Of these, mails that were tried.", value=now.mails_failing)
    events = GaugeMetricFamily(
        "spillway_inbox_waiting", "Events of Stripe's that will be tried again.", value=now.events_waiting
    )
    dead = GaugeMetricFamily(
        "spillway_inbox_dead", "Events of Stripe's that only an operator can replay.", value=now.events_dead
    )
    lease = GaugeMetricFamily(
        "spillway_scheduler_alive", "Whether a process holds the scheduler's lease.", value=int(now.scheduler_alive)
    )
    at = GaugeMetricFamily(
        "spillway_job_last_run_timestamp_seconds", "When a job last began, wherever it ran.", labels=["job"]
    )
    ok = GaugeMetricFamily("spillway_job_last_run_ok", "Whether a job's last run ended well.", labels=["job"])
    for last in now.last_runs:
        at.add_metric([last.job], last.started_at.timestamp())
        ok.add_metric([last.job], int(last.ok))
    return [mails, failing, events, dead, lease, at, ok]
