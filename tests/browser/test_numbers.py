"""The pages that a customer trusts the numbers by, walked on a desk and on a phone in the dark."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import LOOKS, PASSWORD, Visitor, setup_link
from tests.browser.test_first_hour import spend
from tests.servers import Server

pytestmark = pytest.mark.browser


def begin(visitor: Visitor, server: Server) -> str:
    """Sign in as the first operator; a token of theirs."""
    page = visitor.go(setup_link(server))
    page.get_by_label("E-mail").fill("owner@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    visitor.press("Begin")
    page.wait_for_url("**/usage")
    visitor.go("/tokens")
    page.get_by_label("Name", exact=True).fill("backend")
    visitor.press("Make token")
    return page.get_by_label("Token", exact=True).input_value()


@pytest.mark.parametrize("visitor", LOOKS, indirect=True)
def test_from_the_balance_to_the_reason_of_every_credit(visitor: Visitor, server: Server) -> None:
    token = begin(visitor, server)
    spend(server, token, credits="12.345678", operation="a-rather-long-operation-name-without-any-blank", subject="u")
    late = spend(server, token, credits=130, enforce=False, operation="train")

    page = visitor.go("/usage")
    assert "142.345678 used so far" in page.get_by_role("region", name="Where this period is heading").inner_text()
    assert visitor.is_tidy()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download these records as CSV").click()
    table = download.value.path().read_text().splitlines()
    assert len(table) == 3 and table[1].startswith(f"{late['id']},")

    page.get_by_role("link", name="Ledger", exact=True).click()
    page.wait_for_url("**/ledger")
    entries = page.get_by_role("region", name="Ledger entries, newest first")
    assert entries.get_by_role("row").count() == 4
    assert visitor.is_tidy()

    entries.get_by_role("link", name="Usage").first.click()
    page.wait_for_url(f"**/usage/{late['id']}")
    paid = page.get_by_role("region", name="What paid it").first.inner_text()
    assert "No credits were left for 42.345678 of it" in paid and "87.654322" in paid
    assert visitor.is_tidy()

    page.get_by_role("link", name="Statement", exact=True).click()
    page.wait_for_url("**/statement")
    sums = page.get_by_role("region", name="From opening to closing balance").first
    assert re.search(r"Usage\s+−100\s+−100\s+Closing balance\s+0\s+0", sums.inner_text())
    assert "42.345678" in page.get_by_role("region", name="Beside the balance").inner_text()
    assert visitor.is_tidy()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    assert re.fullmatch(r"statement-\d{4}-\d\d\.csv", download.value.suggested_filename)
    assert len(download.value.path().read_text().splitlines()) == 4


def test_with_the_keyboard_alone(visitor: Visitor, server: Server) -> None:
    begin(visitor, server)
    page = visitor.go("/statement")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    assert "month" in reached
    assert "Changes of the month, oldest first" in reached, "what may have to be scrolled can be reached"
