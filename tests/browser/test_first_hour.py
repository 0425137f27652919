"""The first hour of somebody who has just installed Spillway: from the printed link to a falling balance."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.browser.conftest import LOOKS, PASSWORD, Visitor, setup_link
from tests.servers import Server

pytestmark = pytest.mark.browser


def spend(server: Server, token: str, **usage: object) -> dict[str, object]:
    request = urllib.request.Request(
        f"{server.url}/api/v1/usage",
        data=json.dumps(usage).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 201
        return dict(json.load(answer))


@pytest.mark.parametrize("visitor", LOOKS, indirect=True)
def test_from_the_printed_link_to_a_falling_balance(visitor: Visitor, server: Server) -> None:
    page = visitor.go(setup_link(server))
    page.get_by_label("E-mail").fill("Owner@Example.com ")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Name of your team or product").fill("Acme Vision")
    assert visitor.is_tidy()
    visitor.press("Begin")
    page.wait_for_url("**/usage")
    assert page.locator("#available").inner_text() == "100"
    assert "Nothing is recorded yet" in page.inner_text("main")
    assert visitor.is_tidy()

    page.get_by_role("link", name="Tokens").click()
    page.get_by_label("Name", exact=True).fill("backend")
    visitor.press("Make token")
    token = page.get_by_label("Token", exact=True).input_value()
    assert token.startswith("spw_") and visitor.is_tidy()
    visitor.go("/tokens")
    assert token not in page.content()

    spend(server, token, credits=30, operation="chat", llm_model="large")
    spend(server, token, credits=1.25, operation="<script>alert(1)</script>", subject="user-1")
    visitor.go("/usage")
    assert page.locator("#available").inner_text() == "68.75"
    table = page.get_by_role("region", name="Recent records").inner_text()
    assert "<script>alert(1)</script>" in table and "1.25 granted" in table
    assert page.locator("svg.chart:visible rect").count() == 2
    assert visitor.is_tidy()

    page.get_by_role("region", name="Recent records").locator("a").first.click()
    page.wait_for_url("**/usage/use_*")
    assert "1.25" in page.inner_text("main") and visitor.is_tidy()

    visitor.go("/tokens")
    visitor.press("Revoke")
    page.wait_for_url("**/tokens")
    assert "revoked" in page.inner_text("main")
    with pytest.raises(urllib.error.HTTPError) as refused:
        spend(server, token, credits=1)
    refused.value.close()
    assert refused.value.code == 401


def test_the_link_opens_once(visitor: Visitor, server: Server) -> None:
    link = setup_link(server)
    page = visitor.go(link)
    page.get_by_label("E-mail").fill("owner@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    visitor.press("Begin")
    page.wait_for_url("**/usage")
    visitor.press("Log out")
    page.wait_for_url("**/login")
    with page.expect_response("**/setup/*") as answer:
        page.goto(link)
    assert answer.value.status == 404
    visitor.complaints.clear()  # the console repeats the 404


def test_who_is_not_logged_in_comes_back_to_where_they_were_going(visitor: Visitor, server: Server) -> None:
    page = visitor.go("/signup")
    page.get_by_label("E-mail").fill("dora@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    visitor.press("Sign up")
    page.wait_for_url("**/usage")
    visitor.press("Log out")
    page.wait_for_url("**/login")
    visitor.go("/usage?range=30d")
    page.get_by_label("E-mail").fill("dora@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    visitor.press("Log in")
    page.wait_for_url("**/usage?range=30d")
    assert page.get_by_label("Range").input_value() == "30d"
    page.get_by_label("Per").select_option("week")
    page.wait_for_url("**interval=week**")
