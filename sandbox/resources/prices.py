"""Prices. Their amounts never change: the API has no parameter for it."""

from sandbox.catalog import make_price, take_lookup_key
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, only, retrieves, route, searches, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World


@route("POST", "/v1/prices", "PriceCreateParams")
def create(world: World, params: Tree) -> Obj:
    return shown(world, make_price(world, params), params)


@route("POST", "/v1/prices/{}", "PriceUpdateParams")
def update(world: World, params: Tree, price_id: str) -> Obj:
    price = world.get("price", price_id)
    if params.get("lookup_key") != price["lookup_key"]:
        take_lookup_key(world, params)
    price.update(only(params, ("active", "lookup_key", "nickname", "tax_behavior")))
    if "metadata" in params:
        price["metadata"] = merge_metadata(price["metadata"], params["metadata"])
    emit(world, "price.updated", price)
    return shown(world, price, params)


def _recurs_like(price: Obj, wanted: Tree) -> bool:
    recurring = price["recurring"] or {}
    return all(recurring.get(name) == value for name, value in wanted.items())


retrieves("/v1/prices", "PriceRetrieveParams", "price")
lists(
    "/v1/prices",
    "PriceListParams",
    "price",
    lookup_keys=lambda price, keys: price["lookup_key"] in keys,
    recurring=_recurs_like,
)
searches("/v1/prices", "PriceSearchParams", "price")
