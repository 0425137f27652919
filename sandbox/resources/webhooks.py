"""Events, and the endpoints they are sent to."""

import fnmatch

from stripe import api_version

from sandbox.errors import invalid
from sandbox.params import Tree
from sandbox.routing import lists, only, retrieves, route, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World


@route("POST", "/v1/webhook_endpoints", "WebhookEndpointCreateParams")
def create(world: World, params: Tree) -> Obj:
    """The answer alone carries the signing secret."""
    if not params["url"].startswith(("http://", "https://")):
        raise invalid("Invalid URL: An explicit scheme (such as https) must be provided.", "url", "url_invalid")
    endpoint = make_endpoint(world, params["url"], params["enabled_events"])
    endpoint.update(only(params, ("description",)), metadata=merge_metadata({}, params.get("metadata", {})))
    endpoint["api_version"] = params.get("api_version", api_version)
    return shown(world, endpoint, params) | {"secret": endpoint["secret"]}


def make_endpoint(world: World, url: str, events: list[str], secret: str | None = None) -> Obj:
    secret = secret or "whsec_" + world.word("whsec", 32)
    values = {"url": url, "enabled_events": events, "secret": secret, "status": "enabled"}
    return world.add("webhook_endpoint", api_version=api_version, **values)


@route("POST", "/v1/webhook_endpoints/{}", "WebhookEndpointUpdateParams")
def update(world: World, params: Tree, endpoint_id: str) -> Obj:
    endpoint = world.get("webhook_endpoint", endpoint_id)
    endpoint.update(only(params, ("description", "enabled_events", "url")))
    if "disabled" in params:
        endpoint["status"] = "disabled" if params["disabled"] else "enabled"
    if "metadata" in params:
        endpoint["metadata"] = merge_metadata(endpoint["metadata"], params["metadata"])
    return shown(world, endpoint, params)


@route("DELETE", "/v1/webhook_endpoints/{}", "WebhookEndpointDeleteParams")
def delete(world: World, params: Tree, endpoint_id: str) -> Obj:
    return world.delete(world.get("webhook_endpoint", endpoint_id))


def _delivered(event: Obj, wanted: bool) -> bool:
    return bool(event["pending_webhooks"] == 0) == wanted


retrieves("/v1/webhook_endpoints", "WebhookEndpointRetrieveParams", "webhook_endpoint")
lists("/v1/webhook_endpoints", "WebhookEndpointListParams", "webhook_endpoint")
retrieves("/v1/events", "EventRetrieveParams", "event")
lists(
    "/v1/events",
    "EventListParams",
    "event",
    type=lambda event, pattern: fnmatch.fnmatchcase(event["type"], pattern),
    types=lambda event, kinds: event["type"] in kinds,
    delivery_success=_delivered,
)
