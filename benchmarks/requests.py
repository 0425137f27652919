"""The requests of each row, ready for the wire, and what a right answer to them is."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from benchmarks.load import Load

CATALOG = '[product]\n"rate:chat" = "prompt_per_1k=0.5,completion_per_1k=1.5,minimum=0.1"\n'
_EVENT = {
    "operation": "chat",
    "llm_provider": "example",
    "llm_model": "example-large",
    "prompt_tokens": 1200,
    "completion_tokens": 300,
    "total_tokens": 1500,
    "source": "bench",
    "subject": "user-17",
}
PRICE = Decimal("1.05")
"""Credits of one `_EVENT` by the catalog's rate."""
GRANT = 100_000_000
"""Credits given to each account: more than any run spends."""
_CHARGED = f'"credits":{PRICE}'.encode()


class Request(NamedTuple):
    """`account` is whose books an accepted request changes; `holds` stands in the body of a right answer."""

    wire: bytes
    account: str
    holds: bytes
    status: int = 200


Source = Callable[[int], Request]
"""The request of a serial number."""


def _head(load: Load, method: str, path: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: application/json"]
    if load.token:
        lines.append(f"Authorization: Bearer {load.token}")
    if method == "POST":
        lines.append("Content-Type: application/json")
    return "\r\n".join(lines).encode()


def _post(head: bytes, body: bytes) -> bytes:
    return b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def _spread(load: Load, serial: int) -> str:
    """Walk the accounts with a stride, so that neighbours in time are far apart in the books."""
    return load.accounts[serial * 7919 % len(load.accounts)]


def _event_template() -> bytes:
    text = json.dumps({"account": "@a", **_EVENT, "idempotency_key": "@k"}, separators=(",", ":"))
    return text.replace("@a", "%b").replace("@k", "%b-%d").encode()


def usage(load: Load) -> Source:
    """POST /usage: priced by a rate, with a key of its own."""
    head, event, run = _head(load, "POST", "/api/v1/usage"), _event_template(), load.run.encode()

    def make(serial: int) -> Request:
        account = _spread(load, serial)
        return Request(_post(head, event % (account.encode(), run, serial)), account, _CHARGED, 201)

    return make


def batch(load: Load) -> Source:
    """POST /usage/batch of `size` records of one account, each with a key."""
    head, event, run = _head(load, "POST", "/api/v1/usage/batch"), _event_template(), load.run.encode()
    holds = f'"accepted":{load.size},"refused":0'.encode()

    def make(serial: int) -> Request:
        account = _spread(load, serial)
        first, name = serial * load.size, account.encode()
        records = b",".join([event % (name, run, first + step) for step in range(load.size)])
        return Request(_post(head, b'{"records":[%b]}' % records), account, holds)

    return make


def check(load: Load) -> Source:
    """POST /check of the same event."""
    head = _head(load, "POST", "/api/v1/check")
    asked = {name: value for name, value in _EVENT.items() if name != "source"}

    def make(serial: int) -> Request:
        account = _spread(load, serial)
        body = json.dumps({"account": account, **asked}).encode()
        return Request(_post(head, body), account, b'"allowed":true')

    return make


def balance(load: Load) -> Source:
    """GET /balance."""

    def make(serial: int) -> Request:
        account = _spread(load, serial)
        wire = _head(load, "GET", f"/api/v1/balance?account={account}") + b"\r\n\r\n"
        return Request(wire, account, b'"available":')

    return make


def summary(load: Load) -> Source:
    """GET /usage/summary of the running period, by day and operation."""

    def make(serial: int) -> Request:
        account = _spread(load, serial)
        path = f"/api/v1/usage/summary?account={account}&interval=day&by=operation"
        return Request(_head(load, "GET", path) + b"\r\n\r\n", account, b'"total":')

    return make


def statement(load: Load) -> Source:
    """GET /statement of the last whole month, every entry included."""
    month = f"{datetime.now(UTC).replace(day=1) - timedelta(days=1):%Y-%m}"

    def make(serial: int) -> Request:
        account = _spread(load, serial)
        wire = _head(load, "GET", f"/api/v1/statement?account={account}&month={month}") + b"\r\n\r\n"
        return Request(wire, account, b'"reason":"usage"')

    return make


def page(load: Load) -> Source:
    """GET /usage as the owner's browser asks for it."""

    def make(serial: int) -> Request:
        account = _spread(load, serial)
        lines = ["GET /usage HTTP/1.1", "Host: 127.0.0.1", "Accept: text/html", f"Cookie: {load.cookies[account]}"]
        shown = f"Old {account.removeprefix('old-')}"
        return Request("\r\n".join(lines).encode() + b"\r\n\r\n", account, shown.encode())

    return make


def _get(path: str) -> Callable[[Load], Source]:
    def source(load: Load) -> Source:
        request = Request(_head(load, "GET", path) + b"\r\n\r\n", "", b'"status":"ok"')
        return lambda _serial: request

    return source


def create_account(load: Load) -> Source:
    """POST /accounts, one for each name, in order."""
    head = _head(load, "POST", "/api/v1/accounts")

    def make(serial: int) -> Request:
        account = load.accounts[serial]
        body: dict[str, Any] = {"external_id": account, "name": f"Bench {serial}"}
        return Request(_post(head, json.dumps(body).encode()), account, b'"external_id":', 201)

    return make


def grant(load: Load) -> Source:
    """POST /accounts/{account}/grants, one for each name, in order."""

    def make(serial: int) -> Request:
        account = load.accounts[serial]
        head = _head(load, "POST", f"/api/v1/accounts/{account}/grants")
        body = {"credits": GRANT, "reason": "bench"}
        return Request(_post(head, json.dumps(body).encode()), account, b'"lot":', 201)

    return make


KINDS: dict[str, Callable[[Load], Source]] = {
    "bare": _get("/bare"),
    "healthz": _get("/healthz"),
    "usage": usage,
    "batch": batch,
    "check": check,
    "balance": balance,
    "summary": summary,
    "statement": statement,
    "page": page,
    "create-account": create_account,
    "grant": grant,
}
