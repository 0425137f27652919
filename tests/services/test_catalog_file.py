"""The catalog file: what of TOML is understood, what is broken, and the default that is written."""

from __future__ import annotations

import json
import re
import stat
import threading
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amounts import MICRO
from services import rates
from services.catalog import (
    BrokenCatalog,
    Catalog,
    Finding,
    OveragePrice,
    OverageTier,
    Transform,
    parse,
    source,
)


def read(text: str) -> tuple[Catalog, list[Finding]]:
    content = source.loads(text)
    # What is stored is JSON: nothing may depend on types that it loses.
    stored = json.loads(json.dumps({"product": content.product, "prices": content.prices}))
    direct, again = parse(content.product, content.prices), parse(stored["product"], stored["prices"])
    assert direct == again
    return direct[0], [*content.findings, *direct[1]]


class TestContent:
    def test_numbers_are_exact_and_lists_are_welcome(self) -> None:
        catalog, findings = read(
            """
            [product]
            signup_credits = 100.000001
            credit_value = 0.1
            alert_thresholds = [50, 100]
            "rate:page" = "per_unit=2"
            [[prices]]
            id = "p"
            price_type = "base"
            tier = "team"
            currency = "usd"
            unit_amount_decimal = 12.5
            interval = "year"
            included_credits = 0.000001
            features = ["One", "Two"]
            """
        )
        assert findings == []
        assert (catalog.signup_credits, catalog.credit_value) == (100_000_001, Decimal("0.1"))
        assert catalog.alert_thresholds == (50, 100)
        plan = catalog.plan("team", "year")
        assert plan is not None
        assert (plan.included_credits, plan.unit_amount_decimal, plan.features) == (1, "12.5", ("One", "Two"))

    def test_prices_own_tables(self) -> None:
        catalog, findings = read(
            """
            [[prices]]
            id = "over"
            price_type = "overage"
            currency = "kwd"
            credits_per_unit = 10
            billing_scheme = "tiered"
            tiers = [{ up_to = 5, unit_amount = 2 }, { up_to = "inf", unit_amount_decimal = 0.5 }]
            meter = "mtr"
            [[prices]]
            id = "credits"
            price_type = "credit"
            currency = "usd"
            unit_amount = 100
            transform_quantity = { divide_by = 10, round = "down" }
            """
        )
        assert findings == []
        tiers = (OverageTier(5, Decimal(2), Decimal(0)), OverageTier(None, Decimal("0.5"), Decimal(0)))
        assert catalog.overage_prices == (OveragePrice("over", "kwd", None, None, 10 * MICRO, tiers, "mtr"),)
        assert catalog.credit_prices[0].transform == Transform(10, "down")

    def test_nothing_at_all_is_a_catalog_with_the_plan_free(self) -> None:
        catalog, findings = read("")
        assert findings == []
        assert catalog.plan("free") == catalog.free
        assert catalog.plans == ()

    @pytest.mark.parametrize(
        ("text", "object_id", "says"),
        [
            ("signup_credits = 5", "catalog file", "unknown top-level key 'signup_credits'"),
            ("[products]", "catalog file", "unknown top-level key 'products'"),
            ("[product]\nsignup_credits = { a = 1 }", "[product]", "neither text nor a number"),
            ("[product]\nsignup_credits = 1e400", "[product]", "bad number: signup_credits"),
            ("[product]\nsignup_credits = nan", "[product]", "bad number: signup_credits"),
            ("[product]\ngrace_days = 2026-11-21", "[product]", "bad number: grace_days"),
            ('[product]\n"rate:a" = 1', "[product]", "bad rate 'rate:a'"),
            ('[[prices]]\nprice_type="base"', "prices[1]", "tier is missing"),
        ],
    )
    def test_mistakes(self, text: str, object_id: str, says: str) -> None:
        _, findings = read(text)
        assert [finding.object_id for finding in findings] == [object_id]
        assert says in findings[0].message


class TestBroken:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("[product]\n\ncredit_name = SPU", "line 3"),
            ("[product]\na = 1\na = 2", "line 3"),
            ("product = 1", r"product is not a table"),
            ("[prices]\nid = 'x'", r"prices is not a list"),
            ("prices = [1]", r"prices is not a list"),
            ("[product]\na = 1e99999999999999999999", "too large"),
            ("a = " + "[" * 5000, "TOML"),
        ],
    )
    def test_text(self, text: str, says: str) -> None:
        with pytest.raises(BrokenCatalog, match=says) as caught:
            source.loads(text)
        assert caught.value.finding.cure

    def test_missing_unreadable_and_not_text(self, tmp_path: Path) -> None:
        with pytest.raises(BrokenCatalog, match="No such file"):
            source.read(tmp_path / "none.toml")
        with pytest.raises(BrokenCatalog, match="Is a directory"):
            source.read(tmp_path)
        (tmp_path / "latin.toml").write_bytes(b"[product]\ncredit_name = '\xe9'")
        with pytest.raises(BrokenCatalog, match="UTF-8"):
            source.read(tmp_path / "latin.toml")

    @given(st.text(max_size=60) | st.text("[]product{}=\"'.,0123456789eE+-_ \n", max_size=60))
    def test_any_text_is_a_source_or_broken(self, text: str) -> None:
        with suppress(BrokenCatalog):
            assert read(text)[0].free


class TestDefault:
    def test_is_without_mistake_and_shows_every_kind(self) -> None:
        catalog, findings = read(source.DEFAULT.read_text())
        assert findings == []
        used = {name for rate in catalog.rates.values() for name in (*rate.needs, "per_unit" * bool(rate.per_unit))}
        assert {"per_unit", "prompt_tokens", "completion_tokens", "actual_cost"} <= used
        assert any(rate.model for rate in catalog.rates.values())
        for tier, interval in [(t, i) for t in ("team", "pro") for i in ("month", "year")]:
            assert catalog.plan(tier, interval) is not None
        assert {price.credits is None for price in catalog.credit_prices} == {True, False}

    def test_what_is_commented_out_is_without_mistake_too(self) -> None:
        text = re.sub(r"(?m)^# ([a-z_]+ = |\[\[prices)", r"\1", source.DEFAULT.read_text())
        catalog, findings = read(text)
        assert findings == []
        assert catalog.overage_prices
        assert catalog.plan("payg") is not None
        assert catalog.signup_credits == 100 * MICRO

    def test_says_what_the_environment_may_say(self) -> None:
        """An untouched default must not overrule SIGNUP_CREDITS and the like."""
        assert set(source.read(source.DEFAULT).product) - {"credit_value"} == {
            key for key in source.read(source.DEFAULT).product if key.startswith(rates.PREFIX)
        }

    def test_is_written_once_and_readable(self, tmp_path: Path) -> None:
        path = tmp_path / "made" / "catalog.toml"
        source.write_default(path)
        assert path.read_bytes() == source.DEFAULT.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        path.write_text("# mine")
        source.write_default(path)
        assert path.read_text() == "# mine"
        assert [file.name for file in path.parent.iterdir()] == ["catalog.toml"]

    def test_many_writers_leave_one_whole_file(self, tmp_path: Path) -> None:
        path = tmp_path / "catalog.toml"
        threads = [threading.Thread(target=source.write_default, args=(path,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [file.name for file in tmp_path.iterdir()] == ["catalog.toml"]
        assert path.read_bytes() == source.DEFAULT.read_bytes()
