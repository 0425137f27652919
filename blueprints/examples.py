"""One story in examples for the documentation: a team with a plan of 25,000 credits scans three pages."""

from __future__ import annotations

from typing import Any

_NOW, _START, _END = "2026-11-21T10:00:00Z", "2026-11-01T09:30:00Z", "2026-12-01T09:30:00Z"
_ACCOUNT, _LOT, _GRANT = "acc_p3s29hq7d5mw81kz", "lot_01m7ykmvy9a8mpvp7c0zkfx", "lot_01m7ykmvx8327qjxggnkfvv"
_RECORD, _HOLD, _TOKEN = "use_01m7ykmvz6ngtjpgf42k5f9", "hld_01m7ykmw2c80bfkdk9fct0y", "tok_gbf6r8kmw7zh41w4"
_ALERT_ID = "alt_01m7ykmw1b3yq0e9x5t8s6k"
PATHS = {"ref": "acme", "record_id": _RECORD, "hold_id": _HOLD, "token_id": _TOKEN, "alert_id": _ALERT_ID}
"""A value for each parameter of a path."""
QUERIES = {"tier": "team"}
"""A value for each parameter of a query that can not be left out."""

_WORK: dict[str, Any] = {
    "operation": "document_page",
    "quantity": 3,
    "llm_provider": "openai",
    "llm_model": "gpt-x",
    "prompt_tokens": 1234,
    "completion_tokens": 567,
    "total_tokens": 1801,
    "actual_cost": 0.023,
    "source": "backend",
    "subject": "user-17",
    "properties": {"document": "d1"},
}
_REASON = {"reason": "Asked for by phone"}

BODIES: dict[str, dict[str, Any]] = {
    "post_usage": _WORK,
    "post_usage_batch": {
        "records": [
            {"credits": 1.5, "idempotency_key": "job-992"},
            {"credits": 100_000, "idempotency_key": "job-993"},
        ]
    },
    "post_usage_records_record_id_void": {"reason": "Counted by mistake"},
    "post_check": {"credits": 100_000},
    "post_holds": {"credits": 40, "ttl_seconds": 600, "subject": "user-17"},
    "post_holds_hold_id_extend": {"ttl_seconds": 900, "credits": 50},
    "post_holds_hold_id_capture": {"credits": 31.25, "operation": "video_minute"},
    "post_holds_hold_id_release": {},
    "post_tokens": {"name": "backend", "scopes": ["read", "write"], "cap": 1000},
    "post_alerts_alert_id_dismiss": {},
    "put_controls": {
        "caps": [{"scope": "subject", "window": "day", "credits": 500}],
        "alert_thresholds": [50, 90],
    },
    "post_stripe_customer": {},
    "post_stripe_checkout": {"credits": 1000, "success_path": "/usage"},
    "post_stripe_setup_intent": {},
    "post_stripe_subscription": {"tier": "team", "interval": "month"},
    "post_stripe_subscription_resume": {},
    "post_stripe_portal": {"return_path": "/billing"},
    "post_accounts": {"external_id": "acme", "name": "Acme Vision", "email": "owner@acme.example"},
    "patch_accounts_ref": {"name": "Acme Vision Ltd"},
    "post_accounts_ref_grants": {"credits": 500, "reason": "Goodwill"},
    "post_accounts_ref_plan": {
        "tier": "enterprise",
        "included_credits": 25_000,
        "rates": {"document_page": "per_unit=0.5"},
    },
    "post_accounts_ref_reset_limit": _REASON,
    "post_accounts_ref_suspend": _REASON,
    "post_accounts_ref_restore": _REASON,
    "post_accounts_ref_close": _REASON,
}
"""A body for each operation that takes one, by the operation's id, as a token of the account sends it."""


def _balance(available: float, allowance: float, held: float = 0, granted: float = 100) -> dict[str, Any]:
    return {"available": available, "allowance": allowance, "purchased": 0, "granted": granted, "held": held}


def _list(*rows: Any, following: str | None = None) -> dict[str, Any]:
    return {"data": list(rows), "next_cursor": following}


def _usage(record: str, credits: float, operation: str | None, available: float) -> dict[str, Any]:
    return {
        "id": record,
        "account": _ACCOUNT,
        "credits": credits,
        "priced": credits,
        "operation": operation,
        "consumed": {"allowance": credits, "purchased": 0, "granted": 0, "overage": 0, "unfunded": 0},
        "balance": _balance(available, available - 100),
        "occurred_at": _NOW,
        "recorded_at": _NOW,
    }


_USAGE = _usage(_RECORD, 1.5, "document_page", 25_098.5)
_DETAIL = _USAGE | {
    "hold": None,
    **{name: value for name, value in _WORK.items() if name != "operation"},
    "success": True,
    "retry": False,
    "enforce": True,
    "idempotency_key": "job-991",
    "token": _TOKEN,
    "settled": 0,
    "voided_at": None,
    "void_reason": None,
}
_ENTRY = {
    "id": "led_p3s29hq7d5mw81kz4",
    "lot": _LOT,
    "kind": "allowance",
    "change": -1.5,
    "reason": "usage",
    "cause": {"type": "usage", "id": _RECORD},
    "lot_remaining": 24_998.5,
    "balance_after": 25_098.5,
    "created_at": _NOW,
}
_RENEWAL = {
    "id": "led_p3s29hq7d5mw81kz2",
    "lot": _LOT,
    "kind": "allowance",
    "change": 25_000,
    "reason": "allowance",
    "cause": {"type": "subscription", "id": "sub_01m7ykmvy9vyfzw581tnx81"},
    "lot_remaining": 25_000,
    "balance_after": 25_100,
    "created_at": _START,
}
_ACCOUNT_ROW = {
    "id": _ACCOUNT,
    "external_id": "acme",
    "name": "Acme Vision",
    "email": "owner@acme.example",
    "status": "active",
    "plan": "enterprise",
    "created_at": "2026-08-01T09:30:00Z",
}
_HELD = {
    "id": _HOLD,
    "account": _ACCOUNT,
    "state": "open",
    "credits": 40,
    "operation": None,
    "subject": "user-17",
    "created_at": _NOW,
    "expires_at": "2026-11-21T10:10:00Z",
}
_TOKEN_ROW = {
    "id": _TOKEN,
    "account": _ACCOUNT,
    "name": "backend",
    "scopes": ["read", "write"],
    "cap": 1000,
    "created_at": _NOW,
    "expires_at": None,
    "last_used_at": None,
    "revoked_at": None,
}
_SESSION = "cs_test_a1n53Z1XyVeKPuAVz8dW9"
_PURCHASE = {
    "id": "pur_01m7ykmw3f5s2rkq8h1xwtb",
    "session": _SESSION,
    "mode": "payment",
    "status": "paid",
    "price": "price_1SVaKD2eZvKYlo2C",
    "credits": 1000,
    "amount": 1500,
    "currency": "usd",
    "invoice": "in_1SVaKE2eZvKYlo2C",
    "subscription": None,
    "lot": "lot_01m7ykmw3h8xk0s1y6v5d2c",
    "created_at": "2026-11-21T09:58:00Z",
    "paid_at": _NOW,
}
_SUBSCRIPTION = {
    "account": _ACCOUNT,
    "plan": "team",
    "source": "stripe",
    "status": "active",
    "subscription": "sub_1SVaKG2eZvKYlo2C",
    "tier": "team",
    "name": "Team",
    "price": "price_1SVaKB2eZvKYlo2C",
    "interval": "month",
    "amount": 4900,
    "currency": "usd",
    "included_credits": 25_000,
    "period": {"start": _START, "end": _END},
    "cancel_at": None,
    "trial_end": None,
    "past_due": None,
    "ends_at": None,
}
_INVOICE = {
    "id": "in_1SVaKE2eZvKYlo2C",
    "number": "A1B2C3D4-0001",
    "status": "paid",
    "reason": "subscription_cycle",
    "subscription": "sub_1SVaKG2eZvKYlo2C",
    "currency": "usd",
    "total": 4900,
    "amount_due": 4900,
    "amount_paid": 4900,
    "period": {"start": _START, "end": _END},
    "next_attempt_at": None,
    "hosted_url": "https://invoice.stripe.com/i/acct_1/live_1",
    "pdf_url": "https://pay.stripe.com/invoice/acct_1/live_1/pdf",
    "created_at": _START,
}
_PLANS = {
    "credit_name": "credits",
    "currency": "usd",
    "free": {"tier": "free", "name": "Free", "included_credits": 0, "signup_credits": 100, "features": []},
    "plans": [
        {
            "tier": "team",
            "name": "Team",
            "interval": "month",
            "amount": 4900,
            "currency": "usd",
            "included_credits": 25_000,
            "features": ["Unlimited members", "E-mail support"],
            "price": "price_1SVaKB2eZvKYlo2C",
        }
    ],
    "credit_packs": [
        {
            "price": "price_1SVaKD2eZvKYlo2C",
            "unit_amount": 100,
            "currency": "usd",
            "credits_per_unit": 100,
            "min_credits": 500,
            "max_credits": 100_000,
        }
    ],
    "payments_enabled": True,
}
PROBLEM = {
    "type": "/api/docs#insufficient_credits",
    "title": "Not enough credits",
    "status": 402,
    "detail": "100000 credits are needed and 25097 are available.",
    "code": "insufficient_credits",
    "required": 100_000,
    "available": 25_097,
}
_ALERT = {
    "id": _ALERT_ID,
    "account": _ACCOUNT,
    "kind": "allowance",
    "threshold": 70,
    "message": "70 % of this period's allowance of 25,000 credits is used.",
    "details": {"used": 17_500, "included": 25_000},
    "standing": True,
    "created_at": _NOW,
    "dismissed_at": None,
}
_DAY = {"credits": 1.5, "records": 1, "cost": 0.023, "groups": {"document_page": 1.5}}
_EMPTY_DAY: dict[str, Any] = {"credits": 0, "records": 0, "cost": 0, "groups": {}}

ANSWERS: dict[str, Any] = {
    "Problem": PROBLEM,
    "Balance": {
        "account": _ACCOUNT,
        "external_id": "acme",
        "status": "active",
        "plan": "enterprise",
        "available": 25_098.5,
        "allowance": {"included": 25_000, "used": 1.5, "remaining": 24_998.5},
        "purchased": {"total": 0, "used": 0, "remaining": 0},
        "granted": {"total": 100, "used": 0, "remaining": 100},
        "held": 0,
        "overage": {"enabled": False, "used": 0, "cap": None},
        "unfunded": 0,
        "debt": 0,
        "period": {"start": _START, "end": _END},
        "as_of": _NOW,
    },
    "Usage": _USAGE,
    "Batch": {
        "results": [
            {"status": 201, "record": _usage("use_01m7ykmvzsap53ars8ef9xp", 1.5, None, 25_097)},
            {"status": 402, "error": PROBLEM},
        ],
        "accepted": 1,
        "refused": 1,
    },
    "Record": _DETAIL,
    "RecordList": _list(_DETAIL, following="WzE3OTUyNTUyMDAwMDAwMDAsIDdd"),
    "Explanation": {
        "id": _RECORD,
        "account": _ACCOUNT,
        "record": _DETAIL,
        "request": {
            "credits": None,
            **_WORK,
            "success": True,
            "retry": False,
            "enforce": True,
            "idempotency_key": "job-991",
            "hold": None,
            "occurred_at": None,
        },
        "catalog_version": 1,
        "rate": {
            "text": "op=document_page,per_unit=0.5",
            "operation": "document_page",
            "model": None,
            "source": "account",
        },
        "pricing": {
            "basis": "rate",
            "parts": [{"input": "quantity", "amount": 3, "price": 0.5, "per": 1, "credits": 1.5}],
            "sum": 1.5,
            "round": "none",
            "rounded": 1.5,
            "minimum": None,
            "maximum": None,
            "priced": 1.5,
            "charged": 1.5,
            "free_because": [],
        },
        "rule": {"name": "available", "reason": "It needed 1.5 credits and 25,100 were available."},
        "lots": [
            {
                "lot": _LOT,
                "kind": "allowance",
                "credits": 1.5,
                "remaining_before": 25_000,
                "remaining_after": 24_998.5,
                "expires_at": _END,
                "entry": "led_p3s29hq7d5mw81kz4",
            }
        ],
        "overage": 0,
        "unfunded": 0,
        "balance_before": _balance(25_100, 25_000),
        "balance_after": _balance(25_098.5, 24_998.5),
        "later": [],
    },
    "Summary": {
        "interval": "day",
        "from": "2026-11-20T00:00:00Z",
        "to": "2026-11-22T00:00:00Z",
        "by": "operation",
        "data": [{"start": "2026-11-20T00:00:00Z", **_EMPTY_DAY}, {"start": "2026-11-21T00:00:00Z", **_DAY}],
        "total": _DAY,
    },
    "Stats": {
        "account": _ACCOUNT,
        "period": {"start": _START, "end": _END},
        "used": 12_400,
        "remaining": 12_700,
        "percent": 49.6,
        "daily_average": 620,
        "forecast": {
            "period_end_credits": 18_600,
            "range": {"low": 16_900, "high": 20_300},
            "runs_out": {
                "earliest": "2026-12-07T00:00:00Z",
                "likely": "2026-12-11T00:00:00Z",
                "latest": "2026-12-18T00:00:00Z",
            },
            "enough_history": True,
        },
        "cost": {"currency": "usd", "plan": 4900, "overage": 0, "period_end": 4900},
        "alerts": [],
        "as_of": _NOW,
    },
    "Check": {
        "allowed": False,
        "code": "insufficient_credits",
        "required": 100_000,
        "available": 25_097,
        "cure": ["buy_credits", "upgrade"],
    },
    "Hold": _HELD | {"balance": _balance(25_057, 24_997, held=40)},
    "HoldList": _list(_HELD),
    "LedgerEntry": _ENTRY,
    "Ledger": _list(_ENTRY, _RENEWAL),
    "Statement": {
        "account": _ACCOUNT,
        "month": "2026-11",
        "period": {"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"},
        "opening_balance": 100,
        "closing_balance": 25_098.5,
        "by_kind": {
            "allowance": {"opening_balance": 0, "change": 24_998.5, "closing_balance": 24_998.5},
            "purchased": {"opening_balance": 0, "change": 0, "closing_balance": 0},
            "granted": {"opening_balance": 100, "change": 0, "closing_balance": 100},
        },
        "unfunded": 0,
        "overage": 0,
        "debt": 0,
        "as_of": _NOW,
        "entries": [_RENEWAL, _ENTRY],
    },
    "Account": _ACCOUNT_ROW,
    "AccountList": _list(_ACCOUNT_ROW),
    "Grant": {"lot": _GRANT, "balance": _balance(25_598.5, 24_998.5, granted=600)},
    "Token": _TOKEN_ROW,
    "NewToken": _TOKEN_ROW | {"token": "spw_gbf6r8kmw7zh41w4…"},
    "TokenList": _list(_TOKEN_ROW),
    "Plans": _PLANS,
    "Alert": _ALERT,
    "AlertList": _list(_ALERT),
    "Controls": {
        "overage": {"enabled": False, "cap_amount": None},
        "caps": [
            {"scope": "account", "window": "period", "credits": 50_000, "locked": True},
            {"scope": "subject", "window": "day", "credits": 500, "locked": False},
        ],
        "alert_thresholds": [50, 90],
        "auto_top_up": {"enabled": False, "below": None, "credits": None, "monthly_ceiling": None},
    },
    "Customer": {"customer": "cus_TSVa1n53Z1XyVe"},
    "Checkout": {"url": f"https://checkout.stripe.com/c/pay/{_SESSION}", "session": _SESSION},
    "SetupIntent": {"client_secret": "seti_1SVaKF2eZvKYlo2C_secret_…", "publishable_key": "pk_live_…"},
    "Portal": {"url": "https://billing.stripe.com/p/session/live_…"},
    "Purchase": _PURCHASE,
    "PurchaseList": _list(_PURCHASE),
    "Subscription": _SUBSCRIPTION,
    "SubscriptionChange": {
        "status": "active",
        "tier": "team",
        "interval": "month",
        "effective": "now",
        "action_url": None,
    },
    "SubscriptionPreview": {
        "tier": "pro",
        "interval": "month",
        "effective": "now",
        "effective_at": None,
        "currency": "usd",
        "amount_due": 7500,
        "lines": [
            {
                "description": "Unused time on Team after 16 Nov 2026",
                "amount": -2450,
                "proration": True,
                "period": {"start": "2026-11-16T10:00:00Z", "end": "2026-12-01T10:00:00Z"},
            },
            {
                "description": "Remaining time on Pro after 16 Nov 2026",
                "amount": 9950,
                "proration": True,
                "period": {"start": "2026-11-16T10:00:00Z", "end": "2026-12-01T10:00:00Z"},
            },
        ],
    },
    "Invoice": _INVOICE,
    "InvoiceList": _list(_INVOICE),
}
"""An answer for each schema of that name; tables for spreadsheets are by operation."""

TABLES = {
    "get_usage_records_csv": (
        "id,occurred_at,recorded_at,operation,source,subject,llm_provider,llm_model,prompt_tokens,completion_tokens,"
        "total_tokens,actual_cost,credits,allowance,purchased,granted,overage,unfunded,voided_at\n"
        f"{_RECORD},{_NOW},{_NOW},document_page,backend,user-17,openai,gpt-x,1234,567,1801,0.023,1.5,1.5,0,0,0,0,\n"
    ),
    "get_statement_csv": (
        "created_at,entry,lot,kind,reason,cause_type,cause_id,change,balance_after\n"
        f"{_NOW},{_ENTRY['id']},{_LOT},allowance,usage,usage,{_RECORD},-1.5,25098.5\n"
    ),
}
