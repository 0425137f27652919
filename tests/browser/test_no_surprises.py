"""Caps, alerts and mails, walked by whoever pays, on a desk and on a phone in the dark."""

from __future__ import annotations

import pytest

from tests.browser.conftest import LOOKS, Visitor
from tests.browser.test_first_hour import spend
from tests.browser.test_numbers import begin
from tests.servers import Server

pytestmark = pytest.mark.browser
LOW = "Credits run low: less than a fifth of the last top-up, 100, is left."


@pytest.mark.parametrize("visitor", LOOKS, indirect=True)
def test_from_a_cap_to_the_banner_and_away_with_it(visitor: Visitor, server: Server) -> None:
    token = begin(visitor, server)
    page = visitor.go("/alerts")
    assert "Nothing so far." in page.get_by_role("region", name="Alerts").inner_text()
    page.get_by_role("link", name="Choose when to be told, and set caps").click()
    page.wait_for_url("**/controls")
    page.get_by_label("For", exact=True).select_option("subject")
    page.get_by_label("Credits at most").fill("many")
    visitor.press("Set cap")
    page.locator(".invalid-feedback").first.wait_for()
    visitor.complaints.clear()  # the browser says that a form was refused
    page.get_by_label("Credits at most").fill("25.5")
    visitor.press("Set cap")
    page.get_by_text("The cap holds from now on.").wait_for()
    caps = page.get_by_role("region", name="Caps", exact=True)
    assert "25.5 credits per day for each subject" in caps.inner_text()
    assert visitor.is_tidy()

    spend(server, token, credits=25, subject="a-customer-with-a-very-long-name-without-any-blank@example.com")
    spend(server, token, credits=60)
    banner = visitor.go("/usage").locator(".standing")
    assert LOW in banner.inner_text()
    assert visitor.is_tidy()
    banner.get_by_role("link", name="Get credits").click()
    page.wait_for_url("**/buy")
    assert LOW in page.locator(".standing").inner_text()
    page.get_by_role("button", name="Dismiss").click()
    page.wait_for_url("**/alerts")
    assert page.locator(".standing").count() == 0
    assert "dismissed" in page.get_by_role("region", name="Alerts").inner_text()
    assert visitor.is_tidy()

    visitor.go("/notifications")
    page.get_by_label("Few credits are left").uncheck()
    visitor.press("Save")
    page.get_by_text("That is how you will be told from now on.").wait_for()
    assert not page.get_by_label("Few credits are left").is_checked()
    assert page.get_by_label("A payment failed").is_disabled()
    assert visitor.is_tidy()


@pytest.mark.parametrize("visitor", LOOKS, indirect=True)
def test_what_operators_see_of_mails_and_webhooks(visitor: Visitor, server: Server) -> None:
    begin(visitor, server)
    page = visitor.go("/admin")
    page.get_by_role("link", name="Mails", exact=True).click()
    page.get_by_role("link", name="A cap is reached").click()
    page.wait_for_url("**/admin/mails/cap_reached")
    assert "A cap of Acme Vision is reached" in page.get_by_role("region", name="As HTML").inner_text()
    assert visitor.is_tidy()
    visitor.go("/admin/webhooks")
    page.get_by_label("Address").fill(
        "https://product.example/a-long-path/without-any-blank/that-goes-on-and-on-for-ever"
    )
    visitor.press("Add endpoint")
    assert page.get_by_label("Secret", exact=True).input_value().startswith("whsec_")
    visitor.press("Send a test")
    page.get_by_text("A test is on its way").wait_for()
    assert "endpoint.test" in page.get_by_role("region", name="Deliveries").first.inner_text()
    assert visitor.is_tidy()
