"""The shapes of the API's answers, as JSON Schema for the OpenAPI document."""

from __future__ import annotations

from typing import Any

import errors
from models.alert import AlertKind

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_BOOLEAN: Schema = {"type": "boolean"}
_TIME: Schema = {"type": "string", "format": "date-time"}


def _maybe(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _object(properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _list(name: str) -> Schema:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    return _object({"data": items, "next_cursor": _maybe(_STRING)})


_KIND_TOTAL = _object({"total": _NUMBER, "used": _NUMBER, "remaining": _NUMBER})
_SHORT_BALANCE = _object(
    {"available": _NUMBER, "allowance": _NUMBER, "purchased": _NUMBER, "granted": _NUMBER, "held": _NUMBER}
)
_CONSUMED = _object(
    {"allowance": _NUMBER, "purchased": _NUMBER, "granted": _NUMBER, "overage": _NUMBER, "unfunded": _NUMBER}
)
_USAGE: dict[str, Schema] = {
    "id": _STRING,
    "account": _STRING,
    "credits": _NUMBER,
    "priced": _NUMBER,
    "operation": _maybe(_STRING),
    "consumed": _CONSUMED,
    "balance": _SHORT_BALANCE,
    "occurred_at": _TIME,
    "recorded_at": _TIME,
    "hold": _maybe(_STRING),
}
_HOLD: dict[str, Schema] = {
    "id": _STRING,
    "account": _STRING,
    "state": {"type": "string", "enum": ["open", "captured", "released", "expired"]},
    "credits": _NUMBER,
    "operation": _maybe(_STRING),
    "subject": _maybe(_STRING),
    "created_at": _TIME,
    "expires_at": _TIME,
    "balance": _SHORT_BALANCE,
}
_BUCKET: dict[str, Schema] = {
    "credits": _NUMBER,
    "records": _INTEGER,
    "cost": _NUMBER,
    "groups": {"type": "object", "additionalProperties": _NUMBER},
}
_TOKEN: dict[str, Schema] = {
    "id": _STRING,
    "account": _maybe(_STRING),
    "name": _STRING,
    "scopes": {"type": "array", "items": _STRING},
    "cap": _maybe(_NUMBER),
    "created_at": _TIME,
    "expires_at": _maybe(_TIME),
    "last_used_at": _maybe(_TIME),
    "revoked_at": _maybe(_TIME),
}

_PART = _object({"input": _STRING, "amount": _NUMBER, "price": _NUMBER, "per": _NUMBER, "credits": _NUMBER})
_REQUEST: dict[str, Schema] = {
    "credits": _maybe(_NUMBER),
    "operation": _maybe(_STRING),
    "quantity": _NUMBER,
    "llm_provider": _maybe(_STRING),
    "llm_model": _maybe(_STRING),
    "prompt_tokens": _maybe(_INTEGER),
    "completion_tokens": _maybe(_INTEGER),
    "total_tokens": _maybe(_INTEGER),
    "actual_cost": _maybe(_NUMBER),
    "success": _BOOLEAN,
    "retry": _BOOLEAN,
    "source": _maybe(_STRING),
    "subject": _maybe(_STRING),
    "properties": {"type": "object"},
    "enforce": _BOOLEAN,
    "idempotency_key": _maybe(_STRING),
    "hold": _maybe(_STRING),
    "occurred_at": _maybe(_TIME),
}
_PRICING: dict[str, Schema] = {
    "basis": {"type": "string", "enum": ["credits", "rate", "hold"]},
    "parts": {"type": "array", "items": _PART},
    "sum": _NUMBER,
    "round": {"type": "string", "enum": ["up", "none"]},
    "rounded": _NUMBER,
    "minimum": _maybe(_NUMBER),
    "maximum": _maybe(_NUMBER),
    "priced": _NUMBER,
    "charged": _NUMBER,
    "free_because": {"type": "array", "items": {"type": "string", "enum": ["failed", "retry"]}},
}
_DRAWN: dict[str, Schema] = {
    "lot": _STRING,
    "kind": _STRING,
    "credits": _NUMBER,
    "remaining_before": _NUMBER,
    "remaining_after": _NUMBER,
    "expires_at": _maybe(_TIME),
    "entry": _STRING,
}
_MOVED = _object({"opening_balance": _NUMBER, "change": _NUMBER, "closing_balance": _NUMBER})
_ENTRIES: Schema = {"type": "array", "items": {"$ref": "#/components/schemas/LedgerEntry"}}

_STRINGS: Schema = {"type": "array", "items": _STRING}
_PLAN = _object(
    {
        "tier": _STRING,
        "name": _STRING,
        "interval": _maybe(_STRING),
        "amount": _maybe(_INTEGER),
        "currency": _maybe(_STRING),
        "included_credits": _NUMBER,
        "features": _STRINGS,
        "price": _maybe(_STRING),
        "unit_amount_decimal": _STRING,
        "interval_count": _INTEGER,
        "price_type": _STRING,
        "free_credits": _NUMBER,
    },
    optional=("unit_amount_decimal", "interval_count", "price_type", "free_credits"),
)
_CREDIT_PACK = _object(
    {
        "price": _maybe(_STRING),
        "unit_amount": _maybe(_INTEGER),
        "currency": _STRING,
        "credits_per_unit": _NUMBER,
        "min_credits": _maybe(_NUMBER),
        "max_credits": _maybe(_NUMBER),
        "unit_amount_decimal": _STRING,
        "transform_quantity": _object({"divide_by": _INTEGER, "round": {"type": "string", "enum": ["up", "down"]}}),
    },
    optional=("unit_amount_decimal", "transform_quantity"),
)

_SUBSCRIPTION: dict[str, Schema] = {
    "account": _STRING,
    "plan": _STRING,
    "source": {"type": "string", "enum": ["local", "stripe"]},
    "status": _maybe(_STRING),
    "subscription": _maybe(_STRING),
    "tier": _STRING,
    "name": _STRING,
    "price": _maybe(_STRING),
    "interval": _maybe(_STRING),
    "amount": _maybe(_INTEGER),
    "currency": _maybe(_STRING),
    "included_credits": _NUMBER,
    "period": _object({"start": _TIME, "end": _TIME}),
    "cancel_at": _maybe(_TIME),
    "trial_end": _maybe(_TIME),
    "past_due": _maybe(
        _object({"since": _TIME, "failed_attempts": _INTEGER, "plan_until": _TIME, "suspended_at": _TIME})
    ),
    "ends_at": _maybe(_TIME),
    "unit_amount_decimal": _STRING,
    "interval_count": _INTEGER,
}

CSV = "Csv"
"""The name of every answer that is a table for spreadsheets."""

ANSWERS: dict[str, Schema] = {
    CSV: {"type": "string", "description": "Comma-separated values in UTF-8, the columns' names in the first line."},
    "Problem": {
        "type": "object",
        "properties": {
            "type": _STRING,
            "title": _STRING,
            "status": _INTEGER,
            "detail": _STRING,
            "code": {"type": "string", "examples": list(errors.BY_CODE)},
        },
        "required": ["type", "title", "status", "detail", "code"],
    },
    "Balance": _object(
        {
            "account": _STRING,
            "external_id": _maybe(_STRING),
            "status": {"type": "string", "enum": ["active", "past_due", "suspended", "closed"]},
            "plan": _STRING,
            "available": _NUMBER,
            "allowance": _object({"included": _NUMBER, "used": _NUMBER, "remaining": _NUMBER}),
            "purchased": _KIND_TOTAL,
            "granted": _KIND_TOTAL,
            "held": _NUMBER,
            "overage": _object({"enabled": _BOOLEAN, "used": _NUMBER, "cap": _maybe(_NUMBER)}),
            "unfunded": _NUMBER,
            "debt": _NUMBER,
            "period": _object({"start": _TIME, "end": _TIME}),
            "as_of": _TIME,
        }
    ),
    "Usage": _object(_USAGE, optional=("hold",)),
    "Batch": _object(
        {
            "results": {
                "type": "array",
                "items": _object(
                    {
                        "status": _INTEGER,
                        "replayed": _BOOLEAN,
                        "record": {"$ref": "#/components/schemas/Usage"},
                        "error": {"$ref": "#/components/schemas/Problem"},
                    },
                    optional=("replayed", "record", "error"),
                ),
            },
            "accepted": _INTEGER,
            "refused": _INTEGER,
        }
    ),
    "Record": _object(
        _USAGE
        | {
            "quantity": _NUMBER,
            "llm_provider": _maybe(_STRING),
            "llm_model": _maybe(_STRING),
            "prompt_tokens": _maybe(_INTEGER),
            "completion_tokens": _maybe(_INTEGER),
            "total_tokens": _maybe(_INTEGER),
            "actual_cost": _maybe(_NUMBER),
            "success": _BOOLEAN,
            "retry": _BOOLEAN,
            "enforce": _BOOLEAN,
            "source": _maybe(_STRING),
            "subject": _maybe(_STRING),
            "properties": {"type": "object"},
            "idempotency_key": _maybe(_STRING),
            "token": _maybe(_STRING),
            "settled": _NUMBER,
            "voided_at": _maybe(_TIME),
            "void_reason": _maybe(_STRING),
        }
    ),
    "RecordList": _list("Record"),
    "Summary": _object(
        {
            "interval": _STRING,
            "from": _TIME,
            "to": _TIME,
            "by": _STRING,
            "data": {"type": "array", "items": _object({"start": _TIME} | _BUCKET)},
            "total": _object(_BUCKET),
        }
    ),
    "Explanation": _object(
        {
            "id": _STRING,
            "account": _STRING,
            "record": {"$ref": "#/components/schemas/Record"},
            "request": _object(_REQUEST),
            "catalog_version": _INTEGER,
            "rate": _maybe(
                _object({"text": _STRING, "operation": _STRING, "model": _maybe(_STRING), "source": _STRING})
            ),
            "pricing": _object(_PRICING),
            "rule": _object({"name": _STRING, "reason": _STRING}),
            "lots": {"type": "array", "items": _object(_DRAWN)},
            "overage": _NUMBER,
            "unfunded": _NUMBER,
            "balance_before": _SHORT_BALANCE,
            "balance_after": _SHORT_BALANCE,
            "later": _ENTRIES,
        }
    ),
    "Stats": _object(
        {
            "account": _STRING,
            "period": _object({"start": _TIME, "end": _TIME}),
            "used": _NUMBER,
            "remaining": _NUMBER,
            "percent": _NUMBER,
            "daily_average": _NUMBER,
            "forecast": _object(
                {
                    "period_end_credits": _NUMBER,
                    "range": _maybe(_object({"low": _NUMBER, "high": _NUMBER})),
                    "runs_out": _maybe(_object({"earliest": _TIME, "likely": _TIME, "latest": _TIME})),
                    "enough_history": _BOOLEAN,
                }
            ),
            "cost": _maybe(
                _object({"currency": _STRING, "plan": _maybe(_INTEGER), "overage": _INTEGER, "period_end": _INTEGER})
            ),
            "alerts": {"type": "array", "items": {"$ref": "#/components/schemas/Alert"}},
            "as_of": _TIME,
        }
    ),
    "Statement": _object(
        {
            "account": _STRING,
            "month": _STRING,
            "period": _object({"start": _TIME, "end": _TIME}),
            "opening_balance": _NUMBER,
            "closing_balance": _NUMBER,
            "by_kind": _object({"allowance": _MOVED, "purchased": _MOVED, "granted": _MOVED}),
            "unfunded": _NUMBER,
            "overage": _NUMBER,
            "debt": _NUMBER,
            "as_of": _TIME,
            "entries": _ENTRIES,
        }
    ),
    "Check": _object(
        {
            "allowed": _BOOLEAN,
            "code": _maybe(_STRING),
            "required": _NUMBER,
            "available": _NUMBER,
            "cure": {"type": "array", "items": _STRING},
        }
    ),
    "Hold": _object(_HOLD, optional=("balance",)),
    "HoldList": _list("Hold"),
    "LedgerEntry": _object(
        {
            "id": _STRING,
            "lot": _STRING,
            "kind": _STRING,
            "change": _NUMBER,
            "reason": _STRING,
            "cause": _object({"type": _STRING, "id": _STRING}),
            "lot_remaining": _NUMBER,
            "balance_after": _NUMBER,
            "created_at": _TIME,
        }
    ),
    "Ledger": _list("LedgerEntry"),
    "Account": _object(
        {
            "id": _STRING,
            "external_id": _maybe(_STRING),
            "name": _STRING,
            "email": _maybe(_STRING),
            "status": _STRING,
            "plan": _STRING,
            "created_at": _TIME,
        }
    ),
    "AccountList": _list("Account"),
    "Grant": _object({"lot": _STRING, "balance": _SHORT_BALANCE}),
    "Token": _object(_TOKEN),
    "NewToken": _object(_TOKEN | {"token": _STRING}),
    "TokenList": _list("Token"),
    "Plans": _object(
        {
            "credit_name": _STRING,
            "currency": _maybe(_STRING),
            "free": _object(
                {
                    "tier": _STRING,
                    "name": _STRING,
                    "included_credits": _NUMBER,
                    "signup_credits": _NUMBER,
                    "features": _STRINGS,
                }
            ),
            "plans": {"type": "array", "items": _PLAN},
            "credit_packs": {"type": "array", "items": _CREDIT_PACK},
            "payments_enabled": _BOOLEAN,
        }
    ),
    "Customer": _object({"customer": _STRING}),
    "Checkout": _object({"url": _STRING, "session": _STRING}),
    "SetupIntent": _object({"client_secret": _STRING, "publishable_key": _maybe(_STRING)}),
    "Portal": _object({"url": _STRING}),
    "Purchase": _object(
        {
            "id": _STRING,
            "session": _maybe(_STRING),
            "mode": {"type": "string", "enum": ["payment", "subscription"]},
            "status": {"type": "string", "enum": ["open", "pending", "paid", "failed", "expired"]},
            "price": _maybe(_STRING),
            "credits": _NUMBER,
            "amount": _maybe(_INTEGER),
            "currency": _maybe(_STRING),
            "invoice": _maybe(_STRING),
            "subscription": _maybe(_STRING),
            "lot": _maybe(_STRING),
            "created_at": _TIME,
            "paid_at": _maybe(_TIME),
        }
    ),
    "PurchaseList": _list("Purchase"),
    "Subscription": _object(_SUBSCRIPTION, optional=("unit_amount_decimal", "interval_count")),
    "SubscriptionChange": _object(
        {
            "status": _STRING,
            "tier": _STRING,
            "interval": _STRING,
            "effective": {"type": "string", "enum": ["now", "period_end"]},
            "action_url": _maybe(_STRING),
        }
    ),
    "SubscriptionPreview": _object(
        {
            "tier": _STRING,
            "interval": _STRING,
            "effective": {"type": "string", "enum": ["now", "period_end"]},
            "effective_at": _maybe(_TIME),
            "currency": _STRING,
            "amount_due": _INTEGER,
            "lines": {
                "type": "array",
                "items": _object(
                    {
                        "description": _maybe(_STRING),
                        "amount": _INTEGER,
                        "proration": _BOOLEAN,
                        "period": _object({"start": _TIME, "end": _TIME}),
                    }
                ),
            },
        }
    ),
    "Invoice": _object(
        {
            "id": _STRING,
            "number": _maybe(_STRING),
            "status": _STRING,
            "reason": _maybe(_STRING),
            "subscription": _maybe(_STRING),
            "currency": _STRING,
            "total": _INTEGER,
            "amount_due": _INTEGER,
            "amount_paid": _INTEGER,
            "period": _maybe(_object({"start": _TIME, "end": _TIME})),
            "next_attempt_at": _maybe(_TIME),
            "hosted_url": _maybe(_STRING),
            "pdf_url": _maybe(_STRING),
            "created_at": _TIME,
        }
    ),
    "InvoiceList": _list("Invoice"),
    "Alert": _object(
        {
            "id": _STRING,
            "account": _STRING,
            "kind": {"type": "string", "enum": [kind.value for kind in AlertKind]},
            "threshold": _maybe(_INTEGER),
            "message": _STRING,
            "details": {"type": "object"},
            "standing": _BOOLEAN,
            "created_at": _TIME,
            "dismissed_at": _maybe(_TIME),
        }
    ),
    "AlertList": _list("Alert"),
    "Controls": _object(
        {
            "overage": _object({"enabled": _BOOLEAN, "cap_amount": _maybe(_INTEGER)}),
            "caps": {
                "type": "array",
                "items": _object(
                    {
                        "scope": {"type": "string", "enum": ["account", "token", "subject"]},
                        "key": _STRING,
                        "window": {"type": "string", "enum": ["day", "period"]},
                        "credits": _NUMBER,
                        "locked": _BOOLEAN,
                    },
                    optional=("key",),
                ),
            },
            "alert_thresholds": {"type": "array", "items": _INTEGER},
            "auto_top_up": _object(
                {
                    "enabled": _BOOLEAN,
                    "below": _maybe(_NUMBER),
                    "credits": _maybe(_NUMBER),
                    "monthly_ceiling": _maybe(_INTEGER),
                }
            ),
        }
    ),
    "OpenApi": {"type": "object", "required": ["openapi", "info", "paths", "components"]},
}
