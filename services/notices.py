"""Telling people about alerts by mail: who is told, what they do not want to be told, and writing it once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadData, URLSafeSerializer
from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

import clock
import database
import settings
from errors import NotFound, ValidationError
from extensions import db
from models.account import Account, Membership, Role
from models.alert import Alert, Unsubscription
from models.user import User
from services import accounts, alerts, letters, mailer, outgoing

_PAGE = 100
_log = logging.getLogger("spillway.notices")


@dataclass(frozen=True, slots=True)
class Subscription:
    """Mails of one kind about one account to one address."""

    address: str
    account_id: str
    kind: str


# Telling


def tell_due() -> int:
    """Write the mails about alerts that nobody was told about yet; how many alerts that were.

    One account that can not be told keeps nobody else waiting.
    """
    done, failed = 0, set[str]()
    while True:
        query = select(Alert.account_id).where(Alert.told_at.is_(None)).order_by(Alert.created_at)
        waiting = dict.fromkeys(db.session.scalars(query.where(Alert.account_id.not_in(failed)).limit(_PAGE)))
        if not waiting:
            return done
        for account_id in waiting:
            try:
                done += _tell(account_id)
            except Exception:
                _log.exception("account %s could not be told about its alerts", account_id)
                failed.add(account_id)


def _tell(account_id: str) -> int:
    """All that is new about one account. Of several thresholds of one thing the highest alone is mailed."""
    account, now = accounts.get(account_id), clock.now()
    untold = select(Alert).where(Alert.account_id == account_id, Alert.told_at.is_(None))
    found = list(db.session.scalars(untold.order_by(Alert.created_at, Alert.id)))
    mailed = {alert.id for alert in alerts.highest(found) if alert.stands(now) and not account.is_closed}
    drafts = {alert.id: _drafts(account, alert) if alert.id in mailed else [] for alert in found}
    _write(drafts)
    return len(found)


@database.retrying
def _write(drafts: dict[str, list[dict[str, Any]]]) -> None:
    """Each alert's mails exactly once, however many processes have drafted them."""
    with database.transaction() as session:
        for alert_id, mails in drafts.items():
            claim = update(Alert).where(Alert.id == alert_id, Alert.told_at.is_(None)).values(told_at=clock.now())
            if session.execute(claim).rowcount:  # type: ignore[attr-defined]
                for mail in mails:
                    mailer.queue(session, **mail)
                alert = session.scalars(select(Alert).where(Alert.id == alert_id)).one()
                outgoing.emit(
                    session.connection(), "alert.created", alert.account_id, alerts.render(alert, clock.now())
                )


def _drafts(account: Account, alert: Alert) -> list[dict[str, Any]]:
    """A mail to each who is told."""
    values = {
        "account": account.name,
        "message": alerts.message(alert),
        "threshold": alert.threshold,
        "details": alerts.details(alert),
        "ends_at": alert.ends_at,
    }
    drafts = []
    for address in _addresses(account, alert.kind):
        stop = None if alert.kind in letters.ESSENTIAL else link(Subscription(address, account.id, alert.kind))
        letter = letters.compose(alert.kind, values, stop)
        told = {"subject": letter.subject, "text": letter.text, "html": letter.html}
        drafts.append({"to": address, "kind": alert.kind, **told, "unsubscribe": stop and one_click(stop)})
    return drafts


def _addresses(account: Account, kind: str) -> list[str]:
    """Owners and admins whose address is known to be theirs; without any, the account's own address."""
    managers = (
        select(User)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.account_id == account.id, Membership.role.in_([Role.OWNER.value, Role.ADMIN.value]))
        .order_by(User.email)
    )
    people = list(db.session.scalars(managers))
    unproved = settings.current().mail_url is not None
    addresses = [user.email for user in people if user.email_verified_at is not None or not unproved]
    if not people and account.email:
        addresses = [account.email]
    if kind in letters.ESSENTIAL:
        return addresses
    stopped = select(Unsubscription.address).where(
        Unsubscription.account_id == account.id, Unsubscription.kind == kind, Unsubscription.address.in_(addresses)
    )
    gone = set(db.session.scalars(stopped))
    return [address for address in addresses if address not in gone]


# Not being told


def _signer() -> URLSafeSerializer:
    return URLSafeSerializer(settings.current().secret_key, salt="unsubscribe")


def link(subscription: Subscription) -> str:
    """The address of the page that stops these mails; it works without a log-in and never expires."""
    signed = _signer().dumps([subscription.address, subscription.account_id, subscription.kind])
    return f"{settings.current().public_url}/unsubscribe/{signed}"


def one_click(page: str) -> str:
    """The address that stops them at once, for mail programs (RFC 8058)."""
    return page.replace("/unsubscribe/", "/api/unsubscribe/")


def subscription_of(signed: str) -> Subscription:
    """What a link is about. Raises NotFound for one that is not ours."""
    try:
        address, account_id, kind = _signer().loads(signed)
    except (BadData, ValueError):
        raise NotFound("This link is not complete.") from None
    return Subscription(address, account_id, kind)


def account_name(account_id: str) -> str:
    """For the page of a link, which shows it to whoever got the mail."""
    account = db.session.get(Account, account_id)
    return account.name if account is not None else "a former account"


@database.retrying
def unsubscribe(subscription: Subscription) -> None:
    """Stop these mails; harmless when they are stopped. Raises ValidationError for essential ones."""
    if subscription.kind in letters.ESSENTIAL:
        raise ValidationError({"kind": ["These mails can not be stopped."]})
    with database.transaction() as session:
        _stop(session, [subscription])


def _stop(session: Session, subscriptions: Iterable[Subscription]) -> None:
    conn = session.connection()
    insert = (sqlite if conn.dialect.name == "sqlite" else postgresql).insert
    for one in subscriptions:
        values: dict[str, Any] = {"address": one.address, "account_id": one.account_id, "kind": one.kind}
        conn.execute(insert(Unsubscription).values(**values, created_at=clock.now()).on_conflict_do_nothing())


def wanted(address: str, account_id: str) -> dict[str, bool]:
    """Of each kind of mail, whether it comes to the address; essential ones always do."""
    query = select(Unsubscription.kind).where(
        Unsubscription.address == address, Unsubscription.account_id == account_id
    )
    stopped = set(db.session.scalars(query))
    return {kind: kind in letters.ESSENTIAL or kind not in stopped for kind in letters.KINDS}


@database.retrying
def choose(address: str, account_id: str, kinds: Iterable[str]) -> None:
    """From now on just these kinds of mail come to the address, and essential ones."""
    chosen = set(kinds)
    with database.transaction() as session:
        mine = (Unsubscription.address == address) & (Unsubscription.account_id == account_id)
        session.execute(delete(Unsubscription).where(mine))
        stopped = [kind for kind in letters.KINDS if kind not in chosen and kind not in letters.ESSENTIAL]
        _stop(session, [Subscription(address, account_id, kind) for kind in stopped])
