"""A customer is back from Checkout, perhaps before any event of it: what they bought is theirs now."""

from __future__ import annotations

import re

from extensions import db
from models.stripe import Purchase, PurchaseStatus
from services import throttle
from services.stripe import gateway, purchases, sync
from services.throttle import Limit

_SESSION = re.compile(r"cs_[A-Za-z0-9_]{8,200}", re.ASCII)
_UNKNOWN = Limit("checkout-returns", 60, 3600)
_OVER = (PurchaseStatus.PAID, PurchaseStatus.FAILED, PurchaseStatus.EXPIRED)


def fulfil(session_id: str, ip: str) -> Purchase | None:
    """The purchase as Stripe shows it now, its credits issued if it is paid. None for a session that is not ours.

    Whoever knows a session's id may ask. Raises StripeUnavailable; RateLimited for who asks for many unknown ones.
    """
    if not _SESSION.fullmatch(session_id) or not gateway.is_configured():
        return None
    kept = purchases.by_session(session_id)
    if kept is not None and kept.status in _OVER:
        return kept
    if kept is None:
        throttle.attempt(_UNKNOWN, ip)
    sync.run(purchases.prepare(session_id))
    db.session.rollback()
    return purchases.by_session(session_id)
