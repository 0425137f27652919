"""The invoices of auto top-up: what each sells, and what follows from its state, whoever brings the news."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

import amounts
from amounts import to_credits
from models.top_up import TopUp
from services import auto_top_up, catalog, credits
from services.stripe import customers, purchases
from services.stripe.gateway import Object
from services.stripe.sync import Apply

_log = logging.getLogger("spillway.stripe")
_PURPOSE = "auto_top_up"


def metadata(row: TopUp) -> dict[str, str]:
    """What the invoice remembers: whose it is, and what was promised for each unit of the price."""
    return customers.tags(row.account_id) | {
        "purpose": _PURPOSE,
        "top_up": row.id,
        "price": str(row.price_id),
        "credits_per_unit": str(to_credits(row.per_unit)),
    }


def is_ours(found: Object) -> bool:
    told = found.get("metadata") or {}
    return customers.is_tagged(told) and told.get("purpose") == _PURPOSE


def is_of(found: Object, row: TopUp) -> bool:
    """Whether the invoice is this attempt's."""
    return is_ours(found) and found["metadata"].get("top_up") == row.id


def units_on(found: Object) -> int:
    """How many units of the promised price stand on it."""
    promised = found["metadata"].get("price")
    lines = (found.get("lines") or {}).get("data") or []
    return sum(int(line.get("quantity") or 0) for line in lines if _price_of(line) == promised)


def _price_of(line: Object) -> str | None:
    details = (line.get("pricing") or {}).get("price_details") or {}
    price = details.get("price")
    return price.get("id") if isinstance(price, dict) else price


def intent_of(found: Object) -> str | None:
    """The payment intent that pays, or is to pay, an invoice that came with its payments."""
    listed = (found.get("payments") or {}).get("data") or []
    for payment in sorted(listed, key=lambda one: one.get("status") != "paid"):
        intent = (payment.get("payment") or {}).get("payment_intent")
        if intent:
            return str(intent["id"] if isinstance(intent, dict) else intent)
    return None


def prepare(found: Object, account_id: str) -> Apply | None:
    """What an invoice that was just fetched means here; None for one that auto top-up has not made."""
    if not is_ours(found):
        return None
    bought = _credits_of(found)
    intent = intent_of(found)
    terms = catalog.current()

    def apply(session: Session) -> None:
        with credits.within(session.connection(), [account_id], terms) as books:
            book = books[account_id]
            if bought:
                price = str(found["metadata"]["price"])
                purchases.write_invoice(session, book, found, price, bought, intent)
            row = session.get(TopUp, str(found["metadata"].get("top_up")))
            if row is None or row.account_id != account_id:
                return
            row.invoice_id = row.invoice_id or found["id"]
            if found["status"] == "paid":
                auto_top_up.paid(session, book, row, int(found["total"]))
            elif found["status"] in ("void", "uncollectible"):
                auto_top_up.end(session, book, row)

    return apply


def _credits_of(found: Object) -> int:
    """Micro-credits. What was promised when it was made counts, whatever became of the price."""
    try:
        per_unit = amounts.to_micros(amounts.parse(found["metadata"]["credits_per_unit"]))
    except (KeyError, ValueError):
        per_unit = 0
    bought = per_unit * units_on(found)
    if not bought and found["status"] == "paid":
        _log.error("invoice %s is paid, and nothing says how many credits that buys", found["id"])
    return bought
