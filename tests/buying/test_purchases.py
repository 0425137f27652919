"""Credits come for what was paid: once, whoever tells it and in whatever order, and for nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

import database
from models.stripe import Purchase
from services import outgoing, verify
from services.stripe import purchases, sync
from settings import ROOT
from tests import factories, servers
from tests.buying.helpers import bought, fulfil, inside, lots, rows, tenant
from tests.factories import Api
from tests.stripe_world import SECRET_KEY, WAYS, StripeWorld
from tests.together import at_once

MICRO = 1_000_000
BANK, BROKEN_BANK = "000123456789", "000111111116"
PAID = ("purchased", 100 * MICRO, 100 * MICRO)


@pytest.fixture
def acme(stripe: StripeWorld) -> tuple[str, Api]:
    stripe.seed()
    return tenant(stripe)


def begin(api: Api, **body: Any) -> str:
    answer = api.post("/stripe/checkout", body or {"credits": 100})
    assert answer.status == 201, answer
    return str(answer.json["session"])


def come_back(world: StripeWorld, session_id: str) -> Any:
    return world.app.test_client().get(f"/checkout/return?session_id={session_id}")


def end(world: StripeWorld, account_id: str) -> dict[str, Any]:
    """What must be the same in the end."""
    state = world.end_state(account_id)
    return {
        "available": state["balance"]["available"],
        "purchased": state["balance"]["purchased"],
        "lots": lots(world, account_id),
        "ledger": {reason: change for (reason, kind), change in state["ledger"].items() if kind == "purchased"},
        "purchases": [
            (one.mode, one.status, one.credits, one.amount, one.lot_id is not None) for one in rows(world, account_id)
        ],
        "invoices": [(status, total, paid) for _, _, _, status, total, paid in state["invoices"]],
    }


BOUGHT = {
    "available": 100,
    "purchased": {"total": 100, "used": 0, "remaining": 100},
    "lots": [PAID],
    "ledger": {"purchase": 100 * MICRO},
    "purchases": [("payment", "paid", 100 * MICRO, 100, True)],
    "invoices": [("paid", 100, 100)],
}
NOTHING = {
    "available": 0,
    "purchased": {"total": 0, "used": 0, "remaining": 0},
    "lots": [],
    "ledger": {},
    "invoices": [],
}


class TestDelivery:
    """Normal, duplicated, shuffled, delayed, failed and retried, or told by the customer's return: all the same."""

    @pytest.mark.parametrize("how", [*WAYS, "returned", "returned and duplicated"])
    def test_a_purchase(self, stripe: StripeWorld, acme: tuple[str, Api], how: str) -> None:
        account_id, api = acme
        session_id = begin(api)
        stripe.pay(session_id)
        if how.startswith("returned"):
            assert come_back(stripe, session_id).status_code == 200
            assert lots(stripe, account_id) == [PAID], "before any event"
        stripe.settle("duplicated" if "duplicated" in how else "normal" if how == "returned" else how)
        assert end(stripe, account_id) == BOUGHT
        assert come_back(stripe, session_id).status_code == 200
        assert end(stripe, account_id) == BOUGHT

    @pytest.mark.parametrize("how", [*WAYS, "returned"])
    def test_one_that_takes_days(self, stripe: StripeWorld, acme: tuple[str, Api], how: str) -> None:
        account_id, api = acme
        session_id = begin(api)
        stripe.pay(session_id, BANK)
        deliver = "normal" if how == "returned" else how
        if how == "returned":
            assert "on its way" in come_back(stripe, session_id).text
        stripe.deliver(deliver)
        assert lots(stripe, account_id) == [], "nothing before the money is there"
        if how not in ("delayed",):
            assert [one.status for one in rows(stripe, account_id)] == ["pending"]
        stripe.advance(days=5)
        if how == "returned":
            come_back(stripe, session_id)
            assert lots(stripe, account_id) == [PAID]
        stripe.settle(deliver)
        assert end(stripe, account_id) == BOUGHT

    @pytest.mark.parametrize("how", [*WAYS, "returned"])
    def test_one_that_fails_after_days(self, stripe: StripeWorld, acme: tuple[str, Api], how: str) -> None:
        account_id, api = acme
        session_id = begin(api)
        stripe.pay(session_id, BROKEN_BANK)
        deliver = "normal" if how == "returned" else how
        stripe.deliver(deliver)
        stripe.advance(days=5)
        if how == "returned":
            assert "failed" in come_back(stripe, session_id).text
        stripe.settle(deliver)
        assert end(stripe, account_id) == {**NOTHING, "purchases": [("payment", "failed", 100 * MICRO, 100, False)]}

    @pytest.mark.parametrize("how", WAYS)
    def test_one_that_nobody_pays(self, stripe: StripeWorld, acme: tuple[str, Api], how: str) -> None:
        account_id, api = acme
        session_id = begin(api)
        stripe.pay(session_id, "4000000000000002")
        assert "not finished" in come_back(stripe, session_id).text
        stripe.client.v1.checkout.sessions.expire(session_id)
        stripe.settle(how)
        assert end(stripe, account_id) == {**NOTHING, "purchases": [("payment", "expired", 100 * MICRO, 100, False)]}

    @pytest.mark.parametrize("how", [*WAYS, "returned"])
    def test_a_plan(self, stripe: StripeWorld, acme: tuple[str, Api], how: str) -> None:
        account_id, api = acme
        session_id = begin(api, tier="team", interval="month")
        stripe.pay(session_id)
        if how == "returned":
            come_back(stripe, session_id)
            assert stripe.balance(account_id)["plan"] == "team", "before any event"
        stripe.settle("normal" if how == "returned" else how)
        state = stripe.end_state(account_id)
        assert (state["balance"]["plan"], state["balance"]["available"]) == ("team", 5000)
        assert [(one.mode, one.status, one.amount) for one in rows(stripe, account_id)] == [
            ("subscription", "paid", 4900)
        ]
        assert lots(stripe, account_id) == []

    def test_two_purchases_are_two(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        account_id, api = acme
        for _ in range(2):
            stripe.pay(begin(api))
        stripe.settle("shuffled")
        assert lots(stripe, account_id) == [PAID, PAID]


FULFIL = """
import sys, time
from pathlib import Path
from app import create_app
from services.stripe import purchases, sync
app = create_app()
with app.app_context():
    apply = purchases.prepare(sys.argv[1])
    Path(sys.argv[2]).touch()
    while not Path(sys.argv[3]).exists():
        time.sleep(0.001)
    sync.run(apply)
"""


class TestAtOnce:
    def test_many_threads_and_processes_give_one_lot(
        self, stripe: StripeWorld, acme: tuple[str, Api], tmp_path: Path, clock_file: Path
    ) -> None:
        account_id, api = acme
        session_id = begin(api)
        stripe.pay(session_id)
        environ = servers.environment(
            tmp_path,
            stripe.app.config["SETTINGS"].database_url,
            SCHEDULER="off",
            STRIPE_SECRET_KEY=SECRET_KEY,
            STRIPE_API_BASE=stripe.sandbox.url,
            CLOCK_FILE=str(clock_file),
        )
        go = tmp_path / "go"
        ready = [tmp_path / f"ready-{number}" for number in range(3)]
        others = [
            subprocess.Popen([sys.executable, "-c", FULFIL, session_id, str(mark), str(go)], cwd=ROOT, env=environ)
            for mark in ready
        ]
        deadline = time.monotonic() + 240
        while not all(mark.exists() for mark in ready):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        go.touch()
        assert at_once(*[lambda: fulfil(stripe, session_id)] * 8) == [True] * 8
        assert [other.wait(240) for other in others] == [0, 0, 0]
        stripe.settle("duplicated")
        assert end(stripe, account_id) == BOUGHT

    def test_returns_and_events_at_once(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        account_id, api = acme
        session_id = begin(api)
        stripe.pay(session_id)
        told = stripe.waiting()
        calls: list[Any] = [lambda: come_back(stripe, session_id).status_code] * 4
        calls += [lambda one=one: stripe.post(one)[0] for one in told for _ in range(2)]
        assert set(at_once(*calls)) == {200}
        stripe.settle()
        assert end(stripe, account_id) == BOUGHT


class TestWhose:
    def paid(self, world: StripeWorld, account_id: str, **params: Any) -> str:
        session_id = world.checkout(account_id, "credit", 100, **params)
        world.pay(session_id)
        return session_id

    def test_a_session_we_lost_before_it_was_kept(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        """The process died between Stripe's answer and its own first write."""
        account_id, api = acme
        session_id = begin(api)
        with stripe.app.app_context(), database.transaction() as session:
            session.execute(delete(Purchase))
        stripe.pay(session_id)
        stripe.settle()
        assert end(stripe, account_id) == BOUGHT

    @pytest.mark.parametrize("metadata", [{}, {"product": "another"}, {"product": "spillway", "account": "acc_none"}])
    def test_sessions_of_others(self, stripe: StripeWorld, acme: tuple[str, Api], metadata: dict[str, str]) -> None:
        account_id, _ = acme
        metadata = {"account": account_id, **metadata}
        session_id = self.paid(stripe, account_id, metadata=metadata)
        assert inside(stripe, purchases.prepare, session_id) is None
        assert come_back(stripe, session_id).status_code == 404
        stripe.settle()
        assert bought(stripe, account_id) == 0
        assert rows(stripe, account_id) == []

    def test_a_session_that_names_somebody_elses_account(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        account_id, api = acme
        mallory, mallorys = tenant(stripe, "mallory")
        customer = mallorys.post("/stripe/customer").json["customer"]
        assert api.post("/stripe/customer").status == 200
        tags = {"product": "spillway", "account": account_id}
        session_id = self.paid(stripe, account_id, customer=customer, metadata=tags)
        assert come_back(stripe, session_id).status_code == 404
        stripe.settle()
        assert bought(stripe, account_id) == bought(stripe, mallory) == 0
        foreign = stripe.client.v1.customers.create(params={"name": "Foreign"}).id
        session_id = self.paid(stripe, account_id, customer=foreign, metadata=tags)
        assert not fulfil(stripe, session_id)

    def test_one_made_elsewhere_for_us(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        """By hand, under our tag: its prices' own metadata say how many credits."""
        account_id, _ = acme
        stripe.pay(stripe.checkout(account_id, "pack", 3))
        stripe.settle()
        assert lots(stripe, account_id) == [("purchased", 3000 * MICRO, 3000 * MICRO)]

    def test_one_of_very_many_lines(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        account_id, _ = acme
        line: Any = {"price": stripe.prices["credit"], "quantity": 1}
        stripe.pay(stripe.checkout(account_id, "credit", line_items=[line] * 25))
        stripe.settle()
        assert bought(stripe, account_id) == 25 * MICRO

    def test_a_foreign_product_gives_no_credits_whatever_its_price_says(
        self, stripe: StripeWorld, acme: tuple[str, Api], caplog: pytest.LogCaptureFixture
    ) -> None:
        account_id, _ = acme
        product = stripe.client.v1.products.create(params={"name": "Shirt"}).id
        price = stripe.client.v1.prices.create(
            params={
                "product": product,
                "currency": "usd",
                "unit_amount": 2000,
                "metadata": {"price_type": "credit", "credits": "1000000"},
            }
        ).id
        session_id = stripe.checkout(account_id, price)
        stripe.pay(session_id)
        assert fulfil(stripe, session_id)
        assert bought(stripe, account_id) == 0
        assert [one.status for one in rows(stripe, account_id)] == ["paid"]
        assert "nothing says how many credits" in caplog.text

    def test_what_was_promised_counts_not_what_the_price_says_now(
        self, stripe: StripeWorld, acme: tuple[str, Api]
    ) -> None:
        account_id, api = acme
        session_id = begin(api, price=stripe.prices["pack"])
        stripe.client.v1.prices.update(stripe.prices["pack"], params={"metadata": {"credits": "1"}, "active": False})
        stripe.pay(session_id)
        stripe.settle()
        assert lots(stripe, account_id) == [("purchased", 1000 * MICRO, 1000 * MICRO)]

    def test_a_closed_account_gets_what_it_paid_for(
        self, stripe: StripeWorld, acme: tuple[str, Api], operator: Api
    ) -> None:
        account_id, api = acme
        session_id = begin(api)
        assert operator.post("/accounts/acme/close", {"reason": "gone"}).status == 200
        stripe.pay(session_id)
        stripe.settle()
        assert end(stripe, account_id) == BOUGHT

    @pytest.mark.settings(settle_unfunded=True)
    def test_it_settles_what_was_used_without_credits(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        account_id, api = acme
        assert api.post("/usage", {"credits": 30, "enforce": False}).status == 201
        stripe.pay(begin(api))
        stripe.settle("duplicated")
        state = stripe.end_state(account_id)
        assert (state["balance"]["available"], state["balance"]["unfunded"]) == (70, 0)
        assert state["ledger"] == {
            ("purchase", "purchased"): 100 * MICRO,
            ("settle", "purchased"): -30 * MICRO,
            **{key: value for key, value in state["ledger"].items() if key[1] != "purchased"},
        }


class TestPrices:
    """What is asked for, and what comes of it, for prices of every kind."""

    @pytest.mark.parametrize(
        ("price", "credits", "amount"),
        [
            ({"unit_amount": 1}, 29, 29),
            ({"unit_amount_decimal": "0.5"}, 29, 15),
            ({"unit_amount_decimal": "0.0375"}, 1000, 38),
            ({"unit_amount": 7, "currency": "jpy"}, 29, 203),
            ({"unit_amount": 25, "currency": "kwd"}, 100, 2500),
            ({"unit_amount": 500, "transform_quantity": {"divide_by": 1000, "round": "up"}}, 1001, 1000),
            ({"unit_amount": 500, "transform_quantity": {"divide_by": 1000, "round": "down"}}, 1999, 500),
        ],
    )
    def test_amounts_are_stripes(self, stripe: StripeWorld, price: dict[str, Any], credits: int, amount: int) -> None:
        stripe.seed({"unusual": {**price, "metadata": {"price_type": "credit"}}})
        account_id, api = tenant(stripe)
        session_id = begin(api, credits=credits)
        [row] = rows(stripe, account_id)
        assert row.amount == amount
        stripe.pay(session_id)
        stripe.settle()
        assert lots(stripe, account_id) == [("purchased", credits * MICRO, credits * MICRO)]
        [paid] = rows(stripe, account_id)
        assert (paid.amount, paid.currency) == (amount, price.get("currency", "usd"))

    def test_parts_of_a_credit(self, stripe: StripeWorld) -> None:
        stripe.seed({"parts": {"unit_amount": 3, "metadata": {"price_type": "credit", "credits_per_unit": "0.25"}}})
        account_id, api = tenant(stripe)
        session_id = begin(api, credits="10.75")
        assert rows(stripe, account_id)[0].amount == 43 * 3
        stripe.pay(session_id)
        stripe.settle()
        assert bought(stripe, account_id) == 10_750_000

    def test_what_costs_nothing_is_no_less_bought(self, stripe: StripeWorld) -> None:
        """As after a discount of everything: no payment is required."""
        stripe.seed({"welcome": {"unit_amount": 0, "metadata": {"price_type": "credit", "credits": "100"}}})
        account_id, api = tenant(stripe)
        session_id = begin(api, price=stripe.prices["welcome"])
        stripe.pay(session_id, None)
        found = stripe.client.v1.checkout.sessions.retrieve(session_id)
        assert found.payment_status == "no_payment_required"
        stripe.settle("duplicated")
        assert lots(stripe, account_id) == [PAID]

    def test_a_trial_is_paid_by_nothing_and_counts(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        account_id, _ = acme
        stripe.subscribe(account_id, trial_days=7)
        stripe.settle()
        assert [one.status for one in rows(stripe, account_id)] == ["paid"]
        assert stripe.balance(account_id)["available"] == 5000


class TestFaults:
    @pytest.mark.parametrize("kind", ["error", "rate_limit", "malformed"])
    def test_a_return_while_stripe_is_down_loses_nothing(
        self, stripe: StripeWorld, acme: tuple[str, Api], kind: str
    ) -> None:
        account_id, api = acme
        session_id = begin(api)
        stripe.pay(session_id)
        stripe.sandbox.control.fault(kind, times=0)
        answer = come_back(stripe, session_id)
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert "come by themselves" in answer.text
        assert [one.status for one in rows(stripe, account_id)] == ["open"]
        stripe.sandbox.control.clear_faults()
        stripe.settle()
        assert end(stripe, account_id) == BOUGHT

    def test_an_older_answer_changes_nothing(self, stripe: StripeWorld, acme: tuple[str, Api]) -> None:
        """Asked while it was open, written after it was paid."""
        account_id, api = acme
        session_id = begin(api)
        with stripe.app.app_context():
            before = purchases.prepare(session_id)
        stripe.pay(session_id)
        assert fulfil(stripe, session_id)
        inside(stripe, sync.run, before)
        stripe.settle()
        assert end(stripe, account_id) == BOUGHT
        assert inside(stripe, verify.verify).differences == []


def test_the_ledger_says_what_bought_it(stripe: StripeWorld, acme: tuple[str, Api]) -> None:
    account_id, api = acme
    stripe.pay(begin(api))
    stripe.settle()
    [entry] = [one for one in api.get("/ledger").json["data"] if one["reason"] == "purchase"]
    [listed] = api.get("/purchases").json["data"]
    assert entry["cause"] == {"type": "purchase", "id": listed["id"]}
    assert (entry["lot"], entry["change"]) == (listed["lot"], 100)
    assert listed["invoice"].startswith("in_") and listed["paid_at"]
    assert factories.account(stripe.app, "other") != account_id


def test_the_operators_product_is_told_once(stripe: StripeWorld, acme: tuple[str, Api]) -> None:
    account_id, api = acme
    inside(stripe, outgoing.add, "https://product.example/")
    session_id = begin(api)
    stripe.pay(session_id)
    come_back(stripe, session_id)
    stripe.settle("duplicated")
    [(_, event, _)] = inside(stripe, outgoing.log)
    told = json.loads(event.payload)
    assert (told["type"], told["account"], told["data"]["credits"]) == ("credits.purchased", account_id, 100)
    assert told["data"]["balance"]["available"] == 100
