"""Webhooks: signed as Stripe signs them, sent over HTTP, sent again until somebody answers 2xx.

Modes (several at once) make it as bad as the real thing can be: `hold` keeps what is sent until it is released,
`duplicate` sends all twice, `shuffle` in another order, `delay` later, `drop` not at all.
"""

import itertools
import random
import threading
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from stripe import WebhookSignature

from sandbox.shapes import Obj, to_json

OVER = ("delivered", "lost")
TIMEOUT = 20
WAITS = (0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1200, 3600, 7200, 14400)
USER_AGENT = "Stripe/1.0 (+https://stripe.com/docs/webhooks)"


@dataclass
class Modes:
    """How deliveries go wrong; numbers are shares of all events (0 to 1), seconds for the delay."""

    hold: bool = False
    duplicate: float = 0.0
    shuffle: bool = False
    delay_seconds: float = 0.0
    drop: float = 0.0
    retry: bool = True
    waits: list[float] = field(default_factory=lambda: list(WAITS))
    types: list[str] = field(default_factory=list)

    def concern(self, event_type: str) -> bool:
        return not self.types or event_type in self.types


@dataclass
class Parcel:
    """One event for one endpoint."""

    number: int
    event: Obj
    body: str
    url: str
    secret: str
    subject: str
    state: str = "pending"  # pending, held, sending, delivered, failed (to be tried again), lost
    attempts: int = 0
    status: int | None = None
    due: float = 0.0

    def header(self) -> str:
        """Signed with the machine's time, whatever the sandbox's clock says: receivers compare with theirs."""
        return str(WebhookSignature.generate_signature_header(self.body, self.secret, int(time.time())))

    def summary(self) -> dict[str, Any]:
        return {
            "id": self.number,
            "event": self.event["id"],
            "type": self.event["type"],
            "subject": self.subject,
            "url": self.url,
            "state": self.state,
            "attempts": self.attempts,
            "status": self.status,
            "payload": self.body,
            "signature": self.header(),
        }


class Courier:
    """Sends parcels in the order of their events from a thread of its own, so no request waits for an endpoint."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        self.stopped = False
        self.reset()

    def reset(self) -> None:
        with self.changed:
            self.parcels: list[Parcel] = []
            self.open: dict[int, Parcel] = {}  # neither delivered nor lost
            self.modes, self.chance = Modes(), random.Random(1)  # noqa: S311 (repeatable, not secret)
            self.numbers = itertools.count(1)

    def configure(self, **modes: Any) -> dict[str, Any]:
        with self.changed:
            self.modes = Modes(**(asdict(self.modes) | modes))
            self.changed.notify_all()
            return asdict(self.modes)

    def post(self, event: Obj, endpoint: Obj, subject: str) -> None:
        with self.changed:
            modes = self.modes
            concerned = modes.concern(event["type"])
            dropped = concerned and self.chance.random() < modes.drop
            copies = 2 if concerned and self.chance.random() < modes.duplicate else 1
            body = to_json(event)  # the same in every attempt
            for _ in range(copies):
                parcel = Parcel(next(self.numbers), event, body, endpoint["url"], endpoint["secret"], subject)
                parcel.due = time.monotonic() + (modes.delay_seconds if concerned else 0)
                parcel.state = "lost" if dropped else "held" if concerned and modes.hold else "pending"
                self._keep(parcel)
            if self.thread is None and not self.stopped:
                self.thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
                self.thread.start()
            self.changed.notify_all()

    def _keep(self, parcel: Parcel) -> None:
        self.parcels.append(parcel)
        if parcel.state not in OVER:
            self.open[parcel.number] = parcel

    def summaries(self, state: str | None = None, after: int = 0) -> list[dict[str, Any]]:
        """In this state, if one is given, and numbered above `after`; oldest first."""
        with self.changed:
            chosen = [parcel for parcel in self.parcels if parcel.number > after and state in (None, parcel.state)]
            return [parcel.summary() for parcel in chosen]

    def release(
        self, states: tuple[str, ...] = ("held", "failed"), duplicate: bool = False, ids: list[int] | None = None
    ) -> int:
        """Send what is held, or waits for its next attempt, now; also lost or delivered ones when asked for."""
        with self.changed:
            chosen = [one for one in self.parcels if one.state in states and (ids is None or one.number in ids)]
            for parcel in chosen:
                parcel.state, parcel.due = "pending", 0.0
                self.open[parcel.number] = parcel
                if duplicate:
                    self._keep(replace(parcel, number=next(self.numbers), attempts=0, status=None))
            self.changed.notify_all()
            return len(chosen)

    def drain(self, seconds: float = 30.0, retries: bool = False) -> bool:
        """Wait until every parcel had its attempt (`retries`: was taken or given up); False when that took too long."""
        deadline = time.monotonic() + seconds
        open_ones = ("pending", "sending", "failed") if retries else ("pending", "sending")
        with self.changed:
            while any(parcel.state in open_ones for parcel in self.open.values()):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self.changed.wait(min(left, 0.5))
        return True

    def refused(self, event_type: str, subject: str) -> bool:
        """Whether an endpoint was told this and did not answer 2xx so far."""
        with self.changed:
            return any(
                parcel.state == "failed" and parcel.event["type"] == event_type and parcel.subject == subject
                for parcel in self.open.values()
            )

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def _next(self) -> tuple[Parcel | None, float]:
        """The parcel to send now, or how long nothing is due."""
        now = time.monotonic()
        waiting = [parcel for parcel in self.open.values() if parcel.state in ("pending", "failed")]
        due = [parcel for parcel in waiting if parcel.due <= now]
        if due:
            return (self.chance.choice(due) if self.modes.shuffle else due[0]), 0.0
        return None, min((parcel.due - now for parcel in waiting), default=60.0)

    def _run(self) -> None:
        while True:
            with self.changed:
                parcel, wait = self._next()
                if self.stopped:
                    return
                if parcel is None:
                    self.changed.wait(wait)
                    continue
                parcel.state = "sending"
            status = _send(parcel)
            with self.changed:
                self._note(parcel, status)
                self.changed.notify_all()

    def _note(self, parcel: Parcel, status: int | None) -> None:
        parcel.attempts += 1
        parcel.status = status
        if status is not None and 200 <= status < 300:
            parcel.state = "delivered"
            parcel.event["pending_webhooks"] = max(0, parcel.event["pending_webhooks"] - 1)
        elif self.modes.retry and parcel.attempts <= len(self.modes.waits):
            parcel.state = "failed"
            parcel.due = time.monotonic() + self.modes.waits[parcel.attempts - 1]
        else:
            parcel.state = "lost"
        if parcel.state in OVER:
            self.open.pop(parcel.number, None)


class _Stay(urllib.request.HTTPRedirectHandler):
    """An endpoint that answers by a redirect has not taken the event."""

    def redirect_request(self, *_: Any) -> None:
        return None


# Straight to the endpoint, whatever proxies the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())


def _send(parcel: Parcel) -> int | None:
    """The status answered; None when nobody answered in time."""
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": parcel.header(),
        "User-Agent": USER_AGENT,
    }
    request = urllib.request.Request(parcel.url, parcel.body.encode(), headers, method="POST")  # noqa: S310
    try:
        with OPENER.open(request, timeout=TIMEOUT) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (OSError, ValueError):
        return None
