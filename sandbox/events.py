"""Telling the endpoints what happened."""

from stripe import api_version

from sandbox.shapes import Obj, copied
from sandbox.views import render
from sandbox.world import World


def emit(world: World, kind: str, obj: Obj) -> None:
    """One event with the object as it is now. `*.updated` carries what it was, and is not sent when nothing changed."""
    shown = render(world, obj)
    data: Obj = {"object": shown}
    before = world.seen.get(obj["id"])
    if kind.endswith(".updated") and before is not None:
        changed = {name: before.get(name) for name in shown if before.get(name) != shown[name]}
        if not changed:
            return
        data["previous_attributes"] = changed
    world.seen[obj["id"]] = copied(shown)
    if world.silent:
        return
    endpoints = [one for one in world.all("webhook_endpoint") if _wants(one, kind)]
    event = world.add(
        "event",
        type=kind,
        data=data,
        api_version=api_version,
        pending_webhooks=len(endpoints),
        request=dict(world.request),
    )
    for absent in ("account", "context"):  # of connected accounts only: left out rather than null
        event.pop(absent)
    for endpoint in endpoints:
        world.courier.post(event, endpoint, obj["id"])


def _wants(endpoint: Obj, kind: str) -> bool:
    return endpoint["status"] == "enabled" and bool({"*", kind} & set(endpoint["enabled_events"]))
