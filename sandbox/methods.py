"""Payment methods: making them from test cards, attaching them, finding the one that pays."""

from sandbox.cards import BY_ID, BY_NUMBER, Card
from sandbox.errors import declined, invalid
from sandbox.events import emit
from sandbox.shapes import Obj
from sandbox.world import World, is_over

NO_DETAILS: Obj = {"address": None, "email": None, "name": None, "phone": None, "tax_id": None}


def make(world: World, number: str, param: str = "card[number]", **values: object) -> Obj:
    """A payment method of one of the test numbers; ApiError 402 for others, as a card check would answer."""
    digits = number.replace(" ", "")
    card = BY_NUMBER.get(digits)
    if card is None:
        raise declined("Your card number is incorrect.", "incorrect_number", None, param=param)
    kind = "us_bank_account" if card.is_bank else "card"
    details = _bank(card) if card.is_bank else _card(world, card)
    method = world.add("payment_method", type=kind, billing_details=dict(NO_DETAILS), _number=digits, **values)
    method["allow_redisplay"] = method["allow_redisplay"] or "unspecified"
    method[kind] = details
    return method


def _card(world: World, card: Card) -> Obj:
    return {
        "brand": card.brand,
        "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
        "country": "US",
        "display_brand": card.brand,
        "exp_month": 12,
        "exp_year": 2099,
        "fingerprint": f"{hash_of(card.number)}",
        "funding": "credit",
        "generated_from": None,
        "last4": card.number[-4:],
        "networks": {"available": [card.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def hash_of(number: str) -> str:
    """Equal cards have equal fingerprints."""
    return format(int(number) * 2654435761 % 2**64, "016x")


def _bank(card: Card) -> Obj:
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": "STRIPE TEST BANK",
        "financial_connections_account": None,
        "fingerprint": hash_of(card.number),
        "last4": card.number[-4:],
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": "110000000",
        "status_details": {},
    }


def resolve(world: World, method_id: str, param: str) -> Obj:
    """The method, or a new one where one of Stripe's test ids is given."""
    if method_id in BY_ID:
        return make(world, BY_ID[method_id])
    return world.ref("payment_method", method_id, param)


def card_of(method: Obj) -> Card:
    return BY_NUMBER[method["_number"]]


def attach(world: World, method: Obj, customer: Obj) -> None:
    """Idempotent; a method belongs to one customer only."""
    if method["customer"] == customer["id"]:
        return
    if method["customer"]:
        raise invalid("The payment method you provided has already been attached to a customer.", "payment_method")
    if method.get("_detached"):
        raise invalid(
            "This PaymentMethod was previously used without being attached to a Customer or was detached from a "
            "Customer, and may not be used again.",
            "payment_method",
        )
    card = card_of(method)
    if card.setup == "decline":
        raise declined(card.message, card.code, card.decline_code)
    method["customer"] = customer["id"]
    emit(world, "payment_method.attached", method)


def detach(world: World, method: Obj) -> None:
    if not method["customer"]:
        raise invalid("The payment method you provided is not attached to a customer so detachment is impossible.")
    customer = world.get("customer", method["customer"])
    if customer["invoice_settings"]["default_payment_method"] == method["id"]:
        customer["invoice_settings"]["default_payment_method"] = None
    for subscription in world.all("subscription"):
        if subscription["default_payment_method"] == method["id"]:
            subscription["default_payment_method"] = None
    method["customer"], method["_detached"] = None, True
    emit(world, "payment_method.detached", method)


def attached(world: World, method_id: str, customer_id: str, param: str) -> Obj:
    """The method, which has to be the customer's own. One of Stripe's test ids is attached on the way."""
    method = resolve(world, method_id, param)
    if method_id in BY_ID:
        attach(world, method, world.ref("customer", customer_id, "customer"))
    if method["customer"] != customer_id:
        raise invalid(
            f"The customer does not have a payment method with the ID {method_id}. The payment method must be attached "
            "to the customer.",
            param,
            "resource_missing",
        )
    return method


def usual(world: World, customer: Obj) -> Obj | None:
    """What the customer pays with as far as one can tell: their default, or that of a running subscription."""
    running = [one for one in world.all("subscription") if one["customer"] == customer["id"]]
    defaults = [one["default_payment_method"] for one in running if not is_over(one)]
    return paying(world, customer, customer["invoice_settings"]["default_payment_method"], *defaults)


def make_default(world: World, method: Obj, customer: Obj) -> None:
    """What the portal does with a new card: customer and running subscriptions pay with it from now on."""
    customer["invoice_settings"]["default_payment_method"] = method["id"]
    emit(world, "customer.updated", customer)
    for subscription in world.all("subscription"):
        if subscription["customer"] == customer["id"] and not is_over(subscription):
            subscription["default_payment_method"] = method["id"]
            emit(world, "customer.subscription.updated", subscription)


def paying(world: World, customer: Obj, *candidates: str | None) -> Obj | None:
    """The first that is still there: of the invoice, of the subscription, then the customer's default."""
    for candidate in (*candidates, customer["invoice_settings"]["default_payment_method"]):
        method = world.find("payment_method", candidate)
        if method is not None and method["customer"] == customer["id"]:
            return method
    return None
