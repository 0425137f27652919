"""The pages, used as a browser without JavaScript would: checkout, the bank, the portal, invoices, saving a card."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.sandbox.shop import Shop


class Reader(HTMLParser):
    """Fields of forms, links, text, and whatever an inline script or style would be."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.buttons: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "input":
            self.fields.setdefault(given.get("name", ""), given.get("value", ""))
        if tag == "button":
            self.buttons.append((given.get("name", ""), given.get("value", "")))
        if tag == "a":
            self.links.append(given["href"])
        if tag in ("script", "style") or "style" in given or any(name.startswith("on") for name in given):
            self.inline.append(tag)


class Page:
    """One answer, after every redirect that stays in the sandbox."""

    def __init__(self, url: str, text: str) -> None:
        self.url, self.text = url, text
        self.html = Reader()
        self.html.feed(text)
        assert self.html.inline == []

    @property
    def error(self) -> str:
        found = re.search(r'role="alert">([^<]*)', self.text)
        return found[1].strip() if found else ""


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> Any:
        url = args[-1]
        return None if "shop.example" in url else super().redirect_request(*args)


def visit(url: str, **form: str) -> Page:
    opener = urllib.request.build_opener(Stay())
    data = urllib.parse.urlencode(form).encode() if form else None
    try:
        with opener.open(url, data) as answer:
            return Page(answer.url, answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Page(error.headers.get("Location", f"{error.code}"), error.read().decode())


def test_credits_are_bought_with_the_prefilled_card(shop: Shop) -> None:
    session = shop.checkout(shop.price(150, every=None), 100, cancel_url="http://shop.example/back")
    page = visit(session.url)
    assert "$150.00" in page.text
    assert "http://shop.example/back" in page.html.links
    assert page.html.fields == {"email": "", "number": "4242 4242 4242 4242"}
    paid = visit(session.url, email="bob@example.com", number=page.html.fields["number"])
    assert paid.url == f"http://shop.example/return?session={session.id}"
    assert "all done" in visit(session.url).text
    assert shop.api.checkout.sessions.retrieve(session.id).payment_status == "paid"


def test_declined_card_is_told_in_place(shop: Shop) -> None:
    session = shop.checkout(shop.price(150, every=None))
    page = visit(session.url, email="bob@example.com", number="4242424242424242", card="4000000000000002")
    assert page.error == "Your card was declined."
    assert page.html.fields["email"] == "bob@example.com"
    assert visit(session.url, email="bob@example.com", number="123").error == "Your card number is incorrect."


@pytest.mark.parametrize(("answer", "status"), [("agree", "complete"), ("refuse", "open")])
def test_bank_asks(shop: Shop, answer: str, status: str) -> None:
    session = shop.checkout(shop.price(), customer=shop.customer(card=None).id)
    asked = visit(session.url, card="4000002760003184")
    assert "/authenticate/pi_" in asked.url
    assert ("answer", "agree") in asked.html.buttons
    after = visit(asked.url, answer=answer)
    assert after.url.startswith("http://shop.example/return" if status == "complete" else session.url)
    assert bool(after.error) == (status == "open")
    assert shop.api.checkout.sessions.retrieve(session.id).status == status


@pytest.mark.parametrize("number", ["000123456789", "000111111116"])
def test_bank_debits_are_on_offer(shop: Shop, number: str) -> None:
    session = shop.checkout(shop.price(150, every=None), customer=shop.customer(card=None).id)
    assert ("card", number) in visit(session.url).html.buttons
    assert "shop.example" in visit(session.url, card=number).url
    assert shop.api.checkout.sessions.retrieve(session.id).payment_status == "unpaid"


def test_trial_without_a_card_asks_for_none(shop: Shop) -> None:
    session = shop.checkout(
        shop.price(), payment_method_collection="if_required", subscription_data={"trial_period_days": 14}
    )
    page = visit(session.url)
    assert "number" not in page.html.fields
    assert "Start trial" in page.text
    assert "then $29.00 every month" in page.text
    assert "shop.example" in visit(session.url, email="bob@example.com").url


def test_expired_and_unknown_pages(shop: Shop) -> None:
    session = shop.checkout(shop.price(150, every=None))
    url = session.url
    shop.api.checkout.sessions.expire(session.id)
    assert "expired" in visit(url).text
    assert "Not found" in visit(f"{shop.url}/c/pay/cs_test_none").text


def test_markup_in_names_is_only_text(shop: Shop) -> None:
    evil = "<script>alert(1)</script>"
    price = shop.price(150, every=None, product_data={"name": evil})
    session = shop.checkout(price, customer=shop.customer(card=None, name=evil).id)
    assert "&lt;script&gt;" in visit(session.url).text
    visit(shop.url)


# The portal
def portal(shop: Shop, subscription: Any, **params: Any) -> str:
    session = shop.api.billing_portal.sessions.create(
        {"customer": subscription.customer, "return_url": "http://shop.example/billing", **params}  # type: ignore[typeddict-item]
    )
    return session.url


def test_portal_cancels_and_takes_it_back(shop: Shop) -> None:
    subscription = shop.subscribe()
    url = portal(shop, subscription)
    assert "http://shop.example/billing" in visit(url).html.links
    assert "is canceled" in visit(url, action="cancel", subscription=subscription.id).text
    assert shop.api.subscriptions.retrieve(subscription.id).cancel_at_period_end
    assert "goes on" in visit(url, action="resume", subscription=subscription.id).text
    assert not shop.api.subscriptions.retrieve(subscription.id).cancel_at_period_end
    assert shop.told()[-2:] == ["customer.subscription.updated"] * 2


def test_portal_changes_the_card(shop: Shop) -> None:
    subscription = shop.subscribe()
    url = portal(shop, subscription)
    assert visit(url, action="card", number="4000000000000002").error == "Your card was declined."
    assert "…0341" in visit(url, action="card", number="4000 0000 0000 0341").text
    shop.control.advance(days=30)
    assert shop.status(subscription) == "past_due"


def test_portal_shows_invoices(shop: Shop) -> None:
    subscription = shop.subscribe()
    (invoice,) = shop.invoices(subscription)
    assert invoice.hosted_invoice_url in visit(portal(shop, subscription)).html.links


def test_portal_switches_plans_as_it_is_configured(shop: Shop) -> None:
    subscription, dear = shop.subscribe(), shop.price(9900)
    configuration = shop.api.billing_portal.configurations.create(
        {
            "features": {
                "subscription_update": {
                    "enabled": True,
                    "default_allowed_updates": ["price"],
                    "products": [{"product": str(dear.product), "prices": [dear.id]}],
                    "proration_behavior": "always_invoice",
                }
            }
        }
    )
    url = portal(shop, subscription, configuration=configuration.id)
    visit(url, action="switch", subscription=subscription.id, price=dear.id)
    assert shop.api.subscriptions.retrieve(subscription.id)["items"].data[0].price.id == dear.id
    assert "does not allow" in visit(url, action="cancel", subscription=subscription.id).text


def test_portal_plans_less_for_the_end_of_the_period(shop: Shop) -> None:
    subscription, cheap = shop.subscribe(shop.price(9900)), shop.price(2900, product_data={"name": "Small"})
    update: Any = {
        "enabled": True,
        "default_allowed_updates": ["price"],
        "products": [{"product": str(cheap.product), "prices": [cheap.id]}],
        "proration_behavior": "always_invoice",
        "schedule_at_period_end": {"conditions": [{"type": "decreasing_item_amount"}]},
    }
    configuration = shop.api.billing_portal.configurations.create({"features": {"subscription_update": update}})
    url = portal(shop, subscription, configuration=configuration.id)
    changed = visit(url, action="switch", subscription=subscription.id, price=cheap.id)
    assert "Changes to Small on 28 Feb 2026" in changed.text
    assert shop.api.subscriptions.retrieve(subscription.id)["items"].data[0].price.unit_amount == 9900
    shop.control.advance(days=29)
    assert [invoice.total for invoice in shop.invoices(subscription)] == [9900, 2900]


def test_portal_session_made_for_one_thing(shop: Shop) -> None:
    subscription, dear = shop.subscribe(), shop.price(9900)
    feature: Any = {"enabled": True, "default_allowed_updates": ["price"], "products": [], "proration_behavior": "none"}
    features: Any = {"subscription_update": feature}
    configuration = shop.api.billing_portal.configurations.create({"features": features})
    items = [{"id": subscription["items"].data[0].id, "price": dear.id}]
    flow = {
        "type": "subscription_update_confirm",
        "subscription_update_confirm": {"subscription": subscription.id, "items": items},
        "after_completion": {"type": "redirect", "redirect": {"return_url": "http://shop.example/done"}},
    }
    url = portal(shop, subscription, configuration=configuration.id, flow_data=flow)
    assert ("action", "confirm") in visit(url).html.buttons
    assert visit(url, action="confirm").url == "http://shop.example/done"
    assert shop.api.subscriptions.retrieve(subscription.id)["items"].data[0].price.id == dear.id
    card = visit(portal(shop, subscription, flow_data={"type": "payment_method_update"}))
    assert "Renews" not in card.text
    assert "number" in card.html.fields


def test_portal_of_one_customer_never_changes_anothers_plan(shop: Shop) -> None:
    mine, theirs = shop.subscribe(), shop.subscribe()
    assert "No such subscription" in visit(portal(shop, mine), action="cancel", subscription=theirs.id).error
    assert not shop.api.subscriptions.retrieve(theirs.id).cancel_at_period_end


# Invoices, saving a card, the first page
def test_customer_pays_an_open_invoice(shop: Shop) -> None:
    subscription = shop.subscribe()
    shop.control.fail_next_payments(subscription.customer)
    shop.control.advance(days=30)
    url = shop.invoices(subscription)[-1].hosted_invoice_url
    assert "last attempt failed" in visit(url).error
    assert "paid" in visit(url, number="4242424242424242").text
    assert shop.status(subscription) == "active"


def test_card_is_saved_without_stripes_script(shop: Shop) -> None:
    intent = shop.api.setup_intents.create({"customer": shop.customer(card=None).id})
    query = urllib.parse.urlencode({"secret": intent.client_secret, "return_url": "http://shop.example/card?a=1"})
    url = f"{shop.url}/setup/{intent.id}?{query}"
    assert "Not found" in visit(f"{shop.url}/setup/{intent.id}?secret=wrong").text
    assert visit(url, number="4000000000000002").error == "Your card was declined."
    asked = visit(url, number="4000002500003155")
    done = visit(asked.url, answer="agree").url
    assert done.startswith(f"http://shop.example/card?a=1&setup_intent={intent.id}&")
    assert done.endswith("redirect_status=succeeded")


def test_first_page_moves_the_clock(shop: Shop) -> None:
    subscription = shop.subscribe()
    assert "28 Feb" not in visit(shop.url).text
    assert "28 Feb 2026" in visit(f"{shop.url}/move", by="next").text
    visit(f"{shop.url}/move", by="day")
    assert shop.invoices(subscription)[-1].status == "paid"
    visit(f"{shop.url}/customers/{subscription.customer}/card", card="4000000000000341")
    visit(f"{shop.url}/move", by="month")
    assert shop.status(subscription) == "past_due"
    assert "That did not work" in visit(f"{shop.url}/move", by="century").text


def test_styles_are_served(shop: Shop) -> None:
    with urllib.request.urlopen(f"{shop.url}/_sandbox/static/sandbox.css") as answer:
        assert answer.headers["Content-Type"].startswith("text/css")
