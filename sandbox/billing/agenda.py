"""What the clock brings: every moment at which something is due, and moving on from one to the next."""

from collections.abc import Callable, Iterator

from sandbox import checkout, clock, disputes, payments
from sandbox.billing import invoices, pauses, pending, schedules
from sandbox.billing import subscriptions as life
from sandbox.events import emit
from sandbox.shapes import Obj
from sandbox.world import World

Due = tuple[int, int, Callable[[World, Obj], None], Obj]
TRIAL_NOTICE = 3 * 86400
# What happens first when several things are due in one second.
SETTLE, INVOICE, SCHEDULE, SUBSCRIPTION, OTHER = range(5)


def moments(world: World) -> Iterator[Due]:
    """Everything planned, in no order."""
    for subscription in world.alive("subscription"):
        yield from _of_subscription(world, subscription)
    for invoice in world.alive("invoice"):
        if invoice["status"] == "draft" and invoice["automatically_finalizes_at"] and invoice["auto_advance"]:
            yield invoice["automatically_finalizes_at"], INVOICE, invoices.advance, invoice
        if invoice["status"] == "open" and invoice["next_payment_attempt"]:
            yield invoice["next_payment_attempt"], INVOICE, _retry, invoice
        if invoice["status"] == "open" and invoice["due_date"] and not invoice.get("_overdue"):
            yield invoice["due_date"], INVOICE, invoices.overdue, invoice
    for intent in world.alive("payment_intent"):
        if intent["status"] == "processing":
            yield intent["_settles_at"], SETTLE, payments.settle, intent
    for schedule in world.alive("subscription_schedule"):
        yield schedules.due(schedule), SCHEDULE, schedules.turn, schedule
    for dispute in world.alive("dispute"):
        if dispute["status"] in ("needs_response", "warning_needs_response"):
            yield dispute["evidence_details"]["due_by"], OTHER, disputes.lapse, dispute
    for session in world.alive("checkout.session"):
        yield session["expires_at"], OTHER, checkout.expire, session


def _of_subscription(world: World, subscription: Obj) -> Iterator[Due]:
    status = subscription["status"]
    if status == "incomplete":
        yield subscription["created"] + life.INCOMPLETE_SECONDS, SUBSCRIPTION, life.expire, subscription
        return
    if subscription["cancel_at"]:
        yield subscription["cancel_at"], SUBSCRIPTION, _cancel_as_planned, subscription
    pause = subscription["pause_collection"]
    if pause and pause.get("resumes_at"):
        yield pause["resumes_at"], OTHER, _resume_collection, subscription
    if status == "trialing" and not subscription.get("_noticed"):
        notice = max(subscription["trial_start"], subscription["trial_end"] - TRIAL_NOTICE)
        yield notice, OTHER, _announce_trial_end, subscription
    if subscription.get("_resuming"):
        yield subscription["_resuming"]["until"], OTHER, pauses.give_up, subscription
    if subscription["pending_update"]:
        yield subscription["pending_update"]["expires_at"], OTHER, pending.expire, subscription
    if status != "paused":
        yield life.period_of(world, subscription)[1], SUBSCRIPTION, life.renew, subscription


def _retry(world: World, invoice: Obj) -> None:
    invoice["next_payment_attempt"] = None
    invoices.collect(world, invoice, automatic=True)


def _cancel_as_planned(world: World, subscription: Obj) -> None:
    life.finish(world, subscription)


def _resume_collection(world: World, subscription: Obj) -> None:
    subscription["pause_collection"] = None
    emit(world, "customer.subscription.updated", subscription)


def _announce_trial_end(world: World, subscription: Obj) -> None:
    subscription["_noticed"] = True
    emit(world, "customer.subscription.trial_will_end", subscription)


def step(world: World, until: int) -> Obj | None:
    """Do what is due next, at its own time, and tell what it was. None when nothing is due until then."""
    due = min(moments(world), key=lambda one: one[:2], default=None)
    if due is None or due[0] > until:
        return None
    moment, _, act, obj = due
    if moment > world.now():
        world.clock.set(moment)
    act(world, obj)
    return _told(due)


def advance(world: World, until: int, seconds: float = 60.0) -> list[Obj]:
    """Move the clock, one moment after the other, and tell what happened.

    `seconds`: how long to wait at each moment for the endpoints to answer; 0 does not wait.
    """
    steps = []
    with world.stepping:
        while (done := _locked_step(world, until)) is not None:
            steps.append(done)
            if seconds:
                world.courier.drain(seconds)
        with world.lock:
            world.clock.set(max(until, world.now()))
    return steps


def _locked_step(world: World, until: int) -> Obj | None:
    with world.lock:
        return step(world, until)


def catch_up(world: World) -> None:
    """Do what came due while time went by on its own."""
    if world.stepping.acquire(blocking=False):
        try:
            while _locked_step(world, world.now()) is not None:
                pass
        finally:
            world.stepping.release()


def _told(due: Due) -> Obj:
    moment, _, act, obj = due
    return {"at": clock.iso(moment), "what": act.__name__.strip("_"), "object": obj["id"]}


def describe(world: World) -> list[Obj]:
    """What is planned, soonest first."""
    return [_told(due) for due in sorted(moments(world), key=lambda one: one[:2])]
