"""From the price list to credits that can be used: signing up, paying at the look-alike of Checkout, coming back."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import stripe
from playwright.sync_api import Browser, Page

from sandbox.server import Running, start
from tests import databases, servers
from tests.browser.conftest import LOOKS, PASSWORD, Visitor, visiting
from tests.stripe_world import CATALOG, SECRET_KEY, TAG, WEBHOOK_SECRET
from tests.waiting import until

pytestmark = pytest.mark.browser


@dataclass
class Shop:
    """A server that sells, and Stripe's stand-in beside it, which tells it what happens as Stripe would."""

    server: servers.Server
    sandbox: Running


def stock(sandbox: Running) -> None:
    """Put the small catalog of the other tests on sale."""
    client = stripe.StripeClient(SECRET_KEY, base_addresses={"api": sandbox.url})  # type: ignore[typeddict-item]
    product = client.v1.products.create(params={"name": "Credits", "metadata": {"product": TAG}}).id
    for given in CATALOG.values():
        client.v1.prices.create(params={"product": product, "currency": "usd", **given})  # type: ignore[typeddict-item]


@pytest.fixture
def shop(tmp_path: Path, sqlite_databases: databases.Sqlite) -> Iterator[Shop]:
    with sqlite_databases.copy() as url, start(ticking=True) as sandbox:
        stock(sandbox)
        environ = servers.environment(
            tmp_path,
            url,
            SCHEDULER="off",
            WEB_WORKERS="1",
            STRIPE_SECRET_KEY=SECRET_KEY,
            STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET,
            STRIPE_API_BASE=sandbox.url,
        )
        server = servers.Server(environ, tmp_path)
        sandbox.control.add_webhook(f"{server.url}/webhooks/stripe", WEBHOOK_SECRET)
        with server:
            until(lambda: has_prices(server))
            yield Shop(server, sandbox)


def has_prices(server: servers.Server) -> bool:
    """A start does not wait for Stripe: the catalog is there a moment after the pages are."""
    with urllib.request.urlopen(f"{server.url}/pricing", timeout=60) as answer:
        return b"10 credits" in answer.read()


@pytest.fixture(params=LOOKS)
def buyer(browser: Browser, shop: Shop, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """Somebody whose browser may also ask the stand-in, and nobody else."""
    with visiting(browser, shop.server, **LOOKS[request.param]) as person:
        yield person
        asked = f"asked {shop.sandbox.url}"
        person.complaints[:] = [one for one in person.complaints if not one.startswith(asked)]


def sign_up(buyer: Visitor, page: Page) -> None:
    page.get_by_label("E-mail").fill("ann@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    buyer.press("Sign up")


def pay(buyer: Visitor, page: Page, button: str = "Pay $") -> None:
    page.wait_for_url("**/c/pay/**")
    page.get_by_role("button", name=button).click()
    page.wait_for_url("**/checkout/return**")
    assert buyer.is_tidy()


def test_from_the_price_list_to_credits_on_the_usage_page(buyer: Visitor, shop: Shop) -> None:
    page = buyer.go("/pricing")
    assert "$0.10 for 10 credits" in page.inner_text("main")
    page.get_by_label("How many").fill("2500")
    page.get_by_text("$25.00 for 2,500 credits").wait_for()
    assert buyer.is_tidy()
    page.get_by_role("link", name="Sign up", exact=True).first.click()
    sign_up(buyer, page)
    page.get_by_role("link", name="Buy credits", exact=True).first.click()
    page.wait_for_url("**/buy")
    assert buyer.is_tidy()

    field = page.get_by_label("Credits", exact=True)
    field.fill("5")
    page.get_by_text("Must be at least 10.").wait_for()
    field.fill("2500")
    order = page.get_by_role("button", name="Buy 2,500 for $25.00")
    order.wait_for()
    assert buyer.is_tidy()
    order.click()
    pay(buyer, page)
    assert page.locator("#bought").inner_text() == "2,500"
    assert page.locator("#available").inner_text() == "2,600"
    page.get_by_role("link", name="See your usage").click()
    page.wait_for_url("**/usage")
    assert page.locator("#available").inner_text() == "2,600"
    assert buyer.is_tidy()

    assert shop.sandbox.control.drain(retries=True)
    page = buyer.go("/billing")
    purchases = page.get_by_role("region", name="Purchases").first
    assert "2,500 credits" in purchases.inner_text() and "$25.00" in purchases.inner_text()
    assert page.get_by_role("link", name="PDF").count() == 1, "the receipt"
    assert buyer.is_tidy()


def test_a_plan_a_card_and_the_portal(buyer: Visitor, shop: Shop) -> None:
    page = buyer.go("/signup?next=/billing")
    sign_up(buyer, page)
    page.wait_for_url("**/billing")
    assert "none on file" in page.inner_text("main") and buyer.is_tidy()
    page.get_by_role("link", name="Add a card").click()
    buyer.press("Give a card")
    page.wait_for_url("**/setup/seti_**")
    page.get_by_role("button", name="Save card").click()
    page.wait_for_url("**/billing")
    assert "Visa ending in 4242" in page.inner_text("main") and buyer.is_tidy()

    buyer.go("/pricing")
    page.get_by_role("button", name="Choose Team").click()
    pay(buyer, page, "Subscribe")
    assert "on the plan Team now, with 5,000" in page.inner_text("main")
    assert shop.sandbox.control.drain(retries=True)
    buyer.go("/billing")
    plan = page.get_by_role("region", name="Plan").inner_text()
    assert "$49.00 a month" in plan and "Next invoice" in plan and buyer.is_tidy()

    buyer.press("Manage at Stripe")
    page.wait_for_url("**/p/session/**")
    page.go_back()
    page.wait_for_url("**/billing")


def test_turning_back_and_being_declined(buyer: Visitor, shop: Shop) -> None:
    page = buyer.go("/signup?next=/buy%3Fcredits%3D1200")
    sign_up(buyer, page)
    page.wait_for_url("**/buy?credits=1200")
    page.get_by_role("button", name="Buy 1,200 for $12.00").click()
    page.wait_for_url("**/c/pay/**")
    page.get_by_label("Card number").fill("4000 0000 0000 0002")
    page.get_by_role("button", name="Pay $").click()
    page.get_by_text("declined").first.wait_for()
    buyer.complaints[:] = [one for one in buyer.complaints if "402" not in one]  # the console repeats it
    page.get_by_role("link", name="Cancel").or_(page.get_by_role("button", name="Cancel")).first.click()
    page.wait_for_url("**/buy?cancelled=1**")
    assert "Nothing was bought" in page.inner_text("main")
    page.get_by_role("button", name="Buy 1,200 for $12.00").wait_for()
    buyer.go("/usage")
    assert page.locator("#available").inner_text() == "100"


def test_buying_without_scripts(browser: Browser, shop: Shop) -> None:
    with visiting(browser, shop.server, **LOOKS["wide"], java_script_enabled=False) as buyer:
        page = buyer.go("/signup?next=/buy")
        sign_up(buyer, page)
        page.wait_for_url("**/buy")
        page.get_by_label("Credits", exact=True).fill("300")
        buyer.press("Show the price")
        page.get_by_role("button", name="Buy 300 for $3.00").click()
        pay(buyer, page)
        assert page.locator("#bought").inner_text() == "300"
        buyer.complaints[:] = [one for one in buyer.complaints if not one.startswith(f"asked {shop.sandbox.url}")]
