"""GET /balance: every number at every moment, from what the API's definitions say."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.api.helpers import (
    NO_SIGNUP,
    account_api,
    balance,
    grant,
    hold,
    open_account,
    operate,
    refused,
    set_plan,
    use,
)
from tests.factories import Api, service_token
from tests.moments import At

pytestmark = NO_SIGNUP


@pytest.mark.settings(signup_credits=Decimal("100.5"))
def test_a_new_account_has_its_sign_up_credits_and_nothing_else(operator: Api, at: At) -> None:
    at("2026-01-31T10:00:00Z")
    acme = open_account(operator)
    assert balance(operator) == {
        "account": acme,
        "external_id": "acme",
        "status": "active",
        "plan": "free",
        "available": Decimal("100.5"),
        "allowance": {"included": 0, "used": 0, "remaining": 0},
        "purchased": {"total": 0, "used": 0, "remaining": 0},
        "granted": {"total": Decimal("100.5"), "used": 0, "remaining": Decimal("100.5")},
        "held": 0,
        "overage": {"enabled": False, "used": 0, "cap": None},
        "unfunded": 0,
        "debt": 0,
        "period": {"start": "2026-01-31T10:00:00Z", "end": "2026-02-28T10:00:00Z"},
        "as_of": "2026-01-31T10:00:00Z",
    }


def test_a_period_is_monthly_from_the_accounts_own_day(operator: Api, at: At) -> None:
    at("2026-01-31T10:00:00Z")
    open_account(operator)
    for moment, start, end in (
        ("2026-02-28T09:59:59Z", "2026-01-31T10:00:00Z", "2026-02-28T10:00:00Z"),
        ("2026-02-28T10:00:00Z", "2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z"),
        ("2026-07-04T00:00:00Z", "2026-06-30T10:00:00Z", "2026-07-31T10:00:00Z"),
    ):
        at(moment)
        assert balance(operator)["period"] == {"start": start, "end": end}


def test_an_allowance_is_renewed_when_its_period_ends(operator: Api, at: At) -> None:
    at("2026-11-01T00:00:00Z")
    open_account(operator, credits=5, included_credits=10)
    use(operator, 12)
    now = balance(operator)
    assert now["plan"] == "enterprise"
    assert (now["allowance"], now["available"]) == ({"included": 10, "used": 10, "remaining": 0}, 3)
    at("2026-12-01T00:00:00Z")
    now = balance(operator)
    assert (now["allowance"], now["available"]) == ({"included": 10, "used": 0, "remaining": 10}, 13)
    assert now["granted"] == {"total": 5, "used": 2, "remaining": 3}


def test_a_reset_begins_the_allowance_anew(operator: Api) -> None:
    open_account(operator, included_credits=10)
    use(operator, 4)
    operate(operator, "acme", "reset-limit")
    assert balance(operator)["allowance"] == {"included": 10, "used": 0, "remaining": 10}
    use(operator, 3)
    assert balance(operator)["allowance"] == {"included": 10, "used": 3, "remaining": 7}


def test_an_expired_grant_leaves_only_what_was_used_of_it(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=5)
    grant(operator, "acme", 10, expires_at="2026-11-21T11:00:00Z")
    use(operator, 4)
    at("2026-11-21T11:00:00Z")
    now = balance(operator)
    assert now["granted"] == {"total": 9, "used": 4, "remaining": 5}
    assert now["available"] == 5


def test_held_credits_are_not_available_and_not_spent(operator: Api, at: At) -> None:
    open_account(operator, credits=10)
    hold(operator, Decimal("2.5"), ttl_seconds=60)
    hold(operator, 3, ttl_seconds=120)
    now = balance(operator)
    assert (now["held"], now["available"]) == (Decimal("5.5"), Decimal("4.5"))
    assert now["granted"] == {"total": 10, "used": 0, "remaining": 10}
    at.forward(seconds=60)
    assert (balance(operator)["held"], balance(operator)["available"]) == (3, 7)
    at.forward(seconds=60)
    assert (balance(operator)["held"], balance(operator)["available"]) == (0, 10)


def test_holds_beyond_what_remains_leave_nothing_and_never_less(operator: Api, at: At) -> None:
    at("2026-11-21T10:00:00Z")
    open_account(operator, credits=2)
    grant(operator, "acme", 8, expires_at="2026-11-21T10:30:00Z")
    hold(operator, 9, ttl_seconds=3600)
    at("2026-11-21T10:30:00Z")
    now = balance(operator)
    assert (now["available"], now["held"], now["granted"]["remaining"]) == (0, 9, 2)


def test_unfunded_usage_does_not_reduce_what_is_available(service: Api) -> None:
    open_account(service)
    service.post("/usage", {"account": "acme", "credits": 7, "enforce": False})
    grant(service, "acme", 5)
    now = balance(service)
    assert (now["unfunded"], now["available"], now["granted"]["used"]) == (7, 5, 0)


def test_status_and_plan_are_told(service: Api) -> None:
    open_account(service, credits=5)
    set_plan(service, "acme", tier="team")
    operate(service, "acme", "suspend")
    now = balance(service)
    assert (now["status"], now["plan"], now["available"]) == ("suspended", "team", 5)
    operate(service, "acme", "close")
    assert balance(service)["status"] == "closed"


def test_a_balance_needs_the_scope_read(service: Api) -> None:
    acme = open_account(service)
    refused(account_api(service, acme, "write").get("/balance"), 403, "missing_scope", scope="read")
    writer = Api(service.app, service_token(service.app, "write", "admin"))
    refused(writer.get("/balance?account=nobody"), 403, "missing_scope", scope="read")
    assert account_api(service, acme, "read").get("/balance").json["account"] == acme
