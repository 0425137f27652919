"""Two months of one customer under the sandbox's clock, seen in their browser: a spike, a cap, two invoices with
overage, and an auto top-up whose card is declined until it is turned off.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser
from sqlalchemy import select
from werkzeug.serving import make_server

import database
from models.user import Mail
from sandbox.server import whole
from services import verify
from tests import factories
from tests.api.helpers import NO_SIGNUP
from tests.browser.conftest import LOOKS, Visitor
from tests.factories import PASSWORD, Api
from tests.moments import At
from tests.servers import free_port
from tests.stripe_world import CATALOG, StripeWorld

pytestmark = [pytest.mark.browser, pytest.mark.slow, NO_SIGNUP]
BAD = "4000000000000341"
OVERAGE: dict[str, Any] = {"unit_amount": 2, "metadata": {"price_type": "overage"}}


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """The test's own app for a browser: its jobs run when the test says so, under the test's clock."""
    port = free_port()
    app.logger.manager.getLogger("werkzeug").disabled = True
    server = make_server("127.0.0.1", port, whole(app), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.shutdown()
    thread.join(120)


class Acme:
    """Ann's account: on the team plan (5,000 credits for $49.00) since 31 January."""

    def __init__(self, world: StripeWorld, operator: Api, browser: Browser, url: str, look: dict[str, Any]) -> None:
        self.world, self.operator = world, operator
        person = factories.person(world.app, "ann@example.com")
        self.account = person.account_id
        world.subscribe(self.account)
        world.settle()
        self.context = browser.new_context(**look)
        self.visitor = Visitor(self.context, url)
        page = self.visitor.go("/login")
        page.get_by_label("E-mail").fill("ann@example.com")
        page.get_by_label("Password").fill(PASSWORD)
        self.visitor.press("Log in")
        page.wait_for_url("**/usage")

    def use(self, credits: Any) -> factories.Answer:
        return self.operator.post("/usage", {"account": self.account, "credits": credits, "operation": "chat"})

    def control(self, **wanted: Any) -> None:
        answer = self.operator.put("/controls", {"account": self.account, **wanted})
        assert answer.status == 200, answer

    def day(self, at: At, date: str) -> None:
        """Noon of the day; jobs that run by themselves have run, and events have come."""
        self.world.advance(f"{date}T12:00:00Z")
        self.world.settle()
        for job in ("renew-allowances", "bill-overage", "auto-top-up", "spike-alerts", "dunning", "send-outbox"):
            assert self.world.run_job(job, by_hand=False) == "ok"
        self.world.settle()

    def renew(self, date: str) -> None:
        """The draft of the renewal waits for an hour; its events come at once."""
        self.world.advance(f"{date}T10:00:05Z")
        self.world.settle()

    def sees(self, path: str, *texts: str) -> None:
        shown = self.visitor.go(path).inner_text("body")
        missing = [text for text in texts if text not in shown]
        assert not missing, (missing, shown)
        assert self.visitor.is_tidy()

    def mails(self) -> list[str]:
        """Kinds, in the order they were written."""
        with self.world.app.app_context(), database.transaction() as session:
            return list(session.scalars(select(Mail.kind).order_by(Mail.created_at, Mail.id)))


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("database", ["sqlite"])
def test_two_months_without_a_surprise(stripe: StripeWorld, operator: Api, at: At, browser: Browser, look: str) -> None:
    at("2026-01-31T10:00:00Z")
    stripe.seed({**CATALOG, "overage": OVERAGE})
    with served(stripe.app) as url:
        acme = Acme(stripe, operator, browser, url, LOOKS[look])
        first_month(acme, at)
        second_month(acme, at)
        assert acme.visitor.complaints == []
        acme.context.close()
    with stripe.app.app_context():
        assert [str(one) for one in verify.verify().differences] == []


def first_month(acme: Acme, at: At) -> None:
    acme.control(overage={"enabled": True, "cap_amount": 1000})
    for day in range(1, 11):
        acme.day(at, f"2026-02-{day:02}")
        assert acme.use(100).status == 201
    acme.control(caps=[{"scope": "account", "window": "day", "credits": 900}])
    acme.day(at, "2026-02-11")
    assert acme.use(850).status == 201
    acme.day(at, "2026-02-11")
    acme.sees("/usage", "850 credits were used today; 100 a day are usual.", "By its own history")
    assert acme.use(51).code == "cap_reached"
    acme.sees("/alerts", "The cap of 900 credits per day for the account is reached.")
    acme.day(at, "2026-02-11")
    acme.control(caps=[])
    acme.day(at, "2026-02-20")
    assert acme.use(3000).status == 201  # 4,850 of 5,000
    assert acme.use(300).json["consumed"] == {
        "allowance": 150,
        "purchased": 0,
        "granted": 0,
        "overage": 150,
        "unfunded": 0,
    }
    acme.sees("/usage", "usage beyond it is billed from now on", "$3.00 of $10.00 agreed", "$49.00")
    acme.sees("/billing", "150 credits, $3.00 so far of $10.00 agreed")
    assert acme.use(200).status == 201
    acme.day(at, "2026-02-21")
    acme.sees("/usage", "70 % of the $10.00 agreed for usage beyond the plan is used.")
    assert acme.use(151).code == "insufficient_credits"
    acme.renew("2026-02-28")
    acme.day(at, "2026-03-01")
    acme.sees("/billing", "$56.00", "0 credits, $0.00 so far of $10.00 agreed")
    assert {"spike", "cap_reached", "overage"} <= set(acme.mails())


def second_month(acme: Acme, at: At) -> None:
    assert acme.use(5250).status == 201
    acme.renew("2026-03-31")
    acme.day(at, "2026-04-01")
    acme.sees("/billing", "$54.00", "$56.00")
    invoices = acme.operator.get(f"/invoices?account={acme.account}").json["data"]
    assert [one["total"] for one in invoices] == [5400, 5600, 4900], "to the cent what the ledger says"

    acme.control(overage={"enabled": False, "cap_amount": 1000})
    acme.world.sandbox.control.use_card(acme.world.customer(acme.account), BAD)
    acme.control(auto_top_up={"enabled": True, "below": 1000, "credits": 500, "monthly_ceiling": 5000})
    assert acme.use(4500).status == 201
    acme.day(at, "2026-04-02")
    acme.sees("/controls", "declined")
    for day in range(3, 8):
        acme.day(at, f"2026-04-{day:02}")
    acme.sees("/usage", "Auto top-up")
    acme.sees("/alerts", "turned off")
    shown = acme.operator.get(f"/controls?account={acme.account}").json["auto_top_up"]
    assert not shown["enabled"], "it never turns itself on again"
    acme.world.sandbox.control.use_card(acme.world.customer(acme.account), "4242424242424242")
    for day in range(8, 11):
        acme.day(at, f"2026-04-{day:02}")
    assert acme.operator.get(f"/balance?account={acme.account}").json["available"] == 500, "nothing was bought"
    assert {"top_up_failed", "top_up_off"} <= set(acme.mails())
    invoices = acme.operator.get(f"/invoices?account={acme.account}").json["data"]
    assert {one["status"] for one in invoices if one["total"] == 500} <= {"void"}
