"""The world that the other tests of this folder live in."""

from __future__ import annotations

from tests import factories
from tests.stripe_world import StripeWorld


def test_what_is_bought_in_the_sandbox_waits_to_be_delivered(stripe: StripeWorld) -> None:
    stripe.seed()
    account_id = factories.account(stripe.app)
    subscription = stripe.subscribe(account_id)
    assert stripe.client.v1.subscriptions.retrieve(subscription).status == "active"
    types = [one["type"] for one in stripe.waiting()]
    assert {"checkout.session.completed", "customer.subscription.created", "invoice.paid"} <= set(types)
    before = stripe.client.v1.subscriptions.retrieve(subscription).items.data[0].current_period_end
    stripe.advance(days=40)
    after = stripe.client.v1.subscriptions.retrieve(subscription).items.data[0].current_period_end
    assert after > before


def test_a_subscription_comes_in_force(stripe: StripeWorld) -> None:
    stripe.seed()
    account_id = factories.account(stripe.app)
    stripe.subscribe(account_id)
    stripe.deliver()
    state = stripe.end_state(account_id)
    assert (state["balance"]["plan"], state["balance"]["allowance"]["remaining"]) == ("team", 5000)
