"""Random histories of one account against the reference model, on both databases, through the HTTP API."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import simplejson
from flask import Flask
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

import database
from models.account import Account as Kept
from services import agreed, tokens, verify
from services.agreed import Overage
from services.overages import Terms
from tests.reference_model import KINDS, Cap, Hold, Model, Record

MICRO = 1_000_000
_A_CENT = Terms("price_1", "usd", Decimal(1), MICRO).to_json()
_AMOUNTS = st.one_of(
    st.integers(0, 60 * MICRO),
    st.sampled_from([0, 1, MICRO, 10 * MICRO, 25 * MICRO, 100 * MICRO, 100 * MICRO + 1]),
)
_POSITIVE = _AMOUNTS.filter(bool)
_SUBJECTS = st.sampled_from([None, "one", "other"])
_CAPS = st.lists(
    st.builds(
        Cap,
        scope=st.just("subject"),
        key=_SUBJECTS,
        window=st.sampled_from(["day", "period"]),
        credits=st.integers(0, 80 * MICRO),
    )
    | st.builds(
        Cap,
        scope=st.just("account"),
        key=st.none(),
        window=st.sampled_from(["day", "period"]),
        credits=st.integers(0, 200 * MICRO),
    ),
    max_size=3,
    unique_by=lambda cap: (cap.scope, cap.key, cap.window),
)
_numbers = itertools.count()


def some_credits(micros: int) -> Decimal:
    return Decimal(micros) / MICRO


def machine(app: Flask, clock_file: Path) -> type[RuleBasedStateMachine]:
    with app.app_context():
        _, secret = tokens.create(account_id=None, name="model", scopes=["read", "write", "billing", "admin"])
    client = app.test_client()

    def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else simplejson.dumps(body, use_decimal=True)
        response = client.open(
            f"/api/v1{path}",
            method=method,
            data=data,
            content_type="application/json" if data else None,
            headers={"Authorization": f"Bearer {secret}"},
        )
        return response.status_code, simplejson.loads(response.data, use_decimal=True)

    class Account(RuleBasedStateMachine):
        @initialize()
        def sign_up(self) -> None:
            self.ref = f"model-{next(_numbers)}"
            now = self.read_clock()
            status, _ = call("POST", "/accounts", {"external_id": self.ref, "name": "Model"})
            assert status == 201
            self.model = Model(created=now, now=now, anchor=now)
            self.model.issue("granted", 100 * MICRO, None, "signup")
            self.record_ids: dict[int, str] = {}
            self.hold_ids: dict[int, str] = {}
            self.replays: list[tuple[str, dict[str, Any], Any]] = []

        def read_clock(self) -> datetime:
            return datetime.fromisoformat(clock_file.read_text())

        def settle(self) -> None:
            self.model.settle(self.read_clock())

        def check_record(self, status: int, body: Any, record: Record | str) -> None:
            if isinstance(record, str):
                self.check_refusal(status, body, record)
                return
            assert status == 201, body
            assert body["credits"] == some_credits(record.charged)
            for kind in KINDS:
                assert body["consumed"][kind] == some_credits(record.parts[kind])
            assert body["consumed"]["overage"] == some_credits(record.overage)
            assert body["consumed"]["unfunded"] == some_credits(record.unfunded)
            self.check_short(body["balance"])
            self.record_ids[id(record)] = body["id"]

        def check_refusal(self, status: int, body: Any, code: str) -> None:
            assert (status, body["code"]) == (402, code)
            if code == "insufficient_credits":
                assert body["available"] == some_credits(self.model.available())

        def check_short(self, balance: Any) -> None:
            assert balance["available"] == some_credits(self.model.available())
            assert balance["held"] == some_credits(self.model.held())
            for kind in KINDS:
                assert balance[kind] == some_credits(self.model.remaining(kind))

        @rule(seconds=st.one_of(st.integers(1, 7200), st.integers(1, 45 * 86400)))
        def time_passes(self, seconds: int) -> None:
            moment = self.read_clock() + timedelta(seconds=seconds)
            clock_file.write_text(moment.isoformat())

        @rule(amount=_POSITIVE, days=st.one_of(st.none(), st.integers(1, 40)))
        def grant(self, amount: int, days: int | None) -> None:
            self.settle()
            expires = self.model.now + timedelta(days=days) if days else None
            body = {"credits": some_credits(amount), "reason": "model"}
            if expires:
                body["expires_at"] = expires.isoformat()
            status, answer = call("POST", f"/accounts/{self.ref}/grants", body)
            assert status == 201, answer
            self.model.issue("granted", amount, expires, "grant")
            self.check_short(answer["balance"])

        @rule(amount=_AMOUNTS, enforce=st.booleans(), subject=_SUBJECTS)
        def use(self, amount: int, enforce: bool, subject: str | None) -> None:
            self.settle()
            key = f"key-{next(_numbers)}"
            body = {
                "account": self.ref,
                "credits": some_credits(amount),
                "enforce": enforce,
                "subject": subject,
                "idempotency_key": key,
            }
            status, answer = call("POST", "/usage", body)
            record = self.model.use(amount, enforce, subject)
            self.check_record(status, answer, record)
            if isinstance(record, Record):
                self.replays.append(("/usage", body, answer))

        @rule(amounts=st.lists(_AMOUNTS, min_size=1, max_size=5), subject=_SUBJECTS)
        def batch(self, amounts: list[int], subject: str | None) -> None:
            self.settle()
            records = [{"account": self.ref, "credits": some_credits(amount), "subject": subject} for amount in amounts]
            status, answer = call("POST", "/usage/batch", {"records": records})
            assert status == 200
            accepted = 0
            for amount, result in zip(amounts, answer["results"], strict=True):
                record = self.model.use(amount, True, subject)
                accepted += isinstance(record, Record)
                self.check_record(result["status"], result.get("record") or result.get("error"), record)
            assert (answer["accepted"], answer["refused"]) == (accepted, len(amounts) - accepted)

        @rule(amount=_POSITIVE, ttl=st.integers(1, 86400), subject=_SUBJECTS)
        def hold(self, amount: int, ttl: int, subject: str | None) -> None:
            self.settle()
            body = {"account": self.ref, "credits": some_credits(amount), "ttl_seconds": ttl, "subject": subject}
            status, answer = call("POST", "/holds", body)
            hold = self.model.hold(amount, self.model.now + timedelta(seconds=ttl), subject)
            if isinstance(hold, str):
                self.check_refusal(status, answer, hold)
                return
            assert status == 201, answer
            self.hold_ids[id(hold)] = answer["id"]
            self.check_short(answer["balance"])

        @precondition(lambda self: self.model.holds)
        @rule(pick=st.integers(0), amount=st.one_of(st.none(), _AMOUNTS))
        def capture(self, pick: int, amount: int | None) -> None:
            self.settle()
            hold: Hold = self.model.holds[pick % len(self.model.holds)]
            body = {} if amount is None else {"credits": some_credits(amount)}
            status, answer = call("POST", f"/holds/{self.hold_ids[id(hold)]}/capture", body)
            record = self.model.capture(hold, amount)
            if record is None:
                assert status == 409 and answer["code"] == "hold_not_open"
            else:
                self.check_record(status, answer, record)

        @precondition(lambda self: self.model.holds)
        @rule(pick=st.integers(0))
        def release(self, pick: int) -> None:
            self.settle()
            hold = self.model.holds[pick % len(self.model.holds)]
            status, answer = call("POST", f"/holds/{self.hold_ids[id(hold)]}/release")
            if hold.state == "captured":
                assert status == 409 and answer["code"] == "hold_not_open"
                return
            hold.state = "released" if hold.state == "open" else hold.state
            assert (status, answer["state"]) == (200, hold.state)

        @precondition(lambda self: self.model.records)
        @rule(pick=st.integers(0))
        def void(self, pick: int) -> None:
            self.settle()
            record = self.model.records[pick % len(self.model.records)]
            path = f"/usage/records/{self.record_ids[id(record)]}/void"
            status, answer = call("POST", path, {"reason": "model"})
            if self.model.void(record):
                assert status == 200 and answer["voided_at"]
            else:
                assert status == 409 and answer["code"] == "already_voided"

        @precondition(lambda self: self.replays)
        @rule(pick=st.integers(0))
        def replay(self, pick: int) -> None:
            self.settle()
            path, body, first = self.replays[pick % len(self.replays)]
            assert call("POST", path, body) == (200, first)
            status, answer = call("POST", path, body | {"subject": "yet another"})
            assert status == 409 and answer["differs"] == ["subject"]

        @rule(included=st.sampled_from([0, 10 * MICRO, 25_500_000]))
        def plan(self, included: int) -> None:
            self.settle()
            body = {"tier": "model", "included_credits": some_credits(included)}
            status, answer = call("POST", f"/accounts/{self.ref}/plan", body)
            assert status == 200, answer
            self.model.plan(included)

        @rule(caps=_CAPS)
        def cap(self, caps: list[Cap]) -> None:
            self.settle()
            told = [
                {"scope": cap.scope, "key": cap.key, "window": cap.window, "credits": some_credits(cap.credits)}
                for cap in caps
            ]
            status, answer = call("PUT", "/controls", {"account": self.ref, "caps": told})
            assert status == 200, answer
            self.model.caps = caps

        @rule(credits=st.integers(0, 150))
        def agree(self, credits: int) -> None:
            """As a subscription of Stripe's would let it: overage at a cent a credit, up to so many."""
            self.settle()
            with app.app_context(), database.transaction() as session:
                account = session.scalars(select(Kept).where(Kept.external_id == self.ref)).one()
                controls = replace(agreed.of(account.controls), overage=Overage(True, credits))
                account.controls, account.overage_terms = controls.to_json(), _A_CENT
            self.model.agreed = credits * MICRO

        @rule(amount=_POSITIVE, subject=_SUBJECTS)
        def check(self, amount: int, subject: str | None) -> None:
            self.settle()
            status, answer = call(
                "POST", "/check", {"account": self.ref, "credits": some_credits(amount), "subject": subject}
            )
            assert (status, answer["code"]) == (200, self.model.refusal(amount, subject))

        @rule()
        def reset(self) -> None:
            self.settle()
            status, answer = call("POST", f"/accounts/{self.ref}/reset-limit", {"reason": "model"})
            if self.model.reset():
                assert status == 200
            else:
                assert status == 409 and answer["code"] == "no_allowance"

        @invariant()
        def agrees(self) -> None:
            if not hasattr(self, "model"):
                return
            self.settle()
            status, balance = call("GET", f"/balance?account={self.ref}")
            model = self.model
            assert status == 200
            assert balance["available"] == some_credits(model.available())
            assert balance["held"] == some_credits(model.held())
            assert balance["overage"]["used"] == some_credits(model.overage)
            assert balance["unfunded"] == some_credits(model.unfunded)
            assert datetime.fromisoformat(balance["period"]["start"]) == model.start
            assert datetime.fromisoformat(balance["period"]["end"]) == model.end
            for kind, name in (("allowance", "included"), ("purchased", "total"), ("granted", "total")):
                shown = balance[kind]
                told = tuple(some_credits(part) for part in model.totals(kind))
                assert (shown[name], shown["used"], shown["remaining"]) == told, kind

        def teardown(self) -> None:
            if not hasattr(self, "model"):
                return
            entries, cursor = [], ""
            while cursor is not None:
                _, page = call("GET", f"/ledger?account={self.ref}&limit=200" + (f"&cursor={cursor}" if cursor else ""))
                entries += page["data"]
                cursor = page["next_cursor"]
            shown = [(entry["reason"], entry["kind"], int(entry["change"] * MICRO)) for entry in reversed(entries)]
            assert shown == self.model.entries
            assert sum(change for _, _, change in shown) == self.model.remaining()

    return Account


@pytest.mark.parametrize("block", range(3))
def test_random_histories_agree_with_the_model(request: pytest.FixtureRequest, app: Flask, at: Any, block: int) -> None:
    """Other histories on each database and in each block; and all others with `--hypothesis-seed=…`."""
    at("2026-01-31T10:00:00Z")
    clock_file = app.config["SETTINGS"].clock_file
    clock_file.write_text(datetime(2026, 1, 31, 10, tzinfo=UTC).isoformat())
    quick = settings(
        max_examples=12,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
        database=None,
        derandomize=False,
    )
    chosen = f"{request.config.getoption('hypothesis_seed')} {request.node.name}"
    run_state_machine_as_test(seed(chosen)(machine(app, clock_file)), settings=quick)
    with app.app_context():
        report = verify.verify()
    assert report.accounts >= 12 and report.differences == []
