"""Faults on request: the next calls that match are answered badly, before or after they were carried out."""

import json
from typing import Any

from sandbox.errors import invalid
from sandbox.world import World

Fault = dict[str, Any]
ANSWERS: dict[str, tuple[int, dict[str, Any]]] = {
    "error": (500, {"type": "api_error", "message": "An unknown error occurred"}),
    "unavailable": (503, {"type": "api_error", "message": "Service unavailable"}),
    "rate_limit": (
        429,
        {"type": "invalid_request_error", "code": "rate_limit", "message": "Request rate limit exceeded."},
    ),
    "authentication": (401, {"type": "invalid_request_error", "message": "Invalid API Key provided: sk_test_***"}),
    "card": (
        402,
        {
            "type": "card_error",
            "code": "card_declined",
            "decline_code": "generic_decline",
            "message": "Your card was declined.",
        },
    ),
}
KINDS = (*ANSWERS, "timeout", "malformed")


def order(world: World, wanted: Fault) -> Fault:
    """`kind`; `times` (1; 0: for ever), `method`, `path` (a prefix), `seconds` to wait, `after`: carry it out first."""
    if wanted.get("kind") not in KINDS:
        raise invalid(f"kind must be one of {', '.join(KINDS)}", "kind")
    fault = {"times": 1, "method": "", "path": "", "seconds": 30 if wanted["kind"] == "timeout" else 0} | wanted
    world.faults.append(fault)
    return fault


def take(world: World, method: str, path: str) -> Fault | None:
    for fault in world.faults:
        if fault["method"] in ("", method) and path.startswith(fault["path"]):
            if fault["times"] == 1:
                world.faults.remove(fault)
            elif fault["times"]:
                fault["times"] -= 1
            return fault
    return None


def answer(fault: Fault) -> tuple[int, str]:
    if fault["kind"] in ("malformed", "timeout"):
        return 200, "<html>Bad gateway"
    status, error = ANSWERS[fault["kind"]]
    return status, json.dumps({"error": error})
