"""The documentation in a real browser: wide and narrow, light and dark, and without JavaScript."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import LOOKS, PHONE, Visitor, visiting
from tests.servers import Server

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("visitor", LOOKS, indirect=True)
def test_it_is_tidy_and_an_errors_type_shows_its_section(visitor: Visitor) -> None:
    page = visitor.go("/")
    page.get_by_role("link", name="API documentation").click()
    page.wait_for_url("**/api/docs")
    assert visitor.is_tidy()
    visitor.go("/api/docs#insufficient_credits")
    assert page.locator("#insufficient_credits").is_visible()
    page.wait_for_function("document.getElementById('insufficient_credits').getBoundingClientRect().top < 200")
    page.locator("#post_usage + *").wait_for()
    page.get_by_text("402 Not enough credits").wait_for()
    assert visitor.is_tidy()


def test_the_contents_lead_to_every_operation_and_the_line_is_copied(visitor: Visitor) -> None:
    page = visitor.go("/api/docs")
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    aside = page.locator(".docs-aside")
    aside.get_by_role("link", name="POST /usage", exact=True).click()
    page.wait_for_url("**/api/docs#post_usage")
    section = page.locator("section", has=page.locator("#post_usage"))
    section.get_by_role("button", name="Copy").click()
    section.get_by_role("button", name="Copied").wait_for()
    assert str(page.evaluate("navigator.clipboard.readText()")).startswith("curl -X POST http://127.0.0.1:")


def test_it_needs_no_javascript(browser: Browser, server: Server) -> None:
    with visiting(browser, server, **PHONE, java_script_enabled=False) as visitor:
        page = visitor.go("/api/docs")
        page.get_by_text("Contents", exact=True).click()
        page.locator(".docs-contents details").get_by_role("link", name="Error codes").click()
        page.wait_for_url("**/api/docs#errors")
        assert page.get_by_role("button", name="Copy").count() == 0
        page.get_by_text("The stored answer of the same request").first.click()
