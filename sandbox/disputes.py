"""Disputes: a cardholder takes their money back, the shop answers or not, the bank decides.

Only banks open and decide them, so there is no call of the API for it: sandbox.control has some.
"""

from sandbox.errors import ApiError, invalid
from sandbox.events import emit
from sandbox.shapes import Obj
from sandbox.world import World

OPEN = ("needs_response", "under_review", "warning_needs_response", "warning_under_review")
CLOSED = ("won", "lost", "warning_closed", "prevented")
ANSWER_SECONDS = 7 * 86400
REASON_CODES = {"fraudulent": "10.4", "product_not_received": "13.1", "duplicate": "12.6"}
EVIDENCE = (
    "access_activity_log appeal billing_address cancellation_policy cancellation_policy_disclosure "
    "cancellation_rebuttal customer_communication customer_email_address customer_name customer_purchase_ip "
    "customer_signature duplicate_charge_documentation duplicate_charge_explanation duplicate_charge_id "
    "product_description receipt refund_policy refund_policy_disclosure refund_refusal_explanation service_date "
    "service_documentation shipping_address shipping_carrier shipping_date shipping_documentation "
    "shipping_tracking_number uncategorized_file uncategorized_text"
)


def open_dispute(world: World, charge: Obj, amount: int | None, status: str, reason: str) -> Obj:
    """Only banks do. With a status that begins with `warning_` it is an inquiry, which takes no money yet."""
    if charge["status"] != "succeeded":
        raise invalid(f"Charge {charge['id']} has not succeeded, so nobody disputes it.")
    if status not in OPEN:
        raise invalid(f"status must be one of {', '.join(OPEN)}", "status")
    amount = charge["amount"] if amount is None else amount
    if not 0 < amount <= charge["amount"]:
        raise invalid(f"amount must be from 1 to {charge['amount']}", "amount")
    inquiry = status.startswith("warning_")
    dispute = world.add("dispute", amount=amount, charge=charge["id"], currency=charge["currency"], reason=reason)
    dispute.update(
        balance_transactions=[],
        enhanced_eligibility_types=[],
        evidence=dict.fromkeys(EVIDENCE.split()) | {"enhanced_evidence": {}},
        evidence_details={
            "due_by": world.now() + ANSWER_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": None,
        },
        is_charge_refundable=inquiry,
        network_reason_code=REASON_CODES.get(reason, "13.7"),
        payment_intent=charge["payment_intent"],
        payment_method_details=_details(charge, inquiry, reason),
        status=status,
    )
    charge["disputed"] = True
    emit(world, "charge.dispute.created", dispute)
    if not inquiry:
        emit(world, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def _details(charge: Obj, inquiry: bool, reason: str) -> Obj:
    brand = charge["payment_method_details"].get("card", {}).get("brand", "visa")
    card = {"brand": brand, "network": brand, "network_reason_code": REASON_CODES.get(reason, "13.7")}
    return {"card": card | {"case_type": "inquiry" if inquiry else "chargeback"}, "type": "card"}


def submit(world: World, dispute: Obj) -> None:
    """The evidence is with the bank; texts of Stripe's own test mode decide at once."""
    _require_open(dispute)
    dispute["evidence_details"]["submission_count"] += 1
    dispute["status"] = dispute["status"].replace("needs_response", "under_review")
    emit(world, "charge.dispute.updated", dispute)
    text = dispute["evidence"]["uncategorized_text"] or ""
    if verdict := {"winning_evidence": "won", "losing_evidence": "lost"}.get(text):
        close_dispute(world, dispute, verdict)


def close_dispute(world: World, dispute: Obj, status: str) -> Obj:
    """The bank's decision, which is final: money that was withdrawn comes back when it is `won`."""
    _require_open(dispute)
    if status not in CLOSED:
        raise invalid(f"status must be one of {', '.join(CLOSED)}", "status")
    had_money = not dispute["status"].startswith("warning_")
    dispute.update(status=status, is_charge_refundable=status != "lost")
    emit(world, "charge.dispute.updated", dispute)
    emit(world, "charge.dispute.closed", dispute)
    if status == "won" and had_money:
        emit(world, "charge.dispute.funds_reinstated", dispute)
    return dispute


def escalate(world: World, dispute: Obj) -> None:
    """An inquiry becomes a chargeback."""
    if dispute["status"] not in ("warning_needs_response", "warning_under_review"):
        raise invalid("This is no open inquiry.")
    dispute.update(status="needs_response", is_charge_refundable=False)
    dispute["payment_method_details"]["card"]["case_type"] = "chargeback"
    emit(world, "charge.dispute.updated", dispute)
    emit(world, "charge.dispute.funds_withdrawn", dispute)


def lapse(world: World, dispute: Obj) -> None:
    """Nobody answered in time."""
    dispute["evidence_details"]["past_due"] = True
    close_dispute(world, dispute, "warning_closed" if dispute["status"].startswith("warning") else "lost")


def _require_open(dispute: Obj) -> None:
    if dispute["status"] not in OPEN:
        raise invalid(f"This dispute is closed already: it was {dispute['status']}.")


def refuse_refund(world: World, charge: Obj) -> None:
    """The cardholder has the money already, or may get it from their bank: refused where the settings want that."""
    if not world.settings.refuse_disputed_refunds:
        return
    for dispute in world.all("dispute"):
        if dispute["charge"] == charge["id"] and not dispute["is_charge_refundable"]:
            message = f"Charge {charge['id']} has been charged back; cannot issue a refund."
            raise ApiError(message, code="charge_disputed", param="charge")
