"""Disputes: opened and decided by banks, answered and given up by the merchant."""

from __future__ import annotations

import pytest

from sandbox.control import SandboxError
from sandbox.server import Running
from tests.sandbox.shop import Shop


def _charge(shop: Shop) -> str:
    intent = shop.api.payment_intents.create(
        {"amount": 1500, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    )
    return str(intent.latest_charge)


def test_from_opening_to_winning(running: Running, shop: Shop) -> None:
    charge = _charge(shop)
    opened = running.control.dispute(charge, amount=900)
    [listed] = shop.api.disputes.list({"charge": charge}).data
    assert (listed.id, listed.amount, listed.status) == (opened["id"], 900, "needs_response")
    assert shop.api.charges.retrieve(charge).disputed
    answered = shop.api.disputes.update(listed.id, {"evidence": {"uncategorized_text": "They used it."}})
    assert answered.status == "under_review" and answered.evidence_details.has_evidence
    running.control.close_dispute(listed.id, "won")
    assert shop.api.disputes.retrieve(listed.id).status == "won"
    assert [kind for kind in shop.told() if "dispute" in kind] == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.updated",
        "charge.dispute.updated",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]


def test_given_up_is_lost_for_good(running: Running, shop: Shop) -> None:
    dispute = running.control.dispute(_charge(shop))["id"]
    assert shop.api.disputes.close(dispute).status == "lost"
    with pytest.raises(SandboxError, match="closed already"):
        running.control.close_dispute(dispute, "won")


def test_an_inquiry_moves_no_money(running: Running, shop: Shop) -> None:
    running.control.dispute(_charge(shop), status="warning_needs_response")
    assert [kind for kind in shop.told() if "dispute" in kind] == ["charge.dispute.created"]
