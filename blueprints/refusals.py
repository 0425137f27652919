"""Every error code in words: what has happened, and what whoever meets it should do. `/api/docs` shows them."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    "malformed_json": (
        "The body is not one strict JSON document: a syntax error, bytes that are not UTF-8, NaN or Infinity, or a "
        "name twice in one object.",
        "Send what a JSON library writes, as UTF-8.",
    ),
    "bad_request": (
        "The request ended too early, or its form lacks a valid token against forgery.",
        "Send it again, whole. In a browser, load the page again first.",
    ),
    "unauthenticated": (
        "There is no token, or it is not written as a token, or is unknown, expired or revoked. The answer is the same "
        "for all of them.",
        "Send `Authorization: Bearer spw_…` with a token that is still good, or make a new one.",
    ),
    "insufficient_credits": (
        "`required` is what the work costs, `available` what is neither spent nor held. Nothing was charged.",
        "Buy credits, wait for the next period or send less. For work that is done already, send `enforce: false`.",
    ),
    "cap_reached": (
        "The charge would pass a spending cap. `cap` tells whose and how large it is, `resets_at` when it begins anew.",
        "Wait until `resets_at`, use another token, or have the cap raised.",
    ),
    "payment_past_due": (
        "Only overage could pay for this, and the account's last payment has failed. Credits you have still work.",
        "Pay the open invoice.",
    ),
    "forbidden": (
        "The token is good and may not do this: another account is named, a field is the operator's alone, or it would "
        "hand out more than it has itself.",
        "Read `detail`; use a token of the right account, or a service token.",
    ),
    "missing_scope": (
        "`scope` names the one that is needed.",
        "Make a token with that scope. Scopes of a token never change.",
    ),
    "account_suspended": (
        "Nothing new is accepted. Reading works, and so does recording work that is done, with `enforce: false`.",
        "Ask whoever runs this installation.",
    ),
    "account_closed": (
        "It was closed for good. Its records and its ledger stay readable.",
        "Use another account.",
    ),
    "not_found": (
        "There is no such route, or no such object in an account that the token may see.",
        "Check the path and the id.",
    ),
    "account_not_found": (
        "No account has this id or external id.",
        "Check the value of `account`, or make the account first.",
    ),
    "method_not_allowed": (
        "The path is right and the method is not.",
        "Use a method of the header `Allow`.",
    ),
    "idempotency_conflict": (
        "The key was used for a different request; `differs` names the fields. Nothing was charged by this one.",
        "For new work use a new key. To repeat the old request, send it exactly as it was.",
    ),
    "hold_not_open": (
        "The hold was captured or released before, or has expired; `state` tells which.",
        "Make a new hold. A capture can be repeated with the key and body it had.",
    ),
    "already_voided": (
        "The record was reversed before, and is reversed once only.",
        "Nothing: its credits are back.",
    ),
    "no_allowance": (
        "The account's plan gives no allowance, so there is none to issue anew.",
        "Put the account on a plan with included credits, or grant credits.",
    ),
    "last_owner": (
        "The account's only owner can neither leave it nor give the role up.",
        "Make somebody else an owner first, or close the account.",
    ),
    "stripe_not_configured": (
        "This installation takes no payments.",
        "Ask whoever runs it.",
    ),
    "overage_unavailable": (
        "Nothing bills this account for overage: no overage price is on sale, or it has no live subscription.",
        "Subscribe to a plan first.",
    ),
    "already_subscribed": (
        "The account has a subscription that is neither cancelled nor expired.",
        "Change that one instead of starting another.",
    ),
    "stripe_unavailable": (
        "Stripe did not answer, or can not do this right now. Nothing was bought, changed or charged here.",
        "Try again after `Retry-After` seconds. Usage and balances are not affected.",
    ),
    "payload_too_large": (
        "The body has more than 1 MiB, or as a batch more than 8 MiB.",
        "Send less at a time.",
    ),
    "unsupported_media_type": (
        "The body does not say that it is JSON.",
        "Send `Content-Type: application/json`.",
    ),
    "validation_error": (
        "Some fields are missing, unknown or not valid. `errors` maps the path of each to what is wrong with it.",
        "Correct these fields. The same request will be refused again.",
    ),
    "unknown_operation": (
        "No credits were given, and the operation has no rate to price it by.",
        "Send `credits`, or have a rate for the operation added to the catalog.",
    ),
    "rate_limited": (
        "Too many tries in too short a time: the account's plan allows so many requests a minute, over all its tokens.",
        "Wait as many seconds as the header `Retry-After` says.",
    ),
    "internal_error": (
        "Something went wrong on our side. The same request, repeated with its key, tells whether it was charged.",
        "Try again with the same key. If it stays, tell whoever runs this installation the `X-Request-Id`.",
    ),
    "database_busy": (
        "The database did not answer in time. What became of the request is not certain.",
        "Wait as many seconds as `Retry-After` says and send it again with the same key.",
    ),
}
"""Code to what it means and what to do. `…` marks code."""
