"""Serving and steering: clock files, resets, dumps, the command, and that the sandbox keeps to itself."""

from __future__ import annotations

import ast
import gc
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import stripe

from sandbox.control import Sandbox, SandboxError
from sandbox.server import start
from tests.sandbox.conftest import SECRET, Receiver
from tests.sandbox.shop import Shop
from tests.waiting import until

ROOT = Path(__file__).parents[2]


def test_clock_is_shared_through_a_file(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    file.write_text("2026-11-21T10:00:00+01:00\n")
    with start(file) as running:
        assert running.control.now() == datetime(2026, 11, 21, 9, tzinfo=UTC)
        client = stripe.StripeClient("sk_test_1", base_addresses={"api": running.url})
        shop = Shop(running, client)
        subscription = shop.subscribe()
        running.control.advance(days=31)
        assert file.read_text() == "2026-12-22T09:00:00Z\n"
        assert len(shop.invoices(subscription)) == 2
        file.write_text("2027-01-22T09:00:00Z\n")
        assert running.control.now().month == 1
        running.control.advance(seconds=0)
        assert len(shop.invoices(subscription)) == 3


def test_ticking_sandbox_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    file.write_text("2026-11-21T10:00:00Z")
    receiver = Receiver()
    with start(file, receiver.url, SECRET, ticking=True) as running:
        shop = Shop(running, stripe.StripeClient("sk_test_1", base_addresses={"api": running.url}))
        shop.subscribe(trial_period_days=10)
        file.write_text("2026-12-21T10:00:00Z")
        until(lambda: "customer.subscription.trial_will_end" in receiver.types)
    receiver.close()


def test_browser_that_goes_on_to_another_page_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: left.append(unraisable.exc_value))
    reset = struct.pack("ii", 1, 0)
    with start() as running:
        address = urlsplit(running.url)
        for _ in range(40):
            with socket.create_connection((str(address.hostname), address.port or 0)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                client.sendall(b"GET /_sandbox/static/sandbox.css HTTP/1.1\r\nHost: sandbox\r\n\r\n")
                assert client.recv(15) == b"HTTP/1.1 200 OK"
        assert urllib.request.urlopen(f"{running.url}/_sandbox/static/sandbox.css").read()
    gc.collect()
    assert left == []


def test_time_stands_runs_and_never_goes_back(shop: Shop) -> None:
    before = shop.control.now()
    assert shop.control.now() == before
    with pytest.raises(SandboxError, match="never moved back"):
        shop.control.advance("2020-01-01T00:00:00Z")
    with pytest.raises(SandboxError, match="Not a moment"):
        shop.control.advance("tomorrow")
    with start() as real:
        assert abs((real.control.now() - datetime.now(UTC)).total_seconds()) < 5
        real.control.advance(days=3)
        assert (real.control.now() - datetime.now(UTC)).days in (2, 3)


def test_clock_alone_makes_nothing_happen(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.set_clock("2026-03-15T00:00:00Z")
    assert len(shop.invoices(subscription)) == 1


def test_agenda_and_steps(shop: Shop) -> None:
    shop.subscribe()
    assert [(step["at"], step["what"]) for step in shop.control.agenda()] == [("2026-02-28T10:00:00Z", "renew")]
    steps = shop.control.advance(days=29)
    assert [(step["at"], step["what"]) for step in steps] == [
        ("2026-02-28T10:00:00Z", "renew"),
        ("2026-02-28T11:00:00Z", "advance"),
    ]


def test_reset_forgets_all_but_never_an_id_twice(shop: Shop) -> None:
    shop.control.fault("error", times=0)
    shop.control.modes(hold=True)
    shop.control.clear_faults()
    first = shop.customer(card=None)
    shop.control.reset()
    assert shop.api.customers.list().data == []
    assert shop.control.events() == []
    assert shop.customer(card=None).id != first.id


def test_dump(shop: Shop) -> None:
    shop.subscribe()
    everything = shop.control.dump()
    assert everything["subscription"][0]["items"]["data"][0]["quantity"] == 1
    assert shop.control.dump("customer") == everything["customer"]
    assert not any(name.startswith("_") for objects in everything.values() for obj in objects for name in obj)
    with pytest.raises(SandboxError, match="No such kind"):
        shop.control.dump("unicorn")


def test_same_seed_same_ids() -> None:
    ids = []
    for _ in range(2):
        with start(now=1_800_000_000, seed="s") as running:
            shop = Shop(running, stripe.StripeClient("sk_test_1", base_addresses={"api": running.url}))
            shop.subscribe()
            ids.append([event["id"] for event in shop.control.events()])
    assert ids[0] == ids[1]


def test_many_at_once(shop: Shop) -> None:
    """One at a time inside, so two requests with one key make one object."""
    made: list[str] = []

    def create() -> None:
        client = stripe.StripeClient("sk_test_1", base_addresses={"api": shop.url})
        made.append(client.v1.customers.create({"name": "A"}, {"idempotency_key": "once"}).id)

    threads = [threading.Thread(target=create) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 12
    assert len(set(made)) == 1


def test_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    command = [
        sys.executable,
        "-m",
        "sandbox",
        "--port",
        "0",
        "--clock-file",
        str(clock),
        "--webhook",
        "http://127.0.0.1:9",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        try:
            assert Sandbox(url).now().isoformat().replace("+00:00", "Z") == clock.read_text().strip()
            assert [one["url"] for one in Sandbox(url).dump("webhook_endpoint")] == ["http://127.0.0.1:9"]
            with urllib.request.urlopen(url) as page:
                assert "Sandbox" in page.read().decode()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_it_imports_nothing_of_ours() -> None:
    ours = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    for file in (ROOT / "sandbox").rglob("*.py"):
        roots = {name.split(".")[0] for name in imports(file)}
        assert roots & (ours | {"services", "models", "blueprints", "jobs"}) <= {"sandbox"}, file


def test_production_code_never_imports_it() -> None:
    for folder in ("services", "models", "blueprints", "jobs"):
        for file in (ROOT / folder).rglob("*.py"):
            assert not any(name.split(".")[0] == "sandbox" for name in imports(file)), file
