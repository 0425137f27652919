"""Billing usage beyond all lots: once for each period, in whole minor units, wherever an invoice for it can be found.

A period that a renewal ends goes on the renewal's draft, which Stripe keeps open for about an hour. Where there is no
renewal (a month of a yearly plan, a plan that was ended), or its draft was missed, it goes on an invoice of its own.
What a meter counts Stripe bills itself; a meter takes whole units only, so the rest of a unit is billed like the other.

The amount and the place are kept before Stripe is asked, and every object names its bill, so that whoever comes after
a crash finds what is there already.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

import clock
import database
import settings
from amounts import to_credits
from errors import StripeRefused, StripeUnavailable
from extensions import db
from models.account import Subscription
from models.base import written
from models.overage import BillState, OverageBill
from models.stripe import IN_FORCE, StripeSubscription
from rows import run
from services import catalog, credits, overages, plans
from services.bills import BILLS
from services.stripe import arrears, customers, gateway
from services.stripe.gateway import Object
from services.stripe.sync import moment

_log = logging.getLogger("spillway.stripe")
_DRAFT_COMES = timedelta(hours=6)
"""After a period ends: who has no draft by then gets an invoice of its own, well within a day."""
_ENOUGH_FAILURES = 3
_MARK = "overage"
"""The metadata that names the bill."""


# The job


def bill_due() -> int:
    """Tell the meters what was used, and bill what is due; how many bills were moved on."""
    if not gateway.is_configured():
        return 0
    counting = [(bill_id, _report) for bill_id in _ids(BillState.OPEN)]
    return _each([*counting, *((bill_id, collect) for bill_id in _ids(BillState.DUE))])


def bill_account(account_id: str) -> int:
    """Bill what of this account is due now. Raises StripeUnavailable."""
    return sum(collect(bill_id) for bill_id in _ids(BillState.DUE, OverageBill.account_id == account_id))


def overdue() -> list[tuple[str, str]]:
    """Bills that should be done by now, and their accounts."""
    late = _ids(BillState.DUE, OverageBill.closed_at < clock.now() - timedelta(days=1))
    return [(bill_id, _read(bill_id).account_id) for bill_id in late]


def _ids(state: BillState, *which: Any) -> list[str]:
    db.session.rollback()
    query = select(OverageBill.id).where(OverageBill.state == written(state.value), *which)
    return list(db.session.scalars(query.order_by(OverageBill.created_at, OverageBill.id)))


def _each(steps: Iterable[tuple[str, Any]]) -> int:
    """One that fails keeps none of the others waiting, unless Stripe does not answer."""
    done, failures = 0, 0
    for bill_id, step in steps:
        try:
            done, failures = done + step(bill_id), 0
        except StripeRefused:
            failures = 0  # what was wrong is logged; an operator has to look
        except StripeUnavailable:
            failures += 1
        except Exception:
            _log.exception("overage %s can not be billed", bill_id)
        if failures == _ENOUGH_FAILURES:
            break
    return done


# One bill


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a bill can stand: on this draft, or (None) on an invoice of its own. `late`: Stripe has closed the period,
    so its meter counts no more.
    """

    draft_id: str | None
    late: bool


def collect(bill_id: str) -> bool:
    """Whether the bill is done now; otherwise the renewal's draft is waited for. Harmless when it was done before."""
    bill = _read(bill_id)
    if bill.state != BillState.DUE:
        return False
    resumed = bill.amount is not None
    if not resumed:
        place = _place(bill)
        if place is None:
            return False
        if not place.late:
            _report(bill_id)
        bill = _fix(bill_id, place.draft_id)
    if bill.amount == 0:
        _finish(bill_id, None)
        return True
    invoice_id = _on_draft(bill, resumed) if bill.draft_id else None
    if invoice_id is None:
        if bill.draft_id:
            _move_off_draft(bill_id)
        invoice_id = _on_its_own(bill, resumed)
    _finish(bill_id, invoice_id)
    return True


def _read(bill_id: str) -> OverageBill:
    db.session.rollback()
    return db.session.get_one(OverageBill, bill_id)


def _paid(bill: OverageBill) -> StripeSubscription | None:
    """The subscription whose period it was, as Stripe last showed it."""
    stripe_id = db.session.get_one(Subscription, bill.subscription_id).stripe_id
    return None if stripe_id is None else db.session.get(StripeSubscription, stripe_id)


def _place(bill: OverageBill) -> _Place | None:
    """None while a renewal's draft may still come."""
    paid = _paid(bill)
    if paid is None:
        return _Place(None, late=True)
    followed = paid.period_start < bill.period_end < paid.period_end  # such as a month in the midst of a paid year
    if paid.status not in IN_FORCE or followed:
        return _Place(None, late=not followed)
    since = int(bill.period_end.timestamp())
    found = list(gateway.invoices({"subscription": paid.id, "created": {"gte": since}, "limit": 100}))
    drafts = [one for one in found if one["status"] == "draft" and one.get("billing_reason") == "subscription_cycle"]
    if drafts:
        return _Place(str(drafts[-1]["id"]), late=False)
    assert bill.closed_at is not None
    if not found and clock.now() < bill.closed_at + _DRAFT_COMES:
        return None
    return _Place(None, late=bool(found))


@database.retrying
def _fix(bill_id: str, draft_id: str | None) -> OverageBill:
    """From now on the bill is of this amount, for this place. Under the account's lock, as usage may be voided."""
    account_id = _read(bill_id).account_id
    with credits.locked([account_id]) as books:
        bill: OverageBill = run(books.conn, [BILLS.select(books.conn, "id IN ?", [bill_id])])[0][0]
        if bill.amount is None:
            terms = overages.parse(bill.terms)
            counted = terms.amount(bill.reported * terms.credits_per_unit)
            bill.amount, bill.draft_id = max(0, terms.amount(bill.credits) - counted), draft_id
            run(books.conn, [BILLS.update(books.conn, [bill], ("amount", "draft_id"))])
    return bill


def _on_draft(bill: OverageBill, resumed: bool) -> str | None:
    """The draft's id once the amount stands on it; None where the draft is closed and does not have it."""
    assert bill.draft_id is not None
    if not (resumed and _stands_on(bill, bill.draft_id)):
        try:
            gateway.create_invoice_item(_item(bill, bill.draft_id), _key(bill, bill.draft_id))
        except StripeRefused:
            if not _stands_on(bill, bill.draft_id):
                return None
    return bill.draft_id


def _on_its_own(bill: OverageBill, resumed: bool) -> str:
    invoice = (_own_invoice(bill) if resumed else None) or gateway.create_invoice(_invoice(bill), _key(bill, "invoice"))
    invoice_id = str(invoice["id"])
    if invoice["status"] == "draft":
        if not (resumed and _stands_on(bill, invoice_id)):
            gateway.create_invoice_item(_item(bill, invoice_id), _key(bill, invoice_id))
        gateway.finalize_invoice(invoice_id, {"auto_advance": True}, _key(bill, "finalize"))
    return invoice_id


def _stands_on(bill: OverageBill, invoice_id: str) -> bool:
    """Whether an earlier try, of which nobody heard the end, has put it there."""
    return any(_is_of(bill, item) for item in gateway.invoice_items({"invoice": invoice_id, "limit": 100}))


def _own_invoice(bill: OverageBill) -> Object | None:
    assert bill.closed_at is not None
    since = {"gte": int(bill.closed_at.timestamp()) - 86400}
    found = gateway.invoices({"customer": _customer(bill), "created": since, "limit": 100})
    return next((one for one in found if _is_of(bill, one)), None)


def _is_of(bill: OverageBill, found: Object) -> bool:
    return (found.get("metadata") or {}).get(_MARK) == bill.id


@database.retrying
def _move_off_draft(bill_id: str) -> None:
    with database.transaction() as session:
        session.get_one(OverageBill, bill_id, with_for_update=True).draft_id = None


@database.retrying
def _finish(bill_id: str, invoice_id: str | None) -> None:
    with database.transaction() as session:
        bill = session.get_one(OverageBill, bill_id, with_for_update=True)
        if bill.state != BillState.BILLED:
            bill.state, bill.billed_at, bill.invoice_id = BillState.BILLED.value, clock.now(), invoice_id


# What Stripe is told


def _key(bill: OverageBill, what: str) -> str:
    return f"{settings.current().stripe_product_tag}-overage-{bill.id}-{what}"


def _customer(bill: OverageBill) -> str:
    paid = _paid(bill)
    return paid.customer_id if paid is not None else customers.ensure(bill.account_id)


def _marks(bill: OverageBill) -> dict[str, str]:
    return {**customers.tags(bill.account_id), _MARK: bill.id}


def _item(bill: OverageBill, invoice_id: str) -> dict[str, Any]:
    start, end = bill.period_start, bill.period_end
    unit = catalog.current().credit_name
    told = f"{to_credits(bill.credits):,} {unit} beyond the plan, {start:%-d %b %Y} to {end:%-d %b %Y}"
    return {
        "customer": _customer(bill),
        "invoice": invoice_id,
        "amount": bill.amount,
        "currency": overages.parse(bill.terms).currency,
        "description": told,
        "period": {"start": int(start.timestamp()), "end": int(end.timestamp())},
        "metadata": _marks(bill),
    }


def _invoice(bill: OverageBill) -> dict[str, Any]:
    """A draft that Stripe leaves alone until it has its item. Where the customer has no card of their own, it is paid
    like the subscription: hosted Checkout keeps a card with that.
    """
    paid, customer_id = _paid(bill), _customer(bill)
    own = (gateway.customer(customer_id).get("invoice_settings") or {}).get("default_payment_method")
    card = None if own or paid is None else gateway.subscription(paid.id).get("default_payment_method")
    method = card["id"] if isinstance(card, dict) else card
    return {
        **({"default_payment_method": method} if method else {}),
        "customer": customer_id,
        "currency": overages.parse(bill.terms).currency,
        "collection_method": "charge_automatically",
        "auto_advance": False,
        "pending_invoice_items_behavior": "exclude",
        "metadata": _marks(bill),
    }


# Meters


def _report(bill_id: str) -> bool:
    """Tell the meter the whole units it does not know yet; whether there were some. Voided usage lowers them again.

    Reports are numbered, and the meter takes each number once: one whose answer was lost is sent again.
    """
    bill = _begin_report(bill_id)
    if bill is None:
        return False
    terms, paid = overages.parse(bill.terms), _paid(bill)
    assert bill.reporting is not None
    assert terms.price is not None
    if paid is not None and not terms.by_plan:
        _put_price_on(paid, terms.price)
    last = int(bill.period_end.timestamp()) - 1
    event = {
        **_counted(terms.price, _customer(bill), bill.reporting - bill.reported),
        "identifier": f"{bill.id}-{bill.report}",
        "timestamp": min(int(clock.now().timestamp()), last),
    }
    try:
        gateway.record_usage(event, _key(bill, f"report-{bill.report}"))
    except StripeRefused as refusal:
        if refusal.stripe_param != "identifier":  # it has come before
            raise
    _end_report(bill_id, bill.report)
    return True


@database.retrying
def _begin_report(bill_id: str) -> OverageBill | None:
    with database.transaction() as session:
        bill = session.get_one(OverageBill, bill_id, with_for_update=True)
        terms = overages.parse(bill.terms)
        if bill.reporting is None:
            units = terms.whole_units(bill.credits)
            if not terms.metered or units == bill.reported or bill.amount is not None:
                return None
            bill.report, bill.reporting = bill.report + 1, units
        session.flush()
        session.expunge(bill)
        return bill


@database.retrying
def _end_report(bill_id: str, number: int) -> None:
    with database.transaction() as session:
        bill = session.get_one(OverageBill, bill_id, with_for_update=True)
        if bill.report == number and bill.reporting is not None:
            bill.reported, bill.reporting = bill.reporting, None


def _counted(price_id: str, customer_id: str, units: int) -> dict[str, Any]:
    """The price's own meter says under which names it looks for the customer and for the number."""
    recurring = gateway.price(price_id).get("recurring") or {}
    meter = gateway.meter(str(recurring.get("meter")))
    names = meter["customer_mapping"]["event_payload_key"], meter["value_settings"]["event_payload_key"]
    return {"event_name": meter["event_name"], "payload": {names[0]: customer_id, names[1]: str(units)}}


def _put_price_on(paid: StripeSubscription, price_id: str) -> None:
    """Stripe bills what a meter counts only to subscriptions that have its price."""
    items = gateway.subscription(paid.id)["items"]["data"]
    if all(item["price"]["id"] != price_id for item in items):
        key = f"{settings.current().stripe_product_tag}-overage-price-{paid.id}-{price_id}"
        gateway.update_subscription(paid.id, {"items": [{"price": price_id}]}, key)


# What was not paid


def note_collection(session: Session, account_id: str, found: Object, terms: catalog.Catalog) -> None:
    """Where this is the own invoice of a bill: keep since when it could not be collected, with all that follows."""
    bill = session.get(OverageBill, str((found.get("metadata") or {}).get(_MARK)))
    if bill is None or bill.account_id != account_id:
        return
    attempts = int(found.get("attempt_count") or 0)
    failed = found["status"] in ("open", "uncollectible") and attempts > 0
    finalized: datetime | None = moment((found.get("status_transitions") or {}).get("finalized_at"))
    bill.unpaid_since = (finalized or clock.now()) if failed else None
    session.flush()
    with credits.within(session.connection(), [account_id], terms) as books:
        book = books[account_id]
        plans.settle(books.conn, book)
        unpaid = arrears.Unpaid(bill.unpaid_since, attempts, found.get("hosted_invoice_url"))
        arrears.tell(books.conn, book, str(found["id"]), unpaid)
