"""Years of random but repeatable doings: whatever is done to subscriptions, time goes on and the books add up."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import stripe

from tests.sandbox.shop import Shop

CARDS = ("4242424242424242", "4000000000000341", "4000002760003184", "000123456789", "000111111116")
OVER = ("canceled", "incomplete_expired")
STEPS = 50


class Walk:
    """One shop, a few customers, and everything that can happen to them."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self.shop, self.api, self.chance = shop, shop.api, random.Random(seed)
        meter: Any = {"display_name": "Used", "event_name": "used", "default_aggregation": {"formula": "sum"}}
        metered = {"interval": "month", "usage_type": "metered", "meter": self.api.billing.meters.create(meter).id}
        self.prices = [
            shop.price(1000).id,
            shop.price(2900).id,
            shop.price(25000, every="year").id,
            shop.price(3, every=None, recurring=metered).id,
        ]
        for _ in range(3):
            self.subscribe()
        self.acts: list[Callable[[], object]] = [
            *(self.advance, self.advance, self.advance, self.subscribe, self.switch, self.switch, self.resize),
            *(self.cancel_later, self.stay, self.cancel, self.pause, self.unpause, self.card, self.card),
            *(self.pay, self.refund, self.dispute, self.use, self.schedule, self.release, self.trial, self.checkout),
        ]

    def some(self) -> dict[str, Any]:
        found = self.shop.control.dump("subscription")
        running = [one for one in found if one["status"] not in OVER] or found
        return dict(self.chance.choice(running))

    def subscribe(self) -> None:
        trial = self.chance.choice([None, None, 5, 45])
        self.shop.subscribe(
            self.api.prices.retrieve(self.chance.choice(self.prices)), **({"trial_period_days": trial} if trial else {})
        )

    def checkout(self) -> None:
        session = self.shop.checkout(self.api.prices.retrieve(self.chance.choice(self.prices[:3])))
        self.shop.control.pay_checkout(
            session.id, self.chance.choice(CARDS), email="bob@example.com", authenticate=True
        )

    def advance(self) -> None:
        self.shop.control.advance(hours=self.chance.choice([1, 5, 24, 24 * 9, 24 * 31, 24 * 70]))

    def switch(self) -> None:
        found = self.some()
        self.api.subscriptions.update(
            found["id"],
            {
                "items": [{"id": found["items"]["data"][0]["id"], "price": self.chance.choice(self.prices)}],
                "proration_behavior": self.chance.choice(["none", "create_prorations", "always_invoice"]),
                "payment_behavior": self.chance.choice(
                    ["allow_incomplete", "error_if_incomplete", "pending_if_incomplete", "default_incomplete"]
                ),
            },  # type: ignore[typeddict-item]
        )

    def resize(self) -> None:
        item = self.some()["items"]["data"][0]["id"]
        self.api.subscription_items.update(item, {"quantity": self.chance.randint(1, 5)})

    def cancel_later(self) -> None:
        self.api.subscriptions.update(self.some()["id"], {"cancel_at_period_end": True})

    def stay(self) -> None:
        self.api.subscriptions.update(self.some()["id"], {"cancel_at_period_end": False})

    def cancel(self) -> None:
        self.api.subscriptions.cancel(self.some()["id"], {"invoice_now": True, "prorate": self.chance.random() < 0.5})

    def pause(self) -> None:
        behavior: Any = self.chance.choice(["void", "mark_uncollectible", "keep_as_draft"])
        self.api.subscriptions.update(self.some()["id"], {"pause_collection": {"behavior": behavior}})

    def unpause(self) -> None:
        self.api.subscriptions.update(self.some()["id"], {"pause_collection": ""})

    def card(self) -> None:
        self.shop.control.use_card(self.some()["customer"], self.chance.choice(CARDS))

    def pay(self) -> None:
        due = self.api.invoices.list({"status": "open"}).data
        if due:
            self.api.invoices.pay(self.chance.choice(due).id)

    def refund(self) -> None:
        paid = [one.id for one in self.api.charges.list().data if one.status == "succeeded"]
        if paid:
            self.api.refunds.create({"charge": self.chance.choice(paid), "amount": self.chance.randint(1, 900)})

    def dispute(self) -> None:
        paid = [one.id for one in self.api.charges.list().data if one.status == "succeeded"]
        if paid:
            self.shop.control.dispute(self.chance.choice(paid))

    def use(self) -> None:
        payload = {"stripe_customer_id": self.some()["customer"], "value": str(self.chance.randint(1, 99))}
        self.api.billing.meter_events.create({"event_name": "used", "payload": payload})

    def schedule(self) -> None:
        made = self.api.subscription_schedules.create({"from_subscription": self.some()["id"]})
        (now,) = made.phases
        first = {"items": [{"price": now["items"][0].price}], "start_date": now.start_date, "end_date": now.end_date}
        later = {"items": [{"price": self.chance.choice(self.prices)}]}
        self.api.subscription_schedules.update(made.id, {"phases": [first, later]})  # type: ignore[typeddict-item]

    def release(self) -> None:
        for one in self.api.subscription_schedules.list().data[:1]:
            self.api.subscription_schedules.release(one.id)

    def trial(self) -> None:
        self.api.subscriptions.update(self.some()["id"], {"trial_end": "now"})


def check(shop: Shop) -> None:
    now = shop.control.now().timestamp()
    dumped = shop.control.dump()
    for subscription in dumped["subscription"]:
        assert subscription["items"]["data"], subscription["id"]
        for item in subscription["items"]["data"]:
            assert item["current_period_start"] < item["current_period_end"]
            if subscription["status"] not in (*OVER, "paused"):
                assert item["current_period_start"] <= now <= item["current_period_end"]
    for invoice in dumped["invoice"]:
        lines = invoice["lines"]["data"]
        assert invoice["total"] == sum(line["amount"] for line in lines) or invoice["lines"]["has_more"]
        assert (
            invoice["amount_due"] == invoice["amount_paid"] + invoice["amount_remaining"] or invoice["status"] == "void"
        )
        assert (invoice["amount_remaining"] == 0) or invoice["status"] != "paid"
    renewals = Counter(
        (one["parent"]["subscription_details"]["subscription"], one["period_start"], one["period_end"])
        for one in dumped["invoice"]
        if one["billing_reason"] == "subscription_cycle" and one["period_start"] != one["period_end"]
    )
    assert not renewals or max(renewals.values()) == 1
    for charge in dumped["charge"]:
        assert 0 <= charge["amount_refunded"] <= charge["amount"]
    paid = Counter(one["payment_intent"] for one in dumped["charge"] if one["status"] == "succeeded")
    assert not paid or max(paid.values()) == 1


@pytest.mark.parametrize("seed", range(3))
def test_the_books_add_up(shop: Shop, seed: int) -> None:
    walk = Walk(shop, seed)
    done: Counter[str] = Counter()
    for _ in range(STEPS):
        act = walk.chance.choice(walk.acts)
        with contextlib.suppress(stripe.InvalidRequestError, stripe.CardError, RuntimeError):
            act()
            done[act.__name__] += 1
    check(shop)
    assert done["advance"] > 3
