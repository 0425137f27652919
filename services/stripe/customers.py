"""Customers at Stripe: one for each account, made when it is first needed or by the job, and a mirror of their card."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

import clock
import database
import settings
from errors import StripeNotConfigured, StripeRefused, StripeUnavailable
from extensions import db
from models.account import Account, AccountStatus
from models.stripe import StripeCustomer
from services import accounts, auto_top_up
from services.stripe import gateway, sync
from services.stripe.sync import Apply

T = TypeVar("T")
_log = logging.getLogger("spillway.stripe")
_PAGE = 100
_PER_RUN = 1000
_MAX_NAME = 256


def tags(account_id: str) -> dict[str, str]:
    """The metadata of every object of ours at Stripe."""
    return {"product": settings.current().stripe_product_tag, "account": account_id}


def is_tagged(metadata: object) -> bool:
    """Whether an object's own metadata says that it is this deployment's."""
    return isinstance(metadata, dict) and metadata.get("product") == settings.current().stripe_product_tag


def of_account(account_id: str) -> StripeCustomer | None:
    """The account's customer that is not deleted."""
    query = select(StripeCustomer).where(StripeCustomer.account_id == account_id, StripeCustomer.deleted_at.is_(None))
    return db.session.scalars(query).first()


def known(customer_id: str) -> StripeCustomer | None:
    """A customer of ours, deleted or not."""
    return db.session.get(StripeCustomer, customer_id)


# Making them


def ensure(account_id: str) -> str:
    """The id of the account's customer at Stripe; made now where there is none, once however many ask at once.

    Raises StripeNotConfigured, StripeUnavailable, AccountNotFound.
    """
    if not gateway.is_configured():
        raise StripeNotConfigured()
    found = of_account(account_id)
    return found.id if found is not None else _make(account_id)


def _make(account_id: str) -> str:
    """Everybody who is here at once makes the same call with the same key, so Stripe makes one customer.

    Only what never changes is in that call: a key with other parameters would be refused. The rest follows, before
    the customer is kept here, so that a crash on the way is made good by whoever asks next.
    """
    account = accounts.get(account_id)
    name, email = account.name, account.email
    asked_at = sync.asking()
    key = f"{settings.current().stripe_product_tag}-customer-{account_id}-{_generation(account_id)}"
    try:
        customer_id = str(gateway.create_customer({"metadata": tags(account_id)}, key)["id"])
    except StripeUnavailable:  # another request may be using the key at this moment, and be done by now
        db.session.rollback()
        found = of_account(account_id)
        if found is None:
            raise
        return found.id
    _describe(customer_id, name, email)
    return _keep(account_id, customer_id, asked_at)


def _generation(account_id: str) -> int:
    """How many customers the account has lost: after one was deleted, the next is another one.

    One that somebody has made since we looked does not count: ours is to be the same.
    """
    db.session.rollback()  # what this session has read may be older than the newest row
    lost = StripeCustomer.account_id == account_id, StripeCustomer.deleted_at.is_not(None)
    query = select(func.count()).select_from(StripeCustomer).where(*lost)
    return int(db.session.scalar(query) or 0)


def _describe(customer_id: str, name: str, email: str | None) -> None:
    """Name and e-mail, for receipts. An e-mail that Stripe does not like must not keep anybody from buying."""
    params = {"name": name[:_MAX_NAME]} | ({"email": email} if email else {})
    digest = hashlib.sha256(repr(params).encode()).hexdigest()[:24]
    try:
        gateway.update_customer(customer_id, params, f"describe-{customer_id}-{digest}")
    except StripeRefused as refusal:
        if refusal.stripe_param != "email":
            return
        _log.warning("stripe takes no e-mail for customer %s", customer_id)


@database.retrying
def _keep(account_id: str, customer_id: str, asked_at: datetime) -> str:
    """Keep the customer unless another one was kept meanwhile; the id of whichever it is."""
    with database.transaction() as session:
        _insert(session, account_id, customer_id, asked_at)
        live = (StripeCustomer.account_id == account_id, StripeCustomer.deleted_at.is_(None))
        found = session.scalars(select(StripeCustomer.id).where(*live)).first()
        return found or customer_id


def _insert(session: Session, account_id: str, customer_id: str, synced_at: datetime) -> None:
    insert = sqlite.insert if database.is_sqlite() else postgresql.insert
    values = {"id": customer_id, "account_id": account_id, "created_at": clock.now(), "synced_at": synced_at}
    session.execute(insert(StripeCustomer).values(values).on_conflict_do_nothing())


def for_customer(account_id: str, call: Callable[[str], T]) -> T:
    """What `call` answers for the account's customer. Once, with a new one, where Stripe no longer knows the old."""
    customer_id = ensure(account_id)
    try:
        return call(customer_id)
    except StripeRefused as refusal:
        if (refusal.stripe_code, refusal.stripe_param) != ("resource_missing", "customer"):
            raise
    _log.warning("customer %s is gone at Stripe", customer_id)
    _forget(customer_id)
    return call(ensure(account_id))


@database.retrying
def _forget(customer_id: str) -> None:
    with database.transaction() as session:
        row = session.get(StripeCustomer, customer_id, with_for_update=True)
        if row is not None:
            _mark_deleted(row)


# The job


def create_missing() -> int:
    """Make the customers of accounts that have none; how many. Closed accounts get none.

    One account whose customer Stripe will not make keeps nobody waiting; where Stripe does not answer, the rest is
    left to the next run.
    """
    if not gateway.is_configured():
        return 0
    made, after = 0, ""
    while made < _PER_RUN:
        page = _without(after)
        for account_id in page:
            try:
                ensure(account_id)
                made += 1
            except StripeRefused:
                _log.warning("account %s gets no customer for now", account_id)
            except StripeUnavailable:
                _log.warning("stripe does not answer: customers are made later")
                return made
        if len(page) < _PAGE:
            break
        after = page[-1]
    return made


def _without(after: str) -> list[str]:
    """Accounts without a customer, a page of them behind the id `after`."""
    db.session.rollback()
    has_one = (
        select(StripeCustomer.id)
        .where(StripeCustomer.account_id == Account.id, StripeCustomer.deleted_at.is_(None))
        .exists()
    )
    query = select(Account.id).where(Account.id > after, Account.status != AccountStatus.CLOSED, ~has_one)
    return list(db.session.scalars(query.order_by(Account.id).limit(_PAGE)))


# The mirror


def prepare(customer_id: str) -> Apply | None:
    """What a customer's change at Stripe means here: gone, or paying with another card."""
    asked_at = sync.asking()
    try:
        found = gateway.customer(customer_id)
    except StripeRefused as refusal:
        if refusal.stripe_code != "resource_missing":
            raise
        found = {"id": customer_id, "deleted": True}
    kept = known(customer_id)
    account_id = kept.account_id if kept is not None else _account_of(found)
    if account_id is None:
        return None
    method = None if found.get("deleted") else _card_of(found)

    def apply(session: Session) -> None:
        if not found.get("deleted"):
            _insert(session, account_id, customer_id, asked_at)
        row = session.get(StripeCustomer, customer_id, with_for_update=True, populate_existing=True)
        if row is None or sync.is_older(asked_at, row.synced_at):
            return  # the account has another customer, or somebody asked after us
        row.synced_at, before = asked_at, row.payment_method
        if found.get("deleted"):
            _mark_deleted(row)
        else:
            _mirror_card(row, method)
        if row.payment_method not in (None, before):
            auto_top_up.card_changed(session, row.account_id)

    return apply


def _card_of(found: dict[str, Any]) -> object:
    """The customer's default, else the newest one they have: Checkout keeps a plan's card without making it that."""
    default = (found.get("invoice_settings") or {}).get("default_payment_method")
    return default or next(gateway.payment_methods(str(found["id"])), None)


def _account_of(found: dict[str, Any]) -> str | None:
    """The account that a customer we have not kept was made for; a crash may have come between the two."""
    metadata = found.get("metadata")
    if not is_tagged(metadata):
        return None
    account = db.session.get(Account, str(metadata.get("account")))  # type: ignore[union-attr]
    return account.id if account is not None else None


def _mark_deleted(row: StripeCustomer) -> None:
    row.deleted_at = row.deleted_at or clock.now()
    _mirror_card(row, None)


def _mirror_card(row: StripeCustomer, method: object) -> None:
    """Brand and last four digits; a bank account has them too, under its own kind's name."""
    method = method if isinstance(method, dict) else {}
    kind = str(method.get("type") or "")
    details = method.get(kind) or {}
    row.payment_method = method.get("id")
    row.card_brand = (details.get("brand") or kind or None) and str(details.get("brand") or kind)[:40]
    row.card_last4 = details.get("last4")
    row.card_exp_month, row.card_exp_year = details.get("exp_month"), details.get("exp_year")
