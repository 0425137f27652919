"""Reads one object's metadata key by key: a mistake becomes a finding, what nobody asked for is unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

from amounts import to_micros
from services.catalog.terms import Finding

T = TypeVar("T")

MAX_KEYS, MAX_KEY_LENGTH, MAX_VALUE_LENGTH = 50, 40, 500
"""Stripe's limits for the metadata of one object."""

_PLAIN = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?|\.[0-9]{1,15}", re.ASCII)
_SHOWN = 60


def as_text(value: object) -> str | None:
    """A value as Stripe's metadata would hold it, or None for what metadata can not hold."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        return f"{value:f}" if isinstance(exponent, int) and -50 < exponent < 50 else str(value)
    return None


def plain_decimal(text: str) -> Decimal | None:
    """The number, or None unless it is written out in plain digits."""
    return Decimal(text) if _PLAIN.fullmatch(text) else None


class Reader:
    """`usable` turns False with the first mistake that makes the whole object worthless.

    `origins` names the object that a key comes from, where the metadata of several were laid over each other.
    """

    def __init__(
        self,
        object_id: str,
        metadata: Mapping[str, Any],
        findings: list[Finding],
        origins: Mapping[str, str] | None = None,
    ) -> None:
        self.object_id = object_id
        self._origins = origins or {}
        self.usable = True
        self._findings = findings
        self._asked: set[str] = set()
        self._values: dict[str, str] = {}
        for key, value in metadata.items():
            self._take(str(key), value)
        self._check_limits()

    def complain(self, message: str, cure: str, key: str | None = None) -> None:
        self.remark(message, cure, key)
        self.usable = False

    def remark(self, message: str, cure: str, key: str | None = None) -> None:
        """A finding that leaves the object in use; `key` is the metadata key that it is about."""
        self._findings.append(Finding(self._origins.get(key or "", self.object_id), message, cure))

    def text(self, key: str, *aliases: str) -> str | None:
        """The value under the key or one of its other names; None where it is absent or empty."""
        names = (key, *aliases)
        self._asked.update(names)
        given = {name: self._values[name] for name in names if self._values.get(name)}
        if len(set(given.values())) > 1:
            self.complain(f"{' and '.join(given)} mean the same and differ", f"keep {key} alone", next(iter(given)))
        return next(iter(given.values()), None)

    def credits(self, key: str, *aliases: str, positive: bool = False) -> int | None:
        """Micro-credits."""

        def convert(number: Decimal) -> int:
            if positive and not number:
                raise ValueError("Must be more than 0.")
            return to_micros(number)

        return self._number(convert, key, *aliases)

    def integer(self, key: str, low: int, high: int) -> int | None:
        def convert(number: Decimal) -> int:
            if number % 1 or not low <= number <= high:
                raise ValueError(f"Must be a whole number from {low} to {high}.")
            return int(number)

        return self._number(convert, key)

    def decimal(self, key: str) -> Decimal | None:
        """A number above zero."""

        def convert(number: Decimal) -> Decimal:
            if not number:
                raise ValueError("Must be more than 0.")
            return number

        return self._number(convert, key)

    def listing(self, key: str, separator: str) -> tuple[str, ...] | None:
        text = self.text(key)
        if text is None:
            return None
        return tuple(part for part in map(str.strip, text.split(separator)) if part)

    def prefixed(self, prefix: str) -> dict[str, str]:
        """All keys that begin with the prefix, as written."""
        found = {key: value for key, value in self._values.items() if key.startswith(prefix)}
        self._asked.update(found)
        return found

    def report_unknown(self) -> None:
        """Everything nobody has asked for, with the nearest name there is. Call it last."""
        for key in self._values:
            if key not in self._asked:
                near = difflib.get_close_matches(key, sorted(self._asked), n=1)
                cure = f"did you mean {near[0]}?" if near else "remove it, or check its spelling"
                self.remark(f"unknown key {_shown(key)}", cure, key)

    def _number(self, convert: Callable[[Decimal], T], key: str, *aliases: str) -> T | None:
        text = self.text(key, *aliases)
        if text is None:
            return None
        number = plain_decimal(text)
        problem = "Must be a plain number such as 1000 or 0.5."
        if number is not None:
            try:
                return convert(number)
            except ValueError as error:
                problem = str(error)
        written = next((name for name in (key, *aliases) if self._values.get(name)), key)
        self.complain(f"bad number: {written} = {_shown(text)}", problem, written)
        return None

    def _take(self, key: str, value: object) -> None:
        text = as_text(value)
        if text is None:
            self._asked.add(key)
            self.complain(f"{_shown(key)} is neither text nor a number", "write it as text in quotes", key)
        else:
            self._values[key] = text

    def _check_limits(self) -> None:
        if len(self._values) > MAX_KEYS and not self._origins:
            self.remark(f"{len(self._values)} metadata keys", f"Stripe takes at most {MAX_KEYS} per object")
        for key, value in self._values.items():
            if len(key) > MAX_KEY_LENGTH:
                cure = f"Stripe takes at most {MAX_KEY_LENGTH} characters"
                if key.startswith("rate:"):
                    cure += "; use a short rate:<any name> with op= and model= in the value"
                self.remark(f"the key {key} has {len(key)} characters", cure, key)
            if len(value) > MAX_VALUE_LENGTH:
                message = f"the value of {_shown(key)} has {len(value)} characters"
                self.remark(message, f"Stripe takes at most {MAX_VALUE_LENGTH}", key)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
