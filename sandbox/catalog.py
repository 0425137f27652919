"""Making products and prices, for their own calls and for those that make one on the way."""

from decimal import Decimal

from sandbox import money
from sandbox.errors import invalid
from sandbox.events import emit
from sandbox.params import Tree
from sandbox.routing import only
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World

FIELDS = ("active", "description", "images", "marketing_features", "name", "shippable", "statement_descriptor")
MORE = ("tax_code", "unit_label", "url", "package_dimensions")


def make_product(world: World, params: Tree) -> Obj:
    values: Obj = {"active": True, "images": [], "marketing_features": [], "type": "service"}
    values |= only(params, FIELDS + MORE) | {"metadata": merge_metadata({}, params.get("metadata", {}))}
    product = world.add("product", id=params.get("id"), updated=world.now(), **values)
    emit(world, "product.created", product)
    return product


def make_price(world: World, params: Tree) -> Obj:
    """Also from the `price_data` of other calls."""
    scheme = params.get("billing_scheme", "per_unit")
    values: Obj = only(params, ("lookup_key", "nickname", "custom_unit_amount"))
    values |= _tiers(params) if scheme == "tiered" else _unit(params)
    recurring = _recurring(params.get("recurring"))
    take_lookup_key(world, params)
    price = world.add(
        "price",
        active=params.get("active", True),
        billing_scheme=scheme,
        currency=params["currency"].lower(),
        product=_product(world, params),
        recurring=recurring,
        type="recurring" if recurring else "one_time",
        tax_behavior=params.get("tax_behavior", "unspecified"),
        transform_quantity=params.get("transform_quantity"),
        metadata=merge_metadata({}, params.get("metadata", {})),
        **values,
    )
    emit(world, "price.created", price)
    return price


def make_inline(world: World, params: Tree) -> Obj:
    """From the `price_data` of a sale: for that one only, so it is not on offer."""
    price = make_price(world, params)
    price.update(active=False, _inline=True)
    return price


def is_sold(price: Obj) -> bool:
    return bool(price["active"] or price.get("_inline"))


def _product(world: World, params: Tree) -> str:
    if "product_data" in params:
        product = make_product(world, params["product_data"])
    elif "product" in params:
        product = world.ref("product", params["product"], "product")
    else:
        raise invalid("You must pass either `product` or `product_data`.", "product", "parameter_missing")
    return str(product["id"])


def _unit(params: Tree) -> Obj:
    whole, exact = params.get("unit_amount"), params.get("unit_amount_decimal")
    if (whole is None) == (exact is None) and "custom_unit_amount" not in params:
        raise invalid("You must pass exactly one of `unit_amount` or `unit_amount_decimal`.", "unit_amount")
    amount = Decimal(whole) if whole is not None else exact
    if amount is None:
        return {}
    if amount < 0:
        raise invalid("This value must be greater than or equal to 0.", "unit_amount", "parameter_invalid_integer")
    if -amount.normalize().as_tuple().exponent > 12:  # type: ignore[operator]
        raise invalid("Invalid decimal: at most 12 decimal places.", "unit_amount_decimal")
    return {"unit_amount": _whole(amount), "unit_amount_decimal": money.text(amount)}


def _whole(amount: Decimal | None) -> int | None:
    """The integer field beside a decimal one: null where the amount has fractions of the minor unit."""
    return int(amount) if amount is not None and amount == amount.to_integral_value() else None


def _tiers(params: Tree) -> Obj:
    if not params.get("tiers") or "tiers_mode" not in params:
        raise invalid("You must pass `tiers` and `tiers_mode` with billing_scheme=tiered.", "tiers")
    if params["tiers"][-1]["up_to"] != "inf":
        raise invalid("The last tier must have `up_to` set to `inf`.", "tiers")
    return {"tiers": [_tier(tier) for tier in params["tiers"]], "tiers_mode": params["tiers_mode"]}


def _tier(tier: Tree) -> Obj:
    shown_tier: Obj = {"up_to": None if tier["up_to"] == "inf" else tier["up_to"]}
    for name in ("unit_amount", "flat_amount"):
        whole, exact = tier.get(name), tier.get(f"{name}_decimal")
        amount = Decimal(whole) if whole is not None else exact
        shown_tier |= {name: _whole(amount), f"{name}_decimal": money.text(amount)}
    return shown_tier


def _recurring(given: Tree | None) -> Obj | None:
    if not given:
        return None
    usage = given.get("usage_type", "licensed")
    if usage == "metered" and "meter" not in given:
        raise invalid("Metered prices must be backed by a meter: pass `recurring[meter]`.", "recurring[meter]")
    return {
        "interval": given["interval"],
        "interval_count": given.get("interval_count", 1),
        "meter": given.get("meter"),
        "trial_period_days": given.get("trial_period_days"),
        "usage_type": usage,
    }


def take_lookup_key(world: World, params: Tree) -> None:
    key = params.get("lookup_key")
    owner = next((one for one in world.all("price") if key and one["lookup_key"] == key), None)
    if owner is None:
        return
    if not params.get("transfer_lookup_key"):
        raise invalid(f"A price (`{owner['id']}`) already uses that lookup key.", "lookup_key")
    owner["lookup_key"] = None
    emit(world, "price.updated", owner)
