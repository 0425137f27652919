"""Buying for auto top-up: an invoice at Stripe, paid with the card on file while nobody is there.

An attempt is a row (models/top_up.py). Every step is asked for under a key of that row and looks first at what Stripe
shows, so that after a crash between any two steps the next run goes on with the same invoice. What the payment of the
invoice brings is written by its sync, whether this job, an event or the reconciliation comes first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import select, update

import database
import settings
from errors import CardDeclined, StripeRefused, StripeUnavailable, ValidationError
from extensions import db
from models.base import written
from models.top_up import TopUp, TopUpStatus, WaitsFor
from services import accounts, agreed, auto_top_up, catalog
from services.auto_top_up import Plan
from services.stripe import customers, gateway, invoices, orders, sync, topup_invoices
from services.stripe.gateway import Object

_log = logging.getLogger("spillway.stripe")
_ENOUGH_FAILURES = 3
"""In a row: then Stripe is taken to be out of reach, and the rest waits for the next run."""
_LEASE = timedelta(minutes=2)
"""How long one process may take over an attempt before another goes on with it."""
_LOOK_AGAIN = timedelta(hours=1)
"""How often an attempt that waits for somebody is looked at, beside the events that tell of it."""
_IN_USE = "idempotency_key_in_use"
_PAYERS = ("customer", "payment_method", "default_payment_method")
_ASKS = ("authentication_required", "invoice_payment_intent_requires_action")
_DECLINED, _PAYS_LATER, _ASKS_CUSTOMER = "declined", "pays later", "asks the customer"


# The job


def buy_due(by_hand: bool) -> int:
    """Go on with attempts that are under way, then begin those that are due; how many were looked at."""
    if not gateway.is_configured():
        return 0
    done, failures = 0, 0
    for step in _steps(by_hand):
        try:
            done += step()
            failures = 0
        except StripeUnavailable:
            failures += 1
            if failures == _ENOUGH_FAILURES:
                _log.warning("stripe does not answer: auto top-up goes on later")
                break
        except Exception:
            _log.exception("an auto top-up could not go on")
    return done


def _steps(by_hand: bool) -> Iterator[Callable[[], bool]]:
    db.session.rollback()
    query = select(TopUp.id).where(TopUp.status == written(TopUpStatus.OPEN.value))
    if not by_hand:
        query = query.where(TopUp.look_at <= datetime.now(UTC))
    for top_up_id in db.session.scalars(query.order_by(TopUp.look_at, TopUp.id)).all():
        yield partial(_go_on, top_up_id, by_hand)
    for account_id in auto_top_up.due(by_hand):
        yield partial(_start, account_id, by_hand)


def _start(account_id: str, by_hand: bool) -> bool:
    """A new attempt for an account that is short; whether there was one to make."""
    wanted = agreed.of(accounts.get(account_id).controls).auto_top_up
    try:
        order = orders.find(credits=wanted.credits)
    except ValidationError:
        auto_top_up.fail(account_id, wanted, auto_top_up.NOT_FOR_SALE, by_hand)
        return True
    card = _card(account_id)
    if card is None:
        auto_top_up.fail(account_id, wanted, auto_top_up.NO_CARD, by_hand)
        return True
    offer = next(one for one in catalog.current().credit_prices if one.price == order.price)
    quantity = order.quantity or 1
    amount = orders.total(offer, quantity)
    plan = Plan(order.price, quantity, order.per_unit, amount, offer.currency, *card)
    top_up_id = auto_top_up.begin(account_id, wanted, plan, by_hand)
    return top_up_id is not None and _go_on(top_up_id, by_hand, new=True)


def _card(account_id: str) -> tuple[str, str] | None:
    """The customer and their card. The mirror may be behind: before it says no, Stripe is asked."""
    known = customers.of_account(account_id)
    if known is not None and known.payment_method is None:
        sync.run(customers.prepare(known.id))
        known = customers.of_account(account_id)
    if known is None or known.payment_method is None:
        return None
    return known.id, known.payment_method


# One attempt


def _go_on(top_up_id: str, by_hand: bool, *, new: bool = False) -> bool:
    """Bring an attempt as far as it goes now; whether it was this process's to do."""
    row = _claim(top_up_id, by_hand)
    if row is None:
        return False
    try:
        _drive(row, new)
    except StripeRefused as refusal:
        if refusal.stripe_code == _IN_USE or row.reason is not None:
            raise
        _log.warning("auto top-up %s is refused: %s", row.id, refusal.stripe_code)
        gone = refusal.stripe_code == "resource_missing" and refusal.stripe_param in _PAYERS
        if gone:
            sync.run(customers.prepare(str(row.customer_id)))
        _give_up(row, auto_top_up.NO_CARD if gone else auto_top_up.REFUSED)
        _drive(row, new=False)
    return True


@database.retrying
def _claim(top_up_id: str, by_hand: bool) -> TopUp | None:
    now = datetime.now(UTC)
    mine = update(TopUp).where(TopUp.id == top_up_id, TopUp.status == TopUpStatus.OPEN.value)
    if not by_hand:
        mine = mine.where(TopUp.look_at <= now)
    with database.transaction() as session:
        claimed: Any = session.execute(mine.values(look_at=now + _LEASE))
        return session.get(TopUp, top_up_id) if claimed.rowcount else None


def _drive(row: TopUp, new: bool) -> None:
    found = _invoice(row, new)
    if found is not None and found["status"] == "draft":
        found = _complete(row, found)
    if found is None:
        _end(row)
        return
    if found["status"] == "open":
        _collect(row, found)
    sync.run(invoices.prepare(found["id"]))


def _change(row: TopUp, **values: Any) -> None:
    """Keep what is known now, also in the row at hand."""
    for name, value in values.items():
        setattr(row, name, value)
    _keep(row.id, values)


@database.retrying
def _keep(top_up_id: str, values: dict[str, Any]) -> None:
    with database.transaction() as session:
        session.execute(update(TopUp).where(TopUp.id == top_up_id, TopUp.status == TopUpStatus.OPEN).values(values))


def _give_up(row: TopUp, reason: str) -> None:
    """It is to end: first written here, so that who finds it voided knows why, whoever that is."""
    _change(row, reason=reason)


@database.retrying
def _end(row: TopUp) -> None:
    """There is no invoice (any more)."""
    with auto_top_up.changing(row.account_id) as (session, book):
        kept = session.get_one(TopUp, row.id)
        kept.reason = kept.reason or row.reason
        auto_top_up.end(session, book, kept)


# Its invoice


def _invoice(row: TopUp, new: bool) -> Object | None:
    """The attempt's invoice with its payments; made where there is none and the attempt goes on."""
    if row.invoice_id is None:
        made = None if new else _made_before(row)
        if made is None and row.reason is None:
            made = gateway.create_invoice(_params(row), f"top-up-{row.id}-invoice")
        if made is None:
            return None
        _change(row, invoice_id=str(made["id"]))
    try:
        found = gateway.invoice(str(row.invoice_id))
    except StripeRefused as refusal:
        if refusal.stripe_code != "resource_missing":
            raise
        return None
    return None if found.get("deleted") else found


def _made_before(row: TopUp) -> Object | None:
    """The invoice of a process that died before it could keep its id: Stripe forgets our key after a day."""
    since = int((row.created_at - timedelta(days=1)).timestamp())
    for found in gateway.invoices({"customer": str(row.customer_id), "created": {"gte": since}, "limit": 100}):
        if topup_invoices.is_of(found, row):
            return found
    return None


def _params(row: TopUp) -> dict[str, Any]:
    params: dict[str, Any] = {
        "customer": row.customer_id,
        "collection_method": "charge_automatically",
        "auto_advance": False,  # Stripe must not try again by itself what we void
        "pending_invoice_items_behavior": "exclude",
        "default_payment_method": row.payment_method,
        "description": "Automatic top-up",
        "metadata": topup_invoices.metadata(row),
    }
    if row.currency is not None:
        params["currency"] = row.currency
    if settings.current().stripe_automatic_tax:
        params["automatic_tax"] = {"enabled": True}
    return params


def _complete(row: TopUp, found: Object) -> Object | None:
    """A draft with what it sells, finalized; None where it was taken away instead."""
    invoice_id = str(found["id"])
    if row.reason is not None:
        gateway.delete_invoice(invoice_id)
        return None
    if not topup_invoices.units_on(found):
        item = {
            "customer": row.customer_id,
            "invoice": invoice_id,
            "pricing": {"price": row.price_id},
            "quantity": row.quantity,
            "metadata": customers.tags(row.account_id),
        }
        gateway.create_invoice_item(item, f"top-up-{row.id}-item")
    gateway.finalize_invoice(invoice_id, {"auto_advance": False}, f"top-up-{row.id}-finalize")
    return gateway.invoice(invoice_id)


# Its payment


def _collect(row: TopUp, found: Object) -> None:
    """An open invoice: paid, waiting for somebody, or voided."""
    if row.waits_for == WaitsFor.CUSTOMER and row.reason is None:
        if _is_agreed(row):
            _change(row, look_at=datetime.now(UTC) + _LOOK_AGAIN)
            return
        _give_up(row, auto_top_up.UNWANTED)
    if row.reason is None:
        answer, code = _answer(found)
        if answer is None:
            answer, code = _pay(row, found)
        if answer == _DECLINED:
            _give_up(row, code[:100])
        elif answer == _ASKS_CUSTOMER:
            _ask_customer(row, found.get("hosted_invoice_url"))
        elif answer == _PAYS_LATER:
            _change(row, waits_for=WaitsFor.BANK.value, look_at=datetime.now(UTC) + _LOOK_AGAIN)
    if row.reason is not None:
        _void(str(found["id"]), row)


def _is_agreed(row: TopUp) -> bool:
    account = accounts.get(row.account_id)
    return agreed.of(account.controls).auto_top_up.enabled and not account.is_closed


def _answer(found: Object) -> tuple[str | None, str]:
    """What came of the payment so far, and a code of the decline; None where none was tried, or it was paid."""
    intent_id = topup_invoices.intent_of(found)
    if intent_id is None:
        return None, ""
    intent = gateway.payment_intent(intent_id)
    error = intent.get("last_payment_error") or {}
    code = str(error.get("decline_code") or error.get("code") or "")
    if intent["status"] == "requires_action" or (code in _ASKS and intent["status"] == "requires_payment_method"):
        return _ASKS_CUSTOMER, code
    if intent["status"] == "processing":
        return _PAYS_LATER, code
    return (_DECLINED, code) if intent["status"] == "requires_payment_method" and code else (None, code)


def _pay(row: TopUp, found: Object) -> tuple[str | None, str]:
    """Try to, if it is still wanted; a refusal of our own is written to the row."""
    reason = _objection(row.id, row.account_id, int(found["total"]))
    if reason is not None:
        row.reason = reason
        return None, ""
    invoice_id, refused = str(found["id"]), ""
    params = {"payment_method": row.payment_method, "off_session": True}
    try:
        gateway.pay_invoice(invoice_id, params, f"top-up-{row.id}-pay")
    except CardDeclined as error:
        refused = error.decline_code or "card_declined"
    except StripeRefused as refusal:
        if refusal.stripe_code != "invoice_already_paid":
            raise
    again = gateway.invoice(invoice_id)
    if again["status"] != "open":
        return None, ""
    answer, code = _answer(again)
    if answer is None and refused:
        return (_ASKS_CUSTOMER if refused in _ASKS else _DECLINED), refused
    return answer, code


@database.retrying
def _objection(top_up_id: str, account_id: str, total: int) -> str | None:
    """Why it is not to be paid after all: time has passed since it was begun, and taxes may have come to it."""
    with auto_top_up.changing(account_id) as (session, book):
        row = session.get_one(TopUp, top_up_id)
        if row.status != TopUpStatus.OPEN:
            return auto_top_up.UNWANTED  # another process was quicker
        ceiling = book.controls.auto_top_up.monthly_ceiling or 0
        row.amount = total
        if not auto_top_up.is_wanted(book):
            row.reason = auto_top_up.UNWANTED
        elif auto_top_up.spent(session, account_id, book.now, without=top_up_id) + total > ceiling:
            row.reason = auto_top_up.CEILING
        return row.reason


@database.retrying
def _ask_customer(row: TopUp, url: str | None) -> None:
    with auto_top_up.changing(row.account_id) as (session, _book):
        kept = session.get_one(TopUp, row.id)
        if kept.status == TopUpStatus.OPEN and kept.waits_for is None:
            kept.waits_for, kept.look_at = WaitsFor.CUSTOMER.value, datetime.now(UTC) + _LOOK_AGAIN
            auto_top_up.ask_customer(session, kept, url)


def _void(invoice_id: str, row: TopUp) -> None:
    """So that nobody can pay it any more. Whoever has paid it meanwhile gets the credits."""
    try:
        gateway.void_invoice(invoice_id, f"top-up-{row.id}-void")
    except StripeRefused:
        if gateway.invoice(invoice_id)["status"] == "open":
            raise
