"""Refusals in the shape of Stripe's error bodies."""

from typing import Any


class ApiError(Exception):
    """One answer that is not 2xx. `extra` is put beside code and message (a declined payment carries its intent)."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.kind, self.code, self.param = message, status, kind, code, param
        self.extra = extra or {}

    def body(self) -> dict[str, Any]:
        error: dict[str, Any] = {"message": self.message, "type": self.kind}
        if self.code:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param:
            error["param"] = self.param
        return {"error": error | self.extra}


def missing(kind: str, object_id: str, param: str, status: int = 400) -> ApiError:
    """No such object: 404 when the address names it, 400 when a parameter does."""
    name = kind.split(".")[-1]
    return ApiError(f"No such {name}: '{object_id}'", status=status, code="resource_missing", param=param)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(message, param=param, code=code)


def declined(message: str, code: str, decline_code: str | None, **extra: Any) -> ApiError:
    """402: what the card's bank said."""
    if decline_code:
        extra["decline_code"] = decline_code
    return ApiError(message, status=402, kind="card_error", code=code, extra=extra)
