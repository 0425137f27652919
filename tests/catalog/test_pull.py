"""From Stripe to the file: it says what Stripe says, and sending it back changes nothing."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from services import catalog as kept
from services.catalog import Source, source
from services.stripe import catalog, pull
from tests.catalog.test_mirror import in_force, plan, price, product
from tests.catalog.test_push import UNCHANGED, edit, everything, prices, pushed
from tests.stripe_world import StripeWorld


@pytest.fixture(params=["sqlite"])
def database(request: pytest.FixtureRequest) -> str:
    """Nothing here has to do with the database."""
    return str(request.param)


@pytest.fixture
def file(stripe: StripeWorld) -> Path:
    path: Path = stripe.app.config["SETTINGS"].catalog_file
    return path


def run(stripe: StripeWorld) -> Result:
    return stripe.app.test_cli_runner().invoke(args=["catalog", "pull"])


def pulled(stripe: StripeWorld) -> str:
    result = run(stripe)
    assert result.exit_code == 0, result.output
    return result.stdout


def terms(stripe: StripeWorld) -> Any:
    """Everything in force but the version's number."""
    with stripe.app.app_context():
        assert catalog.sync().error is None
    now = in_force(stripe)
    return {name: getattr(now, name) for name in now.__dataclass_fields__ if name != "version"}


def test_what_was_made_in_the_dashboard_comes_whole_and_goes_back_unchanged(stripe: StripeWorld, file: Path) -> None:
    stripe.seed(signup_credits="50", note='a "quoted" note\n', **{"rate:chat@m": "per_unit=1,minimum=0.5"})
    extra = product(stripe, "Ünusual", credit_value="0.01", alert_thresholds="50,100")
    price(stripe, extra, currency="jpy", metadata=plan("q", features="Eins;Zwei 🎉", own='x"y'))
    stripe.client.v1.prices.create(
        params={
            "product": extra,
            "currency": "kwd",
            "unit_amount_decimal": "0.05",  # type: ignore[typeddict-item]
            "transform_quantity": {"divide_by": 10, "round": "up"},
            "metadata": {"price_type": "credits", "min_spu_purchase": "20"},
        }
    )
    meter = stripe.client.v1.billing.meters.create(
        params={"display_name": "m", "event_name": "m", "default_aggregation": {"formula": "sum"}}
    ).id
    stripe.client.v1.prices.create(
        params={
            "product": extra,
            "currency": "usd",
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "tiers": [{"up_to": 5, "flat_amount": 2}, {"up_to": "inf", "unit_amount_decimal": "0.5"}],  # type: ignore[typeddict-item]
            "recurring": {"interval": "month", "interval_count": 3, "usage_type": "metered", "meter": meter},
            "metadata": {"price_type": "overage", "credits_per_unit": "10"},
        }
    )
    before, there = terms(stripe), everything(stripe)
    assert pulled(stripe) == f"{file} is written.\n"
    assert pushed(stripe) == UNCHANGED
    assert everything(stripe) == there
    assert terms(stripe) == before
    assert pulled(stripe) == f"{file} says the same already.\n"
    with stripe.app.app_context():
        alone = kept.lint_source(source.loads(file.read_text()))
    assert alone == []
    text = file.read_text()
    assert '# Metadata that mean nothing to Spillway:\n#   own = "x\\"y"' in text
    assert '#   note = "a \\"quoted\\" note' in text
    assert {entry["id"] for entry in tomllib.loads(text)["prices"]} == {one["id"] for one in prices(stripe)}


def test_what_was_pushed_comes_back_and_the_circle_ends(stripe: StripeWorld, file: Path) -> None:
    file.write_bytes(source.DEFAULT.read_bytes())
    pushed(stripe)
    before = terms(stripe)
    pulled(stripe)
    assert file.with_name("catalog.toml.bak").read_bytes() == source.DEFAULT.read_bytes()
    assert pushed(stripe) == UNCHANGED
    assert terms(stripe) == before
    edit(file, "unit_amount = 4900\n", "unit_amount = 5900\n")
    lines = pushed(stripe)
    assert [line[0] for line in lines[:-1]] == ["+", "-"]
    assert pushed(stripe) == UNCHANGED
    pulled(stripe)
    assert pushed(stripe) == UNCHANGED
    assert "unit_amount = 5900" in file.read_text()


def test_what_only_the_file_had_stays_in_force_and_is_not_sent(stripe: StripeWorld, file: Path) -> None:
    stripe.seed(signup_credits="5")
    file.write_text(
        '[product]\nsignup_credits = 1\n"rate:page" = "per_unit=3"\n'
        '[[prices]]\nprice_type = "base"\ntier = "enterprise"\nincluded_credits = 9\n'
        '[[prices]]\nid = "gone"\nprice_type = "credit"\ncurrency = "usd"\nunit_amount = 5\n'
    )
    before = terms(stripe)
    pulled(stripe)
    assert tomllib.loads(file.read_text())["local"] == {"rate:page": "per_unit=3"}
    assert pushed(stripe) == UNCHANGED
    assert terms(stripe) == before
    assert before["rates"]["page", None].per_unit == 3
    assert "gone" not in file.read_text()
    pulled(stripe)
    assert terms(stripe) == before


def test_mistaken_prices_are_comments_that_say_why(stripe: StripeWorld, file: Path) -> None:
    main = product(stripe)
    wrong = price(stripe, main, metadata={"price_type": "base", "included_credits": "1"})
    price(stripe, main, metadata=plan("good"))
    pulled(stripe)
    text = file.read_text()
    assert f"# {wrong}: tier is missing (" in text
    assert f'# id = "{wrong}"' in text
    assert len(tomllib.loads(text)["prices"]) == 1
    there = everything(stripe)
    assert pushed(stripe)[-1:] == UNCHANGED
    assert everything(stripe) == there


def test_trouble_leaves_the_file_as_it_is(stripe: StripeWorld, file: Path) -> None:
    stripe.seed()
    file.write_text("[product\n")
    pulled(stripe)
    assert file.with_name("catalog.toml.bak").read_text() == "[product\n"
    text = file.read_text()
    stripe.sandbox.stop()
    result = run(stripe)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Stripe could not be asked: ")
    assert file.read_text() == text
    assert sorted(path.name for path in file.parent.iterdir() if "catalog" in path.name) == [
        "catalog.toml",
        "catalog.toml.bak",
    ]


def test_without_a_key_it_is_wrong_use(sqlite_app: Flask) -> None:
    result = sqlite_app.test_cli_runner().invoke(args=["catalog", "pull"])
    assert (result.exit_code, result.stderr) == (2, "error: STRIPE_SECRET_KEY is not set\n")


@given(st.dictionaries(st.text(min_size=1, max_size=40), st.text(max_size=60).map(str.strip), max_size=8))
def test_any_metadata_is_written_as_toml_reads_it(metadata: dict[str, str]) -> None:
    settings = {f"rate:{key}": value for key, value in metadata.items()}
    text = pull.written(Source([("prod_1", settings)]), Source([("[local]", {"grace_days": "3", **settings})]))
    read = source.loads(text)
    assert dict(read.layers) == {"[product]": settings, "[local]": {"grace_days": "3"}}
