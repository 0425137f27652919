"""From the file to Stripe: what is made there, and that nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from services import catalog as kept
from services.catalog import source
from services.stripe import push
from tests.catalog.test_mirror import in_force, plan, price, product
from tests.stripe_world import StripeWorld

SMALL = """
[product]
signup_credits = 50
"rate:page" = "per_unit=1"
[[prices]]
id = "team_month"
price_type = "base"
tier = "team"
currency = "usd"
unit_amount = 4900
interval = "month"
included_credits = 1000
rollover_max = 10
[[prices]]
id = "credits"
price_type = "credit"
currency = "usd"
unit_amount = 100
credits_per_unit = 100
[[prices]]
price_type = "base"
tier = "enterprise"
"""


@pytest.fixture(params=["sqlite"])
def database(request: pytest.FixtureRequest) -> str:
    """Nothing here has to do with the database."""
    return str(request.param)


@pytest.fixture
def file(stripe: StripeWorld) -> Path:
    path: Path = stripe.app.config["SETTINGS"].catalog_file
    path.write_text(SMALL)
    return path


def run(stripe: StripeWorld, *arguments: str) -> Result:
    return stripe.app.test_cli_runner().invoke(args=["catalog", "push", *arguments])


def pushed(stripe: StripeWorld) -> list[str]:
    """The lines of the diff of a push that went well."""
    result = run(stripe)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def everything(stripe: StripeWorld) -> Any:
    """All that the dashboard would show."""
    return [stripe.sandbox.control.dump(kind) for kind in ("product", "price")]


def prices(stripe: StripeWorld, **params: Any) -> list[Any]:
    listed = stripe.client.v1.prices.list(params={"limit": 100, "expand": ["data.product"], **params})  # type: ignore[typeddict-item]
    return [one.to_dict(for_json=True) for one in listed.auto_paging_iter()]


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


UNCHANGED = ["Stripe has all of the file."]


class TestFirst:
    def test_the_default_catalog_arrives_whole_and_only_once(self, stripe: StripeWorld, file: Path) -> None:
        file.write_bytes(source.DEFAULT.read_bytes())
        lines = pushed(stripe)
        assert [line[0] for line in lines[:-1]] == ["+"] * 3 + ["~"] + ["+"] * 6
        assert lines[-1] == "10 changes made; version 1 is in force."
        with stripe.app.app_context():
            assert kept.lint_kept() == []
        now = in_force(stripe)
        assert [(one.tier, one.interval, one.amount) for one in now.plans] == [
            ("team", "month", 4900),
            ("team", "year", 49000),
            ("pro", "month", 19900),
            ("pro", "year", 199000),
            ("enterprise", None, None),
        ]
        assert [one.credits for one in now.credit_prices] == [None, 10_000_000_000]
        assert now.rate("chat", "small-model") is not None
        assert {one["product"]["name"] for one in prices(stripe)} == {"Team", "Pro", "Credits"}
        before = everything(stripe)
        assert pushed(stripe) == UNCHANGED
        assert everything(stripe) == before

    def test_a_dry_run_shows_it_and_changes_nothing(self, stripe: StripeWorld, file: Path) -> None:
        before = everything(stripe)
        result = run(stripe, "--dry-run")
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "+ product spillway_credits: Credits",
            "+ product spillway_plan_team: Team",
            "~ product spillway_credits: rate:page = 'per_unit=1', signup_credits = '50'",
            "+ price team_month: base team, $49.00 a month",
            "+ price credits: credit, $1.00",
            "5 changes, none of them made.",
        ]
        assert everything(stripe) == before
        assert in_force(stripe).version == 0

    @pytest.mark.settings(stripe_product_tag="My App")
    def test_each_tag_has_products_of_its_own(self, stripe: StripeWorld, file: Path) -> None:
        edit(file, 'tier = "team"', 'tier = "Große Teams"')
        pushed(stripe)
        names = [one["id"] for one in stripe.sandbox.control.dump("product")]
        assert len(names) == 2
        assert all(name.startswith("my_app_") for name in names)
        assert pushed(stripe) == UNCHANGED


class TestAgain:
    def test_metadata_is_edited_in_place(self, stripe: StripeWorld, file: Path) -> None:
        pushed(stripe)
        ids = {one["id"] for one in prices(stripe)}
        edit(file, "included_credits = 1000", "included_credits = 2000")
        edit(file, "rollover_max = 10\n", "")
        edit(file, '"rate:page" = "per_unit=1"', 'credit_name = "SPU"')
        lines = pushed(stripe)
        assert len(lines) == 4
        assert lines[0] == "~ product spillway_credits: name = 'Credits' -> 'SPU'"
        assert lines[1].endswith("credit_name = 'SPU', rate:page = 'per_unit=1' -> unset")
        assert lines[2].endswith("(team_month): included_credits = '1000' -> '2000', rollover_max = '10' -> unset")
        assert {one["id"] for one in prices(stripe)} == ids
        team = in_force(stripe).plan("team")
        assert team is not None
        assert (team.included_credits, team.rollover_max) == (2_000_000_000, None)
        assert pushed(stripe) == UNCHANGED

    def test_an_amount_is_a_new_price_and_the_old_one_archived_there_and_back(
        self, stripe: StripeWorld, file: Path
    ) -> None:
        pushed(stripe)
        [old] = [one["id"] for one in prices(stripe) if one["unit_amount"] == 4900]
        edit(file, "4900", "5900")
        lines = pushed(stripe)
        assert lines[:2] == [
            "+ price team_month: base team, $59.00 a month",
            f"- price {old} (team_month) is archived: base team, $49.00 a month",
        ]
        assert [one["unit_amount"] for one in prices(stripe, active=True)] == [5900, 100]
        assert pushed(stripe) == UNCHANGED
        edit(file, "5900", "4900")
        assert f"~ price {old} (team_month): back on sale" in pushed(stripe)
        assert {one["id"] for one in prices(stripe, active=True) if one["unit_amount"] == 4900} == {old}
        edit(file, "4900", "5900")
        pushed(stripe)
        assert [one["unit_amount"] for one in prices(stripe) if one["unit_amount"] > 100] == [5900, 4900]
        assert pushed(stripe) == UNCHANGED

    def test_what_the_file_takes_off_sale_is_archived(self, stripe: StripeWorld, file: Path) -> None:
        pushed(stripe)
        edit(file, 'id = "team_month"', 'id = "team_month"\nactive = false')
        assert len(pushed(stripe)) == 2
        assert [one["unit_amount"] for one in prices(stripe, active=True)] == [100]
        assert pushed(stripe) == UNCHANGED
        edit(file, "\nactive = false", "")
        pushed(stripe)
        assert len(prices(stripe, active=True)) == 2

    def test_what_the_file_does_not_name_is_told_and_left_alone(self, stripe: StripeWorld, file: Path) -> None:
        pushed(stripe)
        mine = product(stripe)
        extra = price(stripe, mine, metadata=plan("extra"))
        before = everything(stripe)
        assert pushed(stripe) == [
            f"  price {extra} is not in the file and stays on sale: base extra, $10.00 a month",
            *UNCHANGED,
        ]
        assert everything(stripe) == before

    def test_an_archived_product_comes_back(self, stripe: StripeWorld, file: Path) -> None:
        pushed(stripe)
        stripe.client.v1.products.update("spillway_plan_team", params={"active": False})
        assert "~ product spillway_plan_team: back on sale" in pushed(stripe)
        assert in_force(stripe).plan("team") is not None

    def test_ids_of_stripes_own_are_found_as_after_a_pull(self, stripe: StripeWorld, file: Path) -> None:
        made = product(stripe, "Made in the dashboard", signup_credits="50", **{"rate:page": "per_unit=1"})
        team = price(stripe, made, unit_amount=4900, metadata=plan("team", rollover_max="10", note="mine"))
        edit(file, "team_month", team)
        edit(file, "included_credits = 1000", "included_credits = 10")
        assert [line for line in pushed(stripe) if team in line] == []
        assert pushed(stripe) == UNCHANGED
        edit(file, "4900", "5900")
        lines = pushed(stripe)
        assert lines[0] == f"+ price {team}: base team, $59.00 a month"
        assert lines[1] == f"- price {team} ({team}) is archived: base team, $49.00 a month"
        assert pushed(stripe) == UNCHANGED
        assert {one["product"]["id"] for one in prices(stripe) if one["metadata"].get("tier")} == {made}

    def test_prices_made_in_the_dashboard_are_taken_over_not_doubled(self, stripe: StripeWorld, file: Path) -> None:
        made = product(stripe, "Made in the dashboard")
        team = price(stripe, made, unit_amount=4900, metadata=plan("team"))
        units = price(
            stripe,
            made,
            unit_amount=100,
            metadata={"price_type": "credits", "credits_per_unit": "100"},
            recurring={"interval": "month"},
        )
        lines = pushed(stripe)
        assert any(line.startswith(f"~ price {team} (team_month): file_id = 'team_month'") for line in lines)
        assert any(line.startswith("+ price credits") for line in lines), "that one recurs"
        assert any(units in line for line in lines)
        assert pushed(stripe)[-1:] == UNCHANGED


class TestForeign:
    def test_nothing_foreign_is_touched(self, stripe: StripeWorld, file: Path) -> None:
        other = stripe.client.v1.products.create(params={"name": "Other", "metadata": {"product": "other"}}).id
        price(stripe, other, unit_amount=4900, metadata=plan("team", file_id="team_month"))
        before = everything(stripe)
        pushed(stripe)
        foreign = [
            [one for one in objects if one in before[number]] for number, objects in enumerate(everything(stripe))
        ]
        assert foreign == before


class TestTrouble:
    def test_a_mistaken_file_is_not_sent(self, stripe: StripeWorld, file: Path) -> None:
        edit(file, 'tier = "team"\n', "")
        result = run(stripe)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("team_month: tier is missing")
        file.write_text("[product\n")
        assert "not valid TOML" in run(stripe).stderr
        file.write_text(SMALL.replace('id = "credits"\n', ""))
        assert run(stripe).stderr.startswith("prices[2]: it has no id")
        assert everything(stripe) == [[], []]

    def test_without_a_key_it_is_wrong_use(self, sqlite_app: Any) -> None:
        result = sqlite_app.test_cli_runner().invoke(args=["catalog", "push"])
        assert (result.exit_code, result.stderr) == (2, "error: STRIPE_SECRET_KEY is not set\n")

    def test_interrupted_anywhere_it_goes_on_when_run_again(self, stripe: StripeWorld, file: Path) -> None:
        for steps in range(1, 6):
            with stripe.app.app_context():
                made = push.carry_out(push.plan())
                for _ in range(min(steps, 1)):
                    next(made, None)
        assert pushed(stripe) == UNCHANGED
        edit(file, "4900", "5900")
        with stripe.app.app_context():
            next(push.carry_out(push.plan()))
        assert len(prices(stripe, active=True)) == 3, "the new one is on sale before the old one goes"
        assert pushed(stripe)[0].startswith("- price")
        assert pushed(stripe) == UNCHANGED
        assert len(prices(stripe)) == 3

    def test_an_answer_that_was_lost_makes_no_second_price(self, stripe: StripeWorld, file: Path) -> None:
        with stripe.app.app_context():
            planned = push.plan()
            for _ in push.carry_out(planned):
                pass
            for _ in push.carry_out(push.Plan([step for step in planned.steps if step.line.startswith("+ price")])):
                pass
        assert len(prices(stripe)) == 2

    def test_an_outage_on_the_way_is_told(self, stripe: StripeWorld, file: Path) -> None:
        with stripe.app.app_context():
            planned = push.plan()
        stripe.sandbox.control.fault("error", times=0)
        result = run(stripe)
        assert result.exit_code == 1
        assert result.stderr.startswith("Stripe could not be asked: ")
        assert "Traceback" not in result.output
        assert len(planned.steps) == 5


def test_what_can_not_be_edited_is_compared_exactly(stripe: StripeWorld, file: Path) -> None:
    file.write_text(
        '[[prices]]\nid = "fine"\nprice_type = "credit"\ncurrency = "EUR"\nunit_amount_decimal = 0.5\n'
        'transform_quantity = { divide_by = 10, round = "up" }\n'
        '[[prices]]\nid = "over"\nprice_type = "overage"\ncurrency = "usd"\nbilling_scheme = "tiered"\n'
        'tiers = [{ up_to = 5, unit_amount = 2 }, { up_to = "inf", unit_amount_decimal = 0.5 }]\ninterval = "month"\n'
        '[[prices]]\nid = "quarter"\nprice_type = "base"\ntier = "q"\ncurrency = "jpy"\nunit_amount_decimal = "900.0"\n'
        'interval = "month"\ninterval_count = 3\nincluded_credits = 1\n'
    )
    pushed(stripe)
    assert pushed(stripe) == UNCHANGED
    with stripe.app.app_context():
        assert kept.lint_kept() == []
    edit(file, "up_to = 5", "up_to = 6")
    edit(file, "divide_by = 10", "divide_by = 11")
    edit(file, "interval_count = 3", "interval_count = 6")
    assert [line[0] for line in pushed(stripe)[:-1]] == ["+", "+", "+", "-", "-", "-"]
    assert pushed(stripe) == UNCHANGED


def test_a_metered_price_gets_the_tags_meter_once(stripe: StripeWorld, file: Path) -> None:
    payg = (
        '[[prices]]\nid = "payg"\nprice_type = "metered"\ntier = "payg"\ncurrency = "usd"\n'
        'unit_amount_decimal = "1.5"\ninterval = "month"\nfree_credits = 100\n'
    )
    file.write_text(payg)
    pushed(stripe)
    [meter] = stripe.client.v1.billing.meters.list().data
    assert (meter.event_name, meter.default_aggregation.formula) == ("spillway_credits", "sum")
    [made] = prices(stripe)
    assert made["recurring"]["meter"] == meter.id
    sold = in_force(stripe).plan("payg")
    assert sold is not None
    assert (sold.price_type, sold.meter, sold.free_credits) == ("metered", meter.id, 100_000_000)
    assert pushed(stripe) == UNCHANGED
    edit(file, '"1.5"', '"1.25"')
    pushed(stripe)
    assert pushed(stripe) == UNCHANGED
    assert len(stripe.client.v1.billing.meters.list().data) == 1
    file.write_text(payg.replace('interval = "month"', f'interval = "month"\nmeter = "{meter.id}"'))
    pushed(stripe)
    assert pushed(stripe) == UNCHANGED
