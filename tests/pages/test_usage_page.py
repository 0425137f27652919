"""The usage page: what is there, where it went, and that data is only ever text."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask

from tests import factories, html
from tests.factories import Api, Person
from tests.moments import At

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&{{7*7}}"


class Reader:
    """Ann at her usage page, and the operator whose product records her usage."""

    def __init__(self, app: Flask) -> None:
        self.person: Person = factories.person(app, "ann@example.com")
        self.account_id = self.person.account_id
        self.operator = Api(app, factories.service_token(app))

    def use(self, credits: Any, **body: Any) -> Any:
        answer = self.operator.post("/usage", {"account": self.account_id, "credits": credits, **body})
        assert answer.status == 201, answer
        return answer.json

    def plan(self, included: Any) -> None:
        body = {"tier": "enterprise", "included_credits": included}
        assert self.operator.post(f"/accounts/{self.account_id}/plan", body).status == 200

    def page(self, **query: str) -> html.Page:
        answer = self.person.client.get("/usage", query_string={k.rstrip("_"): v for k, v in query.items()})
        assert answer.status_code == 200
        page = html.read(answer)
        page.source = answer.text
        assert page.inline == []
        return page

    def total(self, **query: str) -> str:
        """What the page says was used in the range."""
        [found] = re.findall(r"([0-9,.]+ credits in [0-9,]+) records", self.page(**query).text)
        return str(found)


@pytest.fixture
def ann(sqlite_app: Flask) -> Reader:
    return Reader(sqlite_app)


class TestBalance:
    def test_each_kind_is_told(self, ann: Reader, at: At) -> None:
        ann.plan("25000.5")
        ann.use("1.25")
        ann.operator.post("/holds", {"account": ann.account_id, "credits": 10})
        text = ann.page().text
        assert "Available 25,089.25 credits" in text
        assert "Allowance · enterprise 24,999.25 1.25 of 25,000.5 used Resets 2026-12-21" in text
        assert "Purchased 0 0 of 0 used" in text
        assert "Granted 100 0 of 100 used" in text
        assert "Held 10 set aside for work under way" in text
        assert "Unfunded" not in text
        assert "Debt" not in text

    @pytest.mark.parametrize(("used", "width"), [(0, "0"), (1, "0.5"), (50, "25"), (200, "100"), ("0.02", "0.01")])
    def test_the_bar_shows_how_much_of_the_allowance_is_used(self, ann: Reader, used: Any, width: str) -> None:
        ann.plan(200)
        ann.use(used)
        page = ann.page()
        [fill] = re.findall(r'class="fill" width="([0-9.]+)"', page.source)
        assert float(fill) == pytest.approx(float(width), abs=0.005)
        assert f'aria-label="{used} of 200 used"' in page.source

    def test_without_an_allowance_there_is_no_bar(self, ann: Reader) -> None:
        page = ann.page()
        assert 'class="fill"' not in page.source
        assert "Allowance · free 0 none on this plan" in page.text

    def test_what_was_left_unfunded_is_told(self, ann: Reader) -> None:
        ann.use(130, enforce=False)
        text = ann.page().text
        assert "Available 0 credits" in text
        assert "Unfunded 30 recorded without credits left" in text
        assert "100 granted 30 unfunded" in text, "and so is the record's own split"

    def test_a_suspended_account_says_so(self, ann: Reader) -> None:
        assert "This account is" not in ann.page().text
        ann.operator.post(f"/accounts/{ann.account_id}/suspend", {"reason": "x"})
        assert "This account is suspended." in ann.page().text

    def test_a_new_period_begins_on_the_page_by_itself(self, ann: Reader, at: At) -> None:
        ann.plan(50)
        ann.use(20)
        at("2026-12-21T10:00:00Z")
        text = ann.page().text
        assert "Allowance · enterprise 50 0 of 50 used Resets 2027-01-21" in text
        assert "0 credits in 0 records, 2026-12-21 – 2026-12-22" in text, "what is shown is the new period too"

    def test_credits_have_the_products_name(self, ann: Reader, sqlite_app: Flask) -> None:
        catalog = sqlite_app.config["SETTINGS"].catalog_file
        catalog.write_text('[product]\ncredit_name = "SPU <b>"\n')
        assert sqlite_app.test_cli_runner().invoke(args=["catalog", "sync"]).exit_code == 0
        page = ann.page()
        assert "Available 100 SPU <b>" in page.text
        assert "b" not in page.tags


class TestOverTime:
    def test_bars_and_numbers_by_operation(self, ann: Reader, at: At) -> None:
        ann.use(3, operation="chat", llm_model="m1", subject="u1")
        ann.use("1.5", operation="page", llm_model="m1", subject="u2")
        at("2026-11-21T11:00:00Z")
        ann.use(2, operation="chat", occurred_at="2026-11-21T10:30:00Z")
        page = ann.page()
        assert "6.5 credits in 3 records, 2026-11-21 – 2026-11-22" in page.text
        assert "chat 5 page 1.5" in page.text, "the legend, the largest first"
        assert "2026-11-21 10:00 UTC · chat: 5" in page.text
        assert "From chat page All Records 2026-11-21 10:00 UTC 5 1.5 6.5 3" in page.text, "the same as a table"

    @pytest.mark.parametrize(
        ("by", "legend"),
        [("model", "m1 4.5 no model 2"), ("subject", "u1 3 no subject 2 u2 1.5"), ("source", "no source 6.5")],
    )
    def test_by_something_else(self, ann: Reader, by: str, legend: str) -> None:
        ann.use(3, llm_model="m1", subject="u1")
        ann.use("1.5", llm_model="m1", subject="u2")
        ann.use(2)
        page = ann.page(by=by)
        assert legend in page.text
        assert f"<option selected>{by}</option>" in page.source

    def test_ranges(self, ann: Reader, at: At) -> None:
        ann.use(1)
        for used, day in ((2, "2026-11-20T23:59:59Z"), (4, "2026-10-25T00:00:00Z"), (8, "2026-10-18T00:00:00Z")):
            ann.use(used, occurred_at=day)
        assert ann.total() == "1 credits in 1"
        assert ann.total(range="30d") == "7 credits in 3"
        assert ann.total(range="90d") == "15 credits in 4"
        assert ann.total(range="custom", from_="2026-10-25", to="2026-11-20") == "6 credits in 2", "both days included"
        assert ann.total(range="custom", from_="2026-11-20", to="2026-11-20", interval="hour") == "2 credits in 1"
        at.forward(days=100)
        assert ann.total(range="90d") == "0 credits in 0"

    def test_what_was_chosen_stays_chosen(self, ann: Reader) -> None:
        page = ann.page(range="custom", from_="2026-11-01", to="2026-11-05", interval="week", by="model")
        for chosen in (
            '"custom" selected',
            "selected>week",
            "selected>model",
            'value="2026-11-01"',
            'value="2026-11-05"',
        ):
            assert chosen in page.source

    @pytest.mark.parametrize(
        ("query", "complaint"),
        [
            ("range=forever", "range: No such range."),
            ("range=custom", "from: An own range needs both days."),
            ("range=custom&from=2026-11-01", "from: An own range needs both days."),
            ("range=custom&from=2026-11-05&to=2026-11-01", "to: Must be after from."),
            ("range=custom&from=yesterday&to=today", "from: Not an RFC 3339 time"),
            ("range=custom&from=2026-02-30&to=2026-03-30", "from: Not an RFC 3339 time"),
            ("range=custom&from=2026-11-01&to=9999-12-31", "to: There is no day after it."),
            ("range=custom&from=1970-01-01&to=9999-12-30&interval=month", "interval: More than 1000 buckets"),
            ("range=90d&interval=hour", "interval: More than 1000 buckets"),
            ("interval=minute", "interval: Must be one of"),
            ("by=password", "by: Must be one of"),
            ("by=%00", "by: Must be one of"),
            ("range=%3Cscript%3E", "range: No such range."),
            ("colour=red", "colour: Unknown field."),
        ],
    )
    def test_a_range_that_makes_no_sense_is_told_and_the_usual_one_shown(
        self, ann: Reader, query: str, complaint: str
    ) -> None:
        ann.use(1)
        answer = ann.person.client.get(f"/usage?{query}")
        assert answer.status_code == 200
        page = html.read(answer)
        assert complaint in page.text
        assert "1 credits in 1 records" in page.text
        assert page.inline == []

    @pytest.mark.parametrize("interval", ["hour", "day", "week", "month"])
    def test_the_ends_of_the_calendar(self, ann: Reader, interval: str) -> None:
        for start, end in (("9999-12-01", "9999-12-30"), ("1970-01-01", "1970-01-02")):
            assert ann.total(range="custom", from_=start, to=end, interval=interval) == "0 credits in 0"

    def test_many_operations_share_the_last_colour(self, ann: Reader) -> None:
        for number in range(12):
            ann.use(number + 1, operation=f"op{number:02}")
        page = ann.page()
        assert "op11 12 op10 11 op09 10 op08 9 op07 8 op06 7 op05 6 other 15" in page.text

    def test_without_usage_the_page_says_how_to_begin(self, ann: Reader) -> None:
        page = ann.page()
        assert "No usage in this range." in page.text
        assert "curl" in page.text
        assert "http://127.0.0.1:8000/api/v1/usage" in page.text
        assert "chart" not in re.findall(r'<svg class="(\w+)', page.source)


class TestDataIsText:
    @pytest.fixture
    def hostile(self, ann: Reader) -> Reader:
        """Every text that a customer or their users can fill in."""
        html.post(ann.person.client, "/settings/account", {"name": EVIL}, form="/settings")
        fields = ("operation", "llm_provider", "llm_model", "subject", "source", "idempotency_key")
        ann.record = ann.use(1, **dict.fromkeys(fields, EVIL), properties={EVIL: EVIL})["id"]
        ann.operator.post(f"/usage/records/{ann.record}/void", {"reason": EVIL})
        ann.use(1, **dict.fromkeys(fields[:-1], EVIL))
        return ann

    def test_on_every_page(self, hostile: Reader) -> None:
        paths = [f"/usage?by={by}" for by in ("operation", "model", "subject", "source")]
        paths += [f"/usage/{hostile.record}", "/settings", "/tokens", "/ledger", "/statement"]
        for path in paths:
            answer = hostile.person.client.get(path)
            assert answer.status_code == 200, path
            page = html.read(answer)
            assert page.inline == [], path
            assert "img" not in page.tags, path
            assert "x" not in page.addresses
            assert EVIL in page.text, path
        assert "49" not in html.read(hostile.person.client.get("/settings")).text, "nor is it a template"

    def test_in_addresses_and_errors(self, ann: Reader) -> None:
        for path in ("/usage/<script>alert(1)</script>", "/<script>alert(1)</script>", "/verify/<img src=x>"):
            answer = ann.person.client.get(path)
            assert answer.status_code == 404
            assert html.read(answer).inline == []
            assert "<script>alert" not in answer.text
        page = ann.page(range="custom", from_='"><script>alert(1)</script>', to='" onfocus="alert(1)')
        assert "<script>alert" not in page.source
        assert 'onfocus="alert' not in page.source


class TestRecords:
    def test_the_newest_are_listed_with_what_paid_them(self, ann: Reader, at: At) -> None:
        ann.plan(2)
        for number in range(25):
            at.forward(seconds=60)
            record = ann.use(3 if number == 0 else 1, operation=f"op{number}", total_tokens=1234)
        page = ann.page()
        listed = page.source.partition('id="recent"')[2]
        assert listed.count('<a href="/usage/use_') == 20
        assert listed.index("op24") < listed.index("op23")
        assert f'href="/usage/{record["id"]}"' in listed
        assert "1,234" in listed

    def test_a_voided_one_is_marked(self, ann: Reader) -> None:
        record = ann.use(1)["id"]
        ann.operator.post(f"/usage/records/{record}/void", {"reason": "a mistake"})
        page = ann.page()
        assert 'class="voided"' in page.source
        assert "0 credits in 0 records" in page.text
        story = html.read(ann.person.client.get(f"/usage/{record}")).text
        assert "Voided" in story
        assert "a mistake" in story

    def test_another_accounts_record_is_not_there(self, sqlite_app: Flask, ann: Reader) -> None:
        other = factories.account(sqlite_app, "other")
        foreign = ann.operator.post("/usage", {"account": other, "credits": 1, "operation": "secret-work"}).json["id"]
        own = ann.use(1)["id"]
        assert ann.person.client.get(f"/usage/{own}").status_code == 200
        unknown = ann.person.client.get("/usage/use_0000000000000000000000000")
        answer = ann.person.client.get(f"/usage/{foreign}")
        assert answer.status_code == unknown.status_code == 404
        assert "secret-work" not in answer.text
        assert html.read(answer).text.partition("Request ")[0] == html.read(unknown).text.partition("Request ")[0]
