"""The server dies again and again while Stripe delivers; what was bought and renewed is there, once."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from flask import Flask

from tests import factories
from tests.servers import Server, environment
from tests.stripe_world import SECRET_KEY, WEBHOOK_SECRET, StripeWorld
from tests.waiting import until

pytestmark = pytest.mark.slow

ACCOUNTS = 5
KILLS = 5


def test_killed_while_it_is_told(
    stripe: StripeWorld, app: Flask, tmp_path: Path, database_url: str, clock_file: Path
) -> None:
    """Subscriptions, purchases and a renewal are delivered over HTTP as Stripe does; nothing but kills goes wrong."""
    stripe.seed()
    stripe.deliver()
    accounts = [factories.account(app, f"t{number}") for number in range(ACCOUNTS)]
    environ = environment(
        tmp_path,
        database_url,
        STRIPE_SECRET_KEY=SECRET_KEY,
        STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET,
        STRIPE_API_BASE=stripe.sandbox.url,
        CLOCK_FILE=str(clock_file),
        SCHEDULER="off",
        WEB_WORKERS="2",
    )
    control, chance = stripe.sandbox.control, random.Random(3)
    with Server(environ, tmp_path) as server:
        control.add_webhook(f"{server.url}/webhooks/stripe", WEBHOOK_SECRET)
        control.modes(hold=False, duplicate=0.3, shuffle=True, waits=[0.2] * 10_000)  # however long a start takes
        for account in accounts:
            stripe.subscribe(account)
            stripe.buy(account, quantity=100)
        control.advance(days=31, wait=False)
        for number in range(KILLS):
            time.sleep(chance.uniform(0.02, 0.4))
            if number % 2:
                server.kill_worker()
            else:
                server.kill()
                server.start()
        taken = [one for one in control.deliveries() if one["url"].startswith(server.url)]
        assert len(taken) > 10 * ACCOUNTS

        def states() -> set[str]:
            control.release("failed")
            return {one["state"] for one in control.deliveries() if one["url"].startswith(server.url)}

        until(lambda: states() == {"delivered"}, 240)
        for job in ("retry-inbox", "renew-allowances"):
            assert stripe.run_job(job) == "ok"
    for account in accounts:
        state = stripe.end_state(account)
        assert state["balance"]["allowance"] == {"included": 5000, "used": 0, "remaining": 5000}
        assert state["balance"]["purchased"]["total"] == 100
        # The renewal may have come before the first month was ever told: then that month was never due.
        assert state["ledger"]["allowance", "allowance"] in (5_000_000_000, 10_000_000_000)
