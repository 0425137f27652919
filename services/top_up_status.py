"""How an account's auto top-up stands, for its page: no call of Stripe's draws it. Money is in minor units."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

import clock
from extensions import db
from models.account import Account, AccountStatus
from models.stripe import StripeInvoice
from models.top_up import TopUp, TopUpStatus, TopUpWatch, WaitsFor
from services import agreed, auto_top_up
from services.agreed import AutoTopUp

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of the list. `url` leads to Stripe's page of its invoice, where there is one."""

    row: TopUp
    says: str
    url: str | None

    @property
    def waits(self) -> bool:
        """Whether the customer has to do something."""
        return self.row.status == TopUpStatus.OPEN and self.row.waits_for == WaitsFor.CUSTOMER


@dataclass(frozen=True, slots=True)
class Standing:
    """`rests_until`, `why`: nothing is bought before that; `off_why`: we turned it off, not the customer."""

    agreed: AutoTopUp
    spent: int
    rests_until: datetime | None
    why: str | None
    off_why: str | None
    attempts: list[Attempt]


def of(account: Account) -> Standing:
    wanted = agreed.of(account.controls).auto_top_up
    watch, now = auto_top_up.watch_of(account.id), clock.now()
    rests = watch.not_before if watch is not None and watch.below is not None else None
    rests = rests if rests is not None and rests > now else None
    session: Session = db.session()
    return Standing(
        agreed=wanted,
        spent=auto_top_up.spent(session, account.id, now),
        rests_until=rests,
        why=_why(account, watch, rests),
        off_why=auto_top_up.words(watch.off_reason) if watch is not None and watch.off_reason else None,
        attempts=[_attempt(row) for row in auto_top_up.latest(account.id, _ATTEMPTS)],
    )


def _why(account: Account, watch: TopUpWatch | None, rests: datetime | None) -> str | None:
    if account.status == AccountStatus.SUSPENDED:
        return "the account is suspended"
    if watch is None or rests is None:
        return None
    if watch.failures:
        return f"{watch.failures} of {len(auto_top_up.PAUSES) + 1} tries have failed"
    if rests - clock.now() > auto_top_up.COOLDOWN:
        return "another purchase would pass the ceiling"
    return "credits were just bought"


def _attempt(row: TopUp) -> Attempt:
    mirrored = db.session.get(StripeInvoice, row.invoice_id) if row.invoice_id else None
    return Attempt(row, _says(row), mirrored.hosted_url if mirrored is not None else None)


def _says(row: TopUp) -> str:
    if row.status == TopUpStatus.PAID:
        return "paid"
    if row.status == TopUpStatus.OPEN:
        waiting = {WaitsFor.CUSTOMER.value: "waits for you: your bank asks", WaitsFor.BANK.value: "waits for the bank"}
        return waiting.get(str(row.waits_for), "under way")
    return f"{row.status}: {auto_top_up.words(str(row.reason))}"
