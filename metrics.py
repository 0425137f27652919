"""What Prometheus reads: counters that every part of Spillway may add to. No label ever names an account.

Under gunicorn each process counts into files of its own (metric_files.py), which `read` adds up; elsewhere the process
counts for itself alone. Import this only after metric_files.prepare, as prometheus_client decides when it is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from flask import Request
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

import metric_files
from amounts import MICRO
from models.credit import Kind
from website import Headers, Website, seconds

_REGISTRY = CollectorRegistry()
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_PAID_BY = (*(kind.value for kind in Kind), "overage", "unfunded")

disable_created_metrics()
_requests = Counter("spillway_http_requests", "Requests answered.", ["method", "route", "status"], registry=_REGISTRY)
_durations = Histogram(
    "spillway_http_request_duration_seconds",
    "Time from a request's arrival in the app to its answer.",
    ["method", "route"],
    buckets=_SECONDS,
    registry=_REGISTRY,
)
_records = Counter("spillway_usage_records", "Usage records written, captures included.", registry=_REGISTRY)
_replays = Counter("spillway_usage_replays", "Usage answered again from its stored record.", registry=_REGISTRY)
_credits = Counter("spillway_usage_credits", "Credits charged, by what paid for them.", ["kind"], registry=_REGISTRY)
_refusals = Counter(
    "spillway_refusals", "API requests, and records within batches, that were refused.", ["code"], registry=_REGISTRY
)
_groups = Histogram(
    "spillway_spend_group_size", "Usage records decided in one transaction.", buckets=_GROUPS, registry=_REGISTRY
)
_job_runs = Counter("spillway_job_runs", "Runs of jobs in these processes.", ["job", "outcome"], registry=_REGISTRY)
_job_seconds = Counter(
    "spillway_job_duration_seconds", "Time spent in jobs by these processes.", ["job"], registry=_REGISTRY
)
_by_kind = {kind: _credits.labels(kind) for kind in _PAID_BY}
_by_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
"""The labelled children of requests seen so far: finding one must cost next to nothing."""


class Charged(Protocol):
    """What a usage record says of its cost, in micro-credits."""

    allowance: int
    purchased: int
    granted: int
    overage: int
    unfunded: int


def used(records: Iterable[Charged], replayed: int = 0) -> None:
    """Count new usage records with what paid for them, and how many answers were replays."""
    number, paid = 0, dict.fromkeys(_PAID_BY, 0)
    for record in records:
        number += 1
        for kind in _PAID_BY:
            paid[kind] += getattr(record, kind)
    if number:
        _records.inc(number)
    if replayed:
        _replays.inc(replayed)
    for kind, micros in paid.items():
        if micros:
            _by_kind[kind].inc(micros / MICRO)


def refused(code: str) -> None:
    """Count one refusal."""
    _refusals.labels(code).inc()


def spent_together(records: int) -> None:
    """Count a transaction that decided so many usage records."""
    _groups.observe(records)


def job_ran(name: str, outcome: str, seconds: float) -> None:
    """Count one run of a job."""
    _job_runs.labels(name, outcome).inc()
    _job_seconds.labels(name).inc(seconds)


def register(app: Website) -> None:
    """Count each request by its route's pattern, never by its path."""

    def count(request: Request, status: int, _headers: Headers) -> None:
        rule = request.url_rule
        key = (request.method, rule.rule if rule is not None else "", status)
        found = _by_request.get(key)
        if found is None:
            found = _children(*key)
        found[0].inc()
        found[1].observe(seconds(request))

    app.finishers.append(count)


def _children(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Remembered where the combinations are few: a client can make up methods as long as no route takes them."""
    named, place = method if method in _METHODS else "other", route or "(none)"
    found = _requests.labels(named, place, status), _durations.labels(named, place)
    if method in _METHODS:
        _by_request[(method, route, status)] = found
    return found


class Source(Protocol):
    """Whatever can be asked for metrics at the moment of a reading."""

    def collect(self) -> Iterable[Metric]: ...


def read(*sources: Source) -> bytes:
    """Everything in Prometheus' text format: what all processes of this server counted, and what `sources` say."""
    registry = CollectorRegistry(auto_describe=False)
    for source in sources:
        registry.register(source)
    registry.register(_AllProcesses() if metric_files.folder() else _REGISTRY)
    return generate_latest(registry)


class _AllProcesses:
    """The sums over the processes' files."""

    def collect(self) -> Iterable[Metric]:
        with metric_files.steady() as files:
            return list(MultiProcessCollector.merge(map(str, files)))
