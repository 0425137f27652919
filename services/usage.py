"""Recording usage: one set-based `spend` decides single calls, batches, and captures of holds alike.

Everything about one account is decided under its lock, in the order of refusal that the API documents. Amounts are
micro-credits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from flask import current_app
from sqlalchemy import Connection

import database
import ids
import metrics
from amounts import MAX_BALANCE, to_credits
from errors import (
    AccountClosed,
    AccountSuspended,
    HoldNotOpen,
    IdempotencyConflict,
    InsufficientCredits,
    NotFound,
    PaymentPastDue,
    SpillwayError,
    UnknownOperation,
    ValidationError,
)
from models.account import AccountStatus
from models.credit import Hold, HoldState, Reason
from models.usage import UsageRecord
from rows import run
from services import accounts, alerts, caps, credits, rates, tokens, waterfall
from services.books import HOLDS, RECORDS, Book
from services.credits import Books, Spender, Wanted
from services.merging import Merger
from services.tokens import Caller, Presented

OLDEST = timedelta(days=35)
AHEAD = timedelta(minutes=5)
"""How far `occurred_at` may lie back, and ahead where clocks differ."""
_MOST_TOGETHER = {"single": 64, "batch": 500}
"""Events that are decided in one transaction, but for larger batches, which go alone."""
_PAUSE = 0.004
"""Seconds. A transaction alone costs as much as dozens of records. On SQLite waiting for the turn does the same."""


@dataclass(slots=True, kw_only=True)
class UsageRequest:
    """One event as it was asked for, validated, defaults filled in. `credits` and `quantity` are millionths."""

    credits: int | None = None
    operation: str | None = None
    quantity: int = 1_000_000
    llm_provider: str | None = None
    llm_model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    actual_cost: Decimal | None = None
    success: bool = True
    retry: bool = False
    source: str | None = None
    subject: str | None = None
    properties: str | None = None
    occurred_at: datetime | None = None
    enforce: bool = True
    idempotency_key: str | None = None


@dataclass(slots=True)
class Item:
    """One request of a `spend`, with who asks and for which account (or which hold, and whom that was made for)."""

    presented: Presented
    account_ref: str | None
    request: UsageRequest
    hold_id: str | None = None
    account_id: str = ""
    capped: bool = False
    subject: str | None = None


@dataclass(slots=True)
class Outcome:
    """Either a record (new, or replayed from an earlier identical request) or the refusal."""

    record: UsageRecord | None = None
    replayed: bool = False
    error: SpillwayError | None = None


_Located = list[tuple[Item, Outcome]]
"""What is still to be decided: items whose accounts are found, and where to write what became of them."""


@dataclass(slots=True)
class Charge:
    """What one event costs: `priced` by credits or rate, `charged` after the failure and retry rules."""

    priced: int
    charged: int
    rate: str | None


def spend(items: Sequence[Item]) -> list[Outcome]:
    """Decide and record the items of a batch, in order, in one transaction. Each is refused or recorded on its own.

    Other threads' batches may be recorded in the same transaction.
    """
    outcomes = [Outcome() for _ in items]
    located: _Located = []
    alike: dict[tuple[Presented, str | None], Item] = {}
    for item, outcome in zip(items, outcomes, strict=True):
        try:
            _locate_once(item, alike)
            located.append((item, outcome))
        except SpillwayError as error:
            outcome.error = _token_first(item, error)
    if located:
        database.forget_reads()
        _merger("batch")(located)
        alerts.note_refusals((item.account_id, outcome.error) for item, outcome in located)
    return outcomes


def record(presented: Presented, account_ref: str | None, request: UsageRequest, hold_id: str | None = None) -> Outcome:
    """Record one event (or capture a hold), together with those of other threads. Raises what refuses it."""
    item, outcome = Item(presented, account_ref, request, hold_id), Outcome()
    try:
        _locate(item)
    except SpillwayError as error:
        raise _token_first(item, error) from None
    database.forget_reads()
    _merger("single")([(item, outcome)])
    if outcome.error is not None:
        alerts.note_refusals([(item.account_id, outcome.error)])
        raise outcome.error
    return outcome


def _merger(kind: str) -> Merger[_Located, None]:
    """The process's own for this kind of call: one event does not wait for the hundreds that others send at once.

    PostgreSQL works on two groups of single calls at a time, SQLite has one writer.
    """
    mergers: dict[str, Merger[_Located, None]] = current_app.extensions.setdefault("usage_mergers", {})
    if kind not in mergers:
        leaders = 1 if database.is_sqlite() or kind == "batch" else 2
        made: Merger[_Located, None] = Merger(
            _decide_together,
            isolates=database.comes_from_one,
            leaders=leaders,
            turn=database.writers_turn(),
            largest=_MOST_TOGETHER[kind],
            size=len,
            pause=_PAUSE if kind == "batch" and not database.is_sqlite() else 0,
        )
        mergers.setdefault(kind, made)
    return mergers[kind]


def _decide_together(calls: Sequence[_Located]) -> list[None]:
    _decide_all([each for call in calls for each in call])
    return [None] * len(calls)


def _locate_once(item: Item, alike: dict[tuple[Presented, str | None], Item]) -> None:
    """`_locate`, for a batch, whose items mostly have one caller and one account."""
    first = alike.get((item.presented, item.account_ref))
    if first is None or item.hold_id is not None:
        _locate(item)
        if item.hold_id is None:
            alike[item.presented, item.account_ref] = item
    else:
        item.account_id, item.capped, item.subject = first.account_id, first.capped, item.request.subject


def _locate(item: Item) -> None:
    """Find the item's account from facts that never change; whether the token still holds is asked under the lock."""
    identity = tokens.known(item.presented)
    item.capped = identity.cap is not None
    own, item.subject = identity.account_id, item.request.subject
    if item.hold_id is None:
        item.account_id = accounts.account_for(own, item.account_ref)
        return
    if item.account_ref is not None:
        own = accounts.account_for(own, item.account_ref)
    hold = _find_hold(item.hold_id, own)
    item.account_id = hold.account_id
    if item.subject is None:
        item.subject = hold.subject


def _find_hold(hold_id: str, own_account: str | None) -> Hold:
    """Its account and subject never change."""
    with database.snapshot() as conn:
        found = run(conn, [HOLDS.select(conn, "id IN ?", [hold_id])])[0]
    if not found or own_account not in (None, found[0].account_id):
        raise NotFound("No such hold.")
    hold: Hold = found[0]
    return hold


def _token_first(item: Item, error: SpillwayError) -> SpillwayError:
    """A token that does not hold, or lacks the scope, is refused before anything is said about the account."""
    try:
        tokens.authenticate(item.presented, "write")
    except SpillwayError as refusal:
        return refusal
    return error


@database.retrying
def _decide_all(located: _Located) -> None:
    items = [item for item, _ in located]
    wanted = Wanted(
        keys={(item.account_id, key) for item in items if (key := item.request.idempotency_key) is not None},
        token_ids={item.presented.token_id for item in items},
        spenders={Spender(item.account_id, item.presented.token_id, item.capped, item.subject) for item in items},
    )
    with credits.locked({item.account_id for item in items}, wanted) as books:
        callers: dict[Presented, Caller] = {}
        for item, outcome in located:
            try:
                outcome.record, outcome.replayed = _decide(books, item, callers)
                outcome.error = None
            except SpillwayError as error:
                outcome.record, outcome.error = None, error
    metrics.spent_together(len(items))


def _decide(books: Books, item: Item, callers: dict[Presented, Caller]) -> tuple[UsageRecord, bool]:
    """`callers` are those that were found good already: all items are decided at one moment."""
    book = books[item.account_id]
    caller = callers.get(item.presented)
    if caller is None:
        caller = tokens.check(books.tokens.get(item.presented.token_id), item.presented, "write", book.now)
        callers[item.presented] = caller
    hold = _load_hold(books.conn, book, item.hold_id) if item.hold_id else None
    request = _fill_from_hold(item.request, hold) if hold else item.request
    key = request.idempotency_key
    if key is not None and key in book.records:
        return replay(book.records[key], request, item.hold_id), True
    record = _record(book, request, caller, hold)
    if key is not None:
        book.records[key] = record
    return record, False


def _record(book: Book, request: UsageRequest, caller: Caller, hold: Hold | None) -> UsageRecord:
    _check_time(book, request)
    charge = price(book, request)
    check_status(book, enforce=request.enforce and hold is None)
    if hold is not None:
        funding = _fund_hold(book, hold, charge.charged)
    else:
        funding = fund(book, charge.charged, caller, request.subject, enforce=request.enforce)
    if book.account.unfunded + funding.unfunded > MAX_BALANCE:
        raise ValidationError({"credits": ["Unfunded usage would pass the largest total that can be kept."]})
    return _append(book, request, caller, hold, charge, funding)


def _check_time(book: Book, request: UsageRequest) -> None:
    """Judged after replays: what was recorded once stays recorded, however late it is asked for again."""
    moment = request.occurred_at
    if moment is not None and not -AHEAD <= book.now - moment <= OLDEST:
        raise ValidationError({"occurred_at": ["Must be within the last 35 days, at most 5 minutes ahead."]})


def check_status(book: Book, *, enforce: bool) -> None:
    """Raises AccountClosed, or AccountSuspended unless the work is already done."""
    status = book.account.status
    if status == AccountStatus.CLOSED:
        raise AccountClosed()
    if status == AccountStatus.SUSPENDED and enforce:
        raise AccountSuspended()


def price(book: Book, request: UsageRequest) -> Charge:
    """The event's price by its explicit credits or by the rate in force (the account's own before the catalog's).

    Raises UnknownOperation, or ValidationError for an input that the rate needs.
    """
    rate = _rate(book, request)
    if request.credits is not None:
        priced = request.credits
    elif rate is None:
        raise UnknownOperation(f"The operation {request.operation!r} has no rate; send credits or add a rate.")
    else:
        priced = _by_rate(book, rate, request)
    billed = rates.is_billed(rate, success=request.success, retry=request.retry)
    return Charge(priced, priced if billed else 0, None if request.credits is not None or rate is None else rate.text)


def _rate(book: Book, request: UsageRequest) -> rates.Rate | None:
    if request.operation is None:
        return None
    if book.account.rates is not None:
        own = rates.find(rates.from_json(book.account.rates), request.operation, request.llm_model)
        if own is not None:
            return own
    return rates.find(book.catalog.rates, request.operation, request.llm_model)


def _by_rate(book: Book, rate: rates.Rate, request: UsageRequest) -> int:
    missing = rates.missing_inputs(
        rate,
        prompt_tokens=request.prompt_tokens,
        completion_tokens=request.completion_tokens,
        actual_cost=request.actual_cost,
    )
    if missing:
        raise ValidationError({name: ["The rate of this operation needs it."] for name in missing})
    if rate.cost_multiplier is not None and book.catalog.credit_value is None:
        raise ValidationError({"operation": ["Its rate is based on cost, but the catalog has no credit_value."]})
    try:
        return rates.price(
            rate,
            quantity=Decimal(request.quantity).scaleb(-6),
            prompt_tokens=request.prompt_tokens,
            completion_tokens=request.completion_tokens,
            actual_cost=request.actual_cost,
            credit_value=book.catalog.credit_value,
        )
    except ValueError as error:
        raise ValidationError({"operation": [str(error)]}) from error


def fund(book: Book, amount: int, caller: Caller, subject: str | None, *, enforce: bool) -> waterfall.Funding:
    """How the charge is covered beside the open holds. Raises CapReached, InsufficientCredits, PaymentPastDue."""
    if enforce:
        caps.check(book, amount, caller.token_id, caller.cap, subject)
    funding = waterfall.fund(
        amount, remaining=book.remaining, held=book.held(), headroom=book.headroom, enforce=enforce
    )
    if funding is None:
        if _is_withheld(book, amount):
            raise PaymentPastDue(
                "Only overage could cover it, and none is given while a payment is past due.",
                required=to_credits(amount),
                available=to_credits(book.available),
            )
        raise InsufficientCredits(
            f"{to_credits(amount)} credits are needed and {to_credits(book.available)} are available.",
            required=to_credits(amount),
            available=to_credits(book.available),
        )
    return funding


def _is_withheld(book: Book, amount: int) -> bool:
    """Whether agreed overage would cover the charge if no payment were past due."""
    if book.account.status != AccountStatus.PAST_DUE or book.account.overage_terms is None:
        return False
    left = max(0, book.overage_limit - book.account.overage)
    return waterfall.fund(amount, remaining=book.remaining, held=book.held(), headroom=left, enforce=True) is not None


def _fund_hold(book: Book, hold: Hold, amount: int) -> waterfall.Funding:
    """Finished work is never refused: by the hold while it is open, as already done once it has expired."""
    others = book.held(without=hold.id)
    if hold.state == HoldState.OPEN:
        return waterfall.fund_capture(
            amount, hold=hold.amount, remaining=book.remaining, other_holds=others, headroom=book.headroom
        )
    if hold.state != HoldState.EXPIRED:
        raise HoldNotOpen(f"The hold is {hold.state}.", state=hold.state)
    funding = waterfall.fund(amount, remaining=book.remaining, held=others, headroom=book.headroom, enforce=False)
    assert funding is not None
    return funding


def _load_hold(conn: Connection, book: Book, hold_id: str) -> Hold:
    if hold_id not in book.holds:
        found = run(conn, [HOLDS.select(conn, "id IN ?", [hold_id])])[0]
        if not found or found[0].account_id != book.account.id:
            raise NotFound("No such hold.")
        book.holds[hold_id] = found[0]
    return book.holds[hold_id]


def _fill_from_hold(request: UsageRequest, hold: Hold) -> UsageRequest:
    """A capture that names neither credits nor an operation takes the held amount; labels come from the hold."""
    filled = replace(request, subject=request.subject if request.subject is not None else hold.subject)
    if request.credits is None and request.operation is None:
        filled.credits = hold.amount
    if request.operation is None:
        filled.operation = hold.operation
    return filled


def _append(
    book: Book,
    request: UsageRequest,
    caller: Caller,
    hold: Hold | None,
    charge: Charge,
    funding: waterfall.Funding,
) -> UsageRecord:
    """Write the record and its ledger entries into the book."""
    record_id = ids.new("use")
    seq = book.next_seq()
    if hold is not None:
        hold.state, hold.closed_at = HoldState.CAPTURED.value, book.now
        book.changed_holds[hold.id] = hold
    drawn = book.draw(funding.from_lots, Reason.USAGE, ("usage", record_id))
    from_allowance, from_purchased, from_granted = drawn.values()
    allowance, purchased, granted = book.totals.values()
    book.add_overage(funding.overage, seq)
    book.add_unfunded(funding.unfunded)
    caps.count(book, charge.charged, caller.token_id, caller.cap, request.subject)
    record = RECORDS.make(
        id=record_id,
        account_id=book.account.id,
        seq=seq,
        entries=book.account.seq - seq,
        token_id=caller.token_id,
        hold_id=hold.id if hold else None,
        idempotency_key=request.idempotency_key,
        explicit_credits=request.credits,
        operation=request.operation,
        quantity=request.quantity,
        llm_provider=request.llm_provider,
        llm_model=request.llm_model,
        prompt_tokens=request.prompt_tokens,
        completion_tokens=request.completion_tokens,
        total_tokens=request.total_tokens,
        actual_cost=request.actual_cost,
        success=request.success,
        retry=request.retry,
        enforce=request.enforce,
        source=request.source,
        subject=request.subject,
        properties=request.properties,
        occurred_given=request.occurred_at is not None,
        occurred_at=request.occurred_at or book.now,
        recorded_at=book.now,
        period_start=book.account.period_start,
        catalog_version=book.catalog.version,
        rate=charge.rate,
        priced=charge.priced,
        charged=charge.charged,
        allowance=from_allowance,
        purchased=from_purchased,
        granted=from_granted,
        overage=funding.overage,
        unfunded=funding.unfunded,
        settled=0,
        available_after=book.available,
        allowance_after=allowance,
        purchased_after=purchased,
        granted_after=granted,
        held_after=book.held(),
    )
    book.new_records.append(record)
    book.count_usage(record)
    return record


# Replays

_REQUEST_FIELDS = {
    "credits": "explicit_credits",
    "operation": "operation",
    "quantity": "quantity",
    "llm_provider": "llm_provider",
    "llm_model": "llm_model",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "total_tokens": "total_tokens",
    "actual_cost": "actual_cost",
    "success": "success",
    "retry": "retry",
    "source": "source",
    "subject": "subject",
    "properties": "properties",
    "enforce": "enforce",
}
"""The request's fields and the record's columns that keep them."""


def replay(record: UsageRecord, request: UsageRequest, hold_id: str | None) -> UsageRecord:
    """The stored record, if it was made by the very same request. Raises IdempotencyConflict with what differs."""
    differs = [name for name, column in _REQUEST_FIELDS.items() if getattr(record, column) != getattr(request, name)]
    if (record.occurred_at if record.occurred_given else None) != request.occurred_at:
        differs.append("occurred_at")
    if record.hold_id != hold_id:
        differs.append("hold")
    if differs:
        raise IdempotencyConflict("The key was used for a request with other values.", differs=differs)
    return record
