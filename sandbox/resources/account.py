"""The account itself, and what it would have earned."""

from collections import Counter

from sandbox.params import Tree
from sandbox.routing import route
from sandbox.shapes import Obj, blank
from sandbox.world import World


@route("GET", "/v1/account", "AccountRetrieveCurrentParams")
def account(world: World, params: Tree) -> Obj:
    return blank("account") | {
        "id": "acct_sandbox",
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": "sandbox@example.com",
        "payouts_enabled": True,
        "type": "standard",
    }


@route("GET", "/v1/balance", "BalanceRetrieveParams")
def balance(world: World, params: Tree) -> Obj:
    """Charges less refunds, without fees; nothing is ever paid out."""
    sums: Counter[str] = Counter()
    for charge in world.all("charge"):
        if charge["status"] == "succeeded":
            sums[charge["currency"]] += charge["amount"] - charge["amount_refunded"]
    available = [
        {"amount": amount, "currency": currency, "source_types": {}} for currency, amount in sorted(sums.items())
    ]
    return blank("balance") | {"available": available, "pending": []}
