"""Telling the operator's product what happened: signed as Standard Webhooks say, tried again, and kept in a log.

An event is written in the transaction that causes it, and only where somebody listens. Times of tries are real time.
"""

from __future__ import annotations

import base64
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import simplejson
from sqlalchemy import Connection, insert, select, update
from standardwebhooks import Webhook

import clock
import database
import ids
import settings
from errors import NotFound, ValidationError
from extensions import db
from models.base import written
from models.outgoing import Delivery, DeliveryStatus, OutgoingEndpoint, OutgoingEvent
from services import posting

EVENTS = {
    "alert.created": "An account was told something: `data` is the alert as `GET /alerts` shows it.",
    "credits.granted": "The operator gave credits: `data` has `lot`, `credits`, `reason` and `balance`.",
    "credits.purchased": "Credits were bought: `data` has `purchase`, `lot`, `credits` and `balance`.",
    "endpoint.test": "Somebody pressed the button that tries an endpoint.",
}
_PAUSES = [5, 60, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
"""Seconds after each failed try; after the last one comes no other."""
_LEASE = timedelta(minutes=2)
"""How long one process may take to deliver before another tries."""
_MOST_ENDPOINTS = 10
_log = logging.getLogger("spillway.outgoing")


# What happened


def emit(conn: Connection, kind: str, account_id: str | None, data: Mapping[str, Any]) -> None:
    """Write an event for every endpoint, in the caller's transaction; nothing where there is none."""
    endpoints = list(conn.execute(select(OutgoingEndpoint.id).where(OutgoingEndpoint.disabled_at.is_(None))).scalars())
    if endpoints:
        _write(conn, kind, account_id, data, endpoints)


def _write(conn: Connection, kind: str, account_id: str | None, data: Mapping[str, Any], endpoints: list[str]) -> None:
    now, event_id = clock.now(), ids.new("evt")
    body = {"type": kind, "timestamp": clock.rfc3339(now), "account": account_id, "data": data}
    payload = simplejson.dumps(body, use_decimal=True, default=_plain)
    conn.execute(
        insert(OutgoingEvent).values(id=event_id, type=kind, account_id=account_id, payload=payload, created_at=now)
    )
    for endpoint_id in endpoints:
        values = {"event_id": event_id, "endpoint_id": endpoint_id, "status": DeliveryStatus.PENDING.value}
        times = {"created_at": now, "next_attempt_at": _real_now()}
        conn.execute(insert(Delivery).values(id=ids.new("dlv"), attempts=0, **values, **times))


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return clock.rfc3339(value)
    raise TypeError(type(value).__name__)


# Delivering


def deliver_due(by_hand: bool = False, limit: int = 50) -> int:
    """Try what waits, the longest due first; how many arrived. `by_hand` ignores the pauses after failures."""
    query = select(Delivery.id).where(Delivery.status == written(DeliveryStatus.PENDING.value))
    if not by_hand:
        query = query.where(Delivery.next_attempt_at <= _real_now())
    due = query.order_by(Delivery.next_attempt_at, Delivery.id).limit(limit)
    return sum(_deliver(found, by_hand) for found in db.session.scalars(due).all())


@dataclass(frozen=True, slots=True)
class _Parcel:
    delivery_id: str
    event_id: str
    url: str
    secret: str
    payload: str


def _deliver(delivery_id: str, by_hand: bool) -> bool:
    parcel = _claim(delivery_id, by_hand)
    if parcel is None:
        return False
    try:
        status, error = _post(parcel), None
    except posting.NotSent as refusal:
        status, error = None, str(refusal)
    return _settle(delivery_id, status, error)


def _post(parcel: _Parcel) -> int:
    """The status of the answer. Raises posting.NotSent."""
    now = _real_now()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Spillway",
        "webhook-id": parcel.event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(parcel.secret).sign(parcel.event_id, now, parcel.payload),
    }
    private = settings.current().webhook_private_networks
    return posting.post(parcel.url, parcel.payload.encode(), headers, private=private)


@database.retrying
def _claim(delivery_id: str, by_hand: bool) -> _Parcel | None:
    """Of several processes that want to deliver, one gets it; by hand too, unless another is at it right now."""
    now = _real_now()
    with database.transaction() as session:
        mine = (Delivery.id == delivery_id) & (Delivery.status == DeliveryStatus.PENDING.value)
        free = Delivery.next_attempt_at <= now
        if by_hand:
            free = free | Delivery.error.is_not(None) | Delivery.answer.is_not(None)
        taken = (
            update(Delivery)
            .where(mine, free)
            .values(
                next_attempt_at=now + _LEASE,
                last_attempt_at=now,
                attempts=Delivery.attempts + 1,
                error=None,
                answer=None,
            )
        )
        if not session.execute(taken).rowcount:  # type: ignore[attr-defined]
            return None
        delivery = session.get_one(Delivery, delivery_id)
        endpoint = session.get_one(OutgoingEndpoint, delivery.endpoint_id)
        if endpoint.disabled_at is not None:
            delivery.status, delivery.error = DeliveryStatus.DEAD.value, "the endpoint is switched off"
            return None
        event = session.get_one(OutgoingEvent, delivery.event_id)
        return _Parcel(delivery_id, event.id, endpoint.url, endpoint.secret, event.payload)


@database.retrying
def _settle(delivery_id: str, status: int | None, error: str | None) -> bool:
    with database.transaction() as session:
        kept = session.get_one(Delivery, delivery_id)
        kept.answer, kept.error = status, error
        arrived = status is not None and 200 <= status < 300
        if arrived:
            kept.status, kept.delivered_at = DeliveryStatus.DELIVERED.value, clock.now()
        elif status == 410:
            kept.status = DeliveryStatus.DEAD.value
            endpoint = session.get_one(OutgoingEndpoint, kept.endpoint_id)
            endpoint.disabled_at, endpoint.disabled_reason = clock.now(), "It answered 410 Gone."
        elif kept.attempts > len(_PAUSES):
            kept.status = DeliveryStatus.DEAD.value
        else:
            kept.next_attempt_at = _real_now() + timedelta(seconds=_PAUSES[kept.attempts - 1])
    if not arrived:
        _log.warning("delivery %s did not arrive: %s", delivery_id, error or f"HTTP {status}")
    return arrived


# What operators do


def endpoints() -> list[OutgoingEndpoint]:
    return list(db.session.scalars(select(OutgoingEndpoint).order_by(OutgoingEndpoint.created_at, OutgoingEndpoint.id)))


def log(limit: int = 50) -> list[tuple[Delivery, OutgoingEvent, OutgoingEndpoint]]:
    """The newest deliveries, with what they carry and where to."""
    query = (
        select(Delivery, OutgoingEvent, OutgoingEndpoint)
        .join(OutgoingEvent, OutgoingEvent.id == Delivery.event_id)
        .join(OutgoingEndpoint, OutgoingEndpoint.id == Delivery.endpoint_id)
        .order_by(Delivery.created_at.desc(), Delivery.id.desc())
        .limit(limit)
    )
    return [(row[0], row[1], row[2]) for row in db.session.execute(query)]


@database.retrying
def add(url: str) -> OutgoingEndpoint:
    """A new endpoint, with a secret of its own. Raises ValidationError."""
    try:
        posting.check(url, private=settings.current().webhook_private_networks)
    except ValueError as error:
        raise ValidationError({"url": [str(error)]}) from None
    with database.transaction() as session:
        if len(session.scalars(select(OutgoingEndpoint.id)).all()) >= _MOST_ENDPOINTS:
            raise ValidationError({"url": [f"There are {_MOST_ENDPOINTS} endpoints; take one of them."]})
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        made = OutgoingEndpoint(id=ids.short("whe"), url=url, secret=secret, created_at=clock.now())
        session.add(made)
        return made


@database.retrying
def switch(endpoint_id: str, *, on: bool) -> None:
    """Send there again, or no more. Raises NotFound."""
    with database.transaction() as session:
        endpoint = _endpoint(session, endpoint_id)
        endpoint.disabled_at = None if on else clock.now()
        endpoint.disabled_reason = None if on else "An operator switched it off."


@database.retrying
def test(endpoint_id: str) -> None:
    """Send an event that means nothing. Raises NotFound."""
    with database.transaction() as session:
        endpoint = _endpoint(session, endpoint_id)
        _write(session.connection(), "endpoint.test", None, {"url": endpoint.url}, [endpoint.id])


@database.retrying
def send_again(delivery_id: str) -> None:
    """Try the delivery anew, whatever became of it: with the same id and body. Raises NotFound."""
    with database.transaction() as session:
        delivery = session.get(Delivery, delivery_id)
        if delivery is None:
            raise NotFound("No such delivery.")
        delivery.status, delivery.delivered_at, delivery.attempts = DeliveryStatus.PENDING.value, None, 0
        delivery.next_attempt_at, delivery.error, delivery.answer = _real_now(), None, None


def _endpoint(session: Any, endpoint_id: str) -> OutgoingEndpoint:
    endpoint: OutgoingEndpoint | None = session.get(OutgoingEndpoint, endpoint_id)
    if endpoint is None:
        raise NotFound("No such endpoint.")
    return endpoint


def _real_now() -> datetime:
    return datetime.now(UTC)
