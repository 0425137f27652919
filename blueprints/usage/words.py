"""The ledger's words as people read them."""

from __future__ import annotations

REASONS = {
    "signup": "Sign-up credits",
    "grant": "Granted",
    "purchase": "Bought",
    "allowance": "Allowance of the period",
    "rollover": "Carried over from the period before",
    "usage": "Usage",
    "void": "Usage voided",
    "expiry": "Expired",
    "refund": "Refunded",
    "dispute": "Payment disputed",
    "dispute_reversal": "Dispute won",
    "plan_change": "Plan changed",
    "reset": "Limit reset",
    "settle": "Unfunded usage paid",
}
INPUTS = {"quantity": "", "prompt_tokens": "prompt tokens", "completion_tokens": "completion tokens"}
KINDS = ("allowance", "purchased", "granted")
