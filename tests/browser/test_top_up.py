"""Overage and auto top-up on the caps page: what one types is looked at at once, what happened stands there."""

from __future__ import annotations

import pytest

from tests import servers
from tests.browser.conftest import Visitor
from tests.browser.test_buying import Shop, buyer, shop  # noqa: F401 - the fixtures of selling
from tests.browser.test_first_hour import spend
from tests.browser.test_numbers import begin
from tests.waiting import until

pytestmark = pytest.mark.browser
ASKS, BAD = "4000002760003184", "4000000000000341"


def test_from_an_agreement_to_the_bank_that_asks(buyer: Visitor, shop: Shop) -> None:  # noqa: F811
    token = begin(buyer, shop.server)
    run_job(shop, "create-customers")
    [customer] = [one["id"] for one in shop.sandbox.control.dump("customer")]
    page = buyer.go("/controls")
    region = page.get_by_role("region", name="Auto top-up")
    assert "Usage beyond the plan is not sold here." in page.get_by_role("region", name="Overage").inner_text()
    page.get_by_label("When fewer credits are left than").fill("50")
    page.get_by_label("Buy so many").fill("5")
    region.get_by_text("Must be at least 10.").wait_for()
    page.get_by_label("Buy so many").fill("100")
    region.get_by_text("Must be at least 10.").wait_for(state="detached")
    page.get_by_label("Pay at most, each calendar month").fill("0.50")
    region.get_by_text("One purchase is $1.00 already.").wait_for()
    assert buyer.is_tidy()
    page.get_by_label("Pay at most, each calendar month").fill("10")
    region.get_by_text("$1.00 each time before taxes, 10 times a month at most.").wait_for()
    region.get_by_role("button", name="Turn on").click()
    page.get_by_text("That is agreed from now on.").wait_for()
    assert "$0.00 of $10.00" in region.inner_text()
    assert buyer.is_tidy()

    shop.sandbox.control.use_card(customer, BAD)
    see_card(buyer, BAD)
    spend(shop.server, token, credits=60)
    for _ in range(4):
        run_job(shop)
    buyer.go("/controls")
    assert "It turned itself off after four failures in a row" in region.inner_text()
    assert page.locator(".standing").inner_text().startswith("Auto top-up is turned off after 4 failures")
    assert buyer.is_tidy()

    shop.sandbox.control.use_card(customer, ASKS)
    see_card(buyer, ASKS)
    buyer.go("/controls")
    region.get_by_role("button", name="Turn on").click()
    page.get_by_text("That is agreed from now on.").wait_for()
    run_job(shop)
    buyer.go("/controls")
    assert buyer.is_tidy()
    region.get_by_role("link", name="Confirm the payment").click()
    page.wait_for_url(f"{shop.sandbox.url}/i/**")


def see_card(buyer: Visitor, number: str) -> None:  # noqa: F811
    """Wait until the event of it has come."""
    until(lambda: number[-4:] in buyer.go("/billing").inner_text("main"))


def run_job(shop: Shop, name: str = "auto-top-up") -> None:  # noqa: F811
    done = servers.quick_command(shop.server.environ, "jobs", "run", name)
    assert done.returncode == 0, done.stderr
