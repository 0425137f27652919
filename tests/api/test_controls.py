"""GET and PUT /controls: what an account sets, what the operator locks, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.api.helpers import NO_SIGNUP, account_api, invalid, open_account, operate, refused
from tests.factories import Answer, Api, service_token

pytestmark = NO_SIGNUP

NOTHING: dict[str, Any] = {
    "overage": {"enabled": False, "cap_amount": None},
    "caps": [],
    "alert_thresholds": [70, 90, 100],
    "auto_top_up": {"enabled": False, "below": None, "credits": None, "monthly_ceiling": None},
}


def cap(scope: str, window: str, credits: Any, **more: Any) -> dict[str, Any]:
    return {"scope": scope, "window": window, "credits": credits, **more}


def put(api: Api, **members: Any) -> Answer:
    return api.put("/controls", members)


@pytest.fixture
def tenant(operator: Api) -> Api:
    """The account `acme` as its own token with every scope sees it."""
    return account_api(operator, open_account(operator, credits=100), "read", "write", "billing")


def test_an_account_begins_without_any(tenant: Api) -> None:
    assert tenant.get("/controls").json == NOTHING


def test_what_is_put_is_got_and_what_is_got_can_be_put(tenant: Api) -> None:
    caps = [
        cap("account", "period", 50),
        cap("subject", "day", Decimal("0.25"), key="user-1"),
        cap("subject", "day", 1),
    ]
    answer = put(tenant, caps=caps, alert_thresholds=[90, 50, 90])
    assert answer.status == 200, answer
    told = answer.json
    assert [one | {"locked": False} for one in caps] == told["caps"]
    assert told["alert_thresholds"] == [50, 90]
    assert tenant.get("/controls").json == told
    assert tenant.put("/controls", told).json == told


def test_members_that_are_not_named_stay(tenant: Api) -> None:
    put(tenant, caps=[cap("account", "day", 5)], alert_thresholds=[])
    assert put(tenant, caps=[]).json == NOTHING | {"alert_thresholds": []}
    assert put(tenant, alert_thresholds=[70, 90, 100]).json == NOTHING
    assert put(tenant).json == NOTHING


def test_the_operators_caps_are_locked(operator: Api, tenant: Api) -> None:
    locked = cap("account", "period", 50, locked=True)
    assert put(operator, account="acme", caps=[locked]).json["caps"] == [locked]
    own = cap("subject", "day", 1)
    for caps in ([own], [locked, own], [cap("account", "period", 50), own]):
        assert put(tenant, caps=caps).json["caps"] == [locked, own | {"locked": False}]
    for wrong in (
        cap("account", "period", 60, locked=True),
        cap("account", "period", 40),
        cap("account", "period", 50, locked=False),
        cap("account", "day", 50, locked=True),
    ):
        refused(put(tenant, caps=[wrong]), 403, "forbidden")
    assert put(tenant, caps=[]).json["caps"] == [locked]
    billing = Api(operator.app, service_token(operator.app, "read", "billing"))
    refused(put(billing, account="acme", caps=[cap("account", "period", 60)]), 403, "forbidden")
    assert put(operator, account="acme", caps=[]).json["caps"] == []


def test_keys_must_fit(operator: Api, tenant: Api) -> None:
    other = open_account(operator, "other")
    theirs = operator.post("/tokens", {"account": other, "name": "x", "scopes": ["read"]}).json["id"]
    service = f"tok_{service_token(operator.app, 'write')[4:20]}"
    mine = operator.post("/tokens", {"account": "acme", "name": "x", "scopes": ["write"]}).json["id"]
    for key in ("tok_unknown", theirs, service):
        invalid(put(tenant, caps=[cap("token", "day", 1, key=key)]), "caps.0.key")
    invalid(put(tenant, caps=[cap("account", "day", 1, key="x")]), "caps.0.key")
    assert put(tenant, caps=[cap("token", "day", 1, key=mine), cap("token", "day", 9)]).status == 200
    assert put(operator, account="acme", caps=[cap("token", "day", 1, key=service)]).status == 200
    again = put(tenant, caps=[cap("token", "day", 2, key=service)])
    assert again.status == 200, "what was there can be put back"


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"caps": [cap("team", "day", 1)]}, "caps.0.scope"),
        ({"caps": [cap("account", "week", 1)]}, "caps.0.window"),
        ({"caps": [cap("account", "day", -1)]}, "caps.0.credits"),
        ({"caps": [cap("account", "day", "0.0000001")]}, "caps.0.credits"),
        ({"caps": [{"scope": "account", "window": "day"}]}, "caps.0.credits"),
        ({"caps": [cap("account", "day", 1, extra=1)]}, "caps.0.extra"),
        ({"caps": [cap("account", "day", 1), cap("account", "day", 2)]}, "caps.1"),
        ({"caps": [cap("subject", "day", 1, key=str(n)) for n in range(101)]}, "caps"),
        ({"caps": {}}, "caps"),
        ({"caps": [cap("team", "week", -1)] * 10_000}, "caps"),
        ({"alert_thresholds": list(range(1, 22))}, "alert_thresholds"),
        ({"alert_thresholds": [0]}, "alert_thresholds.0"),
        ({"alert_thresholds": [101]}, "alert_thresholds.0"),
        ({"alert_thresholds": [Decimal("70.5")]}, "alert_thresholds.0"),
        ({"overage": {"enabled": True}}, "overage.cap_amount"),
        ({"overage": {"enabled": True, "cap_amount": Decimal("1.5")}}, "overage.cap_amount"),
        ({"overage": {"enabled": "yes"}}, "overage.enabled"),
        ({"auto_top_up": {"enabled": True, "below": 1, "credits": 10}}, "auto_top_up.monthly_ceiling"),
        ({"controls": {}}, "controls"),
    ],
)
def test_mistakes_are_named(service: Api, members: dict[str, Any], path: str) -> None:
    open_account(service)
    invalid(put(service, account="acme", **members), path)
    assert service.get("/controls?account=acme").json == NOTHING


def test_overage_needs_a_price_and_a_subscription(tenant: Api) -> None:
    refused(put(tenant, overage={"enabled": True, "cap_amount": 1000}), 409, "overage_unavailable")
    kept = put(tenant, overage={"enabled": False, "cap_amount": 1000}).json
    assert kept["overage"] == {"enabled": False, "cap_amount": 1000}
    assert tenant.put("/controls", kept).json == kept


def test_auto_top_up_needs_payments(tenant: Api) -> None:
    wanted = {"enabled": True, "below": 10, "credits": 100, "monthly_ceiling": 5000}
    refused(put(tenant, auto_top_up=wanted), 409, "stripe_not_configured")
    kept = put(tenant, auto_top_up=wanted | {"enabled": False}).json
    assert kept["auto_top_up"] == wanted | {"enabled": False}


def test_who_may(operator: Api, tenant: Api) -> None:
    account = tenant.get("/balance").json["account"]
    reader, payer = account_api(operator, account, "read"), account_api(operator, account, "billing")
    assert reader.get("/controls").status == 200
    refused(put(reader, caps=[]), 403, "missing_scope", scope="billing")
    refused(payer.get("/controls"), 403, "missing_scope", scope="read")
    assert put(payer, caps=[]).status == 200
    operate(operator, "acme", "suspend")
    assert put(payer, caps=[cap("account", "day", 1)]).status == 200
    operate(operator, "acme", "close")
    refused(put(operator, account="acme", caps=[]), 403, "account_closed")
