"""What Spillway refuses, and why. Knows no Flask: one renderer (blueprints/wire.py) turns these into answers.

Each class fixes the stable `code`, the HTTP status and the title; an instance adds `detail` and extra fields.
"""

from __future__ import annotations

from typing import Any


class SpillwayError(Exception):
    """Base of everything that is refused on purpose."""

    status = 500
    code = "internal_error"
    title = "Something went wrong on our side"

    def __init__(self, detail: str | None = None, **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extra = extra


class MalformedJson(SpillwayError):
    status, code, title = 400, "malformed_json", "The body is not valid JSON"


class BadRequest(SpillwayError):
    """A page's form without a valid CSRF token, or a request the HTTP layer can not read."""

    status, code, title = 400, "bad_request", "The request can not be read"


class Unauthenticated(SpillwayError):
    status, code, title = 401, "unauthenticated", "A valid access token is needed"


class InsufficientCredits(SpillwayError):
    status, code, title = 402, "insufficient_credits", "Not enough credits"


class CapReached(SpillwayError):
    """`cap_occasion` is the cap itself, whoever it refused: what the account is told once about in each window."""

    status, code, title = 402, "cap_reached", "A spending cap is reached"
    cap_occasion: str | None = None


class PaymentPastDue(SpillwayError):
    status, code, title = 402, "payment_past_due", "A payment is past due"


class Forbidden(SpillwayError):
    status, code, title = 403, "forbidden", "This token may not do that"


class MissingScope(SpillwayError):
    status, code, title = 403, "missing_scope", "The token lacks a scope"


class AccountSuspended(SpillwayError):
    status, code, title = 403, "account_suspended", "The account is suspended"


class AccountClosed(SpillwayError):
    status, code, title = 403, "account_closed", "The account is closed"


class NotFound(SpillwayError):
    status, code, title = 404, "not_found", "Nothing is here"


class AccountNotFound(SpillwayError):
    status, code, title = 404, "account_not_found", "No such account"


class MethodNotAllowed(SpillwayError):
    status, code, title = 405, "method_not_allowed", "This method is not allowed here"


class IdempotencyConflict(SpillwayError):
    status, code, title = 409, "idempotency_conflict", "The idempotency key was used for another request"


class HoldNotOpen(SpillwayError):
    status, code, title = 409, "hold_not_open", "The hold is no longer open"


class AlreadyVoided(SpillwayError):
    status, code, title = 409, "already_voided", "The record is already voided"


class NoAllowance(SpillwayError):
    status, code, title = 409, "no_allowance", "The account has no allowance to reset"


class LastOwner(SpillwayError):
    status, code, title = 409, "last_owner", "An account needs an owner"


class StripeNotConfigured(SpillwayError):
    status, code, title = 409, "stripe_not_configured", "Payments are not set up"


class AlreadySubscribed(SpillwayError):
    status, code, title = 409, "already_subscribed", "The account has a subscription"


class OverageUnavailable(SpillwayError):
    status, code, title = 409, "overage_unavailable", "Overage needs an overage price and a live subscription"


class PayloadTooLarge(SpillwayError):
    status, code, title = 413, "payload_too_large", "The body is too large"


class UnsupportedMediaType(SpillwayError):
    status, code, title = 415, "unsupported_media_type", "The body must be application/json"


class ValidationError(SpillwayError):
    """`errors` maps a field's path to its messages."""

    status, code, title = 422, "validation_error", "Some fields are not valid"

    def __init__(self, errors: dict[str, list[str]], detail: str | None = None) -> None:
        summary = "; ".join(f"{path}: {' '.join(messages)}" for path, messages in errors.items())
        super().__init__(detail or summary[:500], errors=errors)


class UnknownOperation(SpillwayError):
    status, code, title = 422, "unknown_operation", "The operation has no rate"


class RateLimited(SpillwayError):
    """`retry_after` seconds go into the Retry-After header."""

    status, code, title = 429, "rate_limited", "Too many requests"

    def __init__(self, retry_after: int, detail: str | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class DatabaseBusy(SpillwayError):
    status, code, title = 503, "database_busy", "The database can not answer right now"
    retry_after = 1


class StripeUnavailable(SpillwayError):
    status, code, title = 503, "stripe_unavailable", "The payment provider can not be reached right now"
    retry_after = 30


class StripeRefused(StripeUnavailable):
    """Stripe will not do what was asked; `stripe_code` and `stripe_param` say why. Customers see: not now."""

    def __init__(self, code: str | None, param: str | None) -> None:
        super().__init__()
        self.stripe_code, self.stripe_param = code, param


class CardDeclined(ValidationError):
    """The customer's bank said no; `decline_code` is Stripe's."""

    def __init__(self, message: str | None, decline_code: str | None) -> None:
        super().__init__({"payment_method": [message or "The card was declined."]})
        self.decline_code = decline_code


_KINDS: tuple[type[SpillwayError], ...] = (*SpillwayError.__subclasses__(), SpillwayError)
BY_CODE = {kind.code: kind for kind in _KINDS}
"""Every stable code with its class."""
