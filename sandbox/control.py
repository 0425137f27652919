"""Steering a sandbox from another program: the calls under /_sandbox as methods, by the standard library alone."""

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]
LONG = 600
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a sandbox is never behind a proxy


class SandboxError(RuntimeError):
    """The sandbox refused; the text is its reason."""


class Sandbox:
    """The sandbox at `base_url`. Moments are aware datetimes, RFC 3339 texts or Unix seconds."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")

    def call(self, method: str, path: str, body: Json | None = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        url, headers = f"{self.base_url}/_sandbox/{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
        try:
            with OPENER.open(request, timeout=LONG) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
            raise SandboxError(f"{method} {path}: {error.code} {text}") from None

    # time
    def now(self) -> datetime:
        return datetime.fromisoformat(self.call("GET", "clock")["now"])

    def set_clock(self, to: datetime | str | int) -> datetime:
        """Only the time: what would have come due on the way does not happen until the next `advance`."""
        return datetime.fromisoformat(self.call("POST", "clock", {"to": _moment(to)})["now"])

    def advance(
        self, to: datetime | str | int | None = None, *, wait: bool = True, drain_seconds: float = 60.0, **delta: float
    ) -> list[Json]:
        """Move the clock to a moment, or by `days=`, `hours=`, …; what happened on the way, in order.

        With `wait` the endpoints have been told of each moment before the next one comes.
        """
        target = self.now() + timedelta(**delta) if to is None else to
        body = {"to": _moment(target), "wait": wait, "drain_seconds": drain_seconds}
        steps: list[Json] = self.call("POST", "advance", body)["steps"]
        return steps

    def agenda(self) -> list[Json]:
        """What is planned: `at`, `what`, `object`, soonest first."""
        planned: list[Json] = self.call("GET", "agenda")["planned"]
        return planned

    # state
    def reset(self) -> None:
        """Forget every object, event, fault and mode. The clock and the endpoint given at the start stay."""
        self.call("POST", "reset")

    def dump(self, kind: str | None = None) -> Any:
        """All objects: kind → list, or the list of one kind, in the order of their creation."""
        objects = self.call("GET", f"objects/{kind}" if kind else "objects")
        return objects["data"] if kind else objects

    def events(self, *types: str) -> list[Json]:
        """Every event so far, oldest first; of these types only, if any are given."""
        return [event for event in self.dump("event") if not types or event["type"] in types]

    def settings(self, **changes: Any) -> Json:
        """`retry_days`, `after_retries` (cancel, unpaid, past_due), `draft_seconds`, `bank_seconds`, and
        `refuse_disputed_refunds`; the settings afterwards.
        """
        return dict(self.call("POST", "settings", changes))

    # webhooks
    def add_webhook(self, url: str, secret: str | None = None, events: list[str] | None = None) -> Json:
        """An endpoint, as the API would make it, with a secret of one's own choice."""
        return dict(self.call("POST", "webhooks", {"url": url, "secret": secret, "events": events or ["*"]}))

    def modes(self, **changes: Any) -> Json:
        """`hold`, `duplicate`, `shuffle`, `delay_seconds`, `drop`, `retry`, `waits`, `types`; the modes afterwards."""
        return dict(self.call("POST", "modes", changes))

    def deliveries(self, state: str | None = None, *, after: int = 0) -> list[Json]:
        """Deliveries with their payload, a fresh signature, their state and attempts; numbered above `after`."""
        chosen = f"after={after}" + (f"&state={state}" if state else "")
        found: list[Json] = self.call("GET", f"deliveries?{chosen}")["data"]
        return found

    def release(self, *states: str, duplicate: bool = False, ids: list[int] | None = None) -> int:
        """Send what is held or failed now (or those of other states: lost, delivered); how many."""
        body = {"states": list(states) or ["held", "failed"], "duplicate": duplicate, "ids": ids}
        return int(self.call("POST", "deliveries/release", body)["released"])

    def drain(self, seconds: float = 30.0, *, retries: bool = False) -> bool:
        """Wait until all that is due was sent; with `retries` until each was taken or given up. False: not in time."""
        return bool(self.call("POST", "deliveries/drain", {"seconds": seconds, "retries": retries})["drained"])

    # faults
    def fault(self, kind: str, **options: Any) -> Json:
        """Answer the next matching call badly.

        `kind`: error, unavailable, rate_limit, authentication, card, timeout, malformed. `times` (1; 0 for ever),
        `method`, `path` (a prefix), `seconds` to wait first, `after`: carry the call out before.
        """
        return dict(self.call("POST", "faults", {"kind": kind} | options))

    def clear_faults(self) -> None:
        self.call("DELETE", "faults")

    # people and banks
    def pay_checkout(self, session: str, card: str | None = "4242424242424242", **options: Any) -> Json:
        """What the customer does on the page: `email`, `name`, and `authenticate` (True or False) to 3-D Secure.

        Answers `status`, `payment_status`, `message` (why it was declined) and `url` (where they go next).
        """
        return dict(self.call("POST", f"checkout/{session}/pay", {"card": card} | options))

    def authenticate(self, intent: str, agreed: bool = True) -> Json:
        """The customer answers their bank's question about a payment or setup intent."""
        return dict(self.call("POST", f"authenticate/{intent}", {"agreed": agreed}))

    def use_card(self, customer: str, card: str) -> Json:
        """This card becomes the one that the customer and their subscriptions pay with; no call of the API does."""
        return dict(self.call("POST", f"customers/{customer}/card", {"card": card}))

    def fail_next_payments(self, customer: str) -> Json:
        """From now on every charge of this customer is declined, until another card is used."""
        return self.use_card(customer, "4000000000000341")

    def settle_debits(self, outcome: str | None = None, intent: str | None = None) -> int:
        """The banks answer now: as the account number says, or `succeed` or `fail` for all of them. How many."""
        return int(self.call("POST", "debits", {"outcome": outcome, "intent": intent})["settled"])

    def dispute(self, charge: str, **options: Any) -> Json:
        """The cardholder's bank disputes a charge, or the charge of a payment intent.

        `amount` (all of it), `status` (needs_response; warning_needs_response is an inquiry), `reason`.
        """
        return dict(self.call("POST", f"charges/{charge}/dispute", options))

    def close_dispute(self, dispute: str, status: str) -> Json:
        """The bank decides: won, lost, warning_closed or prevented."""
        return dict(self.call("POST", f"disputes/{dispute}/close", {"status": status}))

    def escalate_dispute(self, dispute: str) -> Json:
        """An inquiry becomes a chargeback: now the money is withdrawn."""
        return dict(self.call("POST", f"disputes/{dispute}/escalate"))

    def fail_refund(self, refund: str) -> Json:
        """The customer's bank sends a refund back."""
        return dict(self.call("POST", f"refunds/{refund}/fail"))


def _moment(value: datetime | str | int) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
