"""Explanations: the price step by step, the lots that paid, the rule that let it pass, and what became of it."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import hypothesis.strategies as st
import pytest
from flask import Flask
from hypothesis import example, given

from amounts import MICRO, to_micros
from services import catalog, explain, rates
from tests.api.helpers import account_api, grant, hold, ledger, open_account, refused, set_plan, use
from tests.factories import Api
from tests.moments import At

KINDS = ("allowance", "purchased", "granted")
CATALOG = """
[product]
credit_value = "0.03"
"rate:page" = "per_unit=2,round=up"
"rate:chat" = "prompt_per_1k=0.5,completion_per_1k=1.5"
"rate:chat@large" = "prompt_per_1k=5,completion_per_1k=15,bill_failed=1"
"rate:thirds" = "per_unit=0.1,cost_multiplier=1.5"
"rate:clamped" = "per_unit=1,minimum=3,maximum=10"
"""


def story(api: Api, record_id: str) -> Any:
    """The record's explanation, once everything in it that has to add up did."""
    answer = api.get(f"/usage/records/{record_id}/explain")
    assert answer.status == 200, answer
    told = answer.json
    record, pricing = told["record"], told["pricing"]
    assert record == api.get(f"/usage/records/{record_id}").json
    assert (told["id"], pricing["priced"], pricing["charged"]) == (record["id"], record["priced"], record["credits"])
    assert sum(lot["credits"] for lot in told["lots"]) + told["overage"] + told["unfunded"] == record["credits"]
    for kind in KINDS:
        gave = sum(lot["credits"] for lot in told["lots"] if lot["kind"] == kind)
        assert told["balance_before"][kind] - gave == told["balance_after"][kind]
        assert gave == record["consumed"][kind]
    for balance in (told["balance_before"], told["balance_after"]):
        assert balance["available"] == max(0, sum(balance[kind] for kind in KINDS) - balance["held"])
    for lot in told["lots"]:
        assert lot["remaining_before"] - lot["credits"] == lot["remaining_after"] >= 0
    if pricing["parts"]:
        assert sum(part["credits"] for part in pricing["parts"]) == pricing["sum"]
    settled = sum(entry["change"] for entry in told["later"] if entry["reason"] == "settle")
    assert -settled == record["settled"]
    back = sum(entry["change"] for entry in told["later"] if entry["reason"] == "void")
    paid = sum(lot["credits"] for lot in told["lots"]) + record["settled"]
    assert back == (paid if record["voided_at"] else 0)
    return told


@pytest.fixture
def priced(app: Flask, operator: Api) -> Api:
    """An account with credits under a catalog with rates of every kind."""
    app.config["SETTINGS"].catalog_file.write_text(CATALOG)
    with app.app_context():
        catalog.sync()
    open_account(operator, credits=900)
    return operator


def use_rate(api: Api, operation: str, **more: Any) -> Any:
    answer = api.post("/usage", {"account": "acme", "operation": operation, **more})
    assert answer.status == 201, answer
    return story(api, answer.json["id"])


class TestPrices:
    def test_named_by_the_request(self, app: Flask, operator: Api) -> None:
        open_account(operator)
        told = story(operator, use(operator, "1.5", operation="chat").json["id"])
        assert told["rate"] is None
        assert told["pricing"] == {
            "basis": "credits",
            "parts": [],
            "sum": Decimal("1.5"),
            "round": "none",
            "rounded": Decimal("1.5"),
            "minimum": None,
            "maximum": None,
            "priced": Decimal("1.5"),
            "charged": Decimal("1.5"),
            "free_because": [],
        }
        assert told["request"]["credits"] == Decimal("1.5")
        assert told["rule"] == {"name": "available", "reason": "It needed 1.5 credits and 100 were available."}

    def test_by_units_rounded_up(self, priced: Api) -> None:
        told = use_rate(priced, "page", quantity=Decimal("2.25"))
        assert told["rate"] == {
            "text": "op=page,per_unit=2,round=up",
            "operation": "page",
            "model": None,
            "source": "catalog",
        }
        assert told["pricing"]["parts"] == [
            {"input": "quantity", "amount": Decimal("2.25"), "price": 2, "per": 1, "credits": Decimal("4.5")}
        ]
        assert [told["pricing"][name] for name in ("sum", "round", "rounded", "priced")] == [
            Decimal("4.5"),
            "up",
            5,
            5,
        ]

    def test_by_tokens_of_the_models_own_rate(self, priced: Api) -> None:
        tokens = {"prompt_tokens": 1234, "completion_tokens": 567}
        told = use_rate(priced, "chat", llm_model="small", **tokens)
        assert [part["credits"] for part in told["pricing"]["parts"]] == [Decimal("0.617"), Decimal("0.8505")]
        told = use_rate(priced, "chat", llm_model="large", **tokens)
        assert told["rate"]["model"] == "large"
        assert [part["credits"] for part in told["pricing"]["parts"]] == [Decimal("6.17"), Decimal("8.505")]
        assert told["pricing"]["priced"] == Decimal("14.675")

    def test_by_cost(self, priced: Api) -> None:
        quantity, cost = use_rate(priced, "thirds", actual_cost=Decimal("0.1"), quantity=2)["pricing"]["parts"]
        assert (quantity["credits"], cost["credits"]) == (Decimal("0.2"), 5)
        assert (cost["amount"], cost["price"], cost["per"]) == (Decimal("0.1"), Decimal("1.5"), Decimal("0.03"))

    def test_by_cost_that_does_not_divide(self, priced: Api) -> None:
        set_plan(priced, "acme", rates={"odd": "per_unit=0.1,cost_multiplier=1"})
        pricing = use_rate(priced, "odd", actual_cost=Decimal("0.1"))["pricing"]
        assert [part["credits"] for part in pricing["parts"]] == [Decimal("0.1"), Decimal("3.333333333333")]
        assert (pricing["sum"], pricing["rounded"]) == (Decimal("3.433333333333"), Decimal("3.433333"))

    @pytest.mark.parametrize(("quantity", "expected"), [(1, 3), (5, 5), (11, 10)])
    def test_within_minimum_and_maximum(self, priced: Api, quantity: int, expected: int) -> None:
        pricing = use_rate(priced, "clamped", quantity=quantity)["pricing"]
        assert (pricing["minimum"], pricing["maximum"]) == (3, 10)
        assert (pricing["rounded"], pricing["priced"]) == (quantity, expected)

    def test_the_accounts_own_rate(self, priced: Api) -> None:
        set_plan(priced, "acme", rates={"page": "per_unit=0.5"})
        told = use_rate(priced, "page", quantity=3)
        assert (told["rate"]["source"], told["rate"]["text"]) == ("account", "op=page,per_unit=0.5")
        assert use_rate(priced, "clamped")["rate"]["source"] == "catalog"

    def test_the_catalog_of_its_time(self, app: Flask, priced: Api) -> None:
        before = use_rate(priced, "thirds", actual_cost=Decimal("0.3"))
        app.config["SETTINGS"].catalog_file.write_text(CATALOG.replace("0.03", "0.05").replace("=0.1", "=0.2"))
        with app.app_context():
            catalog.sync()
        assert story(priced, before["id"]) == before
        after = use_rate(priced, "thirds", actual_cost=Decimal("0.3"))
        assert after["catalog_version"] > before["catalog_version"]
        assert (before["pricing"]["sum"], after["pricing"]["sum"]) == (Decimal("15.1"), Decimal("9.2"))

    def test_what_failed_or_was_tried_again_is_free(self, priced: Api) -> None:
        tokens = {"prompt_tokens": 1000, "completion_tokens": 0}
        told = use_rate(priced, "chat", success=False, retry=True, **tokens)
        assert told["pricing"]["free_because"] == ["failed", "retry"]
        assert (told["pricing"]["priced"], told["pricing"]["charged"]) == (Decimal("0.5"), 0)
        assert (told["rule"]["name"], told["lots"]) == ("nothing_to_pay", [])
        told = use_rate(priced, "chat", llm_model="large", success=False, **tokens)
        assert (told["pricing"]["free_because"], told["pricing"]["charged"]) == ([], 5)
        told = use_rate(priced, "chat", llm_model="large", success=False, retry=True, **tokens)
        assert told["pricing"]["free_because"] == ["retry"]


class TestWhatPaid:
    def test_several_lots_in_order(self, app: Flask, operator: Api, at: At) -> None:
        open_account(operator, included_credits=10)
        grant(operator, "acme", 5, expires_at="2026-11-25T00:00:00Z")
        told = story(operator, use(operator, 17).json["id"])
        assert [(lot["kind"], lot["credits"], lot["remaining_after"], lot["expires_at"]) for lot in told["lots"]] == [
            ("allowance", 10, 0, "2026-12-21T10:00:00Z"),
            ("granted", 5, 0, "2026-11-25T00:00:00Z"),
            ("granted", 2, 98, None),
        ]
        assert {lot["entry"] for lot in told["lots"]} == {
            entry["id"] for entry in operator.get("/ledger?account=acme&limit=3").json["data"]
        }

    def test_what_expired_before_it_is_not_in_the_balance_before(self, app: Flask, operator: Api, at: At) -> None:
        open_account(operator)
        grant(operator, "acme", 5, expires_at="2026-11-25T00:00:00Z")
        at("2026-11-26T00:00:00Z")
        told = story(operator, use(operator, 1).json["id"])
        assert told["balance_before"]["granted"] == 100

    def test_other_holds_stay_held(self, app: Flask, operator: Api) -> None:
        open_account(operator)
        hold(operator, 30)
        told = story(operator, use(operator, 1).json["id"])
        assert (told["balance_before"]["available"], told["balance_before"]["held"]) == (70, 30)

    @pytest.mark.settings(settle_unfunded=True)
    def test_unfunded_and_what_settled_it(self, app: Flask, operator: Api) -> None:
        open_account(operator)
        record_id = use(operator, 130, enforce=False).json["id"]
        told = story(operator, record_id)
        assert (told["unfunded"], told["later"]) == (30, [])
        assert told["rule"]["name"] == "not_enforced"
        assert told["rule"]["reason"].endswith("No credits were left for 30 of it: they are kept as unfunded.")
        grant(operator, "acme", 12)
        grant(operator, "acme", 50)
        assert [(e["reason"], e["change"]) for e in story(operator, record_id)["later"]] == [
            ("settle", -12),
            ("settle", -18),
        ]
        operator.post(f"/usage/records/{record_id}/void", {"reason": "x"})
        assert [(e["reason"], e["change"]) for e in story(operator, record_id)["later"]] == [
            ("settle", -12),
            ("settle", -18),
            ("void", 100),
            ("void", 12),
            ("void", 18),
        ]

    def test_a_void_and_what_of_it_had_expired(self, app: Flask, operator: Api, at: At) -> None:
        open_account(operator)
        grant(operator, "acme", 5, expires_at="2026-11-25T00:00:00Z")
        record_id, other = (use(operator, amount).json["id"] for amount in (7, 2))
        at("2026-11-26T00:00:00Z")
        for voided in (other, record_id):
            operator.post(f"/usage/records/{voided}/void", {"reason": "x"})
        told = story(operator, record_id)
        assert [(e["reason"], e["change"]) for e in told["later"]] == [("void", 5), ("expiry", -5), ("void", 2)]
        assert [(e["reason"], e["change"]) for e in story(operator, other)["later"]] == [("void", 2)]
        assert told["balance_after"] == told["record"]["balance"], "as it was then"

    def test_voids_of_one_moment_are_told_apart(self, app: Flask, operator: Api, at: At) -> None:
        open_account(operator, included_credits=3)
        grant(operator, "acme", 5, expires_at="2026-11-25T00:00:00Z")
        records = [use(operator, amount).json["id"] for amount in (2, 4, 7, 1)]
        at("2026-11-26T00:00:00Z")
        for voided in records:
            operator.post(f"/usage/records/{voided}/void", {"reason": "x"})
        later = [[(e["reason"], e["change"]) for e in story(operator, record)["later"]] for record in records]
        assert later[0] == [("void", 2)]
        assert later[1] == [("void", 1), ("void", 3), ("expiry", -3)]
        assert later[2] == [("void", 2), ("expiry", -2), ("void", 5)]
        assert later[3] == [("void", 1)]

    def test_what_expires_after_a_void_is_not_the_voids(self, app: Flask, operator: Api, at: At) -> None:
        open_account(operator)
        grant(operator, "acme", 5, expires_at="2026-11-25T00:00:00Z")
        record_id = use(operator, 5).json["id"]
        operator.post(f"/usage/records/{record_id}/void", {"reason": "x"})
        at("2026-11-26T00:00:00Z")
        assert [entry["reason"] for entry in ledger(operator)[:2]] == ["expiry", "void"], "with neighbouring numbers"
        assert [(e["reason"], e["change"]) for e in story(operator, record_id)["later"]] == [("void", 5)]

    def test_a_void_after_the_clock_was_set_back(self, app: Flask, operator: Api, at: At) -> None:
        open_account(operator, credits=50)
        record_id = [use(operator, 1).json["id"] for _ in range(5)][2]
        at.forward(days=-3)
        operator.post(f"/usage/records/{record_id}/void", {"reason": "x"})
        at.forward(days=-3)
        use(operator, 2)
        assert [(e["reason"], e["change"]) for e in story(operator, record_id)["later"]] == [("void", 1)]


class TestHolds:
    def captured(self, api: Api, held: int, **usage: Any) -> Any:
        answer = api.post(f"/holds/{hold(api, held)['id']}/capture", usage)
        assert answer.status == 201, answer
        return story(api, answer.json["id"])

    def test_all_that_was_held(self, app: Flask, operator: Api) -> None:
        open_account(operator)
        hold(operator, 50)
        told = self.captured(operator, 40)
        assert (told["pricing"]["basis"], told["rule"]["name"]) == ("hold", "hold")
        assert [told["balance_before"][name] for name in ("available", "held")] == [10, 90]
        assert [told["balance_after"][name] for name in ("available", "held")] == [10, 50]

    def test_more_than_was_held(self, app: Flask, operator: Api) -> None:
        open_account(operator)
        told = self.captured(operator, 40, credits=110)
        assert (told["pricing"]["basis"], told["rule"]["name"], told["unfunded"]) == ("credits", "hold", 10)
        assert "on top of the hold" in told["rule"]["reason"]

    def test_too_late(self, app: Flask, operator: Api, at: At) -> None:
        open_account(operator)
        held = hold(operator, 40, ttl_seconds=60)["id"]
        at.forward(seconds=60)
        told = story(operator, operator.post(f"/holds/{held}/capture").json["id"])
        assert told["rule"]["name"] == "expired_hold"
        assert [told["balance_before"][name] for name in ("available", "held")] == [100, 0]


class TestAsking:
    def test_only_the_account_and_the_operator(self, service: Api) -> None:
        acme, other = open_account(service), open_account(service, "other")
        path = f"/usage/records/{use(service, 1).json['id']}/explain"
        tenant, stranger = account_api(service, acme, "read"), account_api(service, other, "read")
        assert tenant.get(path).json == service.get(path).json == service.get(f"{path}?account=acme").json
        refused(stranger.get(path), 404, "not_found")
        refused(service.get(f"{path}?account=other"), 404, "not_found")
        refused(tenant.get(f"{path}?account=other"), 403, "forbidden")
        refused(service.get("/usage/records/use_nothing/explain"), 404, "not_found")
        refused(account_api(service, acme, "write").get(path), 403, "missing_scope")

    def test_the_request_is_told_as_it_was_sent(self, service: Api) -> None:
        open_account(service)
        sent = {
            "operation": "chat",
            "llm_model": "m",
            "llm_provider": "p",
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "total_tokens": 3,
            "actual_cost": Decimal("0.25"),
            "source": "s",
            "subject": "u",
            "properties": {"a": [1, Decimal("0.1")]},
            "idempotency_key": "k",
            "enforce": False,
        }
        told = story(service, use(service, 1, **sent).json["id"])
        defaults = {"credits": 1, "quantity": 1, "success": True, "retry": False, "hold": None, "occurred_at": None}
        assert told["request"] == sent | defaults


# The arithmetic, for every rate

_PRICES = st.none() | st.decimals(0, 1000, places=18) | st.decimals(0, 10, places=3)
_COUNTS = st.integers(0, 10**9)


@example((None, None, None, Decimal(1)), (0, 0, 0, Decimal("0.0000005")), Decimal(1), "none")
@example((None, None, None, Decimal(1)), (0, 0, 0, Decimal("0.0000015")), Decimal(3), "none")
@example((None, None, None, Decimal(1)), (0, 0, 0, Decimal("9.9")), Decimal("3.3"), "up")
@given(
    st.tuples(_PRICES, _PRICES, _PRICES, _PRICES).filter(any),
    st.tuples(_COUNTS, _COUNTS, _COUNTS, st.decimals(0, 1000, places=9)),
    st.decimals("0.000001", 1000, places=6),
    st.sampled_from(["up", "none"]),
)
def test_the_steps_lead_to_the_price(
    prices: tuple[Any, ...], given_: tuple[Any, ...], credit_value: Decimal, rounding: Any
) -> None:
    names = ("per_unit", "prompt_per_1k", "completion_per_1k", "cost_multiplier")
    rate = rates.Rate("op", round=rounding, **dict(zip(names, prices, strict=True)))
    amounts = dict(zip(("quantity", "prompt_tokens", "completion_tokens", "actual_cost"), given_, strict=True))
    amounts["quantity"] = Decimal(amounts["quantity"]).scaleb(-6)
    try:
        expected = rates.price(rate, credit_value=credit_value, **amounts)
    except ValueError:
        return  # more than anybody can be charged
    steps = explain.working(rate, amounts, credit_value)
    with localcontext(prec=300):
        assert sum(map(exact, steps["parts"])) == steps["sum"]
    assert to_micros(Decimal(steps["rounded"])) == expected <= MICRO * 10**9


def exact(part: Any) -> Decimal:
    """A part's credits, which are its amount times its price by its `per`, as nearly as its decimals can tell."""
    worth = Decimal(part["credits"])
    assert abs(worth * part["per"] - Decimal(part["amount"]) * Decimal(part["price"])) <= Decimal("1e-12") * part["per"]
    return worth
