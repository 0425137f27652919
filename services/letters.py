"""What mails say: one small template for each event, laid out as text and as HTML from the same words.

A template's first line is `subject: …`, its last one `action: label -> address`; what is between are paragraphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from flask import current_app
from jinja2 import Environment

import clock
import settings
from models.alert import AlertKind

ESSENTIAL = frozenset(
    kind.value
    for kind in (
        AlertKind.PAYMENT_FAILED,
        AlertKind.PLAN_LAPSED,
        AlertKind.SUSPENDED,
        AlertKind.CARD_EXPIRING,
        AlertKind.OVERAGE,
        AlertKind.TOP_UP_ACTION,
        AlertKind.TOP_UP_FAILED,
        AlertKind.TOP_UP_OFF,
    )
)
"""Mails that cannot be stopped: not to know would cost money or access."""
KINDS: dict[str, str] = {
    AlertKind.ALLOWANCE.value: "The allowance is nearly used",
    AlertKind.LOW_BALANCE.value: "Few credits are left",
    AlertKind.CAP_REACHED.value: "A cap is reached",
    AlertKind.SPIKE.value: "A day far above the usual",
    AlertKind.PAYMENT_FAILED.value: "A payment failed",
    AlertKind.PLAN_LAPSED.value: "The plan rests until a payment comes",
    AlertKind.SUSPENDED.value: "The account is suspended",
    AlertKind.RESTORED.value: "Nothing is unpaid any more",
    AlertKind.CARD_EXPIRING.value: "The card expires soon",
    AlertKind.OVERAGE.value: "Usage beyond the plan",
    AlertKind.TOPPED_UP.value: "Auto top-up bought credits",
    AlertKind.TOP_UP_CEILING.value: "Auto top-up has reached its ceiling",
    AlertKind.TOP_UP_ACTION.value: "Auto top-up waits for your bank",
    AlertKind.TOP_UP_FAILED.value: "Auto top-up failed",
    AlertKind.TOP_UP_OFF.value: "Auto top-up was turned off",
}
"""Each event that is mailed, in words."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail's content; `body` is what is between the HTML document's covers."""

    subject: str
    text: str
    html: str
    body: str


def compose(kind: str, values: Mapping[str, Any], unsubscribe: str | None = None) -> Letter:
    """The mail about an event. `values`: account, message, details, threshold and ends_at, as templates name them.

    Raises KeyError for an unknown kind.
    """
    words = _environment().get_template(f"mail/{_known(kind)}.txt").render(**values)
    lines = words.strip().splitlines()
    told: dict[str, Any] = {
        "account": values["account"],
        "subject": " ".join(lines[0].removeprefix("subject: ").split())[:250],
        "paragraphs": [" ".join(part.split()) for part in "\n".join(lines[1:-1]).split("\n\n") if part.strip()],
        "action": _action(lines[-1]),
        "unsubscribe": unsubscribe,
    }
    text, html, body = (_environment().get_template(f"mail/{name}").render(**told) for name in _LAYOUTS)
    return Letter(told["subject"], text.strip() + "\n", html, body)


_LAYOUTS = ("letter.txt", "letter.html", "_letter.html")


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise KeyError(kind)
    return kind


def _action(line: str) -> dict[str, str]:
    label, _, address = line.removeprefix("action: ").partition(" -> ")
    absolute = address if address.startswith(("https://", "http://")) else settings.current().public_url + address
    return {"label": label, "url": absolute}


def _environment() -> Environment:
    """The app's, with what mails need beside it: they are read without a browser that knows the reader's zone."""
    environment: Environment = current_app.jinja_env
    environment.filters.setdefault("day", _day)
    environment.filters.setdefault("moment", _moment)
    return environment


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


def _moment(moment: datetime | str) -> str:
    """Of a datetime, or of an alert's detail."""
    moment = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"{_day(moment)}, {moment:%H:%M} UTC"


def sample(kind: str) -> Letter:
    """What the mail looks like, for operators. Raises KeyError."""
    ends_at = clock.now() + timedelta(days=9)
    message = "The cap of 500 credits per day for the account is reached."
    if kind == AlertKind.SPIKE:
        message = "640 credits were used today; 120 a day are usual."
    if kind == AlertKind.OVERAGE:
        message = "90 % of the $50.00 agreed for usage beyond the plan is used."
    details: dict[str, Any] = {"used": 22_500, "included": 25_000, "remaining": Decimal("19.5"), "top_up": 100}
    details |= {"last4": "4242", "credits": 1000, "amount": 1000, "currency": "usd", "failures": 2, "url": None}
    details |= {"why": "the card was declined", "next_at": clock.rfc3339(ends_at), "spent": 4500, "ceiling": 5000}
    details |= {"limit": "$50.00"}
    values = {
        "account": "Acme Vision",
        "message": message,
        "threshold": 90 if kind in (AlertKind.ALLOWANCE, AlertKind.OVERAGE) else None,
        "details": details,
        "ends_at": ends_at,
    }
    stop = None if kind in ESSENTIAL else f"{settings.current().public_url}/unsubscribe/…"
    return compose(kind, values, stop)
