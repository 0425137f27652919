"""Products. Deleting one that has prices is refused, as at Stripe: it is archived instead."""

from sandbox.catalog import FIELDS, MORE, make_price, make_product
from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import lists, only, retrieves, route, searches, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World


@route("POST", "/v1/products", "ProductCreateParams")
def create(world: World, params: Tree) -> Obj:
    wanted = params.get("id")
    if wanted and wanted in world.objects["product"]:
        raise invalid("Product already exists.", "id", "resource_already_exists")
    product = make_product(world, params)
    if price := params.get("default_price_data"):
        product["default_price"] = make_price(world, price | {"product": product["id"]})["id"]
    return shown(world, product, params)


@route("POST", "/v1/products/{}", "ProductUpdateParams")
def update(world: World, params: Tree, product_id: str) -> Obj:
    product = world.get("product", product_id)
    if default := params.get("default_price"):
        price = world.ref("price", default, "default_price")
        if price["product"] != product_id:
            raise invalid(f"The price specified (`{default}`) is not one of the product's prices.", "default_price")
        product["default_price"] = default
    product.update(only(params, FIELDS + MORE), updated=world.now())
    if "metadata" in params:
        product["metadata"] = merge_metadata(product["metadata"], params["metadata"])
    emit(world, "product.updated", product)
    return shown(world, product, params)


@route("DELETE", "/v1/products/{}", "ProductDeleteParams")
def delete(world: World, params: Tree, product_id: str) -> Obj:
    product = world.get("product", product_id)
    if any(price["product"] == product_id for price in world.all("price")):
        raise invalid("This product cannot be deleted because it has one or more user-created prices.", "id")
    emit(world, "product.deleted", product)
    return world.delete(product)


retrieves("/v1/products", "ProductRetrieveParams", "product")
lists("/v1/products", "ProductListParams", "product", ids=lambda product, ids: product["id"] in ids)
searches("/v1/products", "ProductSearchParams", "product")
