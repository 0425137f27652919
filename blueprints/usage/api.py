"""The spending API: balance, usage, records, check, holds, ledger."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, request

import clock
import metrics
import settings
from blueprints.usage import schemas
from blueprints.wire import (
    BATCH_LIMIT,
    answer,
    decode_cursor,
    encode_cursor,
    endpoint,
    page,
    problem,
)
from errors import Forbidden, MissingScope, SpillwayError, Unauthenticated, ValidationError
from models.types import from_microseconds, to_microseconds
from models.usage import UsageRecord
from services import accounts, balances, checks, holds, ledger, records, summaries, tokens, usage
from services.records import Filters
from services.tokens import Caller, Presented
from services.usage import Item, Outcome, UsageRequest

blueprint = Blueprint("usage_api", __name__, url_prefix="/api/v1")

_USAGE = schemas.UsageSchema()
_CAPTURE = schemas.CaptureSchema()
SPENDING = (
    "account_suspended",
    "account_closed",
    "cap_reached",
    "insufficient_credits",
    "payment_past_due",
    "unknown_operation",
)
"""What refuses usage and holds, in this order but for the last."""
_TOKEN_REFUSED = (Unauthenticated, MissingScope)


def _operators_own() -> frozenset[str]:
    """The fields that only service tokens may send."""
    return settings.current().operator_only_fields


def _check_reserved(presented: Presented, sent: Collection[str], operators_own: frozenset[str]) -> None:
    """Raises Forbidden for an account token that sends a field which is the operator's alone."""
    reserved = operators_own.intersection(sent) if operators_own else ()
    if reserved and tokens.known(presented).account_id is not None:
        tokens.authenticate(presented, "write")
        raise Forbidden(f"Only service tokens may send {', '.join(sorted(reserved))}.")


@endpoint(
    blueprint,
    "GET",
    "/balance",
    summary="What the account has",
    scope="read",
    query=schemas.AccountQuery(),
    answers={200: "Balance"},
    hot=True,
)
def get_balance(presented: Presented, query: dict[str, Any]) -> Response:
    return answer(checks.balance(presented, query.get("account")))


# Usage


@endpoint(
    blueprint,
    "POST",
    "/usage",
    summary="Record one unit of work and deduct its credits",
    scope="write",
    body=_USAGE,
    answers={201: "Usage", 200: "Usage"},
    keyed=True,
    hot=True,
    refuses=SPENDING,
)
def post_usage(presented: Presented, body: dict[str, Any]) -> Response:
    return _record(presented, body, None)


def _record(presented: Presented, body: dict[str, Any], hold_id: str | None) -> Response:
    account = body.pop("account", None)
    _check_reserved(presented, body.pop("sent"), _operators_own())
    outcome = usage.record(presented, account, UsageRequest(**body), hold_id)
    assert outcome.record is not None
    _count([outcome])
    return answer(records.answer(outcome.record), 201, replayed=outcome.replayed)


def _count(outcomes: Collection[Outcome]) -> None:
    """For the metrics; a refusal of a whole request is counted where it is rendered."""
    new = [outcome.record for outcome in outcomes if outcome.record is not None and not outcome.replayed]
    metrics.used(new, sum(outcome.replayed for outcome in outcomes))


@endpoint(
    blueprint,
    "POST",
    "/usage/batch",
    summary="Record up to 1,000 units of work, each on its own",
    scope="write",
    body=schemas.BatchSchema(),
    limit=BATCH_LIMIT,
    answers={200: "Batch"},
    hot=True,
)
def post_batch(presented: Presented, body: dict[str, Any]) -> Response:
    account, operators_own = body.get("account"), _operators_own()
    outcomes = [Outcome() for _ in body["records"]]
    items: list[tuple[Item, Outcome]] = []
    for position, (raw, outcome) in enumerate(zip(body["records"], outcomes, strict=True)):
        try:
            items.append((_batch_item(presented, raw, account, position, operators_own), outcome))
        except _TOKEN_REFUSED:
            raise
        except SpillwayError as error:
            outcome.error = error
    keyed = request.headers.get("Idempotency-Key") is not None
    if keyed or not items:
        tokens.authenticate(presented, "write")  # where nothing is recorded nobody else does
    if keyed:
        raise ValidationError({"Idempotency-Key": ["A batch has a key per record, not one of its own."]})
    for (_, outcome), decided in zip(items, usage.spend([item for item, _ in items]), strict=True):
        if isinstance(decided.error, _TOKEN_REFUSED):  # one token for all: nothing was recorded
            raise decided.error
        outcome.record, outcome.replayed, outcome.error = decided.record, decided.replayed, decided.error
    _count(outcomes)
    results = [_batch_result(outcome) for outcome in outcomes]
    accepted = sum(outcome.record is not None for outcome in outcomes)
    return answer({"results": results, "accepted": accepted, "refused": len(results) - accepted})


def _batch_item(
    presented: Presented, raw: Any, account: str | None, position: int, operators_own: frozenset[str]
) -> Item:
    if isinstance(raw, SpillwayError):  # its text can not be kept
        raise raw
    if not isinstance(raw, dict):
        raise ValidationError({f"records.{position}": ["Must be an object."]})
    loaded = _USAGE.load_strict(raw)
    ref = loaded.pop("account", None) or account
    _check_reserved(presented, loaded.pop("sent"), operators_own)
    return Item(presented, ref, UsageRequest(**loaded))


def _batch_result(outcome: Outcome) -> dict[str, Any]:
    if outcome.record is None:
        assert outcome.error is not None
        metrics.refused(outcome.error.code)
        return {"status": outcome.error.status, "error": problem(outcome.error)}
    body = records.answer(outcome.record)
    if outcome.replayed:
        return {"status": 200, "replayed": True, "record": body}
    return {"status": 201, "record": body}


def _record_cursor(record: UsageRecord) -> str:
    return encode_cursor(to_microseconds(record.occurred_at), record.seq)


@endpoint(
    blueprint,
    "GET",
    "/usage/records",
    summary="Usage records, newest first",
    scope="read",
    query=schemas.RecordListQuery(),
    answers={200: "RecordList"},
)
def get_records(caller: Caller, query: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, query.get("account"))
    names = ("start", "end", "operation", "model", "subject", "source")
    filters = Filters(**{name: query.get(name) for name in names})
    key = decode_cursor(query.get("cursor"), int, int)
    before = (from_microseconds(key[0]), key[1]) if key else None
    rows = records.listing(account_id, filters, query["limit"] + 1, before)
    return page(rows, query["limit"], records.detail, _record_cursor)


@endpoint(
    blueprint,
    "GET",
    "/usage/records/<record_id>",
    summary="One usage record",
    scope="read",
    query=schemas.AccountQuery(),
    answers={200: "Record"},
)
def get_record(caller: Caller, query: dict[str, Any], record_id: str) -> Response:
    return answer(records.detail(records.find(record_id, _own(caller, query.get("account")))))


@endpoint(
    blueprint,
    "POST",
    "/usage/records/<record_id>/void",
    summary="Reverse a record once",
    scope="write",
    service_scope="admin",
    body=schemas.VoidSchema(),
    answers={200: "Record"},
    refuses=("already_voided",),
)
def void_record(caller: Caller, body: dict[str, Any], record_id: str) -> Response:
    own = _own(caller, body.get("account"))
    return answer(records.detail(records.void(caller, record_id, own, body["reason"])))


@endpoint(
    blueprint,
    "GET",
    "/usage/summary",
    summary="Usage over time",
    scope="read",
    query=schemas.SummaryQuery(),
    answers={200: "Summary"},
)
def get_summary(caller: Caller, query: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, query.get("account"))
    start, end = query.get("start"), query.get("end")
    if start is None:
        balances.refresh(account_id)
        start = accounts.get(account_id).period_start
    if end is None:  # the hour in progress, so that what was just recorded is in it
        end = clock.now().replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return answer(summaries.summary(account_id, start, end, query["interval"], query["by"]))


# Check and holds


@endpoint(
    blueprint,
    "POST",
    "/check",
    summary="Whether usage would be accepted; writes nothing",
    scope="read",
    body=schemas.CheckSchema(),
    answers={200: "Check"},
    hot=True,
    refuses=("unknown_operation",),
)
def post_check(presented: Presented, body: dict[str, Any]) -> Response:
    account = body.pop("account", None)
    body.pop("sent")
    return answer(checks.check(presented, account, UsageRequest(**body)))


@endpoint(
    blueprint,
    "POST",
    "/holds",
    summary="Set credits aside before the cost is known",
    scope="write",
    body=schemas.HoldSchema(),
    answers={201: "Hold", 200: "Hold"},
    keyed=True,
    hot=True,
    refuses=SPENDING,
)
def post_hold(presented: Presented, body: dict[str, Any]) -> Response:
    account, ttl_seconds = body.pop("account", None), body.pop("ttl_seconds")
    _check_reserved(presented, body.pop("sent"), _operators_own())
    value, replayed = holds.create(presented, account, UsageRequest(**body), ttl_seconds)
    return answer(value, 201, replayed=replayed)


@endpoint(
    blueprint,
    "GET",
    "/holds",
    summary="Holds, newest first",
    scope="read",
    query=schemas.HoldListQuery(),
    answers={200: "HoldList"},
)
def get_holds(caller: Caller, query: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, query.get("account"))
    key = decode_cursor(query.get("cursor"), str)
    rows = holds.listing(account_id, query.get("state"), key[0] if key else None, query["limit"] + 1)
    now = clock.now()
    return page(rows, query["limit"], lambda hold: holds.render(hold, now), lambda hold: encode_cursor(hold.id))


@endpoint(
    blueprint,
    "GET",
    "/holds/<hold_id>",
    summary="One hold",
    scope="read",
    query=schemas.AccountQuery(),
    answers={200: "Hold"},
)
def get_hold(caller: Caller, query: dict[str, Any], hold_id: str) -> Response:
    return answer(holds.render(holds.find(hold_id, _own(caller, query.get("account"))), clock.now()))


@endpoint(
    blueprint,
    "POST",
    "/holds/<hold_id>/extend",
    summary="Let a hold live longer or hold more",
    scope="write",
    body=schemas.ExtendSchema(),
    answers={200: "Hold"},
    refuses=("hold_not_open", *SPENDING),
)
def extend_hold(caller: Caller, body: dict[str, Any], hold_id: str) -> Response:
    own = _own(caller, body.pop("account", None))
    _check_reserved(caller.presented, body, _operators_own())
    ttl_seconds, amount = body.get("ttl_seconds"), body.get("credits")
    return answer(holds.extend(caller.presented, hold_id, own, ttl_seconds=ttl_seconds, amount=amount))


@endpoint(
    blueprint,
    "POST",
    "/holds/<hold_id>/capture",
    summary="Charge what a hold was made for",
    scope="write",
    body=_CAPTURE,
    optional_body=True,
    answers={201: "Usage", 200: "Usage"},
    keyed=True,
    hot=True,
    refuses=("hold_not_open", "unknown_operation", "account_closed"),
)
def capture_hold(presented: Presented, body: dict[str, Any], hold_id: str) -> Response:
    return _record(presented, body, hold_id)


@endpoint(
    blueprint,
    "POST",
    "/holds/<hold_id>/release",
    summary="Give a hold's credits free",
    scope="write",
    body=schemas.AccountBody(),
    optional_body=True,
    answers={200: "Hold"},
    refuses=("hold_not_open",),
)
def release_hold(caller: Caller, body: dict[str, Any], hold_id: str) -> Response:
    return answer(holds.release(hold_id, _own(caller, body.get("account"))))


# Ledger


@endpoint(
    blueprint,
    "GET",
    "/ledger",
    summary="Every change of every lot, newest first",
    scope="read",
    query=schemas.ListQuery(),
    answers={200: "Ledger"},
)
def get_ledger(caller: Caller, query: dict[str, Any]) -> Response:
    account_id = accounts.locate(caller, query.get("account"))
    key = decode_cursor(query.get("cursor"), int)
    balances.refresh(account_id)
    rows = ledger.listing(account_id, query["limit"] + 1, key[0] if key else None)
    return page(rows, query["limit"], ledger.render, lambda entry: encode_cursor(entry.seq))


def _own(caller: Caller, ref: str | None) -> str | None:
    """The account an object must belong to: the token's, or the one a service token names, or any."""
    if ref is None:
        return caller.account_id
    return accounts.locate(caller, ref)
