"""`flask stripe reconcile`: what events did not tell is found, named, and repaired by the same rules."""

from __future__ import annotations

from typing import Any

import pytest

from services.stripe import reconcile
from tests.buying.helpers import inside, tenant
from tests.factories import Api
from tests.stripe_world import StripeWorld


@pytest.fixture
def acme(stripe: StripeWorld) -> tuple[str, Api]:
    stripe.seed()
    return tenant(stripe)


def run(world: StripeWorld, *arguments: str) -> tuple[int, str]:
    """The command's exit status and what it printed."""
    result = world.app.test_cli_runner().invoke(args=["stripe", "reconcile", *arguments])
    return result.exit_code, result.output


def test_in_agreement(stripe: StripeWorld, acme: tuple[str, Api]) -> None:
    stripe.buy(acme[0], "pack", 1)
    stripe.subscribe(acme[0])
    stripe.settle()
    assert run(stripe) == (0, run(stripe)[1])
    assert "in agreement" in run(stripe)[1]


def test_a_lost_purchase(stripe: StripeWorld, acme: tuple[str, Api]) -> None:
    account_id, api = acme
    session_id = stripe.buy(account_id, "pack", 1)
    stripe.lose()
    for _ in range(2):  # looking changes nothing
        status, told = run(stripe)
        assert status == 1
        assert f"{account_id} {session_id}: paid in Stripe, no lot here" in told
        assert api.get("/balance").json["available"] == 0
    status, told = run(stripe, "--repair")
    assert status == 0 and f"{session_id}: paid in Stripe, no lot here (repaired)" in told
    assert "events that never came were handled" in told
    assert api.get("/balance").json["available"] == 1000
    status, told = run(stripe)
    assert status == 0 and "in agreement" in told
    stripe.end_state(account_id)


def test_everything_lost_ends_as_if_it_had_come(stripe: StripeWorld) -> None:
    """One account is told of everything, the other of nothing until the repair."""
    stripe.seed()
    ends: list[dict[str, Any]] = []
    for name in ("told", "lost"):
        account_id, _ = tenant(stripe, name)
        session_id = stripe.buy(account_id, "pack", 1)
        stripe.subscribe(account_id)
        intent = stripe.client.v1.checkout.sessions.retrieve(session_id).payment_intent
        charge = str(stripe.client.v1.payment_intents.retrieve(str(intent)).latest_charge)
        stripe.client.v1.refunds.create(params={"charge": charge, "amount": 300})
        stripe.sandbox.control.dispute(charge, amount=150)
        if name == "told":
            stripe.settle()
        else:
            stripe.lose()
            assert run(stripe)[0] == 1
            assert run(stripe, "--repair")[0] == 0
            assert run(stripe)[0] == 0
        balance = stripe.end_state(account_id)["balance"]
        ends.append({name: balance[name] for name in ("available", "plan", "debt", "allowance", "purchased")})
    assert ends[0] == ends[1]
    assert ends[0]["available"] == 5000 + 700


def test_older_objects_are_left_out(stripe: StripeWorld, acme: tuple[str, Api]) -> None:
    stripe.buy(acme[0], "pack", 1)
    stripe.lose()
    stripe.advance(days=20)
    assert run(stripe, "--days", "7")[0] == 0
    assert run(stripe, "--days", "30")[0] == 1


def test_a_second_live_subscription_is_named(stripe: StripeWorld, acme: tuple[str, Api]) -> None:
    first = stripe.subscribe(acme[0], "starter_month")
    stripe.settle()
    stripe.advance(hours=1)
    second = stripe.subscribe(acme[0], "team_month")
    stripe.settle()
    status, told = run(stripe, "--repair")
    assert status == 1 and f"{second}: a second live subscription" in told and f"{first}:" not in told
    assert stripe.balance(acme[0])["plan"] == "starter"


def test_what_is_foreign_is_not_looked_at(stripe: StripeWorld, acme: tuple[str, Api]) -> None:
    customer = stripe.client.v1.customers.create(params={"email": "stranger@example.com"}).id
    stripe.client.v1.payment_intents.create(
        params={
            "amount": 500,
            "currency": "usd",
            "customer": customer,
            "payment_method": "pm_card_visa",
            "confirm": True,
        }
    )
    assert run(stripe)[0] == 0
    assert inside(stripe, reconcile.reconcile).checked == 0


def test_while_stripe_is_away_nothing_happens(stripe: StripeWorld, acme: tuple[str, Api]) -> None:
    stripe.buy(acme[0], "pack", 1)
    stripe.lose()
    stripe.sandbox.control.fault("rate_limit", times=0)
    status, told = run(stripe, "--repair")
    assert status == 2 and "can not be reached" in told
    stripe.sandbox.control.clear_faults()
    assert stripe.run_job("reconcile") == "ok"
    assert acme[1].get("/balance").json["available"] == 1000
