"""The app and Stripe's stand-in side by side under one clock, and deliveries of events as bad as the real ones."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import stripe
from flask import Flask
from sqlalchemy import select

import clock
import database as databases
from extensions import db
from jobs import registry
from models.account import Account, Subscription
from models.credit import LedgerEntry, Lot
from models.stripe import Purchase, StripeInvoice, StripeSubscription, WebhookEvent
from sandbox.control import Json, Sandbox, SandboxError
from sandbox.server import Running, start
from services import balances, verify
from services.stripe import catalog

# Between the tries of a call that fails; how long Stripe's package waits is its own business.
stripe.HTTPClient.INITIAL_DELAY = stripe.HTTPClient.MAX_DELAY = 0.01  # type: ignore[assignment]

SECRET_KEY = "sk_test_of_no_value"
WEBHOOK_SECRET = "whsec_of_no_value"
TAG = "spillway"
CARD = "4242424242424242"
WAYS = ("normal", "duplicated", "shuffled", "delayed", "failed_then_retried")
"""How events can be delivered; the end state must be the same."""

CATALOG: dict[str, dict[str, Any]] = {
    "starter_month": {
        "unit_amount": 1900,
        "recurring": {"interval": "month"},
        "metadata": {"price_type": "base", "tier": "starter", "included_credits": "1000"},
    },
    "team_month": {
        "unit_amount": 4900,
        "recurring": {"interval": "month"},
        "metadata": {"price_type": "base", "tier": "team", "included_credits": "5000", "name": "Team"},
    },
    "team_year": {
        "unit_amount": 49000,
        "recurring": {"interval": "year"},
        "metadata": {"price_type": "base", "tier": "team", "included_credits": "5000", "name": "Team"},
    },
    "rollover_month": {
        "unit_amount": 2900,
        "recurring": {"interval": "month"},
        "metadata": {
            "price_type": "base",
            "tier": "saver",
            "included_credits": "1000",
            "rollover_max": "500",
        },
    },
    "credit": {
        "unit_amount": 1,
        "metadata": {"price_type": "credit", "min_credits": "10", "max_credits": "100000"},
    },
    "pack": {"unit_amount": 1500, "metadata": {"price_type": "credit", "credits": "1000"}},
}
"""A small catalog: Stripe's parameters of each price, by the name that tests call it."""


class Steering(Sandbox):
    """The controls of a sandbox of this process: the same calls, not sent over the wire. tests/sandbox sends them."""

    def __init__(self, running: Running) -> None:
        super().__init__(running.url)
        self._app = running.app

    def call(self, method: str, path: str, body: Json | None = None) -> Any:
        sent = json.dumps(body or {}) if method == "POST" else None
        client = self._app.test_client(use_cookies=False)
        answer = client.open(f"/_sandbox/{path}", method=method, data=sent, content_type="application/json")
        if answer.status_code >= 400:
            raise SandboxError(f"{method} {path}: {answer.status_code} {answer.get_data(as_text=True)}")
        return json.loads(answer.data)


def serve(clock_file: Path) -> Running:
    """A sandbox whose events wait until a test delivers them."""
    running = start(clock_file, "http://127.0.0.1:9/webhooks/stripe", WEBHOOK_SECRET, seed="tests")
    running.control = Steering(running)
    running.control.modes(hold=True)
    return running


class StripeWorld:
    """`app` sells what is in `sandbox`; `client` is Stripe's own package, as the team's dashboard would act."""

    def __init__(self, app: Flask, sandbox: Running) -> None:
        self.app, self.sandbox = app, sandbox
        self.client = stripe.StripeClient(
            SECRET_KEY,
            base_addresses={"api": sandbox.url, "meter_events": sandbox.url},  # type: ignore[typeddict-item]
        )
        self.prices: dict[str, str] = {}
        """Price ids by the names in CATALOG."""
        self.product = ""
        self._sent = 0
        """The number of the last delivery that was made, or given up."""
        self._late: list[Json] = []
        self._chance = random.Random(7)

    # What is sold

    def seed(self, prices: dict[str, dict[str, Any]] | None = None, **product: str) -> dict[str, str]:
        """Make a product of ours (`product`: more of its metadata) with prices, and sync the catalog; ids by name.

        What Stripe would have told of them is left out: tests/catalog is about that.
        """
        if not self.product:
            metadata = {"product": TAG, **product}
            self.product = self.client.v1.products.create(params={"name": "Credits", "metadata": metadata}).id
        for name, given in (prices or CATALOG).items():
            params: Any = {"product": self.product, "currency": "usd", "nickname": name, **given}
            self.prices[name] = self.client.v1.prices.create(params=params).id
        self.sync_catalog()
        self.lose()
        return self.prices

    def sync_catalog(self) -> None:
        with self.app.app_context():
            catalog.sync()

    # What customers do

    def customer(self, account_id: str) -> str:
        """The account's customer at Stripe; made as ours when there is none."""
        for known in self.sandbox.control.dump("customer"):
            if (known.get("metadata") or {}).get("account") == account_id:
                return str(known["id"])
        metadata = {"product": TAG, "account": account_id}
        return self.client.v1.customers.create(params={"metadata": metadata, "email": "who@example.com"}).id

    def checkout(self, account_id: str, price: str, quantity: int = 1, **params: Any) -> str:
        """The id of an open checkout session for a price (its name in the catalog, or its id)."""
        sold = self.client.v1.prices.retrieve(self.prices.get(price, price))
        recurring = sold.type == "recurring"
        metered = sold.recurring is not None and sold.recurring.usage_type == "metered"
        line = {"price": sold.id} if metered else {"price": sold.id, "quantity": quantity}
        metadata = {"product": TAG, "account": account_id}
        own = "subscription_data" if recurring else "payment_intent_data"
        return self.client.v1.checkout.sessions.create(
            params={  # type: ignore[arg-type]
                "mode": "subscription" if recurring else "payment",
                "customer": self.customer(account_id),
                "line_items": [line],
                "metadata": metadata,
                "success_url": "http://127.0.0.1:8000/checkout/return?session={CHECKOUT_SESSION_ID}",
                **params,
                own: {"metadata": metadata, **params.get(own, {})},
            }
        ).id

    def pay(self, session_id: str, card: str | None = CARD, **options: Any) -> Json:
        """The customer fills in the page that Stripe hosts and presses the button."""
        return self.sandbox.control.pay_checkout(session_id, card, **options)

    def subscribe(
        self, account_id: str, price: str = "team_month", card: str | None = CARD, *, trial_days: int = 0
    ) -> str:
        """Start a subscription on hosted checkout; its id. Nothing is delivered yet."""
        more = {"subscription_data": {"trial_period_days": trial_days}} if trial_days else {}
        session_id = self.checkout(account_id, price, **more)
        self.pay(session_id, card)
        return str(self.client.v1.checkout.sessions.retrieve(session_id).subscription)

    def buy(self, account_id: str, price: str = "credit", quantity: int = 100, card: str | None = CARD) -> str:
        """Buy credits on hosted checkout; the session's id. Nothing is delivered yet."""
        session_id = self.checkout(account_id, price, quantity)
        self.pay(session_id, card)
        return session_id

    def advance(self, to: datetime | str | None = None, **delta: float) -> datetime:
        """Move the clock of both; what comes due at Stripe happens on the way."""
        self.sandbox.control.advance(to, wait=False, **delta)
        return clock.now()

    # Deliveries

    def post(self, delivery: Json) -> tuple[int, str]:
        """One delivery as Stripe sends it; status and body of the answer."""
        answer = self.app.test_client(use_cookies=False).post(
            "/webhooks/stripe",
            data=delivery["payload"].encode(),
            headers={"Stripe-Signature": delivery["signature"], "Content-Type": "application/json"},
        )
        return answer.status_code, answer.get_data(as_text=True)

    def waiting(self) -> list[Json]:
        """Deliveries that were never made, oldest first."""
        return self.sandbox.control.deliveries("held", after=self._sent)

    def lose(self) -> None:
        """What has happened so far is delivered to nobody, ever."""
        self._note(self.waiting())

    def _note(self, found: list[Json]) -> None:
        self._sent = max([self._sent, *(one["id"] for one in found)])

    def deliver(self, how: str = "normal") -> int:
        """Deliver what waits, until nothing does; how many events that were.

        `delayed` keeps everything until the next call and `settle` brings the rest. With `failed_then_retried` Stripe
        can not be asked the first time, so handlers fail; one half is then delivered again, the scheduler retries the
        other.
        """
        found = self.waiting()
        self._note(found)
        late, self._late = self._late, found if how == "delayed" else []
        found = late if how == "delayed" else late + found
        if how == "shuffled":
            self._chance.shuffle(found)
        if how == "failed_then_retried":
            self._fail(found)
        else:
            self._deliver(found, 2 if how == "duplicated" else 1)
        if how == "duplicated":
            self._deliver(found, 1)
        return len(found)

    def settle(self, how: str = "normal") -> None:
        """Deliver until nothing is left, late ones too."""
        while self.deliver(how) or self._late:
            pass

    def _deliver(self, found: Iterable[Json], times: int) -> None:
        for one in found:
            for _ in range(times):
                status, body = self.post(one)
                assert status == 200, (one["type"], status, body)

    def _fail(self, found: list[Json]) -> None:
        self.sandbox.control.fault("rate_limit", times=0)
        again = [one for number, one in enumerate(found) if self.post(one)[0] == 500 and number % 2]
        self.sandbox.control.clear_faults()
        self._deliver(again, 1)
        assert self.run_job("retry-inbox") == "ok"

    # Jobs and the end

    def run_job(self, name: str, by_hand: bool = True) -> str:
        """Its outcome."""
        return str(registry.run(self.app, name, by_hand=by_hand).outcome)

    def balance(self, account_id: str) -> dict[str, Any]:
        with self.app.app_context():
            return balances.balance(account_id)

    def end_state(self, account_id: str) -> dict[str, Any]:
        """What must not depend on how events were delivered: everything but ids of ours, and times of writing.

        The books are verified, and no event is left that failed.
        """
        self.check_books()
        balance = self.balance(account_id)
        with self.app.app_context():
            with databases.transaction() as session:
                state = _state_of(session, account_id)
            db.session.remove()
        balance.pop("as_of")
        return {"balance": balance, **state}

    def check_books(self) -> None:
        """They add up, and every event was handled."""
        with self.app.app_context():
            report = verify.verify()
            assert not report.differences, [str(one) for one in report.differences]
            with databases.transaction() as session:
                unhandled = session.scalars(select(WebhookEvent).where(WebhookEvent.processed_at.is_(None))).all()
                assert not unhandled, [(one.type, one.status, one.error) for one in unhandled]
            db.session.remove()


def _state_of(session: Any, account_id: str) -> dict[str, Any]:
    def rows(model: Any, *names: str, where: Any = None) -> list[tuple[Any, ...]]:
        query = select(*(getattr(model, name) for name in names)).where(model.account_id == account_id)
        if where is not None:
            query = query.where(where)
        return sorted((tuple(row) for row in session.execute(query)), key=repr)

    account = session.get_one(Account, account_id)
    sums: dict[tuple[str, str], int] = {}
    for reason, kind, change in rows(LedgerEntry, "reason", "kind", "change"):
        sums[reason, kind] = sums.get((reason, kind), 0) + change
    return {
        "account": (account.status, account.plan, account.period_start, account.period_end, account.rates),
        "lots": rows(Lot, "kind", "issued", "remaining", "removed", "open", "current", "expires_at", "period_start"),
        "ledger": sums,
        "subscriptions": rows(
            Subscription, "source", "stripe_id", "tier", "status", "included", "rollover_max", "ends_at"
        ),
        "stripe_subscriptions": rows(
            StripeSubscription,
            "id",
            "status",
            "price_id",
            "tier",
            "included",
            "period_start",
            "period_end",
            "cancel_at",
            "trial_end",
            "ended_at",
            "latest_invoice",
        ),
        "invoices": rows(StripeInvoice, "id", "subscription_id", "number", "status", "total", "amount_paid"),
        "purchases": rows(Purchase, "session_id", "mode", "status", "price_id", "credits", "amount", "invoice_id"),
    }
