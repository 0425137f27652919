"""The catalog as Stripe tells it: whose it is, what counts, and what happens when Stripe does not answer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import func, select

import database as databases
from amounts import MICRO
from extensions import db
from jobs import scheduler
from models.catalog import CatalogVersion
from models.stripe import WebhookEvent
from services import catalog as kept
from services.catalog import CreditPrice, Finding, OverageTier, Plan, SyncResult, Transform
from services.stripe import catalog, sync
from tests.stripe_world import StripeWorld
from tests.waiting import until

MONTH = {"interval": "month"}


def taken(stripe: StripeWorld) -> SyncResult:
    with stripe.app.app_context():
        return catalog.sync()


def in_force(stripe: StripeWorld) -> kept.Catalog:
    with stripe.app.app_context():
        return kept.current()


def state(stripe: StripeWorld) -> kept.State:
    with stripe.app.app_context():
        try:
            return kept.state()
        finally:
            db.session.remove()


def product(stripe: StripeWorld, name: str = "Extra", **metadata: str) -> str:
    params: Any = {"name": name, "metadata": {"product": "spillway", **metadata}}
    return stripe.client.v1.products.create(params=params).id


def price(stripe: StripeWorld, product_id: str, **params: Any) -> str:
    params = {"currency": "usd", "unit_amount": 1000, "recurring": MONTH, **params}
    return stripe.client.v1.prices.create(params={"product": product_id, **params}).id  # type: ignore[typeddict-item]


def plan(tier: str, **more: str) -> dict[str, str]:
    return {"price_type": "base", "tier": tier, "included_credits": "10", **more}


def findings(result: SyncResult) -> dict[str, str]:
    return {finding.object_id: finding.message for finding in result.findings}


# Whose it is


def test_what_is_ours_is_found_among_hundreds_of_foreign_prices(stripe: StripeWorld) -> None:
    foreign = stripe.client.v1.products.create(params={"name": "Somebody else's", "metadata": {"product": "other"}}).id
    untagged = stripe.client.v1.products.create(params={"name": "Nobody's"}).id
    for number in range(230):
        price(stripe, untagged if number % 2 else foreign, unit_amount=number, metadata=plan(f"foreign{number}"))
    ids = stripe.seed(signup_credits="7")
    for number in range(110):
        price(stripe, untagged, unit_amount=number, metadata={"price_type": "credit"})
    result = taken(stripe)
    assert (result.error, result.changed, findings(result)) == (None, False, {})
    now = in_force(stripe)
    assert {one.price for one in now.plans} == {ids[name] for name in ids if name.endswith(("month", "year"))}
    assert [one.price for one in now.credit_prices] == [ids["credit"], ids["pack"]]
    assert now.signup_credits == 7 * MICRO
    assert state(stripe).source == "stripe"


@pytest.mark.settings(stripe_product_tag="second")
def test_each_deployment_sees_its_own_tag(stripe: StripeWorld) -> None:
    stripe.seed()
    other = stripe.client.v1.products.create(params={"name": "Mine", "metadata": {"product": "second"}}).id
    mine = price(stripe, other, metadata=plan("mine"))
    assert taken(stripe).changed
    assert [one.price for one in in_force(stripe).plans] == [mine]


def test_archived_prices_and_products_are_not_on_sale(stripe: StripeWorld) -> None:
    ids = stripe.seed()
    old = product(stripe)
    orphan = price(stripe, old, metadata=plan("old"))
    stripe.client.v1.products.update(old, params={"active": False})
    stripe.client.v1.prices.update(ids["team_year"], params={"active": False})
    result = taken(stripe)
    assert findings(result) == {orphan: "its product is archived, so it is not on sale"}
    assert {one.tier for one in in_force(stripe).plans} == {"starter", "team", "saver"}
    assert in_force(stripe).plan("team", "year") is None


def test_an_account_with_nothing_of_ours_says_so(stripe: StripeWorld) -> None:
    result = taken(stripe)
    assert (result.error, result.version) == (None, 1)
    assert findings(result) == {"Stripe": "no active product has metadata product=spillway"}


# What it says


def test_every_word_of_the_vocabulary_on_stripes_own_objects(stripe: StripeWorld) -> None:
    main = product(
        stripe,
        credit_name="SPU",
        credit_value="0.01",
        free_monthly_credits="5",
        alert_thresholds="50,100",
        grace_days="3",
        suspend_days="9",
        **{"rate:chat": "prompt_per_1k=0.5,completion_per_1k=1.5,minimum=0.1", "rate:r1": "op=scan,model=m,per_unit=2"},
    )
    yearly = price(
        stripe,
        main,
        currency="jpy",
        unit_amount=50000,
        recurring={"interval": "year"},
        metadata={
            "price_type": "base",
            "tier": "team",
            "included_spus": "25000.5",
            "features": "One; Two",
            "name": "The team",
            "rollover_max": "10",
            "requests_per_minute": "60",
        },
    )
    fine = price(
        stripe,
        main,
        currency="kwd",
        unit_amount=1250,
        recurring={"interval": "month", "interval_count": 3},
        metadata=plan("quarter"),
    )
    units = stripe.client.v1.prices.create(
        params={
            "product": main,
            "currency": "usd",
            "unit_amount_decimal": "0.05",  # type: ignore[typeddict-item]
            "transform_quantity": {"divide_by": 10, "round": "up"},
            "metadata": {
                "price_type": "credits",
                "credits_per_unit": "2",
                "min_spu_purchase": "20",
                "max_spu_purchase": "500",
            },
        }
    ).id
    over = stripe.client.v1.prices.create(
        params={
            "product": main,
            "currency": "usd",
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "tiers": [{"up_to": 5, "unit_amount": 2}, {"up_to": "inf", "unit_amount_decimal": "0.5"}],  # type: ignore[typeddict-item]
            "recurring": {"interval": "month"},
            "metadata": {"price_type": "overage", "credits_per_unit": "10"},
        }
    ).id
    result = taken(stripe)
    assert result.findings == ()
    now = in_force(stripe)
    assert (now.credit_name, now.free.included_credits, now.alert_thresholds) == ("SPU", 5 * MICRO, (50, 100))
    assert (now.grace_days, now.suspend_days) == (3, 9)
    assert now.rate("chat") is not None
    assert now.rate("scan", "m") is not None
    assert now.rate("scan") is None
    assert now.plan("team") == Plan(
        tier="team",
        name="The team",
        interval="year",
        amount=50000,
        currency="jpy",
        included_credits=25_000_500_000,
        features=("One", "Two"),
        rollover_max=10 * MICRO,
        price=yearly,
        requests_per_minute=60,
    )
    quarter = now.plan("quarter")
    assert quarter is not None
    assert (quarter.price, quarter.currency, quarter.amount, quarter.interval_count) == (fine, "kwd", 1250, 3)
    assert now.credit_prices == (
        CreditPrice(
            units, "usd", None, "0.05", 2 * MICRO, 20 * MICRO, 500 * MICRO, None, Transform(divide_by=10, round="up")
        ),
    )
    (overage,) = now.overage_prices
    assert (overage.price, overage.credits_per_unit) == (over, 10 * MICRO)
    assert [(one.up_to, str(one.unit_amount)) for one in overage.tiers] == [(5, "2"), (None, "0.5")]
    assert isinstance(overage.tiers[0], OverageTier)


def test_settings_of_several_products_the_lowest_id_wins_and_lint_names_the_other(stripe: StripeWorld) -> None:
    stripe.client.v1.products.create(
        params={
            "id": "prod_a",
            "name": "A",
            "metadata": {"product": "spillway", "grace_days": "3", "suspend_days": "9"},
        }
    )
    stripe.client.v1.products.create(
        params={
            "id": "prod_b",
            "name": "B",
            "metadata": {
                "product": "spillway",
                "grace_days": "5",
                "suspend_days": "9",
                "credit_name": "SPU",
                "rate:x": "no",
            },
        }
    )
    result = taken(stripe)
    now = in_force(stripe)
    assert (now.grace_days, now.suspend_days, now.credit_name) == (3, 9, "SPU")
    assert [finding.object_id for finding in result.findings] == ["prod_b", "prod_b"]
    conflict, rate = (str(finding) for finding in result.findings)
    assert "grace_days = '5' contradicts prod_a, whose '3' counts" in conflict
    assert "bad rate 'rate:x'" in rate
    with stripe.app.app_context():
        assert kept.lint_kept() == list(result.findings)
        assert catalog.lint() == list(result.findings)


def test_lint_names_stripes_objects_with_a_cure(stripe: StripeWorld) -> None:
    main = product(stripe, grace="3")
    wrong = {
        price(stripe, main, metadata={"price_type": "base", "included_credits": "1"}): "tier is missing",
        price(stripe, main, metadata={"price_type": "base", "tier": "t"}): "included_credits is missing",
        price(stripe, main, metadata={"price_type": "base", "tier": "t", "included_credits": "many"}): "bad number",
        price(stripe, main, metadata={}): "price_type is missing",
        price(stripe, main, metadata={"price_type": "credit"}): "a credit price can not recur",
        main: "unknown key 'grace'",
    }
    good = price(stripe, main, metadata=plan("good"))
    twin = price(stripe, main, metadata=plan("good", product="spillway"))
    wrong[twin] = f"claims tier good and interval month like {good}"
    with stripe.app.app_context():
        found = catalog.lint()
    assert {finding.object_id for finding in found} == set(wrong)
    for finding in found:
        assert finding.message.startswith(wrong[finding.object_id])
        assert finding.cure


# Versions


def test_only_what_matters_makes_a_version(stripe: StripeWorld) -> None:
    ids = stripe.seed()
    first = taken(stripe)
    assert not first.changed
    stripe.client.v1.prices.update(ids["team_month"], params={"nickname": "other", "lookup_key": "k"})
    stripe.client.v1.products.update(stripe.product, params={"name": "Other", "description": "d"})
    assert taken(stripe) == first
    stripe.client.v1.prices.update(ids["team_month"], params={"metadata": {"included_credits": "6000"}})
    second = taken(stripe)
    assert (second.changed, second.version) == (True, first.version + 1)
    team = in_force(stripe).plan("team")
    assert team is not None
    assert team.included_credits == 6000 * MICRO
    with stripe.app.app_context():
        before = kept.of_version(first.version).plan("team")
    assert before is not None
    assert before.included_credits == 5000 * MICRO


def test_of_two_listings_the_one_that_began_later_is_kept(stripe: StripeWorld) -> None:
    stripe.seed()
    with stripe.app.app_context():
        slow, quick = kept.begin(), kept.begin()
        old = catalog.read()
        stripe.client.v1.products.update(stripe.product, params={"metadata": {"credit_name": "new"}})
        assert kept.take("stripe", catalog.read(), quick).changed
        assert not kept.take("stripe", old, slow).changed
        assert kept.current().credit_name == "new"
        assert kept.take("stripe", old, kept.begin()).changed, "Stripe was changed back"
        kept.failed("too late to matter", listing=slow)
        assert kept.state().error is None


def test_an_event_of_ours_lists_anew_and_a_foreign_one_asks_for_nothing(stripe: StripeWorld) -> None:
    ids = stripe.seed()
    foreign = stripe.client.v1.products.create(params={"name": "Somebody else's"}).id
    alien = price(stripe, foreign)
    fresh = product(stripe)
    client = stripe.client.v1
    with stripe.app.app_context():
        assert catalog.changed(client.products.retrieve(foreign).to_dict()) is None
        assert catalog.changed(client.prices.retrieve(alien).to_dict()) is None
        added = price(stripe, fresh, metadata=plan("fresh"))
        assert sync.run(catalog.changed(client.prices.retrieve(added).to_dict()))
        assert kept.current().plan("fresh") is not None
        client.prices.update(ids["team_month"], params={"active": False})
        assert sync.run(catalog.changed({"object": "price", "id": ids["team_month"], "product": stripe.product}))
        assert kept.current().plan("team", "month") is None
        client.products.update(stripe.product, params={"metadata": {"product": "other"}})
        assert sync.run(catalog.changed(client.products.retrieve(stripe.product).to_dict())), "it was ours"
        assert [one.tier for one in kept.current().plans] == ["fresh"]


def test_a_webhook_brings_an_edit_at_once_however_it_is_delivered(stripe: StripeWorld) -> None:
    ids = stripe.seed()
    stripe.settle()
    foreign = stripe.client.v1.products.create(params={"name": "Somebody else's"}).id
    price(stripe, foreign)
    for number, how in enumerate(("normal", "duplicated", "shuffled", "delayed", "failed_then_retried"), start=1):
        included = str(1000 * number)
        stripe.client.v1.prices.update(ids["team_month"], params={"metadata": {"included_credits": included}})
        stripe.settle(how)
        team = in_force(stripe).plan("team", "month")
        assert team is not None
        assert team.included_credits == 1000 * number * MICRO, how
    with stripe.app.app_context(), databases.transaction() as session:
        rows = session.execute(select(WebhookEvent.object_id, WebhookEvent.status, WebhookEvent.payload)).all()
    ignored = {row.object_id for row in rows if row.status == "ignored"}
    assert foreign in ignored
    assert ids["team_month"] not in ignored


# Without Stripe's answer


def test_an_outage_keeps_the_last_good_catalog_and_says_since_when(stripe: StripeWorld) -> None:
    stripe.seed()
    good, plans = state(stripe), in_force(stripe).plans
    stripe.sandbox.control.fault("error", times=0)
    stripe.advance(hours=1)
    first = taken(stripe)
    since = state(stripe).error_since
    stripe.advance(hours=1)
    second = taken(stripe)
    now = state(stripe)
    assert first.error == second.error == now.error
    assert now.error is not None
    assert now.error.startswith("Stripe could not be asked: ")
    assert (first.version, first.changed, now.error_since, now.synced_at) == (1, False, since, good.synced_at)
    assert since is not None
    assert in_force(stripe).plans == plans
    stripe.sandbox.control.clear_faults()
    assert taken(stripe).error is None
    assert (state(stripe).error, state(stripe).error_since) == (None, None)


def test_until_the_first_sync_nobody_reads_the_file_or_asks_stripe(stripe: StripeWorld) -> None:
    stripe.sandbox.stop()
    file = stripe.app.config["SETTINGS"].catalog_file
    now = in_force(stripe)
    assert (now.version, now.plans, now.signup_credits) == (0, (), 100 * MICRO)
    assert not file.exists()
    assert state(stripe).error is None


def test_a_start_asks_stripe_beside_the_requests(stripe: StripeWorld) -> None:
    stripe.seed()
    stripe.client.v1.products.update(stripe.product, params={"metadata": {"credit_name": "new"}})
    thread = scheduler.sync_catalog_in_worker(stripe.app)
    assert isinstance(thread, threading.Thread)
    thread.join(60)
    until(lambda: in_force(stripe).credit_name == "new")


# The file beside Stripe


def test_the_file_fills_the_gaps_of_stripes_settings_and_sells_nothing(stripe: StripeWorld) -> None:
    file = stripe.app.config["SETTINGS"].catalog_file
    file.write_text(
        '[product]\nsignup_credits = 1\ngrace_days = 2\n"rate:chat" = "per_unit=1"\n"rate:page" = "per_unit=3"\n'
        '[[prices]]\nid = "local"\nprice_type = "base"\ntier = "local"\ncurrency = "usd"\nunit_amount = 1\n'
        'interval = "month"\nincluded_credits = 1\n'
        '[[prices]]\nprice_type = "base"\ntier = "enterprise"\nincluded_credits = 9\n'
        '[[prices]]\nprice_type = "base"\ntier = "team"\nincluded_credits = 9\n'
        '[[prices]]\nprice_type = "base"\ntier = "free"\nname = "Try it"\n'
    )
    stripe.seed(signup_credits="5", **{"rate:r1": "op=chat,per_unit=2"})
    result = taken(stripe)
    assert result.findings == ()
    now = in_force(stripe)
    assert (now.signup_credits, now.grace_days) == (5 * MICRO, 2)
    chat, page = now.rate("chat"), now.rate("page")
    assert chat is not None and page is not None
    assert (chat.per_unit, page.per_unit) == (2, 3)
    assert now.free.name == "Try it"
    enterprise = now.plan("enterprise")
    assert enterprise is not None
    assert (enterprise.included_credits, enterprise.price) == (9 * MICRO, None)
    assert now.plan("local") is None
    assert len(now.by_tier["team"]) == 2, "Stripe's own, and not the file's"


def test_a_broken_file_beside_stripe_is_an_error_and_changes_nothing(stripe: StripeWorld) -> None:
    stripe.seed()
    stripe.app.config["SETTINGS"].catalog_file.write_text("[product\n")
    result = taken(stripe)
    assert (result.version, result.changed) == (1, False)
    assert "not valid TOML" in (result.error or "")
    with stripe.app.app_context():
        assert [finding.object_id for finding in catalog.lint()] == ["catalog file"]


def test_a_catalog_of_the_file_sells_nothing_once_there_is_a_key(stripe: StripeWorld) -> None:
    with stripe.app.app_context():
        kept.take("file", kept.read_file())
        now = kept.current()
        assert [one.tier for one in now.plans] == ["enterprise"]
        assert now.credit_prices == ()
        assert now.rate("chat") is not None
        with databases.snapshot() as conn:
            assert conn.scalar(select(func.count()).select_from(CatalogVersion)) == 1


# The terms of one price


def test_terms_are_those_of_the_price_archived_or_not(stripe: StripeWorld) -> None:
    ids = stripe.seed()
    stripe.client.v1.prices.update(ids["team_month"], params={"active": False})
    expanded: Any = {"expand": ["product"]}
    with stripe.app.app_context():

        def terms(name: str) -> Plan | None:
            found = stripe.client.v1.prices.retrieve(ids[name], params=expanded)
            return catalog.terms_of(found.to_dict(for_json=True))

        team = terms("team_month")
        assert team is not None
        assert (team.tier, team.price, team.amount, team.included_credits) == (
            "team",
            ids["team_month"],
            4900,
            5000 * MICRO,
        )
        assert terms("credit") is None
        stripe.client.v1.products.update(stripe.product, params={"metadata": {"product": ""}})
        assert terms("team_month") is None


def test_the_commands_tell_findings_and_outages(stripe: StripeWorld) -> None:
    run = stripe.app.test_cli_runner().invoke
    ids = stripe.seed()
    assert (run(args=["catalog", "lint"]).exit_code, run(args=["catalog", "sync"]).exit_code) == (0, 0)
    stripe.client.v1.prices.update(ids["pack"], params={"metadata": {"credits": "many"}})
    lint = run(args=["catalog", "lint"])
    assert (lint.exit_code, lint.stdout.partition(":")[0]) == (1, ids["pack"])
    assert run(args=["catalog", "sync"]).stdout == "Version 2 taken in.\n"
    stripe.sandbox.control.fault("authentication", times=0)
    for command in ("lint", "sync"):
        result = run(args=["catalog", command])
        assert (result.exit_code, result.stdout) == (1, "")
        assert "AuthenticationError (401); check STRIPE_SECRET_KEY" in result.stderr


def test_findings_are_values() -> None:
    assert str(Finding("price_1", "wrong", "right it")) == "price_1: wrong (right it)"
