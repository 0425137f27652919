"""A team comes together, changes and parts: invitations, roles, switching and closing, as people see them."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import LOOKS, PASSWORD, Visitor, visiting
from tests.servers import Server

pytestmark = pytest.mark.browser


def sign_up(visitor: Visitor, email: str, account: str) -> None:
    page = visitor.go("/signup")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Name of your team or product").fill(account)
    visitor.press("Sign up")
    page.wait_for_url("**/usage")


def invite(visitor: Visitor, server: Server, email: str, role: str = "member") -> str:
    """Invite somebody on the members page; the link, from the log that takes the mails here."""
    page = visitor.go("/members")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Role", exact=True).select_option(role)
    visitor.press("Send the invitation")
    expect(page.get_by_role("status")).to_contain_text(f"The invitation to {email} is on its way.")
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    texts = [line["text"] for line in lines if line.get("kind") == "invitation" and line["to"] == email]
    found = re.search(r"http://\S+/invitations/\S+", texts[-1])
    assert found is not None
    return found[0]


@pytest.mark.parametrize("visitor", LOOKS, indirect=True)
def test_a_team_from_invitation_to_removal(visitor: Visitor, server: Server, browser: Browser) -> None:
    sign_up(visitor, "olga@example.com", "Acme Vision with quite a long name for a small screen")
    page = visitor.page
    link = invite(visitor, server, "a.rather.long.address@subdomain.of.example.com")
    assert visitor.is_tidy()
    with visiting(browser, server, **LOOKS["phone in the dark"]) as nina:
        there = nina.go(link)
        assert nina.is_tidy()
        there.get_by_label("New password").fill(PASSWORD)
        nina.press("Join")
        there.wait_for_url("**/usage")
        expect(there.get_by_text("Welcome to Acme Vision")).to_be_visible()
        there.get_by_role("link", name="Members").click()
        expect(there.get_by_text("You are a member of Acme Vision")).to_be_visible()
        expect(there.get_by_text("olga@example.com")).to_have_count(0)
        assert nina.is_tidy()

        visitor.go("/members")
        page.get_by_role("combobox", name="Role of a.rather.long").select_option("admin")
        page.get_by_role("button", name="Change the role of a.rather.long").click()
        expect(page.get_by_role("status")).to_contain_text("The role is changed.")
        there.reload()
        expect(there.get_by_role("heading", name="People of Acme Vision")).to_be_visible()
        assert nina.is_tidy()

        page.locator("summary", has_text="Remove").click()
        expect(page.get_by_text("loses access at once")).to_be_visible()
        assert visitor.is_tidy()
        page.get_by_role("button", name=re.compile("^Remove a.rather.long")).click()
        expect(page.get_by_role("status")).to_contain_text("Their access has ended")
        with there.expect_response("**/members") as answer:
            there.reload()
        assert answer.value.status == 403
        expect(there.get_by_role("link", name="Open an account")).to_be_visible()
        assert nina.is_tidy()
        nina.complaints[:] = [one for one in nina.complaints if "403" not in one]  # the console repeats it


@pytest.mark.parametrize("visitor", LOOKS, indirect=True)
def test_switching_between_accounts_and_closing_one(visitor: Visitor, server: Server) -> None:
    sign_up(visitor, "olga@example.com", "First")
    page = visitor.page
    assert page.locator("details.switcher").count() == 0
    visitor.go("/settings")
    page.get_by_role("link", name="Open an account").click()
    page.get_by_label("Name").fill("Second, with a name that is long enough to need some room")
    visitor.press("Open the account")
    page.wait_for_url("**/usage")
    assert page.locator("#available").inner_text() == "0"
    assert visitor.is_tidy()

    switcher = page.locator("details.switcher")
    visitor.go("/members")
    switcher.locator("summary").click()
    first = switcher.get_by_role("button", name="First")
    expect(first).to_be_visible()
    box = switcher.locator("form").bounding_box()
    width = page.evaluate("window.innerWidth")
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
    assert visitor.is_tidy()
    page.keyboard.press("Escape")
    expect(first).to_be_hidden()
    page.keyboard.press("Enter")  # the summary has the focus again
    first.press("Enter")
    page.wait_for_url("**/members")
    expect(page.get_by_role("heading", name="People of First")).to_be_visible()

    visitor.go("/settings")
    page.get_by_label("to confirm").fill("Second")
    with page.expect_response("**/settings/close") as answer:
        visitor.press("Close the account")
    assert answer.value.status == 422
    expect(page.get_by_text("That is not the account's name.")).to_be_visible()
    assert visitor.is_tidy()
    page.get_by_label("to confirm").fill("First")
    visitor.press("Close the account")
    page.wait_for_url("**/settings")
    assert visitor.is_tidy()
    visitor.go("/usage")
    expect(page.get_by_text("This account is closed.")).to_be_visible()
    assert page.locator("#available").inner_text() == "100"
    visitor.complaints[:] = [one for one in visitor.complaints if "422" not in one]  # the console repeats it
