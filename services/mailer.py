"""The outbox: a mail is written in the transaction that causes it, and sent afterwards, outside of any.

Without a mail server mails go to the log, where whoever runs Spillway can read their links.
"""

from __future__ import annotations

import logging
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

import clock
import database
import ids
import settings
from extensions import db
from models.user import Mail

_log = logging.getLogger("spillway.mail")
_mails = structlog.get_logger("spillway.mail")
_LEASE = timedelta(minutes=5)
"""How long one process may take to send a mail before another tries."""
_LONGEST_PAUSE = timedelta(hours=6)
_TIMEOUT_SECONDS = 20


def queue(
    session: Session,
    *,
    to: str,
    kind: str,
    subject: str,
    text: str,
    html: str | None = None,
    unsubscribe: str | None = None,
) -> None:
    """Write a mail into the session's transaction; it exists exactly when the transaction does."""
    now = clock.now()
    session.add(
        Mail(
            id=ids.new("mail"),
            to=to,
            kind=kind,
            subject=subject,
            text=text,
            html=html,
            unsubscribe=unsubscribe,
            created_at=now,
            next_attempt_at=_real_now(),
        )
    )


def deliver_now() -> None:
    """After the transaction: without a mail server the log takes the mail at once; otherwise the job sends it."""
    if settings.current().mail_url is None:
        send_due()


def send_due(by_hand: bool = False, limit: int = 50) -> int:
    """Send the mails that wait, oldest first; how many went. `by_hand` ignores the pauses after failures."""
    query = select(Mail.id).where(Mail.sent_at.is_(None)).order_by(Mail.created_at, Mail.id).limit(limit)
    if not by_hand:
        query = query.where(Mail.next_attempt_at <= _real_now())
    waiting = list(db.session.scalars(query))
    return sum(_send(mail_id, by_hand) for mail_id in waiting)


def _send(mail_id: str, by_hand: bool) -> bool:
    mail = _claim(mail_id, by_hand)
    if mail is None:
        return False
    try:
        _deliver(mail)
    except (OSError, smtplib.SMTPException) as error:
        _log.warning("mail %s was not sent (attempt %d): %s", mail.id, mail.attempts, type(error).__name__)
        _settle(mail, error)
        return False
    _settle(mail, None)
    return True


@database.retrying
def _claim(mail_id: str, by_hand: bool) -> Mail | None:
    """Of several processes that want to send a mail, one gets it.

    By hand too: a mail without an error that is not due is being sent by another process right now.
    """
    now = _real_now()
    free = Mail.next_attempt_at <= now
    if by_hand:
        free = or_(free, Mail.error.is_not(None))
    with database.transaction() as session:
        due = update(Mail).where(Mail.id == mail_id, Mail.sent_at.is_(None), free)
        taken = session.execute(due.values(next_attempt_at=now + _LEASE, attempts=Mail.attempts + 1, error=None))
        return session.get(Mail, mail_id) if taken.rowcount else None  # type: ignore[attr-defined]


@database.retrying
def _settle(mail: Mail, error: Exception | None) -> None:
    with database.transaction() as session:
        kept = session.get_one(Mail, mail.id)
        if error is None:
            kept.sent_at, kept.error = clock.now(), None
        else:
            pause = min(timedelta(seconds=15 * 2 ** min(kept.attempts, 12)), _LONGEST_PAUSE)
            kept.next_attempt_at, kept.error = _real_now() + pause, f"{type(error).__name__}: {error}"[:500]


def _deliver(mail: Mail) -> None:
    """Raises OSError, SMTPException."""
    url = settings.current().mail_url
    if url is None:
        _mails.info("mail", kind=mail.kind, to=mail.to, subject=mail.subject, text=mail.text)
        return
    server_url = urlsplit(url)
    message = EmailMessage()
    message["Subject"], message["To"], message["From"] = mail.subject, mail.to, _sender(server_url)
    message["Message-ID"] = f"<{mail.id}@{urlsplit(settings.current().public_url).hostname}>"
    message.set_content(mail.text)
    if mail.html is not None:
        message.add_alternative(mail.html, subtype="html")
    if mail.unsubscribe is not None:
        message["List-Unsubscribe"] = f"<{mail.unsubscribe}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    with _connected(server_url) as server:
        server.send_message(message)


@contextmanager
def _connected(url: SplitResult) -> Iterator[smtplib.SMTP]:
    """A connection on which no password ever travels in the clear when the server can encrypt."""
    host, tls = url.hostname or "", ssl.create_default_context()
    if url.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, url.port or 465, timeout=_TIMEOUT_SECONDS, context=tls)
    else:
        server = smtplib.SMTP(host, url.port or (587 if url.username else 25), timeout=_TIMEOUT_SECONDS)
    with server:
        server.ehlo_or_helo_if_needed()
        if url.scheme == "smtp+starttls" or (url.username and server.has_extn("starttls")):
            server.starttls(context=tls)
        if url.username:
            server.login(unquote(url.username), unquote(url.password or ""))
        yield server


def _sender(url: SplitResult) -> str:
    """`?from=` of the mail server's address, else one made of the public address."""
    named = parse_qs(url.query).get("from")
    return named[0] if named else f"spillway@{urlsplit(settings.current().public_url).hostname}"


def _real_now() -> datetime:
    return datetime.now(UTC)
