"""Refunds: of a charge or of its payment intent, whole or in parts."""

from sandbox import disputes
from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, retrieves, route, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World


@route("POST", "/v1/refunds", "RefundCreateParams")
def create(world: World, params: Tree) -> Obj:
    charge = _charge(world, params)
    disputes.refuse_refund(world, charge)
    left = charge["amount"] - charge["amount_refunded"]
    if left <= 0:
        raise invalid(f"Charge {charge['id']} has already been refunded.", None, "charge_already_refunded")
    amount = params.get("amount", left)
    if not 0 < amount <= left:
        raise invalid(f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", "amount")
    refund = world.add(
        "refund",
        amount=amount,
        charge=charge["id"],
        currency=charge["currency"],
        customer=charge["customer"],
        payment_method=charge["payment_method"],
        payment_intent=charge["payment_intent"],
        reason=params.get("reason"),
        status="succeeded",
        metadata=merge_metadata({}, params.get("metadata", {})),
        destination_details={"card": {"type": "refund", "reference_status": "pending"}, "type": "card"},
    )
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    emit(world, "refund.created", refund)
    emit(world, "charge.refunded", charge)
    return shown(world, refund, params)


def fail(world: World, refund: Obj, reason: str = "lost_or_stolen_card") -> None:
    """The customer's bank sends the money back, days later."""
    if refund["status"] != "succeeded":
        raise invalid(f"This refund is {refund['status']}.")
    refund.update(status="failed", failure_reason=reason)
    charge = world.get("charge", refund["charge"])
    charge["amount_refunded"] -= refund["amount"]
    charge["refunded"] = False
    emit(world, "refund.updated", refund)
    emit(world, "charge.refund.updated", refund)
    emit(world, "refund.failed", refund)


def _charge(world: World, params: Tree) -> Obj:
    if "charge" in params:
        charge = world.ref("charge", params["charge"], "charge")
    elif "payment_intent" in params:
        intent = world.ref("payment_intent", params["payment_intent"], "payment_intent")
        if intent["status"] != "succeeded":
            raise invalid("This PaymentIntent does not have a successful charge to refund.", "payment_intent")
        charge = world.get("charge", intent["latest_charge"])
    else:
        raise invalid("One of the following params should be provided for this request: payment_intent or charge.")
    if charge["status"] != "succeeded":
        raise invalid(f"Charge {charge['id']} is not refundable: its status is {charge['status']}.", "charge")
    return charge


@route("POST", "/v1/refunds/{}", "RefundUpdateParams")
def update(world: World, params: Tree, refund_id: str) -> Obj:
    refund = world.get("refund", refund_id)
    if "metadata" in params:
        refund["metadata"] = merge_metadata(refund["metadata"], params["metadata"])
    emit(world, "refund.updated", refund)
    return shown(world, refund, params)


retrieves("/v1/refunds", "RefundRetrieveParams", "refund")
lists("/v1/refunds", "RefundListParams", "refund")
