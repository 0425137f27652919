"""The statement page: a month chosen, its sums by reason and kind, every change, and the downloads."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from tests import factories, html
from tests.factories import Api
from tests.moments import At


def shown(client: FlaskClient, query: str = "") -> html.Page:
    answer = client.get(f"/statement{query}")
    assert answer.status_code == 200, answer.text
    page = html.read(answer)
    assert page.inline == [], "nothing that a strict policy forbids"
    assert all(address.startswith(("/", "#")) for address in page.addresses), "nothing from elsewhere"
    return page


def live_through_autumn(operator: Api, account: str, at: At) -> str:
    """From September on; the id of the record that no credits were left for."""
    operator.post(f"/accounts/{account}/plan", {"tier": "enterprise", "included_credits": 50})
    operator.post("/usage", {"account": account, "credits": "20.000001"})
    at("2026-10-05T10:00:00Z")
    operator.post(f"/accounts/{account}/grants", {"credits": 1234, "reason": "x", "expires_at": "2026-11-01T00:00:00Z"})
    at("2026-12-05T10:00:00Z")
    answer = operator.post("/usage", {"account": account, "credits": 200, "enforce": False})
    return str(answer.json["id"])


@pytest.fixture
def account(cast: factories.Cast) -> str:
    return cast.alice.account_id


@pytest.fixture(autouse=True)
def in_september(at: At) -> None:
    at("2026-09-20T10:00:00Z")


def test_from_opening_to_closing(operator: Api, cast: factories.Cast, account: str, at: At) -> None:
    late = live_through_autumn(operator, account, at)
    september, october, november, december = (
        shown(cast.alice.client, f"?month=2026-{month}").text for month in ("09", "10", "11", "12")
    )
    assert "Opening balance 0 0 0 Sign-up credits +100 +100 Allowance of the period +50 +50" in september
    assert "Usage −20.000001 −20.000001 Closing balance 29.999999 100 129.999999" in september
    assert "Opening balance 29.999999 100 129.999999 Granted +1,234 +1,234" in october
    assert "Expired −29.999999 −29.999999 Closing balance 0 1,334 1,334" in october
    assert "Opening balance 1,334 1,334 Expired −1,234 −1,234 Closing balance 100 100" in november
    assert "2026-11-01 00:00" in november and "2026-11-01 00:00" not in october
    assert "Usage −50 −100 −150 Closing balance 0 0 0" in december
    assert "Unfunded 50" in december and "Unfunded" not in october
    assert late in cast.alice.client.get("/statement").text, "the running month is the default"


def test_the_chooser(operator: Api, cast: factories.Cast, account: str, at: At) -> None:
    live_through_autumn(operator, account, at)
    page = shown(cast.alice.client, "?month=2026-11")
    answer = cast.alice.client.get("/statement?month=2026-11").text
    assert re.findall(r'<option value="([^"]+)"', answer) == ["2026-12", "2026-11", "2026-10", "2026-09"]
    assert re.findall(r'<option value="([^"]+)" selected', answer) == ["2026-11"]
    months = [address for address in page.addresses if address.startswith("/statement?month=")]
    assert months == ["/statement?month=2026-10", "/statement?month=2026-12"]
    assert "Earlier" not in shown(cast.alice.client, "?month=2026-09").text
    assert "Later" not in shown(cast.alice.client).text
    assert "Nothing changed in this month." in shown(cast.alice.client, "?month=2020-02").text


@pytest.mark.parametrize("query", ["?month=x", "?month=2026-13", "?month=2026-09&cursor=x", "?month=&cursor=W10"])
def test_a_link_that_makes_no_sense_shows_what_it_can(cast: factories.Cast, query: str) -> None:
    assert "Sign-up credits" in shown(cast.alice.client, query).text


def test_many_changes_come_on_several_pages(operator: Api, cast: factories.Cast, account: str) -> None:
    operator.post("/usage/batch", {"account": account, "records": [{"credits": "0.01"} for _ in range(150)]})
    page = shown(cast.alice.client)
    later = next(address for address in page.addresses if "cursor=" in address)
    following = shown(cast.alice.client, later.removeprefix("/statement"))
    seen = [address for part in (page, following) for address in part.addresses if address.startswith("/usage/use_")]
    assert len(set(seen)) == len(seen) == 150
    assert "From the beginning" in following.text and "Later changes" not in following.text
    assert "Closing balance 98.5 98.5" in following.text, "the sums are the whole month's on every page"


def test_downloads(operator: Api, cast: factories.Cast, account: str, at: At) -> None:
    live_through_autumn(operator, account, at)
    page = shown(cast.bob.client, "?month=2026-10")
    assert "/statement.csv?month=2026-10" in page.addresses
    answer = cast.bob.client.get("/statement.csv?month=2026-10")
    assert answer.text == operator.get(f"/statement.csv?account={account}&month=2026-10").text
    assert answer.headers["Content-Disposition"] == 'attachment; filename="statement-2026-10.csv"'
    records = cast.bob.client.get("/usage/records.csv?from=2026-12-01")
    assert records.text == operator.get(f"/usage/records.csv?account={account}&from=2026-12-01").text
    for path in ("/statement.csv?month=x", "/usage/records.csv?from=x"):
        assert cast.bob.client.get(path).status_code == 422


def test_an_outsider_sees_their_own(operator: Api, cast: factories.Cast, account: str, at: At) -> None:
    late = live_through_autumn(operator, account, at)
    for path in ("/statement", "/statement.csv", "/usage/records.csv"):
        assert late in cast.alice.client.get(path).text
        assert late not in cast.charlie.client.get(f"{path}?account={account}").text
