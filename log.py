"""Structured logs: one JSON object per line on stderr, with the request's id and without secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from flask import Flask, Response, g, request

_SECRETS = re.compile(
    r"(spw_[0-9a-z]{4})[A-Za-z0-9_-]+"
    r"|\b((?:sk|rk|whsec)_)[A-Za-z0-9_]+"
    r"|(Bearer )\S+"
    r"|(Basic )[A-Za-z0-9+/=]{8,}"
    r"|\b((?:setup|reset|verify|invitations?)/)[A-Za-z0-9._-]{16,}"  # one-time links
    r"|(DETAIL: ).*",  # where PostgreSQL quotes the row
    re.ASCII,
)
_ADDRESS = re.compile(r"[^\s@'\"<>(),;:=\[\]{}\\]+@[^\s@'\"<>(),;:=\[\]{}\\]+")
_MAILS = "spillway.mail"
"""The one logger that may name people: where no mail server is set, its lines are the mails."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_PROBES = ("/healthz", "/readyz", "/metrics")


def redact(text: str) -> str:
    """The text without the secret part of tokens, keys and links, and without e-mail addresses."""
    text = _SECRETS.sub(lambda match: next(filter(None, match.groups())) + "…", text)
    return _ADDRESS.sub("…@…", text) if "@" in text else text


def _redacting(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if event.get("logger") == _MAILS:
        return event
    return {name: _redacted(value) for name, value in event.items()}


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _redacted(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(part) for part in value]
    return value


def _request_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if g and "request_id" in g:
        event.setdefault("request_id", g.request_id)
    return event


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be told from those of a test runner."""


def configure() -> None:
    """Send everything, our own loggers and the libraries', through one format. Harmless when called again."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _request_id,
        _redacting,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    render = structlog.processors.JSONRenderer(ensure_ascii=False)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    )
    root = logging.getLogger()
    if not any(isinstance(handler, _Handler) for handler in root.handlers):
        handler = _Handler(sys.stderr)
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    for noisy in ("apscheduler", "alembic", "werkzeug"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def register(app: Flask) -> None:
    """Log each request but the probes: method, path without its query, status, milliseconds."""

    @app.after_request
    def finish(response: Response) -> Response:
        if request.path not in _PROBES and not (request.endpoint or "").endswith("static"):
            _write(
                {
                    "method": _method(),
                    "path": _path(),
                    "status": response.status_code,
                    "milliseconds": round((time.perf_counter() - g.arrived) * 1000, 2) if "arrived" in g else None,
                    "event": "request",
                    "level": "info",
                    "logger": "spillway.request",
                    "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                    "request_id": redact(g.get("request_id", "")),
                }
            )
        return response


def _write(entry: dict[str, Any]) -> None:
    """A line like all others, but not by way of the logging machinery, which costs more than many a request itself.

    Nothing in it may need to be cut.
    """
    if logging.root.isEnabledFor(logging.INFO):
        line = _ENCODER.encode(entry) + "\n"
        for handler in logging.root.handlers:
            if isinstance(handler, _Handler):
                handler.stream.write(line)
                handler.flush()


def _method() -> str:
    """Clients can call a method anything."""
    return request.method if request.method in _METHODS else "(other)"


def _path() -> str:
    """The route's pattern where there is one: paths may hold one-time secrets."""
    return request.url_rule.rule if request.url_rule is not None else "(no route)"
