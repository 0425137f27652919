"""Statements add up: opening and every change make the closing balance, in every range, to the last digit."""

from __future__ import annotations

import csv
import io
import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings

from amounts import MICRO
from services import statements
from tests import factories
from tests.api.helpers import (
    NO_SIGNUP,
    account_api,
    balance,
    books,
    grant,
    hold,
    invalid,
    open_account,
    refused,
    set_plan,
    use,
)
from tests.factories import Api
from tests.moments import At

KINDS = ("allowance", "purchased", "granted")
COLUMNS = "created_at,entry,lot,kind,reason,cause_type,cause_id,change,balance_after"


def statement(api: Api, month: str, ref: str = "acme") -> Any:
    answer = api.get(f"/statement?account={ref}&month={month}")
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json


def table(api: Api, month: str, ref: str = "acme") -> list[dict[str, str]]:
    answer = api.get(f"/statement.csv?account={ref}&month={month}")
    assert answer.status == 200, answer
    assert answer.text.partition("\r\n")[0] == COLUMNS
    return list(csv.DictReader(io.StringIO(answer.text)))


def whole_ledger(api: Api, ref: str = "acme") -> list[Any]:
    """Oldest first."""
    found, cursor = [], ""
    while cursor is not None:
        page = api.get(f"/ledger?account={ref}&limit=200{cursor and '&cursor=' + cursor}").json
        found += page["data"]
        cursor = page["next_cursor"]
    return found[::-1]


def adds_up(told: Any) -> None:
    """The statement by itself: every sum that can be made of it."""
    running = told["opening_balance"]
    kinds = {kind: told["by_kind"][kind]["opening_balance"] for kind in KINDS}
    assert sum(kinds.values()) == running
    for entry in told["entries"]:
        running += entry["change"]
        kinds[entry["kind"]] += entry["change"]
        assert entry["balance_after"] == running
    assert told["closing_balance"] == running
    for kind in KINDS:
        of_kind = told["by_kind"][kind]
        assert of_kind["closing_balance"] == kinds[kind]
        assert of_kind["opening_balance"] + of_kind["change"] == of_kind["closing_balance"]
    assert told["unfunded"] >= 0 and told["overage"] == 0 and told["debt"] == 0


def test_a_month_from_opening_to_closing(app: Flask, operator: Api, at: At) -> None:
    at("2026-11-03T10:00:00Z")
    open_account(operator, credits=50)
    used = use(operator, "30.000001").json["id"]
    at("2026-12-05T00:00:00Z")
    use(operator, "20.5")

    november, december = statement(operator, "2026-11"), statement(operator, "2026-12")
    for told in (november, december):
        adds_up(told)
    assert november["opening_balance"] == 0
    assert november["closing_balance"] == december["opening_balance"] == Decimal("119.999999")
    assert december["closing_balance"] == Decimal("99.499999") == balance(operator)["available"]
    assert november["by_kind"]["granted"] == {
        "opening_balance": 0,
        "change": Decimal("119.999999"),
        "closing_balance": Decimal("119.999999"),
    }
    assert november["by_kind"]["allowance"] == {"opening_balance": 0, "change": 0, "closing_balance": 0}
    assert november["month"] == "2026-11"
    assert november["period"] == {"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}
    assert [entry["reason"] for entry in november["entries"]] == ["signup", "grant", "usage"], "in order"
    assert november["entries"] + december["entries"] == whole_ledger(operator)
    assert november["entries"][-1]["cause"] == {"type": "usage", "id": used}


def test_the_running_month_is_the_default(app: Flask, operator: Api, at: At) -> None:
    at("2026-12-31T23:59:59.999999Z")
    open_account(operator)
    assert operator.get("/statement?account=acme").json == statement(operator, "2026-12")
    at("2027-01-01T00:00:00Z")
    told = operator.get("/statement?account=acme").json
    assert (told["month"], told["opening_balance"], told["entries"]) == ("2027-01", 100, [])


def test_an_entry_of_the_first_instant_is_the_new_months(app: Flask, operator: Api, at: At) -> None:
    at("2026-11-30T23:59:59.999999Z")
    open_account(operator)
    at("2026-12-01T00:00:00Z")
    use(operator, 1)
    assert [entry["reason"] for entry in statement(operator, "2026-11")["entries"]] == ["signup"]
    assert [entry["reason"] for entry in statement(operator, "2026-12")["entries"]] == ["usage"]


def test_an_expiry_is_in_the_month_in_which_it_fell_due(app: Flask, operator: Api, at: At) -> None:
    at("2026-11-03T10:00:00Z")
    open_account(operator)
    grant(operator, "acme", 7, expires_at="2026-11-30T23:59:59Z")
    grant(operator, "acme", 5, expires_at="2026-12-01T00:00:00Z")
    at("2027-02-05T00:00:00Z")
    november, december = statement(operator, "2026-11"), statement(operator, "2026-12")
    assert [(entry["change"], entry["created_at"]) for entry in november["entries"][3:]] == [
        (-7, "2026-11-30T23:59:59Z")
    ], "the statement itself writes what is due"
    assert [(entry["change"], entry["created_at"]) for entry in december["entries"]] == [(-5, "2026-12-01T00:00:00Z")]
    assert (november["closing_balance"], december["closing_balance"]) == (105, 100)
    for month in ("2026-11", "2026-12", "2027-01", "2027-02"):
        adds_up(statement(operator, month))


@pytest.mark.settings(settle_unfunded=True)
def test_unfunded_is_told_apart_until_it_is_settled_or_voided(app: Flask, operator: Api, at: At) -> None:
    at("2026-11-03T10:00:00Z")
    open_account(operator)
    use(operator, 130, enforce=False)
    use(operator, 5, enforce=False)
    at("2026-12-03T10:00:00Z")
    voided = use(operator, 4, enforce=False).json["id"]
    assert [statement(operator, month)["unfunded"] for month in ("2026-11", "2026-12")] == [35, 4]
    assert statement(operator, "2026-11")["closing_balance"] == 0, "it is in no balance"
    grant(operator, "acme", 32)
    operator.post(f"/usage/records/{voided}/void", {"reason": "x"})
    told = [statement(operator, month) for month in ("2026-11", "2026-12")]
    assert [month["unfunded"] for month in told] == [3, 0]
    assert sum(month["unfunded"] for month in told) == balance(operator)["unfunded"]
    assert [(e["reason"], e["change"]) for e in told[1]["entries"]] == [("grant", 32), ("settle", -30), ("settle", -2)]
    for month in told:
        adds_up(month)


def test_a_month_before_the_account_and_one_to_come(app: Flask, operator: Api, at: At) -> None:
    open_account(operator)
    early, late = statement(operator, "1970-01"), statement(operator, "9998-12")
    assert (early["opening_balance"], early["closing_balance"], early["entries"]) == (0, 0, [])
    assert (late["opening_balance"], late["closing_balance"], late["entries"]) == (100, 100, [])


def test_a_clock_that_was_set_back_loses_nothing(app: Flask, operator: Api, at: At) -> None:
    at("2026-12-03T10:00:00Z")
    open_account(operator)
    use(operator, 1)
    at("2026-11-28T10:00:00Z")
    grant(operator, "acme", 10, expires_at="2028-01-01T00:00:00Z")
    set_plan(operator, "acme", included_credits=20)
    use(operator, 2)
    at("2026-12-04T10:00:00Z")
    use(operator, 3)
    months = [statement(operator, month) for month in ("2026-10", "2026-11", "2026-12", "2027-01")]
    for told in months:
        adds_up(told)
    assert [entry for told in months for entry in told["entries"]] == whole_ledger(operator)
    for earlier, later in itertools.pairwise(months):
        assert earlier["closing_balance"] == later["opening_balance"]


def test_a_clock_that_was_set_back_by_months_loses_nothing(app: Flask, operator: Api, at: At) -> None:
    for moment in ("2026-11-15", "2026-10-20", "2026-12-03", "2026-08-28", "2026-11-02", "2027-01-01"):
        at(f"{moment}T00:00:00Z")
        if moment == "2026-11-15":
            open_account(operator)
            set_plan(operator, "acme", included_credits=20)
        grant(operator, "acme", 2, expires_at="2029-01-01T00:00:00Z")
        for _ in range(3):
            use(operator, 5)
    months = [statement(operator, month) for month in months_between("2026-07", at.forward(days=31))]
    for told in months:
        adds_up(told)
    assert [entry for told in months for entry in told["entries"]] == whole_ledger(operator)
    for earlier, later in itertools.pairwise(months):
        assert earlier["closing_balance"] == later["opening_balance"]


def test_what_is_written_later_moves_no_statement(app: Flask, operator: Api, at: At) -> None:
    """Neighbours that are drawn up at different times meet, also where the clock was set back for some entries."""
    at("2026-12-02T00:00:00Z")
    open_account(operator)
    use(operator, 1)
    at("2026-11-20T00:00:00Z")
    for _ in range(5):
        use(operator, 2)
    at("2026-12-03T00:00:00Z")
    november = statement(operator, "2026-11")
    for day in range(40):
        use(operator, 1)
        later, december = statement(operator, "2026-11"), statement(operator, "2026-12")
        assert later["entries"] == november["entries"] and later["by_kind"] == november["by_kind"]
        assert december["opening_balance"] == november["closing_balance"]
        assert len(november["entries"]) + len(december["entries"]) == 7 + min(day + 1, 29)
        at.forward(days=1)


@NO_SIGNUP
def test_an_account_without_entries(app: Flask, operator: Api, at: At) -> None:
    open_account(operator)
    for _ in range(2):
        told = statement(operator, "2026-11")
        adds_up(told)
        assert (told["opening_balance"], told["closing_balance"], told["entries"]) == (0, 0, [])
        use(operator, 0)  # takes a number of the ledger's


def test_many_entries_of_the_first_instant(app: Flask, operator: Api, at: At) -> None:
    """Of several kinds, in one moment on either side of the edge."""
    at("2026-11-30T23:59:59.999999Z")
    open_account(operator, included_credits=10)
    batch = {"account": "acme", "records": [{"credits": "1.5"} for _ in range(10)]}
    for moment in ("2026-11-30T23:59:59.999999Z", "2026-12-01T00:00:00Z"):
        at(moment)
        assert operator.post("/usage/batch", batch).json["accepted"] == 10
    november, december = statement(operator, "2026-11"), statement(operator, "2026-12")
    for told in (november, december):
        adds_up(told)
    assert {entry["created_at"] for entry in december["entries"]} == {"2026-12-01T00:00:00Z"}
    assert november["entries"] + december["entries"] == whole_ledger(operator)
    assert [december["by_kind"][kind]["opening_balance"] for kind in KINDS] == [0, 0, 95]
    assert [december["by_kind"][kind]["closing_balance"] for kind in KINDS] == [0, 0, 80]


def test_the_table_says_the_same(app: Flask, operator: Api, at: At) -> None:
    at("2026-11-03T10:00:00.000001Z")
    open_account(operator, included_credits=20)
    used = use(operator, "21.000001").json["id"]
    told, rows = statement(operator, "2026-11"), table(operator, "2026-11")
    assert [[row[name] for name in ("entry", "lot", "kind", "reason", "created_at")] for row in rows] == [
        [entry[name] for name in ("id", "lot", "kind", "reason", "created_at")] for entry in told["entries"]
    ]
    assert [(Decimal(row["change"]), Decimal(row["balance_after"])) for row in rows] == [
        (entry["change"], entry["balance_after"]) for entry in told["entries"]
    ]
    assert rows[-1] == {
        "created_at": "2026-11-03T10:00:00.000001Z",
        "entry": told["entries"][-1]["id"],
        "lot": told["entries"][0]["lot"],
        "kind": "granted",
        "reason": "usage",
        "cause_type": "usage",
        "cause_id": used,
        "change": "-1.000001",
        "balance_after": "98.999999",
    }
    answer = operator.get("/statement.csv?account=acme&month=2026-11")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="statement-2026-11.csv"'
    assert operator.get("/statement.csv?account=acme&month=2026-10").text == COLUMNS + "\r\n"


def test_thousands_of_entries_are_all_there(app: Flask, operator: Api, at: At) -> None:
    open_account(operator, credits=5000)
    for _ in range(3):
        batch = {"account": "acme", "records": [{"credits": "0.000001"} for _ in range(1000)]}
        assert operator.post("/usage/batch", batch).json["accepted"] == 1000
    told = statement(operator, "2026-11")
    adds_up(told)
    assert len(told["entries"]) == len(table(operator, "2026-11")) == 3002
    assert told["closing_balance"] == Decimal("5099.997")


@pytest.mark.parametrize("path", ["/statement", "/statement.csv"])
class TestAsking:
    @pytest.mark.parametrize(
        "month", ["2026-13", "2026-00", "2026", "2026-1", "2026-011", "0000-01", "1969-12", "9999-12", "x", "٢٠٢٦-١١"]
    )
    def test_a_month_that_is_none(self, service: Api, path: str, month: str) -> None:
        open_account(service)
        invalid(service.get(f"{path}?account=acme&month={month}"), "month")

    def test_a_parameter_that_is_none(self, service: Api, path: str) -> None:
        open_account(service)
        invalid(service.get(f"{path}?account=acme&limit=5"), "limit")
        invalid(service.get(path), "account")

    def test_an_account_sees_its_own(self, service: Api, path: str) -> None:
        acme, other = open_account(service), open_account(service, "other", credits=3)
        tenant = account_api(service, acme, "read")
        as_of = service.get(f"{path}?account=acme").text.partition('"as_of"')[0]
        assert tenant.get(path).text.startswith(as_of)
        for ref in ("other", other, "nobody"):
            refused(tenant.get(f"{path}?account={ref}"), 403, "forbidden")
        refused(service.get(f"{path}?account=nobody"), 404, "account_not_found")
        refused(account_api(service, acme, "write").get(path), 403, "missing_scope", scope="read")


# Random histories

_AMOUNTS = st.one_of(st.integers(1, 60 * MICRO), st.sampled_from([1, MICRO, 100 * MICRO]))
_PICKS = st.integers(0, 99)
_ACTIONS = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 40 * 86400)),
    st.tuples(st.just("wait"), st.integers(1, 40 * 86400)),
    st.tuples(st.just("grant"), _AMOUNTS, st.one_of(st.none(), st.integers(1, 60))),
    st.tuples(st.just("use"), _AMOUNTS, st.booleans()),
    st.tuples(st.just("use"), _AMOUNTS, st.booleans()),
    st.tuples(st.just("batch"), st.lists(_AMOUNTS, min_size=1, max_size=4)),
    st.tuples(st.just("capture"), _AMOUNTS, st.integers(0, 120)),
    st.tuples(st.just("void"), _PICKS),
    st.tuples(st.just("plan"), st.sampled_from([0, 10 * MICRO, 25_500_000])),
    st.tuples(st.just("reset")),
)
_names = itertools.count()


def credits_of(micros: int) -> Decimal:
    return Decimal(micros) / MICRO


class History:
    """One account, and what was done to it."""

    def __init__(self, api: Api, at: At) -> None:
        self.api, self.at, self.ref = api, at, f"random-{next(_names)}"
        self.records: list[str] = []
        open_account(api, self.ref)

    def live(self, action: tuple[Any, ...]) -> None:
        getattr(self, action[0])(*action[1:])

    def wait(self, seconds: int) -> None:
        self.at.forward(seconds=seconds, microseconds=1)

    def grant(self, amount: int, days: int | None) -> None:
        more = {"expires_at": (self.at.forward() + timedelta(days=days)).isoformat()} if days else {}
        grant(self.api, self.ref, credits_of(amount), **more)

    def use(self, amount: int, enforce: bool) -> None:
        body = {"account": self.ref, "credits": credits_of(amount), "enforce": enforce}
        self.keep(self.api.post("/usage", body).json)

    def batch(self, amounts: list[int]) -> None:
        records = [{"credits": credits_of(amount)} for amount in amounts]
        for result in self.api.post("/usage/batch", {"account": self.ref, "records": records}).json["results"]:
            self.keep(result.get("record", {}))

    def capture(self, amount: int, seconds: int) -> None:
        made = self.api.post("/holds", {"account": self.ref, "credits": 1, "ttl_seconds": 60})
        if made.status == 201:
            self.wait(seconds)
            self.keep(self.api.post(f"/holds/{made.json['id']}/capture", {"credits": credits_of(amount)}).json)

    def keep(self, record: Any) -> None:
        if "id" in record:
            self.records.append(record["id"])

    def void(self, pick: int) -> None:
        if self.records:
            self.api.post(f"/usage/records/{self.records[pick % len(self.records)]}/void", {"reason": "x"})

    def plan(self, included: int) -> None:
        set_plan(self.api, self.ref, included_credits=credits_of(included))

    def reset(self) -> None:
        self.api.post(f"/accounts/{self.ref}/reset-limit", {"reason": "x"})


def months_between(first: str, now: datetime) -> list[str]:
    year, month = int(first[:4]), int(first[5:7])
    listed = []
    while (year, month) <= (now.year, now.month):
        listed.append(f"{year:04}-{month:02}")
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return listed


def moment_of(entry: Any) -> datetime:
    return datetime.fromisoformat(entry["created_at"])


@pytest.mark.settings(settle_unfunded=True)
def test_every_range_of_a_random_history_adds_up(app: Flask, operator: Api, at: At) -> None:
    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],  # to find the smallest history takes minutes
        database=None,
    )
    @given(actions=st.lists(_ACTIONS, max_size=25), picks=st.lists(st.tuples(_PICKS, _PICKS), min_size=3, max_size=3))
    def lives(actions: list[tuple[Any, ...]], picks: list[tuple[int, int]]) -> None:
        began = at.forward(seconds=1)
        history = History(operator, at)
        for action in actions:
            history.live(action)
        entries = whole_ledger(operator, history.ref)
        check_months(history, months_between(began.isoformat(), at.forward()), entries)
        for one, other in picks:
            check_range(history, entries, one, other)

    def check_months(history: History, months: list[str], entries: list[Any]) -> None:
        told = [statement(operator, month, history.ref) for month in months]
        now = balance(operator, history.ref)
        for month in told:
            adds_up(month)
            assert all(moment_of(e).strftime("%Y-%m") == month["month"] for e in month["entries"])
            written = [Decimal(row["change"]) for row in table(operator, month["month"], history.ref)]
            assert written == [entry["change"] for entry in month["entries"]]
        for earlier, later in itertools.pairwise(told):
            assert earlier["closing_balance"] == later["opening_balance"]
            for kind in KINDS:
                assert earlier["by_kind"][kind]["closing_balance"] == later["by_kind"][kind]["opening_balance"]
        assert [entry for month in told for entry in month["entries"]] == entries
        for kind in KINDS:
            assert told[-1]["by_kind"][kind]["closing_balance"] == now[kind]["remaining"]
        assert told[-1]["closing_balance"] == sum(entry["change"] for entry in entries)
        assert sum(month["unfunded"] for month in told) == now["unfunded"]

    def check_range(history: History, entries: list[Any], one: int, other: int) -> None:
        """From one entry's time to another's, by the entries alone."""
        times = [moment_of(entry) for entry in entries]
        start, end = sorted((times[one % len(times)], times[other % len(times)] + timedelta(microseconds=other % 2)))
        with app.app_context():
            account_id = factories.accounts.resolve(history.ref)
            drawn = statements.draw_up(account_id, start, end)
            moved = statements.movements(drawn)
            read = [entry.seq for piece in statements.pieces(drawn) for entry in piece]
        within = [entry for entry in entries if start <= moment_of(entry) < end]
        assert len(read) == len(within)
        for kind in KINDS:
            before = [e["change"] for e in entries if e["kind"] == kind and moment_of(e) < start]
            during = [e["change"] for e in within if e["kind"] == kind]
            assert credits_of(drawn.opening[kind]) == sum(before)
            assert credits_of(drawn.closing[kind]) == sum(before) + sum(during)
            assert drawn.opening[kind] + sum(changes[kind] for changes in moved.values()) == drawn.closing[kind]
            for reason, changes in moved.items():
                of_reason = [e["change"] for e in within if (e["kind"], e["reason"]) == (kind, reason)]
                assert credits_of(changes[kind]) == sum(of_reason)
        assert set(moved) == {entry["reason"] for entry in within}

    at(datetime(2026, 1, 31, 10, tzinfo=UTC))
    lives()


def test_reading_leaves_no_trace(app: Flask, operator: Api, at: At) -> None:
    open_account(operator, included_credits=5)
    hold(operator, 3)
    use(operator, 2)
    before = books(operator)
    for path in ("/statement", "/statement.csv", "/usage/records.csv", "/usage/stats"):
        assert operator.get(f"{path}?account=acme").status == 200
    assert books(operator) == before
