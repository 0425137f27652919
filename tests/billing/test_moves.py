"""`flask stripe move`: chosen subscribers get other terms on purpose, nobody else does."""

from __future__ import annotations

import pytest

from tests.buying.helpers import tenant
from tests.stripe_world import StripeWorld


def run(world: StripeWorld, *arguments: str) -> tuple[int, str]:
    result = world.app.test_cli_runner().invoke(args=["stripe", "move", *arguments])
    return result.exit_code, result.output


def included(world: StripeWorld, account_id: str) -> int:
    world.settle()
    return int(world.end_state(account_id)["balance"]["allowance"]["included"])


@pytest.fixture
def two(stripe: StripeWorld) -> tuple[str, str]:
    """Two subscribers of the starter price."""
    stripe.seed()
    accounts = tenant(stripe, "one")[0], tenant(stripe, "two")[0]
    for account_id in accounts:
        stripe.subscribe(account_id, "starter_month")
    stripe.settle()
    return accounts


def test_edited_terms_come_to_the_chosen_alone(stripe: StripeWorld, two: tuple[str, str]) -> None:
    price = stripe.prices["starter_month"]
    stripe.client.v1.prices.update(price, params={"metadata": {"included_credits": "1500"}})
    stripe.sync_catalog()
    assert [included(stripe, one) for one in two] == [1000, 1000], "nobody's terms change by themselves"
    assert run(stripe, "--to", price, "--account", "one", "--dry-run")[1].endswith("1 subscribers would be moved.\n")
    assert included(stripe, two[0]) == 1000
    status, told = run(stripe, "--to", price, "--account", "one")
    assert status == 0 and two[0] in told and two[1] not in told
    assert [included(stripe, one) for one in two] == [1500, 1000]


def test_everybody_on_a_price(stripe: StripeWorld, two: tuple[str, str]) -> None:
    old, new = stripe.prices["starter_month"], stripe.prices["team_month"]
    invoices = len(stripe.client.v1.invoices.list().data)
    status, told = run(stripe, "--from", old, "--to", new)
    assert status == 0 and told.endswith("2 subscribers moved.\n")
    assert [included(stripe, one) for one in two] == [5000, 5000]
    assert len(stripe.client.v1.invoices.list().data) == invoices, "nobody is charged in between"
    assert run(stripe, "--from", old, "--to", new)[1] == "0 subscribers moved.\n"


def test_wrong_use(stripe: StripeWorld, two: tuple[str, str]) -> None:
    assert run(stripe, "--to", stripe.prices["team_month"])[0] == 2
    assert run(stripe, "--to", "price_unknown", "--account", "one")[0] == 2
    assert run(stripe, "--to", stripe.prices["credit"], "--account", "one")[0] == 2
    assert run(stripe, "--to", stripe.prices["team_month"], "--account", "nobody")[0] == 2
    assert [included(stripe, one) for one in two] == [1000, 1000]
