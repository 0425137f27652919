"""Products and prices: today's shapes, every kind of price, what can be changed and what never."""

from __future__ import annotations

from decimal import Decimal

import pytest
import stripe

from tests.sandbox.shop import Shop


def test_many_prices_with_their_products(shop: Shop) -> None:
    product = shop.api.products.create({"name": "Credits", "metadata": {"product": "ours"}})
    for number in range(120):
        shop.api.prices.create({"product": product.id, "currency": "usd", "unit_amount": number})
    found = list(shop.api.prices.list({"limit": 50, "expand": ["data.product"]}).auto_paging_iter())
    assert [price.unit_amount for price in found] == list(range(119, -1, -1))
    assert all(isinstance(price.product, stripe.Product) for price in found)
    assert found[0].to_dict(for_json=True)["product"]["metadata"] == {"product": "ours"}


def test_fractions_of_a_cent(shop: Shop) -> None:
    price = shop.api.prices.create(
        {"currency": "usd", "unit_amount_decimal": Decimal("0.05"), "product_data": {"name": "x"}}
    )
    assert price.unit_amount is None
    assert price.unit_amount_decimal == Decimal("0.05")
    assert shop.checkout(price, 29).amount_total == 1
    assert shop.checkout(price, 30).amount_total == 2
    whole = shop.api.prices.create(
        {"currency": "usd", "unit_amount_decimal": Decimal("29.0"), "product_data": {"name": "y"}}
    )
    assert (whole.unit_amount, whole.unit_amount_decimal) == (29, Decimal(29))


@pytest.mark.parametrize(("round", "quantity", "amount"), [("up", 101, 200), ("down", 199, 100), ("up", 100, 100)])
def test_packages(shop: Shop, round: str, quantity: int, amount: int) -> None:
    price = shop.price(100, every=None, transform_quantity={"divide_by": 100, "round": round})
    assert shop.checkout(price, quantity).amount_total == amount


@pytest.mark.parametrize(("mode", "amount"), [("graduated", 100 * 10 + 50 * 5 + 700), ("volume", 150 * 5 + 700)])
def test_tiers_are_shown_only_when_asked_for(shop: Shop, mode: str, amount: int) -> None:
    tiers = [{"up_to": 100, "unit_amount": 10}, {"up_to": "inf", "unit_amount": 5, "flat_amount": 700}]
    price = shop.api.prices.create(
        {
            "currency": "usd",
            "billing_scheme": "tiered",
            "tiers_mode": mode,
            "tiers": tiers,
            "product_data": {"name": "Tiered"},
        }  # type: ignore[typeddict-item]
    )
    assert "tiers" not in price.to_dict()
    assert price.unit_amount is None
    shown = shop.api.prices.retrieve(price.id, {"expand": ["tiers"]})
    assert [tier.up_to for tier in shown.tiers] == [100, None]
    assert shop.checkout(price, 150).amount_total == amount


@pytest.mark.parametrize(("currency", "amount"), [("jpy", 500), ("kwd", 1234), ("eur", 2900)])
def test_minor_units_are_the_currencys_own(shop: Shop, currency: str, amount: int) -> None:
    price = shop.api.prices.create({"currency": currency, "unit_amount": amount, "product_data": {"name": "x"}})
    session = shop.checkout(price, 3)
    assert (session.amount_total, session.currency) == (3 * amount, currency)


def test_amounts_never_change_but_metadata_does(shop: Shop) -> None:
    price = shop.price(metadata={"tier": "pro", "old": "x"})
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter: unit_amount"):
        shop.api.prices.update(price.id, {"unit_amount": 1})  # type: ignore[typeddict-unknown-key]
    changed = shop.api.prices.update(price.id, {"metadata": {"old": "", "new": "y"}, "active": False})
    assert changed.metadata.to_dict() == {"tier": "pro", "new": "y"}
    assert not changed.active
    assert shop.api.prices.list({"active": True}).data == []


@pytest.mark.parametrize(
    "params",
    [
        {"currency": "usd"},
        {"currency": "usd", "unit_amount": 1, "unit_amount_decimal": "1"},
        {"currency": "usd", "unit_amount": -1},
        {"currency": "usd", "billing_scheme": "tiered"},
        {"currency": "usd", "unit_amount": 1, "recurring": {"interval": "month", "usage_type": "metered"}},
    ],
)
def test_impossible_prices(shop: Shop, params: dict) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.prices.create(params | {"product_data": {"name": "x"}})  # type: ignore[arg-type]


def test_products_with_prices_are_archived_not_deleted(shop: Shop) -> None:
    product = shop.api.products.create({"name": "Pro", "id": "pro"})
    shop.api.prices.create({"product": "pro", "currency": "usd", "unit_amount": 1})
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.products.delete(product.id)
    assert not shop.api.products.update("pro", {"active": False}).active
    other = shop.api.products.create({"name": "Other"})
    assert shop.api.products.delete(other.id).deleted
    assert shop.api.products.retrieve(other.id).deleted
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        shop.api.products.create({"name": "Pro", "id": "pro"})


def test_default_price_and_lookup_keys(shop: Shop) -> None:
    product = shop.api.products.create(
        {"name": "Pro", "default_price_data": {"currency": "usd", "unit_amount": 900}, "expand": ["default_price"]}
    )
    assert product.default_price.unit_amount == 900
    old = shop.price(lookup_key="pro")
    with pytest.raises(stripe.InvalidRequestError):
        shop.price(lookup_key="pro")
    new = shop.price(lookup_key="pro", transfer_lookup_key=True)
    assert [price.id for price in shop.api.prices.list({"lookup_keys": ["pro"]}).data] == [new.id]
    assert shop.api.prices.retrieve(old.id).lookup_key is None


def test_search(shop: Shop) -> None:
    ours = shop.api.products.create({"name": "Pro plan", "metadata": {"product": "ours"}})
    shop.api.products.create({"name": "Foreign"})
    for query in ("metadata['product']:'ours'", "name~'pro' AND active:'true'", "-name:'foreign'"):
        assert [one.id for one in shop.api.products.search({"query": query}).data] == [ours.id]
    with pytest.raises(stripe.InvalidRequestError):
        shop.api.products.search({"query": "name is pro"})


def test_events_tell_what_changed(shop: Shop) -> None:
    price = shop.price(nickname="a")
    shop.api.prices.update(price.id, {"nickname": "b"})
    shop.api.prices.update(price.id, {"nickname": "b"})
    assert shop.told() == ["product.created", "price.created", "price.updated"]
    updated = shop.api.events.list({"type": "price.updated"}).data[0]
    assert updated.data.previous_attributes.to_dict() == {"nickname": "a"}
    assert updated.data.object["nickname"] == "b"
    assert shop.api.events.retrieve(updated.id).type == "price.updated"
