"""Which plan an account is on, and its periods, on a locked account's book. Only services/credits.py hands books out.

A plan that an operator set stays in force until it ends: it is an agreement made by people, and setting the plan
`free` ends it. Then the oldest subscription counts that Stripe shows as in force, else the free plan. Local plans
follow a monthly anchor. A subscription's periods are Stripe's; beyond the one that Stripe has shown nothing is issued
here, unless Stripe can not be asked (`assume_renewed`). Stripe itself is asked elsewhere, and never under this lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, update

import ids
from models.account import Account, AccountStatus, SubscriptionStatus
from models.alert import AlertKind
from models.credit import HoldState
from models.stripe import IN_FORCE, StripeStatus, StripeSubscription
from rows import Rows, run
from services import alerts, allowances, bills, dunning, overages, periods
from services.books import SUBSCRIPTIONS, Book

FREE_TIER = "free"
LOCAL, STRIPE = "local", "stripe"
_PAID = Rows(StripeSubscription)
_FOLLOWED = ("tier", "status", "included", "rollover_max", "anchor", "covered_until", "ended_at")
_TOLD = timedelta(days=1)
Period = tuple[datetime, datetime]


def bring_up_to_date(conn: Connection, book: Book) -> None:
    """Expire what is due and, when the period has ended, start the current one with its allowance."""
    book.expire_due()
    for hold in book.holds.values():
        if hold.state == HoldState.OPEN and hold.expires_at <= book.now:
            hold.state = HoldState.EXPIRED
            hold.closed_at = hold.expires_at
            book.changed_holds[hold.id] = hold
    if book.account.period_end <= book.now and book.account.status != AccountStatus.CLOSED:
        _renew(conn, book)


def _renew(conn: Connection, book: Book) -> None:
    """Begin the period that holds now. Periods that passed unseen issue nothing."""
    subscription = of_account(conn, book)
    if subscription.source == STRIPE:
        _roll_on(conn, book, subscription)
    elif subscription.ends_at is not None and subscription.ends_at <= book.now:
        _fall_back(conn, book, subscription)
    else:
        start, end = period_of(subscription, book.now)
        allowances.enter_period(conn, book, subscription, start, end, included_in(book, subscription))


def of_account(conn: Connection, book: Book) -> Any:
    """The row of the subscription that the account is on."""
    return run(conn, [SUBSCRIPTIONS.select(conn, "id IN ?", [book.account.subscription_id])])[0][0]


def paid_by(conn: Connection, subscription: Any) -> Any:
    """The subscription of Stripe's that it follows, as Stripe last showed it; None for a local one."""
    if subscription.stripe_id is None:
        return None
    return run(conn, [_PAID.select(conn, "id IN ?", [subscription.stripe_id])])[0][0]


def included_in(book: Book, subscription: Any) -> int:
    """The allowance of a period. The free plan's is the catalog's of today: nobody subscribed to it."""
    if subscription.tier == FREE_TIER and subscription.source == LOCAL:
        return int(book.catalog.free_monthly_credits) if book.account.free_allowance else 0
    return int(subscription.included)


def settle(conn: Connection, book: Book) -> None:
    """Put the account on the plan that is in force now, with the allowance of its period. Harmless when it is."""
    current = of_account(conn, book)
    ended = current.ends_at is not None and current.ends_at <= book.now
    if book.account.is_closed:
        return
    if current.source == LOCAL and current.tier != FREE_TIER and not ended:
        _stand(conn, book, [])
    else:
        _fall_back(conn, book, current)


def _fall_back(conn: Connection, book: Book, current: Any) -> None:
    """Without an operator's plan: the subscription that is paid, else free."""
    mirrored = run(conn, [_PAID.select(conn, "account_id IN ? ORDER BY created_at, id", [book.account.id])])[0]
    served = [one for one in mirrored if dunning.is_served(one, book.now, book.catalog)]
    if served:
        _follow(conn, book, current, served[0])
    else:
        _tell_of_lapse(conn, book, current, mirrored)
        _go_free(conn, book, current)
    _stand(conn, book, mirrored)


def _tell_of_lapse(conn: Connection, book: Book, current: Any, mirrored: Sequence[Any]) -> None:
    """The plan rests because nobody paid within the grace, not because somebody ended it."""
    for one in mirrored:
        if one.id == current.stripe_id and one.past_due_since is not None:
            occasion = f"{one.id}:{one.past_due_since.isoformat()}"
            told = {"url": dunning.pay_link(conn, book.account.id)}
            alerts.raise_(conn, book.account.id, AlertKind.PLAN_LAPSED, occasion, told)


def _stand(conn: Connection, book: Book, mirrored: Sequence[Any]) -> None:
    """Past due, suspended or active by what is paid, unless an operator has suspended the account."""
    account = book.account
    standing = dunning.standing(mirrored, bills.owed_since(conn, account.id), book.now, book.catalog)
    by_us = account.status != AccountStatus.SUSPENDED or account.status_reason == dunning.REASON
    if account.status != standing and by_us:
        _tell_of_standing(conn, book, standing)
        account.status = standing.value
        account.status_reason = None if standing is AccountStatus.ACTIVE else dunning.REASON
        values = {"status": account.status, "status_reason": account.status_reason}
        conn.execute(update(Account).where(Account.id == account.id).values(values))


def _tell_of_standing(conn: Connection, book: Book, standing: AccountStatus) -> None:
    """Suspended, or nothing unpaid any more; that a payment has failed is told with the payment."""
    account_id, occasion = book.account.id, book.now.isoformat()
    if standing is AccountStatus.SUSPENDED:
        told = {"url": dunning.pay_link(conn, account_id)}
        alerts.raise_(conn, account_id, AlertKind.SUSPENDED, occasion, told)
    elif standing is AccountStatus.ACTIVE:
        for kind in (AlertKind.PAYMENT_FAILED, AlertKind.PLAN_LAPSED, AlertKind.SUSPENDED):
            alerts.settle(conn, account_id, kind)
        alerts.raise_(conn, account_id, AlertKind.RESTORED, occasion, {}, ends_at=book.now + _TOLD)


# Local plans


def period_of(subscription: Any, moment: datetime) -> Period:
    """The local subscription's period that holds `moment`, cut short by its end."""
    start, end = periods.month_period(subscription.anchor, moment)
    if subscription.ends_at is not None and start < subscription.ends_at < end:
        end = subscription.ends_at
    return start, end


def start_plan(
    conn: Connection,
    book: Book,
    tier: str,
    *,
    included: int,
    rollover_max: int | None,
    ends_at: datetime | None,
    rates: str | None = None,
    first: bool = False,
) -> None:
    """End the account's subscription and begin a local one at once, with its allowance.

    The allowance of the plan before ends with it. `free` means no plan of the operator's: a subscription that is paid
    at Stripe then counts.
    """
    if tier == FREE_TIER and not first:
        _fall_back(conn, book, of_account(conn, book))
        return
    if not first:
        _end(conn, of_account(conn, book), book.now)
    subscription = SUBSCRIPTIONS.make(
        id=ids.new("sub"),
        account_id=book.account.id,
        source=LOCAL,
        tier=tier,
        status=SubscriptionStatus.ACTIVE.value,
        included=included,
        rollover_max=rollover_max,
        anchor=book.account.created_at if tier == FREE_TIER else book.now,
        ends_at=ends_at,
        created_at=book.now,
    )
    run(conn, [SUBSCRIPTIONS.insert(conn, [subscription])])
    _begin(conn, book, subscription, rates=rates, first=first)


def _begin(conn: Connection, book: Book, subscription: Any, *, rates: str | None = None, first: bool = False) -> None:
    """Put the account on a local subscription's terms and into its period."""
    _put_on(book, subscription, rates)
    start, end = period_of(subscription, book.now)
    included = included_in(book, subscription)
    allowances.enter_period(conn, book, subscription, start, end, included, first=first)


def _put_on(
    book: Book,
    subscription: Any,
    rates: str | None = None,
    requests_per_minute: int | None = None,
    overage_terms: str | None = None,
) -> None:
    book.account.subscription_id, book.account.plan, book.account.rates = subscription.id, subscription.tier, rates
    book.account.requests_per_minute = requests_per_minute
    book.set_overage_terms(overage_terms)
    book.account_changed = True


def _go_free(conn: Connection, book: Book, current: Any) -> None:
    """The free plan keeps the account's own anchor, and one row: who leaves it and comes back in the same period
    finds there what was left of its allowance, not another one.
    """
    if current.source == LOCAL and current.tier == FREE_TIER:
        return
    where = "account_id IN ? AND source = 'local' AND tier = 'free' ORDER BY created_at, id LIMIT 1"
    free = run(conn, [SUBSCRIPTIONS.select(conn, where, [book.account.id])])[0][0]
    _end(conn, current, book.now)
    free.status, free.ended_at = SubscriptionStatus.ACTIVE.value, None
    run(conn, [SUBSCRIPTIONS.update(conn, [free], ("status", "ended_at"))])
    _begin(conn, book, free)


def _end(conn: Connection, subscription: Any, now: datetime) -> None:
    subscription.status, subscription.ended_at = SubscriptionStatus.ENDED.value, now
    run(conn, [SUBSCRIPTIONS.update(conn, [subscription], ("status", "ended_at"))])


# Stripe's subscriptions


def _follow(conn: Connection, book: Book, current: Any, paid: Any) -> None:
    """Put the account on what Stripe has shown of this subscription."""
    found = run(conn, [SUBSCRIPTIONS.select(conn, "stripe_id IN ?", [paid.id])])[0]
    stays = bool(found) and found[0].id == current.id
    if not stays:
        _end(conn, current, book.now)
    row = found[0] if found else SUBSCRIPTIONS.make(id=ids.new("sub"), account_id=book.account.id, source=STRIPE)
    before = row.covered_until, row.included
    _take_terms(row, paid)
    if found:
        run(conn, [SUBSCRIPTIONS.update(conn, [row], _FOLLOWED)])
    else:
        row.stripe_id, row.created_at = paid.id, book.now
        run(conn, [SUBSCRIPTIONS.insert(conn, [row])])
    terms = overages.in_force(paid.overage_terms, paid.currency, book.controls.overage)
    _put_on(book, row, requests_per_minute=paid.requests_per_minute or 0, overage_terms=terms)
    period = paid_period(paid, book.now)
    if period is None:
        if not stays:
            _wait(conn, book, row)
        return
    _enter(conn, book, row, period, known_until=before[0] if stays else None)
    if found and before[1] != row.included:
        allowances.set_included(conn, book, row, row.included)


def _take_terms(row: Any, paid: Any) -> None:
    row.tier, row.included, row.rollover_max = paid.tier, paid.included, paid.rollover_max
    row.anchor, row.covered_until = paid.anchor, paid.period_end
    row.status, row.ended_at = SubscriptionStatus.ACTIVE.value, None


def _enter(conn: Connection, book: Book, row: Any, period: Period, known_until: datetime | None) -> None:
    """Enter a period that Stripe has shown, unless the account is in it. `known_until`: what was shown before."""
    start, end = period
    if known_until is None or known_until <= start or book.account.period_start != start:
        allowances.enter_period(conn, book, row, start, end, row.included)
    elif book.account.period_end != end:  # such as a trial that was prolonged
        allowances.move_end(conn, book, end)


def paid_period(paid: Any, moment: datetime) -> Period | None:
    """The period of a mirrored subscription that holds `moment`; None beyond what Stripe has shown.

    A price for several months or a year has an allowance for each month; a trial has one, however long it is.
    """
    start, end = paid.period_start, paid.period_end
    if moment >= end:
        return None
    one_month = (paid.interval, paid.interval_count) == ("month", 1)
    if paid.status == StripeStatus.TRIALING or one_month or paid.interval not in ("month", "year"):
        return start, end
    month_start, month_end = periods.month_period(paid.anchor, max(moment, start))
    return max(month_start, start), min(month_end, end)


def _roll_on(conn: Connection, book: Book, subscription: Any) -> None:
    """A period of Stripe's is over. The next month of a year that is paid is certain, a renewal is not."""
    if book.now < subscription.covered_until:
        start, end = periods.month_period(subscription.anchor, book.now)
        end = min(end, subscription.covered_until)
        allowances.enter_period(conn, book, subscription, start, end, subscription.included)
    else:
        _wait(conn, book, subscription)


def _wait(conn: Connection, book: Book, subscription: Any) -> None:
    """Into the month that would come next, without its allowance: it comes when Stripe shows the renewal."""
    allowances.leave_period(conn, book)
    start, end = periods.month_period(subscription.anchor, book.now)
    book.account.period_start, book.account.period_end = max(start, min(subscription.covered_until, book.now)), end
    book.account_changed = True
    bills.enter(conn, book)


def assume_renewed(conn: Connection, book: Book) -> bool:
    """Stripe can not be asked: issue what a renewal would bring, under the key it will have. Whether that was done.

    The next sync corrects it. A subscription that is to be cancelled is not assumed to go on.
    """
    row = of_account(conn, book)
    paid = run(conn, [_PAID.select(conn, "id IN ?", [row.stripe_id])])[0] if row.source == STRIPE else []
    if not paid or book.account.is_closed or row.covered_until > book.now or not _goes_on(paid[0]):
        return False
    start, end = periods.month_period(row.anchor, book.now)
    start = max(start, row.covered_until)
    if allowances.has_lots(conn, book, row, start):
        return False
    allowances.enter_period(conn, book, row, start, end, row.included)
    return True


def _goes_on(paid: Any) -> bool:
    cancelled = paid.cancel_at is not None and paid.cancel_at <= paid.period_end
    return paid.status in IN_FORCE and not cancelled and paid.interval in ("month", "year")
