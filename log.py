"""Structured logs: one JSON object per line on stderr, with the request's id and without secrets."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import structlog
from flask import Request, has_request_context, request

from website import Headers, Website, request_id, seconds

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
_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_PROBES = ("/healthz", "/readyz", "/metrics")
_GATHER_SECONDS = 0.05


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
    if has_request_context():
        event.setdefault("request_id", request_id(request))
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


def register(app: Website) -> None:
    """Log each request but the probes: method, path without its query, status, milliseconds."""

    def finish(request: Request, status: int, _headers: Headers) -> None:
        if request.path not in _PROBES and not (request.endpoint or "").endswith("static"):
            _requests.write(
                {
                    "method": _method(request),
                    "path": _path(request),
                    "status": status,
                    "milliseconds": round(seconds(request) * 1000, 2),
                    "event": "request",
                    "level": "info",
                    "logger": "spillway.request",
                    "timestamp": datetime.now(UTC),
                    "request_id": _shown_id(request),
                }
            )

    app.finishers.append(finish)


class _Requests:
    """Lines like all others, but not by way of the logging machinery, which costs more than many a request itself.

    A server gathers them for a moment and writes them together: with each write a thread lets go of the interpreter
    and waits for its turn, which under load cost a tenth of a request. A process that is killed takes the lines of
    that moment with it. Nothing in them may need to be cut.
    """

    def __init__(self) -> None:
        self._gathered: deque[dict[str, Any]] = deque()
        self._some = threading.Event()
        self._gathers = False

    def gather(self) -> None:
        """From now on a thread of this process writes them."""
        self._gathers = True
        threading.Thread(target=self._write_for_ever, name="request-log", daemon=True).start()

    def write(self, entry: dict[str, Any]) -> None:
        self._gathered.append(entry)
        if not self._gathers:
            self.write_out()
        elif not self._some.is_set():
            self._some.set()

    def write_out(self) -> None:
        """Write what has been gathered."""
        lines = []
        with suppress(IndexError):
            while True:
                lines.append(orjson.dumps(self._gathered.popleft(), option=_LINE))
        if lines and logging.root.isEnabledFor(logging.INFO):
            for handler in logging.root.handlers:
                if isinstance(handler, _Handler):
                    handler.stream.write(b"".join(lines).decode())
                    handler.flush()

    def _write_for_ever(self) -> None:
        while True:
            self._some.wait()
            time.sleep(_GATHER_SECONDS)
            self._some.clear()
            with suppress(OSError):  # a disk may be full now and have room later
                self.write_out()


_requests = _Requests()
gather_requests = _requests.gather
write_requests_out = _requests.write_out


def _method(request: Request) -> str:
    """Clients can call a method anything."""
    return request.method if request.method in _METHODS else "(other)"


def _shown_id(request: Request) -> str:
    """A client can send anything as its id, also a secret; one without these characters can be none."""
    shown = request_id(request)
    return redact(shown) if "_" in shown or "-" in shown else shown


def _path(request: Request) -> str:
    """The route's pattern where there is one: paths may hold one-time secrets."""
    return request.url_rule.rule if request.url_rule is not None else "(no route)"
