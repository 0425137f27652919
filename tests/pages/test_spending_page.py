"""Overage and auto top-up on the caps page: agreed, refused in place, shown as they stand; and the operator's locks."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from flask import Flask

from models.account import Role
from services import people
from tests import factories, html
from tests.factories import Api, Person
from tests.pages.helpers import letters
from tests.stripe_world import CATALOG, StripeWorld

TOP_UP = {"below": "50", "credits": "100", "monthly_ceiling": "2.50"}
ASKS, BAD = "4000002760003184", "4000000000000341"


@pytest.fixture
def ann(app: Flask) -> Person:
    return factories.person(app, "ann@example.com")


@pytest.fixture
def tenant(app: Flask, ann: Person) -> Api:
    return Api(app, factories.token(app, ann.account_id, "read", "write", "billing"))


def send(person: Person, path: str, **data: str) -> Any:
    return html.post(person.client, path, data, form="/controls")


def text(person: Person) -> str:
    return html.read(person.client.get("/controls")).text


class TestTopUp:
    def test_without_payments_there_is_nothing_to_agree_to(self, ann: Person) -> None:
        assert "Payments are not set up here" in text(ann)

    def test_it_is_agreed_shown_and_turned_off(self, stripe: StripeWorld, ann: Person, tenant: Api) -> None:
        stripe.seed()
        assert send(ann, "/controls/top-up", **TOP_UP).status_code == 302
        agreed = {"enabled": True, "below": 50, "credits": 100, "monthly_ceiling": 250}
        assert tenant.get("/controls").json["auto_top_up"] == agreed
        page = ann.client.get("/controls")
        assert "This month $0.00 of $2.50" in html.read(page).text
        assert 'value="2.50"' in page.text
        assert send(ann, "/controls/top-up", off="1").status_code == 302
        assert tenant.get("/controls").json["auto_top_up"] == agreed | {"enabled": False}

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({"below": ""}, "How many?"),
            ({"below": "0"}, "Must be more than nothing"),
            ({"below": "few"}, "Not a number"),
            ({"credits": "5"}, "Must be at least 10"),
            ({"credits": "0.5"}, "Must be a multiple of 1"),
            ({"monthly_ceiling": ""}, "How much?"),
            ({"monthly_ceiling": "0.99"}, "One purchase is $1.00 already."),
            ({"monthly_ceiling": "1.001"}, "At most 2 decimal places."),
            ({"monthly_ceiling": "-5"}, "Must be an amount of money."),
        ],
    )
    def test_mistakes_are_told_in_place(
        self, stripe: StripeWorld, ann: Person, tenant: Api, data: dict[str, str], message: str
    ) -> None:
        stripe.seed()
        answer = send(ann, "/controls/top-up", **TOP_UP | data)
        assert answer.status_code == 422
        assert message in html.read(answer).text
        assert not tenant.get("/controls").json["auto_top_up"]["enabled"]

    def test_a_form_is_looked_at_while_it_is_typed(self, stripe: StripeWorld, ann: Person, tenant: Api) -> None:
        stripe.seed()
        page = ann.client.get("/controls", query_string={"check": "top-up", **TOP_UP})
        assert "$1.00 each time before taxes, 2 times a month at most." in html.read(page).text
        page = ann.client.get("/controls", query_string={"check": "top-up", **TOP_UP, "credits": "5"})
        assert "Must be at least 10" in html.read(page).text
        assert not tenant.get("/controls").json["auto_top_up"]["enabled"]

    def test_attempts_are_listed(self, stripe: StripeWorld, ann: Person, tenant: Api) -> None:
        stripe.seed()
        customer = tenant.post("/stripe/customer", {}).json["customer"]
        send(ann, "/controls/top-up", **TOP_UP)
        tenant.post("/usage", {"credits": 60})
        stripe.sandbox.control.use_card(customer, BAD)
        stripe.settle()
        stripe.run_job("auto-top-up")
        shown = text(ann)
        assert "failed: the card was declined" in shown
        assert "1 of 4 tries have failed" in shown
        assert "Auto top-up could not buy 100 credits: the card was declined." in shown
        for _ in range(3):
            stripe.run_job("auto-top-up")
        shown = text(ann)
        assert "Auto top-up off" in shown
        assert "It turned itself off after four failures in a row: the card was declined." in shown
        stripe.sandbox.control.use_card(customer, ASKS)
        stripe.settle()
        send(ann, "/controls/top-up", **TOP_UP)
        assert "It turned itself off" not in text(ann)
        stripe.run_job("auto-top-up")
        page = ann.client.get("/controls")
        assert "waits for you: your bank asks" in html.read(page).text
        [invoice] = [one for one in tenant.get("/invoices").json["data"] if one["status"] == "open"]
        assert page.text.count(f'href="{invoice["hosted_url"]}"') == 2, "the banner and the list lead to it"


class TestOverage:
    def test_it_needs_a_price(self, stripe: StripeWorld, ann: Person) -> None:
        stripe.seed()
        assert "Usage beyond the plan is not sold here." in text(ann)

    def test_it_needs_a_subscription(self, stripe: StripeWorld, ann: Person, tenant: Api) -> None:
        sell_overage(stripe)
        answer = send(ann, "/controls/overage", cap_amount="20")
        assert answer.status_code == 422
        assert "Overage needs an overage price and a live subscription" in html.read(answer).text
        assert not tenant.get("/controls").json["overage"]["enabled"]

    def test_it_is_agreed_and_turned_off(self, stripe: StripeWorld, ann: Person, tenant: Api) -> None:
        sell_overage(stripe)
        stripe.subscribe(ann.account_id)
        stripe.settle()
        for wrong, message in (("", "How much?"), ("much", "Not a number"), ("1.234", "At most 2 decimal places")):
            answer = send(ann, "/controls/overage", cap_amount=wrong)
            assert (answer.status_code, message in html.read(answer).text) == (422, True), wrong
        assert send(ann, "/controls/overage", cap_amount="20").status_code == 302
        assert tenant.get("/controls").json["overage"] == {"enabled": True, "cap_amount": 2000}
        assert "at most $20.00" in text(ann)
        assert send(ann, "/controls/overage", off="1").status_code == 302
        assert tenant.get("/controls").json["overage"] == {"enabled": False, "cap_amount": 2000}


def sell_overage(stripe: StripeWorld) -> None:
    price = {"unit_amount": 2, "metadata": {"price_type": "overage"}}
    stripe.seed({**CATALOG, "overage": price})


class TestLocks:
    CAP: ClassVar = {"scope": "account", "key": "", "window": "day", "credits": "5"}

    @pytest.fixture
    def boss(self, app: Flask, ann: Person) -> Person:
        """An operator, who is among the account's admins."""
        boss = factories.person(app, "boss@example.com")
        factories.join(app, boss.user_id, ann.account_id, Role.ADMIN)
        with app.app_context():
            people.add_operator("boss@example.com")
        html.post(boss.client, "/accounts/switch", {"account": ann.account_id}, form="/settings")
        return boss

    def test_an_operator_locks_and_unlocks(self, ann: Person, boss: Person, tenant: Api) -> None:
        send(ann, "/controls/caps", **self.CAP)
        send(ann, "/controls/caps", **self.CAP | {"window": "period", "credits": "9"})
        assert send(boss, "/controls/caps/lock", **self.CAP | {"locked": "1"}).status_code == 302
        assert [cap["locked"] for cap in tenant.get("/controls").json["caps"]] == [True, False]
        assert send(ann, "/controls/caps", **self.CAP | {"credits": "50"}).status_code == 422
        assert send(ann, "/controls/caps/lock", **self.CAP).status_code == 403
        assert ">Lock<" not in ann.client.get("/controls").text
        page = boss.client.get("/controls").text
        assert ">Unlock<" in page
        assert ">Lock<" in page
        assert send(boss, "/controls/caps/lock", **self.CAP).status_code == 302
        assert [cap["locked"] for cap in tenant.get("/controls").json["caps"]] == [False, False]

    def test_an_operator_sets_a_locked_cap(self, ann: Person, boss: Person, tenant: Api) -> None:
        send(ann, "/controls/caps", **self.CAP | {"window": "period"})
        assert send(boss, "/controls/caps", **self.CAP | {"locked": "y"}).status_code == 302
        assert [cap["locked"] for cap in tenant.get("/controls").json["caps"]] == [False, True]
        assert send(ann, "/controls/caps/remove", **self.CAP).status_code == 302
        assert len(tenant.get("/controls").json["caps"]) == 2
        assert send(ann, "/controls/caps", **self.CAP | {"window": "period", "locked": "y"}).status_code == 302
        assert [cap["locked"] for cap in tenant.get("/controls").json["caps"]] == [True, False]
        assert send(boss, "/controls/caps/remove", **self.CAP).status_code == 302
        assert len(tenant.get("/controls").json["caps"]) == 1


def test_the_free_plan_warns_and_the_upgrade_is_one_click_away(stripe: StripeWorld) -> None:
    stripe.seed(free_monthly_credits="100", signup_credits="0")
    ann = factories.person(stripe.app, "ann@example.com")
    tenant = Api(stripe.app, factories.token(stripe.app, ann.account_id, "read", "write", "billing"))
    tenant.post("/usage", {"credits": 92})
    shown = html.read(ann.client.get("/usage"))
    assert "90 % of this period's allowance of 100 credits is used." in shown.text
    assert "Upgrade to Starter for $19.00 a month" in shown.text
    [form] = [form for form in shown.forms if form.action == "/billing/checkout"]
    sent = html.post(ann.client, "/billing/checkout", {"tier": "starter", "interval": "month"}, form="/usage")
    assert (form.fields["tier"], form.fields["interval"], sent.status_code) == ("starter", "month", 303)
    assert sent.headers["Location"].startswith(stripe.sandbox.url)
    stripe.run_job("send-outbox")
    [letter] = letters(stripe.app, "allowance")
    assert "92 of the 100 credits" in letter.text
    stripe.subscribe(ann.account_id)
    stripe.settle()
    assert "Upgrade to" not in html.read(ann.client.get("/usage")).text
