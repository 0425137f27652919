"""Disputes: opened and decided by banks, answered and given up by the merchant."""

from __future__ import annotations

import pytest
import stripe

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


def test_evidence_of_stripes_test_mode_decides_at_once(shop: Shop) -> None:
    for text, status in (("winning_evidence", "won"), ("losing_evidence", "lost")):
        shop.control.dispute(_charge(shop))
        dispute = shop.api.disputes.list().data[0]
        shop.api.disputes.update(dispute.id, {"evidence": {"uncategorized_text": text}, "submit": False})
        assert shop.api.disputes.retrieve(dispute.id).status == "needs_response"
        shop.api.disputes.update(dispute.id, {"evidence": {"uncategorized_text": text}})
        assert shop.api.disputes.retrieve(dispute.id).status == status


def test_an_inquiry_becomes_a_dispute(shop: Shop) -> None:
    dispute = shop.control.dispute(_charge(shop), status="warning_needs_response")
    assert dispute["is_charge_refundable"]
    assert shop.control.escalate_dispute(dispute["id"])["status"] == "needs_response"
    assert shop.told()[-1] == "charge.dispute.funds_withdrawn"


def test_nobody_answers_in_time(shop: Shop) -> None:
    dispute = shop.control.dispute(_charge(shop))["id"]
    inquiry = shop.control.dispute(_charge(shop), status="warning_needs_response")["id"]
    shop.control.advance(days=8)
    assert shop.api.disputes.retrieve(dispute).status == "lost"
    assert shop.api.disputes.retrieve(inquiry).status == "warning_closed"


def test_card_that_disputes_by_itself_and_refunds_that_stripe_refuses(shop: Shop) -> None:
    intent = shop.api.payment_intents.create(
        {"amount": 1500, "currency": "usd", "payment_method": "pm_card_createDispute", "confirm": True}
    )
    dispute = shop.api.disputes.list({"payment_intent": intent.id}).data[0]
    shop.control.settings(refuse_disputed_refunds=True)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.api.refunds.create({"payment_intent": intent.id})
    assert refused.value.code == "charge_disputed"
    shop.control.close_dispute(dispute.id, "won")
    assert shop.api.refunds.create({"payment_intent": intent.id}).amount == 1500


def test_a_refund_comes_back(shop: Shop) -> None:
    charge = _charge(shop)
    refund = shop.api.refunds.create({"charge": charge, "amount": 500})
    shop.control.fail_refund(refund.id)
    assert shop.api.refunds.retrieve(refund.id).status == "failed"
    assert shop.api.charges.retrieve(charge).amount_refunded == 0
    assert shop.told()[-1] == "refund.failed"
