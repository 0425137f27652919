"""What an account has agreed to or set for itself: caps, alert thresholds, overage, auto top-up. Pure, without I/O.

They are kept as one JSON text on the account's row, so that spending reads them with it. Credits are micro-credits,
money is in minor units.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

ACCOUNT, TOKEN, SUBJECT = SCOPES = ("account", "token", "subject")
DAY, PERIOD = WINDOWS = ("day", "period")


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `credits` per window. Without a `key` a cap on tokens or subjects holds for each of them.

    A `locked` cap is the operator's: the account can not change it.
    """

    scope: str
    window: str
    credits: int
    key: str | None = None
    locked: bool = False

    @property
    def place(self) -> tuple[str, str | None, str]:
        """What there is one cap for."""
        return self.scope, self.key, self.window


@dataclass(frozen=True, slots=True)
class Overage:
    """Usage beyond all lots that the customer agreed to pay for, up to `cap_amount` of money per period.

    `terms` are the price it was agreed at (JSON of services/overages.py), whatever becomes of the catalog's.
    """

    enabled: bool = False
    cap_amount: int | None = None
    terms: str | None = None


@dataclass(frozen=True, slots=True)
class AutoTopUp:
    """Below `below` credits `credits` are bought, for `monthly_ceiling` of money a month at most."""

    enabled: bool = False
    below: int | None = None
    credits: int | None = None
    monthly_ceiling: int | None = None


@dataclass(frozen=True, slots=True)
class Controls:
    """`alert_thresholds` are percent of the allowance; None: the catalog's."""

    caps: tuple[Cap, ...] = ()
    alert_thresholds: tuple[int, ...] | None = None
    overage: Overage = field(default_factory=Overage)
    auto_top_up: AutoTopUp = field(default_factory=AutoTopUp)

    def to_json(self) -> str | None:
        """None where nothing is set."""
        if self == NOTHING:
            return None
        kept = asdict(self)
        return json.dumps({name: value for name, value in kept.items() if value != _NOTHING_DICT[name]})


NOTHING = Controls()
_NOTHING_DICT = asdict(NOTHING)


def of(text: str | None) -> Controls:
    """The inverse of `Controls.to_json`."""
    return NOTHING if text is None else _parse(text)


@functools.lru_cache(maxsize=10_000)
def _parse(text: str) -> Controls:
    kept = json.loads(text)
    thresholds = kept.get("alert_thresholds")
    return Controls(
        caps=tuple(Cap(**cap) for cap in kept.get("caps", ())),
        alert_thresholds=None if thresholds is None else tuple(thresholds),
        overage=Overage(**kept.get("overage", {})),
        auto_top_up=AutoTopUp(**kept.get("auto_top_up", {})),
    )


def applying(
    caps: tuple[Cap, ...], token_id: str | None, token_cap: int | None, subject: str | None
) -> Iterator[tuple[Cap, str]]:
    """The caps that a charge by this token for this subject counts under, each with the key it counts for.

    `token_cap` is the token's own, for the period.
    """
    if token_cap is not None and token_id is not None:
        yield Cap(TOKEN, PERIOD, token_cap, token_id), token_id
    for cap in caps:
        key = "" if cap.scope == ACCOUNT else token_id if cap.scope == TOKEN else subject
        if key is not None and cap.key in (None, key):
            yield cap, key


def day_of(moment: datetime) -> datetime:
    """The first moment of the UTC day."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def day_after(moment: datetime) -> datetime:
    return day_of(moment) + timedelta(days=1)
