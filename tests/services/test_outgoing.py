"""Webhooks to the operator's product: signed, tried again, logged, and never into a private network."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update
from standardwebhooks import Webhook
from standardwebhooks.exceptions import WebhookVerificationError

import database
from extensions import db
from jobs import registry
from models.outgoing import Delivery, OutgoingEndpoint
from models.user import User
from services import outgoing, posting
from services.posting import NotSent
from tests import factories, html
from tests.factories import Api, Person
from tests.moments import At
from tests.together import at_once

PRIVATE = pytest.mark.settings(webhook_private_networks=True)


class Product:
    """The operator's product: it keeps what it is sent and answers the next of `answers`, then 200."""

    def __init__(self) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        product = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                product.taken.append((dict(self.headers), body))
                status = product.answers.pop(0) if product.answers else 200
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks?from=spillway"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def product() -> Iterator[Product]:
    made = Product()
    yield made
    made.close()


def listen(app: Flask, url: str) -> OutgoingEndpoint:
    with app.app_context():
        return outgoing.add(url)


def deliver(app: Flask, job: str = "deliver-webhooks", *, by_hand: bool = True) -> int:
    result = registry.run(app, job, by_hand)
    assert result.outcome == "ok", result.detail
    return int(result.detail or 0)


def deliveries(app: Flask) -> list[Delivery]:
    """Oldest first."""
    with app.app_context():
        found = [row[0] for row in reversed(outgoing.log())]
        db.session.remove()
    return found


def acme(operator: Api) -> None:
    assert operator.post("/accounts", {"external_id": "acme", "name": "Acme"}).status == 201


def give(operator: Api, key: str | None = None) -> Any:
    body = {"credits": 5, "reason": "Goodwill", "idempotency_key": key}
    return operator.post("/accounts/acme/grants", {name: value for name, value in body.items() if value}).json


@PRIVATE
class TestDelivering:
    def test_an_alert_and_a_grant_arrive_signed(self, app: Flask, operator: Api, product: Product) -> None:
        endpoint = listen(app, product.url)
        acme(operator)
        operator.post("/usage", {"account": "acme", "credits": 85})
        deliver(app, "send-outbox")
        granted = give(operator)
        assert product.taken == [], "nothing is sent while somebody waits"
        assert deliver(app) == 2
        (headers, body), (_, second) = product.taken
        told = Webhook(endpoint.secret).verify(body, headers)
        assert (told["type"], told["data"]["kind"]) == ("alert.created", "low_balance")
        assert told["account"] == told["data"]["account"]
        data = json.loads(second)["data"]
        assert (data["lot"], data["credits"], data["reason"]) == (granted["lot"], 5, "Goodwill")
        with pytest.raises(WebhookVerificationError):
            Webhook(endpoint.secret).verify(body + b" ", headers)
        assert deliver(app) == 0

    def test_a_replay_tells_nothing_twice(self, app: Flask, operator: Api, product: Product) -> None:
        listen(app, product.url)
        acme(operator)
        give(operator, "k")
        give(operator, "k")
        assert deliver(app) == 1

    def test_without_an_endpoint_nothing_is_kept(self, app: Flask, operator: Api) -> None:
        acme(operator)
        give(operator)
        assert deliveries(app) == []

    def test_a_failure_is_tried_again_with_the_same_id_and_body(
        self, app: Flask, operator: Api, product: Product
    ) -> None:
        listen(app, product.url)
        acme(operator)
        give(operator)
        product.answers = [500, 302]
        assert deliver(app, by_hand=False) == 0
        [kept] = deliveries(app)
        assert (kept.status, kept.attempts, kept.answer) == ("pending", 1, 500)
        assert kept.last_attempt_at is not None
        assert kept.next_attempt_at - kept.last_attempt_at >= timedelta(seconds=5)
        assert deliver(app, by_hand=False) == 0 and len(product.taken) == 1, "not before its time"
        assert (deliver(app), deliver(app)) == (0, 1), "a redirect is not followed, by hand pauses are not kept"
        assert len({headers["webhook-id"] for headers, _ in product.taken}) == 1
        assert len({body for _, body in product.taken}) == 1

    def test_the_last_try_and_sending_again(self, app: Flask, operator: Api, product: Product) -> None:
        listen(app, product.url)
        acme(operator)
        give(operator)
        product.answers = [503] * 11
        for _ in range(11):
            assert deliver(app) == 0
        [kept] = deliveries(app)
        assert kept.status == "dead"
        assert deliver(app) == 0 and len(product.taken) == 11
        with app.app_context():
            outgoing.send_again(kept.id)
        assert deliver(app) == 1
        assert deliveries(app)[0].status == "delivered"

    def test_gone_switches_the_endpoint_off(self, app: Flask, operator: Api, product: Product) -> None:
        listen(app, product.url)
        acme(operator)
        give(operator)
        product.answers = [410]
        deliver(app)
        give(operator)
        assert deliver(app) == 0 and len(product.taken) == 1
        with app.app_context():
            assert outgoing.endpoints()[0].disabled_reason == "It answered 410 Gone."

    def test_nobody_listens(self, app: Flask, operator: Api) -> None:
        listen(app, "http://127.0.0.1:9/")
        acme(operator)
        give(operator)
        assert deliver(app) == 0
        assert "ConnectionRefusedError" in str(deliveries(app)[0].error)

    def test_the_log_is_thrown_away_in_the_end(self, app: Flask, operator: Api, product: Product, at: At) -> None:
        listen(app, product.url)
        acme(operator)
        give(operator)
        at.forward(days=100)
        registry.run(app, "prune")
        assert len(deliveries(app)) == 1, "it is still to be sent"
        assert deliver(app) == 1
        registry.run(app, "prune")
        assert deliveries(app) == []

    def test_two_processes_send_once(self, app: Flask, operator: Api, product: Product) -> None:
        listen(app, product.url)
        acme(operator)
        give(operator)

        def run() -> int:
            with app.app_context():
                sent = outgoing.deliver_due()
                db.session.remove()
                return sent

        assert sum(at_once(*[run] * 4)) == 1
        assert len(product.taken) == 1


class TestPrivateNetworks:
    ADDRESSES = (
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "::ffff:169.254.169.254",
    )  # fmt: skip

    @pytest.mark.parametrize("address", ADDRESSES)
    def test_such_addresses_are_none_of_the_internet(self, address: str) -> None:
        assert not posting.is_public(address)
        host = f"[{address}]" if ":" in address else address
        with pytest.raises(ValueError, match="private network"):
            posting.check(f"https://{host}/x", private=False)

    @pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
    def test_others_are(self, address: str) -> None:
        assert posting.is_public(address)

    def test_a_name_is_judged_by_all_its_addresses(self) -> None:
        with pytest.raises(NotSent, match="private network"):
            posting.resolve("localhost", 443, private=False)
        assert posting.resolve("localhost", 443, private=True)
        with pytest.raises(NotSent, match="can not be resolved"):
            posting.resolve("nothing.invalid", 443, private=True)

    @pytest.mark.parametrize(
        "url",
        ["http://example.com/", "ftp://example.com/", "https://", "https://u:p@example.com/", "https://example.com:0/",
         "https://example.com/#x", "https://exa mple.com/", "example.com", "https://example.com:99999/"],
    )  # fmt: skip
    def test_what_is_no_address(self, url: str) -> None:
        with pytest.raises(ValueError, match="Must"):
            posting.check(url, private=False)

    def test_the_checked_address_is_the_one_connected_to(
        self, product: Product, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name that changes its address after it was checked gains nothing: it is asked once."""
        asked = []

        real = socket.getaddrinfo

        def once(host: str, port: int, *rest: Any, **more: Any) -> list[Any]:
            if host != "product.example":
                return list(real(host, port, *rest, **more))
            asked.append(host)
            return [(2, 1, 6, "", ("127.0.0.1" if len(asked) == 1 else "192.0.2.1", port))]

        port = int(product.url.partition("127.0.0.1:")[2].partition("/")[0])
        monkeypatch.setattr("services.posting.socket.getaddrinfo", once)
        status = posting.post(f"http://product.example:{port}/hooks", b"{}", {}, private=True)
        assert (status, asked) == (200, ["product.example"])
        assert product.taken[0][0]["Host"] == f"product.example:{port}"

    def test_an_endpoint_that_was_allowed_once_is_judged_each_time(self, sqlite_app: Flask, product: Product) -> None:
        with sqlite_app.app_context():
            endpoint = outgoing.add("https://example.com/")
            with database.transaction() as session:
                session.execute(update(OutgoingEndpoint).values(url=product.url.replace("http:", "https:")))
            outgoing.test(endpoint.id)
        deliver(sqlite_app)
        assert "private network" in str(deliveries(sqlite_app)[0].error).lower()
        assert product.taken == []


@PRIVATE
class TestPage:
    @pytest.fixture
    def ann(self, sqlite_app: Flask) -> Person:
        ann = factories.person(sqlite_app, "ann@example.com")
        with sqlite_app.app_context(), database.transaction() as session:
            session.get_one(User, ann.user_id).is_operator = True
        return ann

    def test_an_operators_way(self, sqlite_app: Flask, ann: Person, product: Product) -> None:
        client = ann.client
        made = html.post(client, "/admin/webhooks", {"url": product.url})
        secret = made.text.partition('value="whsec_')[2].partition('"')[0]
        assert made.status_code == 200 and len(secret) == 44
        page = client.get("/admin/webhooks")
        assert secret not in page.text and "Nothing was sent yet." in page.text
        endpoint = page.text.partition("/admin/webhooks/whe_")[2].partition("/")[0]
        path = f"/admin/webhooks/whe_{endpoint}"
        assert html.post(client, f"{path}/test", form="/admin/webhooks").status_code == 303
        assert deliver(sqlite_app) == 1
        Webhook(f"whsec_{secret}").verify(product.taken[0][1], product.taken[0][0])
        assert "endpoint.test" in html.read(client.get("/admin/webhooks")).text
        again = client.get("/admin/webhooks").text.partition("/admin/webhooks/deliveries/")[2].partition("/")[0]
        html.post(client, f"/admin/webhooks/deliveries/{again}/again", form="/admin/webhooks")
        assert deliver(sqlite_app) == 1
        html.post(client, f"{path}/off", form="/admin/webhooks")
        assert "switched it off" in client.get("/admin/webhooks").text
        html.post(client, f"{path}/on", form="/admin/webhooks")
        assert html.post(client, "/admin/webhooks/whe_none/on", form="/admin/webhooks").status_code == 404

    def test_mistakes_are_told_in_place(self, sqlite_app: Flask, ann: Person) -> None:
        answer = html.post(ann.client, "/admin/webhooks", {"url": "somewhere"})
        assert answer.status_code == 422 and "Must be an address" in answer.text
