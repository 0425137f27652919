"""What a subscription gives: the terms of the price that is paid, kept as they were; one plan at a time; no farming."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from services.stripe import subscriptions, sync
from tests import factories
from tests.billing.test_renewal import Subscriber
from tests.factories import Api
from tests.moments import At
from tests.stripe_world import CARD, TAG, StripeWorld

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])


@pytest.fixture
def world(at: At, stripe: StripeWorld) -> Iterator[StripeWorld]:
    """Its books must be in order at the end."""
    at("2026-01-31T10:00:00Z")
    stripe.seed()
    yield stripe
    stripe.settle()
    with stripe.app.app_context():
        from services import verify

        assert [str(one) for one in verify.verify().differences] == []


@pytest.fixture
def subscriber(world: StripeWorld, operator: Api) -> Subscriber:
    return Subscriber(world, operator)


# The price that is paid


def test_later_edits_of_a_price_change_nothing_for_who_has_it(
    world: StripeWorld, operator: Api, subscriber: Subscriber
) -> None:
    prices = world.client.v1.prices
    metadata = {"included_credits": "9", "tier": "renamed", "rollover_max": "5"}
    prices.update(world.prices["team_month"], params={"metadata": metadata, "active": False})
    world.deliver()
    world.advance("2026-02-28T12:00:00Z")
    world.settle()
    assert subscriber.allowance == ("team", 5000, 5000)
    prices.update(world.prices["team_month"], params={"metadata": {"price_type": "", "tier": ""}})
    world.advance("2026-03-31T12:00:00Z")
    world.settle()
    assert subscriber.allowance == ("team", 5000, 5000)


def test_a_plan_bought_is_the_plan_of_the_price_whatever_the_metadata_around_it_says(
    world: StripeWorld, operator: Api
) -> None:
    account = factories.account(world.app)
    loud = {"product": TAG, "account": account, "tier": "team", "included_credits": "999999"}
    world.pay(world.checkout(account, "starter_month", metadata=loud, subscription_data={"metadata": loud}))
    world.deliver()
    shown = world.balance(account)
    assert (shown["plan"], shown["allowance"]["included"]) == ("starter", 1000)


@ON_SQLITE
def test_a_change_to_a_price_that_is_no_plan_keeps_the_plan_and_says_so(
    world: StripeWorld, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    price = world.client.v1.prices.create(
        params={
            "product": world.product,
            "currency": "usd",
            "unit_amount": 100,
            "recurring": {"interval": "month"},
        }
    )
    item = world.client.v1.subscriptions.retrieve(subscriber.id)["items"].data[0].id
    subscriber.change(items=[{"id": item, "price": price.id}], proration_behavior="none")
    world.deliver()
    assert subscriber.allowance == ("team", 5000, 5000)
    assert f"subscription {subscriber.id} was changed to a price that is no plan" in caplog.text
    metadata = {"price_type": "base", "tier": "odd", "included_credits": "10"}
    world.client.v1.prices.update(price.id, params={"metadata": metadata})
    subscriber.change(description="synced again")
    world.deliver()
    assert subscriber.allowance == ("odd", 10, 10)


def test_from_the_month_to_the_year_begins_a_new_period(world: StripeWorld, subscriber: Subscriber) -> None:
    subscriber.use(300)
    world.advance("2026-02-10T10:00:00Z")
    item = world.client.v1.subscriptions.retrieve(subscriber.id)["items"].data[0].id
    subscriber.change(items=[{"id": item, "price": world.prices["team_year"]}], proration_behavior="always_invoice")
    world.deliver()
    assert subscriber.allowance == ("team", 5000, 5000)
    assert subscriber.period == ("2026-02-10T10:00:00Z", "2026-03-10T10:00:00Z")


def test_up_and_down_again_and_again_gives_no_more_than_the_larger_plan(
    world: StripeWorld, subscriber: Subscriber
) -> None:
    subscriber.use(5000)
    for price in ("starter_month", "team_month") * 3:
        item = world.client.v1.subscriptions.retrieve(subscriber.id)["items"].data[0].id
        subscriber.change(items=[{"id": item, "price": world.prices[price]}], proration_behavior="always_invoice")
        world.deliver()
    assert subscriber.allowance == ("team", 5000, 0)


# One plan at a time


def test_of_two_live_subscriptions_the_older_counts_until_it_ends(
    world: StripeWorld, operator: Api, subscriber: Subscriber, at: At
) -> None:
    at.forward(seconds=5)
    other = world.subscribe(subscriber.account, "starter_month")
    world.deliver("shuffled")
    assert subscriber.allowance == ("team", 5000, 5000)
    assert subscriber.issued == [5000]
    world.client.v1.subscriptions.cancel(subscriber.id)
    world.deliver()
    assert subscriber.allowance == ("starter", 1000, 1000)
    world.client.v1.subscriptions.cancel(other)
    world.deliver()
    assert subscriber.allowance == ("free", 0, 0)


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_that_wait_since_the_same_second_the_same_one_is_shown(world: StripeWorld, first: int) -> None:
    account = factories.account(world.app)
    params: Any = {
        "customer": world.customer(account),
        "items": [{"price": world.prices["team_month"]}],
        "payment_behavior": "default_incomplete",
    }
    made = sorted(world.client.v1.subscriptions.create(params=params).id for _ in range(2))
    world.lose()
    with world.app.app_context():
        for subscription_id in (made[first], made[1 - first]):
            sync.run(subscriptions.prepare(subscription_id))
        shown = subscriptions.of(account)
        assert shown is not None and shown.id == made[1]


def test_the_older_of_two_takes_over_when_it_is_known_last(world: StripeWorld, operator: Api, at: At) -> None:
    account = factories.account(world.app)
    older = world.subscribe(account)
    late = world.waiting()
    world.lose()
    at.forward(seconds=5)
    world.subscribe(account, "starter_month")
    world.deliver()
    assert world.balance(account)["plan"] == "starter"
    for delivery in late:
        world.post(delivery)
    shown = world.balance(account)
    assert (shown["plan"], shown["allowance"]["included"], shown["allowance"]["remaining"]) == ("team", 5000, 5000)
    assert world.client.v1.subscriptions.retrieve(older).status == "active"


def test_a_plan_that_an_operator_set_counts_until_it_ends(
    world: StripeWorld, operator: Api, subscriber: Subscriber
) -> None:
    subscriber.use(1200)
    body = {"tier": "enterprise", "included_credits": 50, "ends_at": "2026-02-10T00:00:00Z"}
    assert operator.post(f"/accounts/{subscriber.account}/plan", body).status == 200
    assert subscriber.allowance == ("enterprise", 50, 50)
    subscriber.change(description="synced again")
    world.deliver()
    assert subscriber.allowance == ("enterprise", 50, 50)
    world.advance("2026-02-10T00:00:00Z")
    assert subscriber.allowance == ("team", 5000, 3800), "what was left when it was left"
    assert subscriber.period == ("2026-01-31T10:00:00Z", "2026-02-28T10:00:00Z")
    assert operator.post(f"/accounts/{subscriber.account}/plan", {"tier": "enterprise"}).status == 200
    assert subscriber.allowance == ("enterprise", 0, 0)
    assert operator.post(f"/accounts/{subscriber.account}/plan", {"tier": "free"}).status == 200
    assert subscriber.allowance == ("team", 5000, 3800)


def test_a_trial_without_a_card_pauses_and_goes_on_when_there_is_one(world: StripeWorld) -> None:
    account = factories.account(world.app)
    customer = world.customer(account)
    params: dict[str, Any] = {
        "customer": customer,
        "items": [{"price": world.prices["team_month"]}],
        "trial_period_days": 5,
        "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}},
    }
    subscription = world.client.v1.subscriptions.create(params=params)  # type: ignore[arg-type]
    world.deliver()
    assert world.balance(account)["allowance"]["remaining"] == 5000
    world.advance("2026-02-06T10:00:00Z")
    world.deliver()
    assert world.balance(account)["plan"] == "free"
    world.sandbox.control.use_card(customer, CARD)
    world.client.v1.subscriptions.resume(subscription.id)
    world.deliver()
    shown = world.balance(account)
    assert (shown["plan"], shown["allowance"]["remaining"]) == ("team", 5000)
    assert shown["period"]["start"] == datetime(2026, 2, 6, 10, tzinfo=UTC)


# Going back to free


@pytest.mark.settings(free_monthly_credits=Decimal(50))
def test_subscribing_and_cancelling_within_a_month_brings_no_second_free_allowance(
    world: StripeWorld, operator: Api, at: At
) -> None:
    account = factories.account(world.app)
    operator.post("/usage", {"account": account, "credits": 20})
    for price in ("starter_month", "team_month"):
        subscription = world.subscribe(account, price)
        world.deliver()
        assert world.balance(account)["plan"] != "free"
        world.client.v1.subscriptions.cancel(subscription)
        world.deliver()
        shown = world.balance(account)
        assert (shown["plan"], shown["allowance"]) == ("free", {"included": 50, "used": 20, "remaining": 30})
        at.forward(hours=1)
    at("2026-02-28T10:00:00Z")
    assert world.balance(account)["allowance"] == {"included": 50, "used": 0, "remaining": 50}


def test_an_allowance_that_was_reset_is_the_one_that_counts_after_coming_back(
    operator: Api, subscriber: Subscriber
) -> None:
    path = f"/accounts/{subscriber.account}"
    subscriber.use(4000)
    assert operator.post(f"{path}/reset-limit", {"reason": "test"}).status == 200
    subscriber.use(100)
    assert subscriber.allowance == ("team", 5000, 4900)
    operator.post(f"{path}/plan", {"tier": "enterprise", "included_credits": 1})
    operator.post(f"{path}/plan", {"tier": "free"})
    assert subscriber.allowance == ("team", 5000, 4900)


# The API


@ON_SQLITE
def test_the_subscription_and_its_invoices_as_the_api_shows_them(
    world: StripeWorld, operator: Api, subscriber: Subscriber
) -> None:
    api = Api(world.app, factories.token(world.app, subscriber.account, "read"))
    shown = api.get("/subscription").json
    price = world.prices["team_month"]
    assert shown == {
        "account": subscriber.account,
        "plan": "team",
        "source": "stripe",
        "status": "active",
        "subscription": subscriber.id,
        "tier": "team",
        "name": "Team",
        "price": price,
        "interval": "month",
        "amount": 4900,
        "currency": "usd",
        "included_credits": 5000,
        "period": {"start": "2026-01-31T10:00:00Z", "end": "2026-02-28T10:00:00Z"},
        "cancel_at": None,
        "trial_end": None,
        "ends_at": None,
        "past_due": None,
    }
    subscriber.change(cancel_at_period_end=True)
    world.deliver()
    assert api.get("/subscription").json["cancel_at"] == "2026-02-28T10:00:00Z"
    subscriber.change(cancel_at_period_end=False)
    world.advance("2026-02-28T12:00:00Z")
    world.settle()
    first = api.get("/invoices?limit=1").json
    (renewal,) = first["data"]
    assert (renewal["status"], renewal["total"], renewal["reason"]) == ("paid", 4900, "subscription_cycle")
    assert renewal["period"] == {"start": "2026-02-28T10:00:00Z", "end": "2026-03-31T10:00:00Z"}
    assert renewal["pdf_url"].startswith("http")
    rest = api.get(f"/invoices?cursor={first['next_cursor']}").json
    assert [one["reason"] for one in rest["data"]] == ["subscription_create"]
    assert rest["next_cursor"] is None


@ON_SQLITE
def test_an_account_without_a_subscription_is_shown_on_its_local_plan(world: StripeWorld, operator: Api) -> None:
    account = factories.account(world.app)
    shown = operator.get(f"/subscription?account={account}").json
    assert (shown["plan"], shown["source"], shown["status"], shown["name"]) == ("free", "local", None, "Free")
    assert (shown["price"], shown["amount"], shown["included_credits"]) == (None, None, 0)
    assert operator.get(f"/invoices?account={account}").json == {"data": [], "next_cursor": None}
