"""A real server with a Stripe key: it never waits for Stripe, and has its catalog soon after, without a scheduler."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
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
    with urllib.request.urlopen(f"{server.url}/api/v1/plans", timeout=10) as answer:
        return json.load(answer)


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
        deadline = time.monotonic() + 20
        seen = 0  # in a row: the other worker looks every two seconds
        while seen < 10 and time.monotonic() < deadline:
            seen = seen + 1 if [plan["tier"] for plan in plans(server)["plans"]] == ["team"] else 0
            time.sleep(0.1)
        assert seen == 10, server.tail()
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as books:
            assert books.execute("SELECT listings FROM catalog_state").fetchall() == [(1,)], "by one of the workers"
        assert not (tmp_path / "instance" / "catalog.toml").exists()


def test_a_stripe_that_never_answers_keeps_nobody_waiting(tmp_path: Path, url: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begun = time.monotonic()
        with serving(tmp_path, url, f"http://127.0.0.1:{silent.getsockname()[1]}") as server:
            told = plans(server)
            assert time.monotonic() - begun < 14, "no try at asking Stripe had ended by then"
            assert (told["plans"], told["payments_enabled"]) == ([], True)
