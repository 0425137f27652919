"""Checkout sessions: what they sell is fixed here, what becomes of them is in sandbox.checkout."""

from sandbox import checkout, money
from sandbox.billing.lines import describe
from sandbox.catalog import is_sold, make_inline
from sandbox.errors import invalid
from sandbox.params import Tree
from sandbox.routing import lists, only, page, refuse, retrieves, route, shown
from sandbox.shapes import Obj, merge_metadata
from sandbox.world import World

DAY = 86400
LINES_MAX = 100
NOT_IMITATED = ("discounts", "shipping_options", "optional_items", "customer_account", "adaptive_pricing")
ONLY_IN = {
    "payment_intent_data": {"payment"},
    "subscription_data": {"subscription"},
    "setup_intent_data": {"setup"},
    "customer_creation": {"payment", "setup"},
    "invoice_creation": {"payment"},
    "payment_method_collection": {"subscription"},
}
KEPT = frozenset(
    [
        "after_expiration",
        "allow_promotion_codes",
        "billing_address_collection",
        "cancel_url",
        "client_reference_id",
        "consent_collection",
        "customer_email",
        "locale",
        "phone_number_collection",
        "submit_type",
        "success_url",
    ]
)


@route("POST", "/v1/checkout/sessions", "checkout.SessionCreateParams")
def create(world: World, params: Tree) -> Obj:
    mode = params.get("mode", "payment")
    _check(params, mode)
    bought = [_line(world, one, f"line_items[{number}]") for number, one in enumerate(params.get("line_items", []))]
    prices = [world.objects["price"][line["_price"]] for line in bought]
    _check_prices(params, mode, prices)
    session = world.add("checkout.session", mode=mode, **_blank(params, mode))
    session.update(only(params, KEPT), metadata=merge_metadata({}, params.get("metadata", {})))
    session["_lines"] = [line["id"] for line in bought]
    session["expires_at"] = _expiry(world, params)
    session["url"] = f"{world.address}/c/pay/{session['id']}"
    if customer := params.get("customer"):
        session["customer"] = world.ref("customer", customer, "customer")["id"]
    if mode != "setup":
        _totals(world, session, bought, prices)
    return shown(world, session, params)


def _check(params: Tree, mode: str) -> None:
    refuse(params, NOT_IMITATED)
    if params.get("ui_mode", "hosted_page") != "hosted_page":
        raise invalid("The sandbox has the hosted page only.", "ui_mode")
    if "success_url" not in params:
        raise invalid("Missing required param: success_url.", "success_url", "parameter_missing")
    if not params["success_url"].startswith(("http://", "https://")):
        raise invalid("Invalid URL: An explicit scheme (such as https) must be provided.", "success_url", "url_invalid")
    if "customer" in params and ("customer_email" in params or "customer_creation" in params):
        raise invalid("You may only specify one of these parameters: customer, customer_email, customer_creation.")
    for name, modes in ONLY_IN.items():
        if name in params and mode not in modes:
            raise invalid(f"You can not pass `{name}` in `{mode}` mode.", name)
    if mode == "setup" and "currency" not in params and "allowed_payment_method_types" not in params:
        raise invalid("`currency` is required in `setup` mode.", "currency", "parameter_missing")
    if params.get("payment_intent_data", {}).get("capture_method") == "manual":
        raise invalid("The sandbox captures automatically only.", "payment_intent_data[capture_method]")
    refuse(params.get("payment_intent_data", {}), ("application_fee_amount", "transfer_data", "on_behalf_of"))
    refuse(
        params.get("subscription_data", {}), ("billing_cycle_anchor", "billing_cycle_anchor_config", "transfer_data")
    )


def _check_prices(params: Tree, mode: str, prices: list[Obj]) -> None:
    if mode == "setup":
        if prices:
            raise invalid("`line_items` can not be passed in `setup` mode.", "line_items")
        return
    if not prices:
        raise invalid(f"`line_items` are required in `{mode}` mode.", "line_items", "parameter_missing")
    if len(prices) > LINES_MAX:
        raise invalid(f"At most {LINES_MAX} line items.", "line_items")
    recurring = [price for price in prices if price["type"] == "recurring"]
    if mode == "payment" and recurring:
        raise invalid(
            "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or use "
            "only one-time prices.",
            "mode",
        )
    if mode == "subscription" and not recurring:
        raise invalid("You must provide at least one recurring price in `subscription` mode.", "line_items")
    if not all(is_sold(price) for price in prices):
        raise invalid("The price specified is inactive. This field only accepts active prices.", "line_items")
    if len({price["currency"] for price in prices}) > 1:
        raise invalid("All prices of a session must have the same currency.", "line_items")


def _line(world: World, wanted: Tree, param: str) -> Obj:
    refuse(wanted, ("tax_rates",))
    if "price" in wanted:
        price = world.ref("price", wanted["price"], f"{param}[price]")
    elif "price_data" in wanted:
        price = make_inline(world, wanted["price_data"])
    else:
        raise invalid("You must pass either `price` or `price_data`.", f"{param}[price]", "parameter_missing")
    metered = price["recurring"] and price["recurring"]["usage_type"] == "metered"
    if metered and "quantity" in wanted:
        raise invalid("You can not pass a quantity with a metered price.", f"{param}[quantity]")
    if not metered and wanted.get("quantity", 0) < 1:
        raise invalid("Quantity is required, and at least 1.", f"{param}[quantity]", "parameter_missing")
    quantity = None if metered else wanted["quantity"]
    amount = 0 if quantity is None else money.amount(price, quantity)
    return world.add(
        "item",
        amount_discount=0,
        amount_subtotal=amount,
        amount_tax=0,
        amount_total=amount,
        currency=price["currency"],
        description=describe(world, price, 1).removeprefix("1 × ").split(" / ")[0],
        metadata=merge_metadata({}, wanted.get("metadata", {})),
        quantity=quantity,
        _price=price["id"],
    )


def _blank(params: Tree, mode: str) -> Obj:
    tax = params.get("automatic_tax", {}).get("enabled", False)
    invoiced = params.get("invoice_creation", {}).get("enabled", False)
    creation = "always" if mode == "subscription" or invoiced else "if_required"
    collection = params.get("payment_method_collection", "always")
    return {
        "automatic_tax": {
            "enabled": tax,
            "liability": {"type": "self"} if tax else None,
            "provider": "stripe" if tax else None,
            "status": "complete" if tax else None,
        },
        "currency": params.get("currency"),
        "custom_fields": [],
        "custom_text": dict.fromkeys(("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")),
        "customer_creation": None if "customer" in params else params.get("customer_creation", creation),
        "invoice_creation": _invoice_creation(params) if mode == "payment" else None,
        "payment_method_collection": collection if mode == "subscription" else "if_required",
        "payment_method_options": {},
        "payment_method_types": ["card", "us_bank_account"],
        "payment_status": "no_payment_required" if mode == "setup" else "unpaid",
        "shipping_options": [],
        "status": "open",
        "ui_mode": "hosted_page",
        "_customer": None,
        "_intent": None,
        "_method": None,
        "_payment_intent_data": params.get("payment_intent_data", {}),
        "_setup": None,
        "_setup_intent_data": params.get("setup_intent_data", {}),
        "_subscription": None,
        "_subscription_data": params.get("subscription_data", {}),
    }


def _invoice_creation(params: Tree) -> Obj:
    given = params.get("invoice_creation", {})
    names = ("account_tax_ids", "custom_fields", "description", "footer", "issuer", "rendering_options")
    data = dict.fromkeys(names) | {"metadata": {}} | given.get("invoice_data", {})
    return {"enabled": given.get("enabled", False), "invoice_data": data}


def _expiry(world: World, params: Tree) -> int:
    now = world.now()
    wanted = params.get("expires_at", now + DAY)
    if not now + 1800 <= wanted <= now + DAY:
        raise invalid("`expires_at` must be between 30 minutes and 24 hours from now.", "expires_at")
    return int(wanted)


def _totals(world: World, session: Obj, bought: list[Obj], prices: list[Obj]) -> None:
    """What is to pay today: in a trial only what does not recur."""
    trial = checkout.trial_end(world, session["_subscription_data"])
    if trial is not None:
        for line, price in zip(bought, prices, strict=True):
            if price["type"] == "recurring":
                line.update(amount_subtotal=0, amount_total=0)
    total = sum(line["amount_total"] for line in bought)
    session.update(currency=prices[0]["currency"], amount_subtotal=total, amount_total=total)
    session["total_details"] = {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}


@route("POST", "/v1/checkout/sessions/{}", "checkout.SessionUpdateParams")
def update(world: World, params: Tree, session_id: str) -> Obj:
    refuse(params, ("line_items", "shipping_options", "collected_information"))
    session = world.get("checkout.session", session_id)
    if "metadata" in params:
        session["metadata"] = merge_metadata(session["metadata"], params["metadata"])
    return shown(world, session, params)


@route("POST", "/v1/checkout/sessions/{}/expire", "checkout.SessionExpireParams")
def expire(world: World, params: Tree, session_id: str) -> Obj:
    session = world.get("checkout.session", session_id)
    if session["status"] != "open":
        raise invalid(f"Only open sessions can be expired; this one is {session['status']}.", "session")
    checkout.expire(world, session)
    return shown(world, session, params)


@route("GET", "/v1/checkout/sessions/{}/line_items", "checkout.SessionListLineItemsParams")
def line_items(world: World, params: Tree, session_id: str) -> Obj:
    session = world.get("checkout.session", session_id)
    bought = [world.objects["item"][line] for line in session["_lines"]]
    return page(world, bought, f"/v1/checkout/sessions/{session_id}/line_items", params)


retrieves("/v1/checkout/sessions", "checkout.SessionRetrieveParams", "checkout.session")
lists(
    "/v1/checkout/sessions",
    "checkout.SessionListParams",
    "checkout.session",
    customer_details=lambda session, wanted: (session["customer_details"] or {}).get("email") == wanted["email"],
)
