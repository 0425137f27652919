"""What a cardholder's bank does with a charge: an inquiry or a dispute is opened, then won or lost.

Only banks open them, so there is no call of the API for it: sandbox.control has one.
"""

from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.shapes import Obj
from sandbox.world import World

OPEN = ("needs_response", "under_review", "warning_needs_response", "warning_under_review")
CLOSED = ("won", "lost", "warning_closed", "prevented")
ANSWER_SECONDS = 7 * 86400


def open_dispute(world: World, charge: Obj, amount: int | None, status: str, reason: str) -> Obj:
    if charge["status"] != "succeeded":
        raise invalid(f"Charge {charge['id']} has not succeeded, so nobody disputes it.")
    if status not in OPEN:
        raise invalid(f"status must be one of {', '.join(OPEN)}", "status")
    amount = charge["amount"] if amount is None else amount
    if not 0 < amount <= charge["amount"]:
        raise invalid(f"amount must be from 1 to {charge['amount']}", "amount")
    dispute = world.add(
        "dispute",
        amount=amount,
        charge=charge["id"],
        currency=charge["currency"],
        payment_intent=charge["payment_intent"],
        reason=reason,
        status=status,
        balance_transactions=[],
        enhanced_eligibility_types=[],
        evidence={},
        evidence_details={
            "due_by": world.now() + ANSWER_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        is_charge_refundable=status.startswith("warning_"),
        payment_method_details={"card": {"brand": "visa", "case_type": "chargeback"}, "type": "card"},
    )
    charge["disputed"] = True
    emit(world, "charge.dispute.created", dispute)
    if not status.startswith("warning_"):
        emit(world, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(world: World, dispute: Obj, status: str) -> Obj:
    """The bank's decision, which is final."""
    if dispute["status"] in CLOSED:
        raise invalid(f"This dispute is closed already: it was {dispute['status']}.")
    if status not in CLOSED:
        raise invalid(f"status must be one of {', '.join(CLOSED)}", "status")
    had_money = not dispute["status"].startswith("warning_")
    dispute["status"] = status
    emit(world, "charge.dispute.updated", dispute)
    emit(world, "charge.dispute.closed", dispute)
    if status == "won" and had_money:
        emit(world, "charge.dispute.funds_reinstated", dispute)
    return dispute
