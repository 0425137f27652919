"""A sandbox for each test, served over HTTP; the real `stripe` client for it; an endpoint that takes its webhooks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stripe

from sandbox.server import Running, start
from tests.sandbox.shop import Shop

NOW = 1769853600  # 2026-01-31T10:00:00Z, a day that the next month does not have
SECRET = "whsec_tests"


@pytest.fixture
def running() -> Iterator[Running]:
    with start(now=NOW, seed="tests") as served:
        yield served


@pytest.fixture
def client(running: Running) -> Iterator[stripe.StripeClient]:
    http = stripe.RequestsClient()
    yield stripe.StripeClient("sk_test_1", base_addresses={"api": running.url}, http_client=http)
    http.close()


@pytest.fixture
def shop(running: Running, client: stripe.StripeClient) -> Shop:
    return Shop(running, client)


class Receiver:
    """Keeps every event whose signature is right; answers `answers` one after the other, then 200."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.requests = 0
        self.answers: list[int] = []
        self.refuse: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests += 1
                event = stripe.Webhook.construct_event(body, self.headers["Stripe-Signature"], SECRET)
                status = receiver.answers.pop(0) if receiver.answers else 200
                if event["type"] in receiver.refuse:
                    status = 500
                if status == 200:
                    receiver.events.append(json.loads(body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver(running: Running) -> Iterator[Receiver]:
    made = Receiver()
    running.control.add_webhook(made.url, SECRET)
    running.control.modes(waits=[0.05] * 5)
    yield made
    running.world.courier.stop()
    made.close()
