"""The ledger page, and the page that explains one usage record."""

from __future__ import annotations

from decimal import Decimal

from flask import Flask
from flask.testing import FlaskClient

from services import catalog
from tests import factories, html
from tests.factories import Api
from tests.moments import At


def shown(client: FlaskClient, path: str) -> html.Page:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    page = html.read(answer)
    assert page.inline == [], "nothing that a strict policy forbids"
    assert all(address.startswith(("/", "#")) for address in page.addresses), "nothing from elsewhere"
    return page


def link(page: html.Page, start: str) -> str:
    return next(address for address in page.addresses if address.startswith(start))


class TestLedger:
    def test_entries_newest_first_in_words(self, operator: Api, cast: factories.Cast, at: At) -> None:
        account = cast.alice.account_id
        used = operator.post("/usage", {"account": account, "credits": "1.5"}).json["id"]
        operator.post(f"/usage/records/{used}/void", {"reason": "x"})
        page = shown(cast.alice.client, "/ledger")
        words = page.text
        assert words.index("Usage voided") < words.index("−1.5") < words.index("Sign-up credits")
        assert "+1.5" in words and "98.5" in words
        assert link(page, "/usage/use_") == f"/usage/{used}"
        assert "Ledger" in [word.strip() for word in page.words], "it is in the navigation"

    def test_a_member_sees_it_and_an_outsider_their_own(self, operator: Api, cast: factories.Cast) -> None:
        used = operator.post("/usage", {"account": cast.alice.account_id, "credits": 1}).json["id"]
        assert used in cast.bob.client.get("/ledger").text
        assert used not in cast.charlie.client.get(f"/ledger?account={cast.alice.account_id}").text

    def test_pages_of_a_hundred(self, operator: Api, cast: factories.Cast) -> None:
        records = [{"credits": "0.01"} for _ in range(249)]
        operator.post("/usage/batch", {"account": cast.alice.account_id, "records": records})
        seen, path, pages = [], "/ledger", 0
        while path:
            page = shown(cast.alice.client, path)
            seen += [address for address in page.addresses if address.startswith("/usage/use_")]
            pages += 1
            assert ("Newest entries" in page.text) == (pages > 1)
            path = link(page, "/ledger?cursor=") if "Older entries" in page.text else ""
        assert (pages, len(seen), len(set(seen))) == (3, 249, 249)

    def test_a_link_that_leads_nowhere(self, cast: factories.Cast) -> None:
        for cursor in ("x", "W10", "WyJhIl0", "WzFd"):
            assert cast.alice.client.get(f"/ledger?cursor={cursor}").status_code == 200
        assert "leads to no part of this list" in shown(cast.alice.client, "/ledger?cursor=x").text
        assert "no older entries" in shown(cast.alice.client, "/ledger?cursor=WzFd").text

    def test_what_has_expired_is_in_it_already(self, operator: Api, cast: factories.Cast, at: At) -> None:
        body = {"credits": 3, "reason": "x", "expires_at": "2026-11-22T00:00:00Z"}
        operator.post(f"/accounts/{cast.alice.account_id}/grants", body)
        at("2026-11-23T00:00:00Z")
        assert "Expired" in shown(cast.alice.client, "/ledger").text


class TestRecord:
    def price(self, app: Flask, rate: str) -> None:
        app.config["SETTINGS"].catalog_file.write_text(f'[product]\ncredit_value = "0.03"\n"rate:op" = "{rate}"\n')
        with app.app_context():
            catalog.sync()

    def story(self, operator: Api, cast: factories.Cast, **usage: object) -> str:
        answer = operator.post("/usage", {"account": cast.alice.account_id, **usage})
        assert answer.status == 201, answer
        return shown(cast.alice.client, f"/usage/{answer.json['id']}").text

    def test_the_arithmetic(self, app: Flask, operator: Api, cast: factories.Cast) -> None:
        self.price(app, "per_unit=2,prompt_per_1k=0.5,round=up,maximum=6")
        words = self.story(operator, cast, operation="op", quantity="2.25", prompt_tokens=1234)
        for step in (
            "2.25 × 2 per unit 4.5",
            "1,234 prompt tokens × 0.5 per 1,000 0.617",
            "Together 5.117",
            "Rounded up to the next whole credit 6",
            "Price 6",
            "The rate was the catalog's: op=op,per_unit=2,prompt_per_1k=0.5,maximum=6,round=up",
            "It needed 6 credits and 100 were available.",
            "Charged 6",
        ):
            assert step in words
        words = self.story(operator, cast, operation="op", quantity=5, prompt_tokens=0)
        assert "At most 6, says the rate 6" in words

    def test_a_cost_that_does_not_divide(self, app: Flask, operator: Api, cast: factories.Cast) -> None:
        self.price(app, "cost_multiplier=1,minimum=5")
        words = self.story(operator, cast, operation="op", actual_cost=Decimal("0.1"))
        assert "Cost 0.1 × 1 ÷ 0.03, what a credit is worth ≈ 3.33333333" in words
        assert "Rounded to six decimals 3.333333" in words
        assert "At least 5, says the rate 5" in words

    def test_a_price_of_its_own_and_one_that_is_free(self, operator: Api, cast: factories.Cast) -> None:
        assert "The request named its price: 1.5." in self.story(operator, cast, credits="1.5")
        words = self.story(operator, cast, credits=7, success=False, retry=True)
        assert "Nothing was charged for it, because the work failed and it was a retry." in words

    def test_what_no_lot_covered(self, operator: Api, cast: factories.Cast) -> None:
        words = self.story(operator, cast, credits=130, enforce=False)
        assert "No credits were left for 30 of it" in words
        assert "granted 100 100 0 never" in words and "unfunded 30" in words

    def test_a_hold_and_a_void(self, operator: Api, cast: factories.Cast, at: At) -> None:
        held = operator.post("/holds", {"account": cast.alice.account_id, "credits": 4}).json["id"]
        record_id = operator.post(f"/holds/{held}/capture").json["id"]
        operator.post(f"/usage/records/{record_id}/void", {"reason": "<b>wrong</b>"})
        page = shown(cast.alice.client, f"/usage/{record_id}")
        assert "It took the amount that was held: 4." in page.text
        assert "Voided" in page.text and "<b>wrong</b>" in page.text
        assert "What became of it" in page.text and "Held 4 0" in page.text

    def test_it_is_nobody_elses(self, operator: Api, cast: factories.Cast) -> None:
        record_id = operator.post("/usage", {"account": cast.alice.account_id, "credits": 1}).json["id"]
        assert cast.bob.client.get(f"/usage/{record_id}").status_code == 200
        assert cast.charlie.client.get(f"/usage/{record_id}").status_code == 404
        assert cast.alice.client.get("/usage/use_nothing").status_code == 404
