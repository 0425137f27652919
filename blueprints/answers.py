"""The shapes of the API's answers, as JSON Schema for the OpenAPI document."""

from __future__ import annotations

from typing import Any

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

ANSWERS: dict[str, Schema] = {
    "Problem": {
        "type": "object",
        "properties": {
            "type": _STRING,
            "title": _STRING,
            "status": _INTEGER,
            "detail": _STRING,
            "code": _STRING,
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
    "OpenApi": {"type": "object", "required": ["openapi", "info", "paths", "components"]},
}
