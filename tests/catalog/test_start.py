"""A real server with a Stripe key: it never waits for Stripe, and has its catalog soon after, without a scheduler."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import stripe as package

from sandbox.server import Running, start
from tests import databases, servers
from tests.stripe_world import SECRET_KEY


@pytest.fixture
def url(sqlite_databases: databases.Sqlite) -> Iterator[str]:
    with sqlite_databases.copy() as address:
        yield address


def serving(folder: Path, url: str, api_base: str) -> servers.Server:
    environ = servers.environment(
        folder, url, STRIPE_SECRET_KEY=SECRET_KEY, STRIPE_API_BASE=api_base, SCHEDULER="off", WEB_WORKERS="2"
    )
    return servers.Server(environ, folder)


def plans(server: servers.Server) -> Any:
    with urllib.request.urlopen(f"{server.url}/api/v1/plans", timeout=60) as answer:
        return json.load(answer)


class Silent:
    """A Stripe that takes every call and answers none."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._asked: list[tuple[float, socket.socket]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._take)

    def _take(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                self._asked.append((time.monotonic(), self._socket.accept()[0]))

    def asked_for(self) -> float:
        """Seconds since the first call; 0 when there was none."""
        return time.monotonic() - self._asked[0][0] if self._asked else 0

    def __enter__(self) -> Silent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for one in (self._socket, *(connection for _, connection in self._asked)):
            one.close()


def filled() -> Running:
    running = start(seed="start")
    client = package.StripeClient(SECRET_KEY, base_addresses={"api": running.url})  # type: ignore[typeddict-item]
    product = client.v1.products.create(params={"name": "Team", "metadata": {"product": "spillway"}})
    client.v1.prices.create(
        params={
            "product": product.id,
            "currency": "usd",
            "unit_amount": 4900,
            "recurring": {"interval": "month"},
            "metadata": {"price_type": "base", "tier": "team", "included_credits": "1"},
        }
    )
    return running


def test_the_catalog_is_read_at_the_start_without_a_scheduler(tmp_path: Path, url: str) -> None:
    with filled() as sandbox, serving(tmp_path, url, sandbox.url) as server:
        deadline = time.monotonic() + 60
        seen = 0  # in a row: the other worker looks every two seconds
        while seen < 10 and time.monotonic() < deadline:
            seen = seen + 1 if [plan["tier"] for plan in plans(server)["plans"]] == ["team"] else 0
            time.sleep(0.1)
        assert seen == 10, server.tail()
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as books:
            assert books.execute("SELECT listings FROM catalog_state").fetchall() == [(1,)], "by one of the workers"
        assert not (tmp_path / "instance" / "catalog.toml").exists()


def test_a_stripe_that_never_answers_keeps_nobody_waiting(tmp_path: Path, url: str) -> None:
    for _ in range(3):  # a machine may stall
        with Silent() as silent, serving(tmp_path, url, silent.url) as server:
            told = plans(server)
            asked_for = silent.asked_for()
        assert (told["plans"], told["payments_enabled"]) == ([], True)
        if asked_for < 14:
            return
    raise AssertionError("a try at asking Stripe had ended before anybody was served")
