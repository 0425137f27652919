"""Disputes: read, answered, given up. Banks open and decide them (`sandbox.disputes`)."""

from sandbox.disputes import close_dispute
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, retrieves, route, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World


@route("POST", "/v1/disputes/{}", "DisputeUpdateParams")
def update(world: World, params: Tree, dispute_id: str) -> Obj:
    """With evidence handed in, the bank reviews it."""
    dispute = world.get("dispute", dispute_id)
    if "metadata" in params:
        dispute["metadata"] = merge_metadata(dispute["metadata"], params["metadata"])
    if params.get("evidence"):
        dispute["evidence"] = dispute["evidence"] | params["evidence"]
        dispute["evidence_details"]["has_evidence"] = True
        dispute["status"] = dispute["status"].replace("needs_response", "under_review")
    emit(world, "charge.dispute.updated", dispute)
    return shown(world, dispute, params)


@route("POST", "/v1/disputes/{}/close", "DisputeCloseParams")
def close(world: World, params: Tree, dispute_id: str) -> Obj:
    """The merchant gives it up: it is lost."""
    return shown(world, close_dispute(world, world.get("dispute", dispute_id), "lost"), params)


retrieves("/v1/disputes", "DisputeRetrieveParams", "dispute")
lists("/v1/disputes", "DisputeListParams", "dispute")
