"""Money that goes back: refunds and disputes of credit purchases, told in any order and any number of times."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from services.stripe import reversals, sync
from tests import factories
from tests.buying.helpers import fulfil, inside, tenant
from tests.factories import Api
from tests.stripe_world import StripeWorld

PACK = 1000
"""Credits of the pack, which costs 15.00."""


class Buyer:
    """An account, its API, and what it bought."""

    def __init__(self, world: StripeWorld) -> None:
        self.world = world
        self.account_id, self.api = tenant(world)

    def buy(self) -> str:
        """One pack; the charge that paid for it."""
        session_id = self.world.buy(self.account_id, "pack", 1)
        fulfil(self.world, session_id)
        return self.charge_of(session_id)

    def charge_of(self, session_id: str) -> str:
        v1 = self.world.client.v1
        intent = v1.checkout.sessions.retrieve(session_id).payment_intent
        return str(v1.payment_intents.retrieve(str(intent)).latest_charge)

    def spend(self, amount: int) -> str:
        answer = self.api.post("/usage", {"credits": amount})
        assert answer.status == 201, answer
        return str(answer.json["id"])

    def refund(self, charge: str, cents: int) -> None:
        self.world.client.v1.refunds.create(params={"charge": charge, "amount": cents})
        self.sync(charge)

    def dispute(self, charge: str, cents: int | None = None) -> str:
        opened = self.world.sandbox.control.dispute(charge, **({"amount": cents} if cents else {}))
        self.sync(charge)
        return str(opened["id"])

    def close(self, charge: str, dispute: str, status: str) -> None:
        self.world.sandbox.control.close_dispute(dispute, status)
        self.sync(charge)

    def sync(self, charge: str) -> None:
        inside(self.world, lambda: sync.run(reversals.prepare(charge)))

    @property
    def have(self) -> tuple[int, int]:
        """Available credits and debt; the books are verified on the way."""
        state = self.world.end_state(self.account_id)["balance"]
        assert state["purchased"]["used"] == state["purchased"]["total"] - state["purchased"]["remaining"]
        return int(state["available"]), int(state["debt"])

    def entries(self, *reasons: str) -> list[tuple[str, int]]:
        rows = self.api.get("/ledger").json["data"][::-1]
        return [(row["reason"], int(row["change"])) for row in rows if row["reason"] in reasons]


@pytest.fixture
def buyer(stripe: StripeWorld) -> Buyer:
    stripe.seed()
    return Buyer(stripe)


class TestRefunds:
    def test_a_part_takes_its_part(self, buyer: Buyer) -> None:
        charge = buyer.buy()
        buyer.refund(charge, 300)
        assert buyer.have == (800, 0)
        buyer.refund(charge, 750)
        assert buyer.have == (300, 0)
        buyer.refund(charge, 450)
        assert buyer.have == (0, 0)
        assert buyer.entries("refund") == [("refund", -200), ("refund", -500), ("refund", -300)]

    def test_told_again_it_takes_nothing_more(self, buyer: Buyer) -> None:
        charge = buyer.buy()
        buyer.refund(charge, 300)
        for _ in range(3):
            buyer.sync(charge)
        assert buyer.have == (800, 0) and len(buyer.entries("refund")) == 1

    def test_what_was_spent_is_owed_and_the_next_purchase_pays_it_first(self, buyer: Buyer) -> None:
        charge = buyer.buy()
        buyer.spend(700)
        buyer.refund(charge, 1500)
        assert buyer.have == (0, 700)
        answer = buyer.api.post("/usage", {"credits": 1})
        assert (answer.status, answer.code) == (402, "insufficient_credits")
        buyer.buy()
        assert buyer.have == (300, 0)
        balance = buyer.api.get("/balance").json
        assert balance["purchased"] == {"total": 1000, "used": 700, "remaining": 300}

    def test_granted_credits_never_pay(self, stripe: StripeWorld, buyer: Buyer) -> None:
        charge = buyer.buy()
        buyer.spend(1000)
        service = Api(stripe.app, factories.service_token(stripe.app))
        given = service.post(f"/accounts/{buyer.account_id}/grants", {"credits": 50, "reason": "sorry"})
        assert given.status == 201, given
        buyer.refund(charge, 1500)
        assert buyer.have == (50, 1000)

    def test_a_refund_told_before_the_purchase_does_both(self, stripe: StripeWorld, buyer: Buyer) -> None:
        session_id = stripe.buy(buyer.account_id, "pack", 1)
        charge = buyer.charge_of(session_id)
        buyer.refund(charge, 600)
        assert buyer.have == (600, 0)
        fulfil(stripe, session_id)
        assert buyer.have == (600, 0)

    def test_a_refunded_payer_owes_again(self, buyer: Buyer) -> None:
        first = buyer.buy()
        buyer.spend(1000)
        buyer.refund(first, 1500)
        second = buyer.buy()
        assert buyer.have == (0, 0)
        buyer.refund(second, 1500)
        assert buyer.have == (0, 1000)

    def test_usage_voided_later_pays_its_own_debt(self, stripe: StripeWorld, buyer: Buyer) -> None:
        charge = buyer.buy()
        record = buyer.spend(400)
        buyer.refund(charge, 1500)
        assert buyer.have == (0, 400)
        service = Api(stripe.app, factories.service_token(stripe.app))
        assert service.post(f"/usage/records/{record}/void", {"reason": "never happened"}).status == 200
        assert buyer.have == (0, 0)

    def test_a_foreign_charge_touches_nothing(self, stripe: StripeWorld, buyer: Buyer) -> None:
        buyer.buy()
        v1 = stripe.client.v1
        intent = v1.payment_intents.create(
            params={"amount": 500, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
        )
        charge = str(intent.latest_charge)
        v1.refunds.create(params={"charge": charge})
        assert inside(stripe, reversals.prepare, charge) is None
        assert buyer.have == (1000, 0)


class TestDisputes:
    def test_opened_takes_won_restores(self, buyer: Buyer) -> None:
        charge = buyer.buy()
        buyer.spend(300)
        dispute = buyer.dispute(charge)
        assert buyer.have == (0, 300)
        buyer.close(charge, dispute, "won")
        assert buyer.have == (700, 0)
        assert buyer.entries("dispute", "dispute_reversal") == [("dispute", -700), ("dispute_reversal", 700)]

    def test_lost_changes_nothing_more(self, buyer: Buyer) -> None:
        charge = buyer.buy()
        buyer.close(charge, buyer.dispute(charge), "lost")
        assert buyer.have == (0, 0)

    def test_an_inquiry_takes_nothing(self, stripe: StripeWorld, buyer: Buyer) -> None:
        charge = buyer.buy()
        stripe.sandbox.control.dispute(charge, status="warning_needs_response")
        buyer.sync(charge)
        assert buyer.have == (1000, 0)

    def test_won_after_the_debt_was_paid_returns_it_to_who_paid(self, buyer: Buyer) -> None:
        charge = buyer.buy()
        buyer.spend(700)
        dispute = buyer.dispute(charge)
        buyer.buy()
        assert buyer.have == (300, 0)
        buyer.close(charge, dispute, "won")
        assert buyer.have == (1300, 0)

    def test_refunded_while_disputed_goes_back_once(self, buyer: Buyer) -> None:
        charge = buyer.buy()
        dispute = buyer.dispute(charge, 900)
        buyer.refund(charge, 600)
        assert buyer.have == (0, 0)
        buyer.close(charge, dispute, "won")
        assert buyer.have == (600, 0)


STEPS: dict[str, Callable[[Buyer, str, dict[str, Any]], None]] = {
    "spend": lambda buyer, charge, kept: kept.update(record=buyer.spend(100)),
    "refund": lambda buyer, charge, kept: buyer.refund(charge, 300),
    "dispute": lambda buyer, charge, kept: kept.update(dispute=buyer.dispute(charge, 600)),
    "buy": lambda buyer, charge, kept: kept.update(second=buyer.buy()),
}


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS)), ids="-".join)
def test_any_order_ends_the_same(buyer: Buyer, order: Sequence[str]) -> None:
    """100 spent, a fifth refunded and two fifths disputed of the first pack, another one bought, the dispute lost."""
    charge, kept = buyer.buy(), dict[str, Any]()
    for step in order:
        STEPS[step](buyer, charge, kept)
    buyer.close(charge, kept["dispute"], "lost")
    assert buyer.have == (1300, 0)
