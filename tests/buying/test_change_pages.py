"""Changing, cancelling and resuming the plan on pages, and what the billing page says of an unpaid one."""

from __future__ import annotations

import pytest

from tests import html
from tests.factories import Cast
from tests.stripe_world import StripeWorld


@pytest.fixture
def alice(stripe: StripeWorld, cast: Cast) -> Cast:
    """Alice is on the starter plan, bought at Checkout."""
    stripe.seed()
    stripe.subscribe(cast.alice.account_id, "starter_month")
    stripe.settle()
    return cast


def test_what_it_costs_first_and_then_the_change(stripe: StripeWorld, alice: Cast) -> None:
    client = alice.alice.client
    assert "/billing/change?tier=team&interval=month" in client.get("/pricing").text.replace("&amp;", "&")
    where = "/billing/change?tier=team&interval=month"
    page = html.read(client.get(where))
    assert "It begins at once" in page.text and "$30.00" in page.text
    assert stripe.balance(alice.alice.account_id)["plan"] == "starter", "looking changes nothing"
    answer = html.post(client, "/billing/change", {"tier": "team", "interval": "month"}, form=where)
    assert answer.headers["Location"] == "/billing"
    assert "You are on Team now." in client.get("/billing").text
    assert stripe.balance(alice.alice.account_id)["plan"] == "team"


def test_less_begins_later(stripe: StripeWorld, alice: Cast) -> None:
    client = alice.alice.client
    for tier in ("team", "starter"):
        where = f"/billing/change?tier={tier}&interval=month"
        page = html.read(client.get(where))
        html.post(client, "/billing/change", {"tier": tier, "interval": "month"}, form=where)
    assert "when the period that is paid ends" in page.text
    assert "begins when the period that is paid ends" in client.get("/billing").text
    assert stripe.balance(alice.alice.account_id)["plan"] == "team"


def test_cancelled_and_kept_after_all(stripe: StripeWorld, alice: Cast) -> None:
    client = alice.alice.client
    html.post(client, "/billing/cancel", {}, form="/billing")
    page = html.read(client.get("/billing"))
    assert "it is cancelled and does not renew" in page.text and "Keep the plan" in page.text
    html.post(client, "/billing/resume", {}, form="/billing")
    page = html.read(client.get("/billing"))
    assert "does not renew" not in page.text and "Cancel the plan" in page.text


def test_the_card_of_checkout_is_on_file(stripe: StripeWorld, alice: Cast) -> None:
    assert "Visa ending in 4242" in html.read(alice.alice.client.get("/billing")).text


def test_a_member_changes_nothing(stripe: StripeWorld, alice: Cast) -> None:
    bob = alice.bob.client
    assert bob.get("/billing/change?tier=team&interval=month").status_code == 403
    assert "Cancel the plan" not in bob.get("/billing").text


def test_what_is_not_for_sale(stripe: StripeWorld, alice: Cast) -> None:
    for query in ("", "?tier=enterprise", "?tier=team&interval=week", "?tier=%00"):
        assert alice.alice.client.get(f"/billing/change{query}").status_code in (400, 404)


def test_while_stripe_is_away(stripe: StripeWorld, alice: Cast) -> None:
    stripe.sandbox.control.fault("rate_limit", times=0)
    answer = alice.alice.client.get("/billing/change?tier=team&interval=month")
    assert answer.status_code == 503 and "nothing was charged" in answer.text
    stripe.sandbox.control.clear_faults()
    assert stripe.balance(alice.alice.account_id)["plan"] == "starter"


def test_an_unpaid_plan_says_what_follows(stripe: StripeWorld, alice: Cast) -> None:
    stripe.sandbox.control.settings(after_retries="past_due", retry_days=[20])
    stripe.sandbox.control.fail_next_payments(stripe.customer(alice.alice.account_id))
    stripe.advance(days=32)
    stripe.settle()
    page = html.read(alice.alice.client.get("/billing"))
    assert "The plan goes on until" in page.text and "the account is suspended" in page.text
    stripe.advance(days=8)
    stripe.run_job("dunning")
    assert "The plan is paused until it is paid" in html.read(alice.alice.client.get("/billing")).text
