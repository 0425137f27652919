"""Disputes over the API: reading them, sending evidence, giving in."""

from sandbox import disputes
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, only, retrieves, route, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World


@route("POST", "/v1/disputes/{}", "DisputeUpdateParams")
def update(world: World, params: Tree, dispute_id: str) -> Obj:
    """Evidence is sent to the bank with `submit` (true unless said otherwise)."""
    dispute = world.get("dispute", dispute_id)
    if "metadata" in params:
        dispute["metadata"] = merge_metadata(dispute["metadata"], params["metadata"])
    if evidence := params.get("evidence"):
        dispute["evidence"].update(only(evidence, evidence))
        dispute["evidence_details"]["has_evidence"] = True
    if evidence and params.get("submit", True):
        disputes.submit(world, dispute)
    else:
        emit(world, "charge.dispute.updated", dispute)
    return shown(world, dispute, params)


@route("POST", "/v1/disputes/{}/close", "DisputeCloseParams")
def close(world: World, params: Tree, dispute_id: str) -> Obj:
    """Giving in."""
    dispute = world.get("dispute", dispute_id)
    disputes.close_dispute(world, dispute, "lost")
    return shown(world, dispute, params)


retrieves("/v1/disputes", "DisputeRetrieveParams", "dispute")
lists("/v1/disputes", "DisputeListParams", "dispute")
